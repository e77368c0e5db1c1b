"""The settings of a run: one tree of frozen dataclasses, from YAML and flags and back. Imports no JAX."""
