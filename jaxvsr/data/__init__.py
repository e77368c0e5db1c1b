"""The data folder: questions, splits, frames, features, and the Grain loader."""
