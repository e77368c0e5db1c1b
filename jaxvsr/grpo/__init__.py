"""Sampling, advantages, objectives, the compiled step and the training loop."""
