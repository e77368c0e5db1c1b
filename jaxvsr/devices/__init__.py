"""Which devices compute, the mesh over them, and what passes between processes. Knows no GRPO."""
