"""Rewards: text in, number out."""
