"""Rewards and prompts: text in, number out."""
