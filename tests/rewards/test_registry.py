"""Rewards by name and from files, and that whatever is wrong with one ends in one line with its name and the row."""

import numpy as np
import pytest

from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.errors import InputError
from jaxvsr.rewards import svqa_r1
from jaxvsr.rewards.registry import Reward, check_rewards
from jaxvsr.rewards.scoring import reward_metrics, score_completions

COLUMNS = {"id": ["q0", "q1", "q2"], "answer": ["4", "5", "left"], "answer_kind": ["number", "number", "word"]}
COMPLETIONS = ["4", "4", "left"]


def test_terms_carry_weights_and_options():
    rewards = rewards_from(
        "0.5*svqa_format, vsgrpo_accuracy(numeric=mra),2*spatial_r1_nar(thresholds=11, parsing=released)"
    )
    assert [(reward.name, reward.weight) for reward in rewards] == [
        ("svqa_format", 0.5),
        ("vsgrpo_accuracy", 1.0),
        ("spatial_r1_nar", 2.0),
    ]
    scores = score_completions(rewards, ["<answer>9</answer>"], {"answer": ["10"], "answer_kind": ["number"]})
    np.testing.assert_allclose(scores[:, 0], [0, 0.9, 9 / 11])
    assert rewards_from(["vsi_bench"]) == rewards_from("vsi_bench")


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("nonsense", "'nonsense' is not one of vsgrpo_accuracy"),
        ("", "expected NAME or FILE.py:FUNCTION"),
        ("x*vsi_bench", "weight 'x' is not a number"),
        ("inf*vsi_bench", "weight inf is not finite"),
        ("vsi_bench,vsi_bench", "'vsi_bench' is listed twice"),
        ("vsgrpo_accuracy(numeric=best)", "'best' is not one of bounded, negated, mra"),
        ("vsgrpo_accuracy(nothing=1)", "its options are: numeric=bounded"),
        ("spatial_r1_nar(thresholds=many)", "expected a whole number, found 'many'"),
        ("vsi_bench(a=1)", "its options are: none"),
        ("missing.py:reward", "missing.py:reward: no such file"),
        ("vsi_bench(", "expected NAME or FILE.py:FUNCTION"),
    ],
)
def test_an_error_about_a_reward_term_names_it(term, words):
    with pytest.raises(InputError) as error:
        rewards_from(term)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_none_becomes_nan_and_scores_are_rewards_by_completions():
    scores = score_completions(rewards_from("spatial_r1_nar,vsi_bench,spatial_r1_mar"), COMPLETIONS, COLUMNS)
    assert scores.shape == (3, 3) and scores.dtype == np.float64
    assert np.isnan(scores[0]).tolist() == [False, False, True]
    assert np.isnan(scores[2]).tolist() == [True, True, False]
    np.testing.assert_allclose(scores[1], [1, 0.6, 1])
    assert score_completions((), COMPLETIONS, COLUMNS).shape == (0, 3)


USER = """
import dataclasses

@dataclasses.dataclass
class Kept:
    length: int

def short(completions, limit=3, **columns):
    return [1.0 if len(text) <= limit else None for text in completions]

def raises(completions, answer, **columns):
    return [float(a) for a in answer]

def fails_on_batches(completions, **columns):
    assert len(completions) == 1
    return [1.0]

def too_few(completions, **columns):
    return [1.0]

def no_list(completions, **columns):
    return 1.0

def word(completions, **columns):
    return [1.0, "high", 0.0]

def nan(completions, **columns):
    return [1.0, 0.0, float("nan")]

def digits(completions, **columns):
    return ["1", "0", "1"]

def one_text(completions, **columns):
    return "101"

def yields(completions, answer, **columns):
    for text in answer:
        yield float(text)

def too_large(completions, **columns):
    return [0, 10**400, 0]

def leaves(completions, answer, **columns):
    if "left" in answer:
        raise SystemExit(0)
    return [0.0] * len(completions)

def eats(completions, answer, **columns):
    completions.clear()
    columns["id"].reverse()
    return [float(len(answer.pop())) for _ in range(len(answer))]

def mean(completions, **columns):
    return [0.0] * len(completions)

def hinted(completions, limit: "Unknown" = 3, **columns):
    return [float(limit)] * len(completions)

value = 3
"""


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER)
    return path


def test_a_users_function_is_a_reward_with_options(user_file):
    (reward,) = rewards_from(f"0.25*{user_file}:short(limit=2)")
    assert (reward.name, reward.weight) == ("short", 0.25)
    np.testing.assert_array_equal(score_completions([reward], ["ab", "abc"], {}), [[1, np.nan]])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "'raises' raised ValueError: could not convert string to float: 'left' at row 2 (question 'q2')"),
        ("fails_on_batches", "no single row, only the batch of 3"),
        ("too_few", "returned 1 values for 3 completions (first wrong: row 1 (question 'q1'))"),
        ("no_list", "'no_list' returned float, not a list of 3 numbers"),
        ("word", "'word' returned 'high' for row 1 (question 'q1')"),
        ("nan", "'nan' returned nan for row 2 (question 'q2')"),
        ("digits", "'digits' returned '1' for row 0 (question 'q0')"),
        ("one_text", "'one_text' returned str, not a list of 3 numbers"),
        ("yields", "'yields' raised ValueError: could not convert string to float: 'left' at row 2 (question 'q2')"),
        ("too_large", "'too_large' returned an int too large to convert to float for row 1 (question 'q1')"),
        ("leaves", "'leaves' raised SystemExit: 0 at row 2 (question 'q2')"),
    ],
)
def test_an_error_in_a_users_reward_is_one_line_with_name_and_row(user_file, name, words):
    with pytest.raises(InputError) as error:
        score_completions(rewards_from(f"{user_file}:{name}"), COMPLETIONS, COLUMNS)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_users_file_is_run_once_and_can_import_files_of_its_folder(tmp_path, capsys):
    (tmp_path / "word_lists_beside.py").write_text("SHORT = 2\n")
    text = "from word_lists_beside import SHORT\nprint('loaded')\n"
    for name in ("one", "two"):
        text += f"def {name}(completions, **columns):\n    return [float(len(text) <= SHORT) for text in completions]\n"
    (tmp_path / "mine.py").write_text(text)
    rewards = rewards_from(f"{tmp_path}/mine.py:one,{tmp_path}/mine.py:two")
    assert score_completions(rewards, ["ab", "abc"], {}).tolist() == [[1, 0], [1, 0]]
    assert capsys.readouterr().out == "loaded\n"


def test_a_reward_that_changes_its_lists_does_not_affect_others(user_file):
    first, second = score_completions(rewards_from(f"{user_file}:eats,vsi_bench"), COMPLETIONS, COLUMNS)
    assert first.tolist() == [4, 1, 1] and second == pytest.approx([1, 0.6, 1])
    assert COLUMNS["answer"] == ["4", "5", "left"] and COMPLETIONS == ["4", "4", "left"]


def test_a_reward_with_the_name_of_a_logged_metric_is_refused(user_file):
    with pytest.raises(InputError, match=r"'mean' is the name of the sum in the log \(reward/mean\); call it another"):
        rewards_from(f"vsi_bench,{user_file}:mean")


def test_an_option_without_a_type_is_read_with_the_type_of_its_default(user_file):
    (reward,) = rewards_from(f"{user_file}:hinted(limit=2)")
    assert score_completions([reward], ["a"], {}).tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("vsgrpo_length(characters=0)", "characters=0: must be at least 1"),
        ("vsgrpo_length(characters=-5)", "characters=-5: must be at least 1"),
        ("spatial_r1_nar(thresholds=0)", "thresholds=0: must be at least 1"),
    ],
)
def test_options_that_leave_a_rewards_range_are_refused(term, words):
    with pytest.raises(InputError) as error:
        score_completions(rewards_from(term), ["<answer>4</answer>"], {"answer": ["4"], "answer_kind": ["number"]})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_file_without_the_function_or_that_cannot_be_imported_is_named(user_file, tmp_path):
    with pytest.raises(InputError, match="has no function 'absent'"):
        rewards_from(f"{user_file}:absent")
    with pytest.raises(InputError, match="has no function 'value'"):
        rewards_from(f"{user_file}:value")
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(0)")
    with pytest.raises(InputError, match="importing the file raised SystemExit: 0"):
        rewards_from(f"{script}:f")
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name")
    with pytest.raises(InputError, match="importing the file raised ModuleNotFoundError"):
        rewards_from(f"{broken}:f")


def test_a_reward_with_a_missing_requirement_is_refused_before_it_is_called(monkeypatch):
    loaded = []
    monkeypatch.setattr(svqa_r1, "_encoder", loaded.append)
    check_rewards(rewards_from("vsi_bench,svqa_format,0.5*svqa_semantic(model=mine)"))
    check_rewards(rewards_from("svqa_semantic"))
    assert loaded == ["mine", "all-MiniLM-L6-v2"]
    with pytest.raises(InputError, match="rewards: none are given"):
        check_rewards(rewards_from(()))


def test_columns_of_another_length_are_refused():
    with pytest.raises(InputError, match="'answer' has 1 rows for 2"):
        score_completions(rewards_from("vsi_bench"), ["a", "b"], {"answer": ["a"]})


def test_metrics_are_means_over_the_rows_that_a_reward_applies_to():
    rewards = (Reward("a", len), Reward("b", len))
    scores = np.array([[1.0, 0.0, np.nan], [np.nan, np.nan, np.nan]])
    metrics = reward_metrics(rewards, scores, ["count", "size", "size"])
    assert metrics == {"reward/a": 0.5, "reward/a/count": 1.0, "reward/a/size": 0.0}
