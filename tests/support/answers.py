"""Random answers of a model: tags, numbers in every script, broken pieces of all of them."""

PIECES = [
    "<think>", "</think>", "<observe>", "</observe>", "<answer>", "</answer>", "<answer>", "</answer>", "\n", " ",
    ".", ",", "3", "-3", "0", "1e309", "1e-400", "9" * 400, "nan", "inf", "-inf", "٣", "३", "１２", "½", "²", "A",
    "(C)", "left", "right", "twenty", "-", "one", "hundred", "point", "trash can", "<Think>", "<answer", "\x00",
    "\u2028", "\ud800", "🛋", "e", "1_0",
]  # fmt: skip


def random_completion(draw):
    text = "".join(draw.choice(PIECES) for _ in range(draw.randint(0, 9)))
    if draw.random() < 0.3:
        tag = draw.choice(["think", "observe"])
        thought = draw.choice([text, "I see four chairs here " + text])
        text = f"<{tag}>{thought}</{tag}> <answer>{draw.choice(PIECES)}</answer>"
    return text
