"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL in Flax: forward passes, LoRA, Hugging Face folders in and out."""
