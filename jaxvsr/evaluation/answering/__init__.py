"""Answers to a benchmark's questions: which are asked, what the model sees, greedy decoding, and baselines."""
