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


ENGLISH = [
    *["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
    *["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"],
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def restated_lmms_eval_number(prediction):
    """`extract_number` of lmms-eval's `vsibench/utils.py` since July 2026, as a walk over the letters."""
    said = prediction.strip().lower()
    at = next((i for i, letter in enumerate(said) if letter.isdecimal()), None)
    digits = ""
    if at is not None:
        start = at
        while at < len(said) and said[at].isdecimal():
            at += 1
        if at + 1 < len(said) and said[at] == "." and said[at + 1].isdecimal():
            at += 1
            while at < len(said) and said[at].isdecimal():
                at += 1
        start -= said[start - 1 : start] == "-"
        digits = said[start:at]
    names, word, began = [], "", None
    for i, letter in enumerate(said + " "):
        if "a" <= letter <= "z":
            word += letter
            continue
        if word:
            known = word in ENGLISH or word in TENS or word in ("hundred", "thousand")
            if known:
                began = i - len(word) if began is None else began
                names.append(word)
            elif began is not None and word != "and":
                break
        word = ""
    if digits and (began is None or start < began):
        return float(digits)
    if began is None:
        return None
    thousands = rest = 0
    for name in names:
        if name == "thousand":
            thousands, rest = thousands + (rest or 1) * 1000, 0
        elif name == "hundred":
            rest = (rest or 1) * 100
        else:
            rest += ENGLISH.index(name) if name in ENGLISH else 10 * (2 + TENS.index(name))
    return float(thousands + rest)


def restated_lmms_eval_score(prediction, truth, is_choice):
    if is_choice:
        return restated_letter(prediction.strip(), truth)
    value = restated_lmms_eval_number(prediction)
    return 0.0 if value is None else restated_number(repr(value), truth)


PIECES = [
    "A", "b", "C.", "D", "(A)", "A)", "\n", " ", ".", ",", "3", "12", "4.5", "1e2", "1_0", "nan", "inf", "-3", "+7",
    "٣", "½", "chairs", "about", "three", "3m", "sofa", "Answer:", "\t", "\u00a0", "\u2028", "0", "1e999", "..",
    "<answer>", "</answer>", "twenty", "-one", "and", "hundred", "Thousand", "two",
]  # fmt: skip


def random_prediction(draw):
    if draw.random() < 0.4:
        return str(
            draw.choice([draw.randint(0, 12), round(draw.uniform(0, 12), draw.randint(0, 4)), draw.choice("ABCD")])
        )
    return "".join(draw.choice(PIECES) for _ in range(draw.randint(0, 5)))
