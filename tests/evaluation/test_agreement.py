"""Whole scores against restatements that share no code with ours, on 10,000 random prediction strings a task."""

import math
import random
import re
import statistics
import warnings

import pytest
from nltk.translate import bleu_score

from jaxvsr.data.importers.vsi_bench_download import KINDS
from jaxvsr.data.questions import Question
from jaxvsr.evaluation.metrics.bleu import corpus_bleu, sentence_bleu, tokenize
from jaxvsr.evaluation.metrics.lmms_eval_parser import lmms_eval_number, lmms_eval_score
from jaxvsr.evaluation.metrics.open_ended import box_iou, distance_right, parse_box
from jaxvsr.evaluation.metrics.open_ended_types import COT_KEYWORDS, reasoning_words, yes_or_no
from jaxvsr.evaluation.metrics.q_spatial import score_q_spatial
from jaxvsr.evaluation.metrics.vsi_bench_scores import score_vsi_bench
from jaxvsr.evaluation.predictions import Prediction
from tests.support.vsi_bench_restated import (
    random_prediction,
    restated_letter,
    restated_lmms_eval_number,
    restated_lmms_eval_score,
    restated_number,
)

MANY = 10_000
DIRECTIONS = ("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard")


@pytest.mark.slow
def test_vsi_bench_equals_the_restated_evaluator_on_10000_strings_of_every_task():
    draw = random.Random(0)
    rows, expected = [], {name: [] for name in KINDS}
    for name, kind in KINDS.items():
        for number in range(MANY):
            said = random_prediction(draw)
            if kind == "choice":
                options, truth = ("A. a", "B. b", "C. c", "D. d"), draw.choice("ABCD")
                expected[name].append(restated_letter(said, truth))
            else:
                options, truth = None, str(draw.choice([1, 2, 3, 4, 5, 10, 20, 2.5, 0.7, 47.9, 113]))
                expected[name].append(restated_number(said, truth))
            rows.append(Prediction(Question(f"{name}-{number}", "s", name, "?", options, truth, kind), said))
    draw.shuffle(rows)
    found = score_vsi_bench(rows)
    by_type = {name: statistics.fmean(values) for name, values in expected.items()}
    for name, value in by_type.items():
        assert found.by_type[name] == pytest.approx(100 * value, abs=1e-9) and 0 < value < 1
    tasks = {name: value for name, value in by_type.items() if name not in DIRECTIONS}
    tasks["object_rel_direction"] = sum(by_type[name] for name in DIRECTIONS) / 3
    assert found.tasks == pytest.approx({name: 100 * value for name, value in tasks.items()}, abs=1e-9)
    assert found.overall == pytest.approx(100 * sum(tasks.values()) / 8, abs=1e-9)
    assert found.missing_tasks == () and found.notes == ()


def test_lmms_evals_parser_equals_its_restatement_on_10000_strings():
    draw = random.Random(1)
    scored = 0
    for _ in range(MANY):
        said, is_choice = random_prediction(draw), draw.random() < 0.3
        truth = draw.choice("ABCD") if is_choice else str(draw.choice([1, 2, 3, 20, 21, 2.5, 120, 2000]))
        assert lmms_eval_number(said) == restated_lmms_eval_number(said), said
        score = lmms_eval_score(said, truth, "choice" if is_choice else "number")
        assert score == restated_lmms_eval_score(said, truth, is_choice), said
        scored += score > 0
    assert scored > MANY / 20


@pytest.mark.parametrize(
    ("said", "number"),
    [
        *[("about 3 m", 3), ("one apple, room 2", 1), ("two hundred and one", 201), ("one, 2, two", 3), ("1,200", 1)],
        ("no", None),
    ],
)
def test_lmms_eval_takes_the_first_number_in_digits_or_words(said, number):
    assert lmms_eval_number(said) == number


CENTIMETRES = {
    "m": 100.0,
    "meters": 100.0,
    "cm": 1.0,
    "ft": 30.48,
    "feet": 30.48,
    "in": 2.54,
    "inches": 2.54,
    "mm": 0.1,
}


def restated_q_spatial(pairs):
    """All columns from (answer text, true centimetres), from the benchmark's notebook and the paper's words."""
    ratios, errors = [], []
    for text, truth in pairs:
        scalars, units = re.findall("scalar{([^}]*)}", text), re.findall("distance_unit{([^}]*)}", text)
        numbers = re.findall(r"\d+(?:\.\d*)?", scalars[-1]) if scalars and units else []
        if numbers:
            value = sum(float(one) for one in numbers) / len(numbers) * CENTIMETRES.get(units[-1].lower(), 1.0)
            ratios.append(value / truth)
            errors.append(abs(value - truth) / ((value + truth) / 2))
    share = lambda test: 100 * sum(map(test, ratios)) / len(ratios)  # noqa: E731
    return {
        "success_rate": 100 * sum(0.5 < ratio < 2 for ratio in ratios) / len(pairs),
        "samples_completed": 100 * len(ratios) / len(pairs),
        "smape": 100 * statistics.fmean(errors),
        "in_range_50_100": share(lambda ratio: 0.5 <= ratio <= 1),
        "in_range_100_150": share(lambda ratio: 1 < ratio <= 1.5),
        "in_range_150_200": share(lambda ratio: 1.5 < ratio <= 2),
    }


@pytest.mark.slow
def test_every_q_spatial_column_equals_a_restatement_on_10000_strings():
    draw = random.Random(1)
    pairs, rows = [], []
    units = [*CENTIMETRES, "Feet", "M", "parsec", ""]
    for number in range(MANY):
        value = draw.choice(["", "x", "10-15", "0", "2.", f"{draw.uniform(0, 3):.2f}", str(draw.randint(1, 300))])
        boxed = rf"\scalar{{{value}}} \distance_unit{{{draw.choice(units)}}}"
        text = "".join(draw.sample([boxed, boxed, "3 m ", r"\scalar{", "}", "\n"], k=draw.randint(0, 5)))
        truth = draw.choice([50, 96, 150])
        pairs.append((text, truth))
        rows.append(Prediction(Question(str(number), "s", "distance", "?", None, f"{truth} cm", "text"), text))
    found, expected = score_q_spatial(rows).to_json(), restated_q_spatial(pairs)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert 20 < expected["samples_completed"] < 90 and expected["success_rate"] > 5


WORDS = [
    "yes",
    "no",
    "the",
    "sofa",
    "is",
    "left",
    "of",
    ",",
    ".",
    "it",
    "not",
    "likely",
    "2",
    "3.5",
    "m",
    "feet",
    "\u00e9t\u00e9",
]


def random_sentence(draw, least=0):
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, 12)))


@pytest.mark.slow
def test_bleu_equals_nltks_on_10000_pairs_and_on_corpora_of_three():
    draw = random.Random(2)
    positive, pairs = 0, []
    for _ in range(MANY):
        # Two words at least: for a sentence shorter than the n-gram nltk counts one n-gram that cannot be there.
        pairs = [*pairs[-2:], (tokenize(random_sentence(draw, 2)), tokenize(random_sentence(draw, 2)))]
        said, meant = pairs[-1]
        for order, weights in ((1, (1.0,)), (2, (0.5, 0.5))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where an n-gram never matches nltk warns, and gives about 1e-150
                sentence = bleu_score.sentence_bleu([meant], said, weights=weights)
                corpus = bleu_score.corpus_bleu([[one] for _, one in pairs], [one for one, _ in pairs], weights=weights)
            assert sentence_bleu(said, meant, order) == pytest.approx(sentence, abs=1e-12)
            assert corpus_bleu(*zip(*pairs, strict=True), order) == pytest.approx(corpus, abs=1e-12)
            positive += sentence > 1e-9
    assert positive > MANY


def restated_yes_or_no(text):
    """Word by word: a phrase counts where it is bordered by no letter, digit or underscore."""

    def holds(phrase):
        at = text.find(phrase)
        while at >= 0:
            before, behind = text[at - 1 : at] if at else "", text[at + len(phrase) : at + len(phrase) + 1]
            if not any(one.isalnum() or one == "_" for one in (before, behind) if one):
                return True
            at = text.find(phrase, at + 1)
        return False

    text = text.lower().strip()
    if text.startswith("yes") and not (text[3:4].isalnum() or text[3:4] == "_"):
        return True
    if any(map(holds, ("no", "not", "doesn't", "isn't", "unlikely", "i don't think", "probably not"))):
        return False
    is_yes = ("yes", "it is", "appears to be", "looks like", "seems like", "definitely", "likely", "indeed")
    return True if any(map(holds, is_yes)) else None


def test_yes_no_answers_equal_a_restatement_on_10000_strings():
    draw = random.Random(3)
    pieces = [
        "yes",
        "Yes",
        "no",
        "not",
        "now",
        "it is",
        "It isn't",
        "seems like",
        "likely",
        "unlikely",
        "indeed",
        "sofa",
    ]
    counted = {True: 0, False: 0, None: 0}
    for _ in range(MANY):
        text = "".join(draw.choice(pieces) + draw.choice([" ", ", ", ".", "", "_"]) for _ in range(draw.randint(0, 4)))
        assert yes_or_no(text) is restated_yes_or_no(text), text
        counted[yes_or_no(text)] += 1
    assert min(counted.values()) > 500


def test_distances_equal_a_restatement_on_10000_strings():
    draw = random.Random(4)
    hits = 0
    for _ in range(MANY):
        numbers, units = (
            [round(draw.uniform(0.1, 9), 2) for _ in range(2)],
            [draw.choice(list(CENTIMETRES)) for _ in range(2)],
        )
        said, meant = (f"about {number} {unit}" for number, unit in zip(numbers, units, strict=True))
        ours, truth = (number * CENTIMETRES[unit] for number, unit in zip(numbers, units, strict=True))
        if min(abs(ours / truth - 0.5), abs(ours / truth - 2)) < 1e-9:
            continue  # exactly at an end: float rounding decides, and the hand-computed cases have it
        assert distance_right(said, meant) is (0.5 < ours / truth < 2), (said, meant)
        hits += 0.5 < ours / truth < 2
    assert hits > 1000


@pytest.mark.slow
def test_boxes_equal_a_restatement_on_10000_strings():
    draw = random.Random(5)
    overlaps = 0
    for _ in range(MANY):
        one, other = ([round(draw.uniform(0, 10), 1) for _ in range(4)] for _ in range(2))
        sides = []
        for low, high in ((0, 2), (1, 3)):
            (a, b), (c, d) = sorted((one[low], one[high])), sorted((other[low], other[high]))
            sides.append((max(0.0, min(b, d) - max(a, c)), b - a, d - c))
        shared, own, true = (math.prod(side[index] for side in sides) for index in range(3))
        expected = shared / (own + true - shared) if own + true > shared else 0.0
        text = f"The 2 sofas are at [{', '.join(map(str, one))}]."
        assert box_iou(parse_box(text), other) == pytest.approx(expected, abs=1e-12)
        overlaps += expected > 0
    assert overlaps > 500


def test_reasoning_words_equal_a_restatement_on_10000_strings():
    draw = random.Random(6)
    for _ in range(MANY):
        chosen = [draw.choice([*COT_KEYWORDS, "sofa", "someone", "iffy"]) for _ in range(draw.randint(0, 6))]
        text = " ; ".join(chosen)
        padded = f" {text} "
        expected = sum(padded.count(f" {phrase} ") for phrase in COT_KEYWORDS)
        # Phrases that hold others ("as a result" holds none; "in the first step" holds "first") count for both.
        assert reasoning_words(text.upper()) == expected, text
