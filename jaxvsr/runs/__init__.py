"""A run on disk: its folder, checkpoints, numbers, and the model that a MODEL argument names."""
