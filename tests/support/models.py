"""Shapes of the tiny models that the tests run."""

from jaxvsr.models.tiny.tiny_model import TinyShape

SMALL = TinyShape(width=32, text_layers=1, text_intermediate=48, vision_layers=1)
DEEP = TinyShape(width=32, text_layers=2, text_intermediate=40, vision_layers=2)
