"""Benchmark metrics and tables."""
