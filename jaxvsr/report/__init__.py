"""What a run looks like: tables, curves, one self-contained page."""
