"""Procedural rooms, written as ScanNet scans."""
