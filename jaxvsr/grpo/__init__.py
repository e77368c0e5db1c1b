"""GRPO on the scene tree: sampler, rewards to advantages, objectives, the compiled step, the training loop."""
