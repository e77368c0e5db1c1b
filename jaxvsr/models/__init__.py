"""Qwen2-VL and Qwen2.5-VL in Flax: forward passes, LoRA, Hugging Face folders in and out."""
