"""VSI-Bench's evaluator, written again from its description without NumPy, and random predictions to compare on."""

# Float thresholds one by one, as the evaluator's linspace gives them.
TOLERANCES = [
    0.5, 0.44999999999999996, 0.4, 0.35, 0.30000000000000004, 0.25, 0.19999999999999996, 0.15000000000000002,
    0.10000000000000009, 0.050000000000000044,
]  # fmt: skip


def restated_number(prediction, truth):
    first = ""
    for letter in prediction:
        if letter == " ":
            break
        first += letter
    while first.endswith("."):
        first = first[:-1]
    try:
        value = float(first.strip())
    except ValueError:
        return 0.0
    error = abs(value - float(truth)) / float(truth)
    return sum(1 for tolerance in TOLERANCES if error <= tolerance) / 10


def restated_letter(prediction, truth):
    first, _, _ = prediction.partition(" ")
    return 1.0 if first.rstrip(".").strip().lower() == truth.lower() else 0.0


PIECES = [
    "A", "b", "C.", "D", "(A)", "A)", "\n", " ", ".", ",", "3", "12", "4.5", "1e2", "1_0", "nan", "inf", "-3", "+7",
    "٣", "½", "chairs", "about", "three", "3m", "sofa", "Answer:", "\t", "\u00a0", "\u2028", "0", "1e999", "..",
    "<answer>", "</answer>",
]  # fmt: skip


def random_prediction(draw):
    if draw.random() < 0.4:
        return str(
            draw.choice([draw.randint(0, 12), round(draw.uniform(0, 12), draw.randint(0, 4)), draw.choice("ABCD")])
        )
    return "".join(draw.choice(PIECES) for _ in range(draw.randint(0, 5)))
