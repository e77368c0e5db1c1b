"""Scans, geometry, questions, frames, the data folder and its Grain loader."""
