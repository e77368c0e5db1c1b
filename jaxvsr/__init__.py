"""jaxvsr: visual-spatial reasoning in video, trained with GRPO in JAX.

Importing the package imports nothing heavy: each room (models, grpo, data, rewards, evaluation) is imported by name.
"""

__version__ = "0.1.0"
