"""Text that the tiny model's tokenizer is trained on: every word of it becomes one token.

The sentences are the question templates of VSI-100k, of VSI-Bench and about procedural rooms, with their prompts. Other
text works too, in more tokens (the vocabulary has all 256 bytes).
"""

from __future__ import annotations

CATEGORIES = [
    "armchair",
    "bathtub",
    "bed",
    "bicycle",
    "bookshelf",
    "box",
    "cabinet",
    "chair",
    "closet",
    "coffee table",
    "computer mouse",
    "counter",
    "curtain",
    "desk",
    "door",
    "dresser",
    "fan",
    "guitar",
    "keyboard",
    "kitchen counter",
    "lamp",
    "microwave",
    "mirror",
    "monitor",
    "nightstand",
    "oven",
    "piano",
    "picture",
    "pillow",
    "plant",
    "printer",
    "radiator",
    "refrigerator",
    "shelf",
    "shower",
    "sink",
    "sofa",
    "stool",
    "stove",
    "table",
    "telephone",
    "toilet",
    "towel",
    "trash bin",
    "trash can",
    "tv",
    "washing machine",
    "whiteboard",
    "window",
]

SENTENCES = (
    "You are a helpful assistant.",
    "These are frames of a video.",
    "How many {x}(s)in the room?",
    "How many {x}(s) are in this room?",
    "What is the size of this room (in square meters)?",
    "If multiple rooms are shown, estimate the size of the combined space.",
    "What is the distance between the {x} and the {x} (in meters)?",
    "Measuring from the closest point of each object, what is the direct distance between the {x} and the {x}?",
    "What is the length of the longest dimension (length,width, or height) of the {x}, measured in centimeters?",
    "What is the length of the longest dimension (length, width, or height) of the {x}, measured in centimeters?",
    "If I am standing by the {x} and facing the {x} is the {x} to the left or the right of the {x}?",
    "If I am standing by the {x} and facing the {x}, is the {x} to my left, right, or back?",
    "An object is to my back if I would have to turn at least 135 degrees in order to face it.",
    "is the {x} to my front-left, front-right, back-left, or back-right?",
    "The directions refer to the quadrants of a Cartesian plane "
    "(if I am standing at the origin and facing along the positive y-axis).",
    "Which of these objects ({x}, {x}, {x}, {x})is the closest to the {x}?",
    "Measuring from the closest point of each object, which of these objects ({x}, {x}) is the closest to the {x}?",
    "Which of these objects ({x}, {x}, {x}, {x})appears first in the video?",
    "What will be the first-time appearance order of the following categories in the video: {x}, {x}, {x}, {x}?",
    "Please provide the short answer with one or two words or a number.",
    "Please answer the question using a single word or phrase.",
    "Let's think step by step and then answer the question using a single word or phrase.",
    "Please observe the video first and then answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
    "Options:\nA. {x}\nB. {x}\nC. {x}\nD. {x}",
    "<think> </think> <observe> </observe> <answer> </answer>",
    "there is nothing",
    "system\nuser\nassistant\n",
)

ANSWERS = ("left", "right", "back", "front-left", "front-right", "back-left", "back-right", "yes", "no", *CATEGORIES)


def tokenizer_corpus() -> list[str]:
    """Every sentence with every category, then every answer."""
    return [text.replace("{x}", category) for text in SENTENCES for category in CATEGORIES] + list(ANSWERS)
