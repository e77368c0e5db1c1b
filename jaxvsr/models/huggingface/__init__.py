"""Hugging Face's files in and out: configs, weights, adapters, cards."""
