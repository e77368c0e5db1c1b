"""Answers to questions: which are asked, what a model sees, how it answers, and answers without a model."""
