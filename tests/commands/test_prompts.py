"""Prompts byte for byte against their sources, restated here whole, and prompts from files."""
# ruff: noqa: E501  (a prompt's lines are its own)

import pytest

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.prompts import MIRROR_REWRITE, PROMPTS, YES_NO_JUDGE, prompt_from

NUMBER = Question("1", "s", "object_counting", "How many chair(s) are in this room?", None, "4", "number")
CHOICE = Question("2", "s", "object_rel_distance", "Which is closest?", ("A. stove", "B. tv"), "B", "choice")
WORD = Question("3", "s", "object_rel_distance", "Which of these (sink, bed)is it?", None, "sink", "word")


def test_the_vsi_bench_prompt_equals_the_harness_byte_for_byte():
    prompt = PROMPTS["vsi-bench"]
    assert prompt.render(NUMBER) == (
        "These are frames of a video.\nHow many chair(s) are in this room?\n"
        "Please answer the question using a single word or phrase."
    )
    assert prompt.render(CHOICE) == (
        "These are frames of a video.\nWhich is closest?\nOptions:\nA. stove\nB. tv\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (prompt.max_answer_tokens, prompt.extraction, prompt.stop) == (16, "plain", ("\n\n",))
    assert prompt.answer("4\n\nBecause <answer>5</answer>") == "4"


@pytest.mark.parametrize("name", ["vsi-bench", "vsgrpo-vanilla-train"])
def test_a_thinking_model_is_asked_the_same_and_read_behind_its_thought(name):
    plain, thinking = PROMPTS[name], PROMPTS[f"{name}-thinking"]
    assert [thinking.render(asked) for asked in (NUMBER, CHOICE)] == [plain.render(asked) for asked in (NUMBER, CHOICE)]
    thought = "In <answer> tags?\n\nThree, no, 4 chairs."
    for completion, answer in ((f"{thought}\n</think>\n\n4", "4"), (f"{thought}</think><answer> 4</answer>.", "4")):
        assert thinking.answer(completion) == answer
    assert thinking.readable(f"{thought}\n</think>\n\n4") == "4"
    assert thinking.answer(thought) == thinking.readable(thought) == ""  # it was cut off before it answered
    assert plain.without_thought(thought) == thought


def test_training_prompts_of_vsgrpo_are_the_papers():
    assert PROMPTS["vsgrpo-vanilla-train"].render(WORD) == (
        "Which of these (sink, bed)is it?\nPlease provide the short answer with one or two words or a number."
    )
    assert (
        PROMPTS["vsgrpo-think-train"]
        .render(NUMBER)
        .endswith(
            "room?\nPlease think step by step and enclose your thinking process in <think> </think> tags and then provide the "
            "short answer with one or two words or a number in <answer> </answer>."
        )
    )
    assert (
        PROMPTS["vsgrpo-observe-train"]
        .render(NUMBER)
        .endswith(
            "room?\nPlease observe carefully and analyze what you see that helps you to solve the question in the video and "
            "enclose it in <observe> </observe> tag, and then provide the short answer with one or two words or a number in "
            "<answer> </answer>."
        )
    )
    assert [PROMPTS[f"vsgrpo-{mode}-train"].thought_tag for mode in ("vanilla", "think", "observe")] == [
        None,
        "think",
        "observe",
    ]


def test_evaluation_prompts_of_vsgrpo_are_the_papers():
    ends = {
        "vsgrpo-vanilla": "Please answer the question using a single word or phrase.",
        "vsgrpo-think": "Let's think step by step and then answer the question using a single word or phrase.",
        "vsgrpo-observe": "Please observe the video first and then answer the question using a single word or phrase.",
    }
    for name, end in ends.items():
        for asked in (NUMBER, CHOICE):
            assert PROMPTS[name].render(asked).endswith("\n" + end)
    assert "Options:\nA. stove\nB. tv\n" in PROMPTS["vsgrpo-think"].render(CHOICE)
    # Short answers end where the harness ends them; a thought may hold an empty line.
    assert [PROMPTS[name].stop for name in ends] == [("\n\n",), (), ()]


def test_prompts_of_spatial_r1_are_those_of_both_releases():
    assert PROMPTS["spatial-r1-april"].render(NUMBER) == (
        "Question:\nHow many chair(s) are in this room?\nOutput the thinking process in <think> </think> and final answer that is "
        "a single word or phrase in <answer> </answer>tags.\nThe output answer format should be as follows: "
        "<think>...</think><answer>...</answer>. Please strictly follow the format."
    )
    april = PROMPTS["spatial-r1-april"].render(CHOICE)
    assert april.startswith("Question:\nWhich is closest?\nOptions:\nA. stove\nB. tv\n\nOutput the thinking process")
    assert "final answer that is an option letter in <answer> </answer>tags." in april
    assert PROMPTS["spatial-r1-april-doubled"].render(CHOICE) == "Question:\n" + april
    may = PROMPTS["spatial-r1-may"].render(CHOICE)
    assert may.startswith("Which is closest?Options:\nA. stove\nB. tv\n\nPlease think about this question as if")
    assert may.endswith("the single option letter (e.g., A, B, C, D, etc.) within the <answer> </answer> tags.")
    assert "natural language thought expressions It's encouraged" in may
    assert PROMPTS["spatial-r1-may"].render(NUMBER).endswith("(e.g., 42 or 3.1) within the <answer> </answer> tags.")
    assert PROMPTS["spacer"].render(CHOICE) == "Question: " + may


def test_prompts_of_svqa_r1_and_q_spatial_are_the_papers():
    assert PROMPTS["svqa-r1"].render(NUMBER) == (
        "How many chair(s) are in this room? First output the thinking process in <think> </think> tags and then output the "
        "final answer in <answer> </answer> tags."
    )
    assert PROMPTS["q-spatial-cot"].render(NUMBER).endswith("room?\nLet's think step by step.")
    assert PROMPTS["q-spatial"].system.endswith(
        'in the format of """\\scalar{scalar} \\distance_unit{distance unit}""" at the end of your response.'
    )
    # The templates as they are in the benchmark's repository (commit 723d6e4), by length and with its misspelling.
    assert len(PROMPTS["q-spatial-steps"].template) == 1348 - len("{ question }") + len("question")
    assert len(PROMPTS["q-spatial-single"].template) == 124 - len("{ question }") + len("question")
    assert len(PROMPTS["q-spatial"].system) == 337
    assert "thinkg step by step" in PROMPTS["q-spatial-single"].template


def test_prompts_of_language_models_have_their_placeholders():
    assert "{question}" in MIRROR_REWRITE and "{answer}" in MIRROR_REWRITE
    assert "{pred}, ground-truth answer: {gt}.\n" in YES_NO_JUDGE


def test_every_prompt_has_a_source_a_budget_and_renders_every_question():
    for name, prompt in PROMPTS.items():
        assert prompt.name == name and prompt.source and prompt.max_answer_tokens > 0
        for asked in (NUMBER, CHOICE, WORD):
            text = prompt.render(asked)
            assert asked.question in text and not {"{question}", "{options}"} & set(text.split())
            assert all(option in text for option in asked.options or ())
            assert len(text.split(asked.question)) == 2


def test_braces_in_a_question_are_kept():
    asked = Question("1", "s", "t", "What is {options} or {question}?", ("A. x", "B. y"), "A", "choice")
    assert "What is {options} or {question}?\nOptions:\nA. x\nB. y\n" in PROMPTS["vsi-bench"].render(asked)


def test_a_choice_without_options_is_refused():
    asked = Question("q7", "s", "t", "Which?", None, "A", "choice")
    with pytest.raises(InputError, match="question 'q7': answer_kind choice needs options"):
        PROMPTS["vsi-bench"].render(asked)


def test_a_prompt_file_renders_its_template(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "template: |-\n  Look.\n  {question}\nmax_answer_tokens: 8\nextraction: answer_tag\nstop: END\nthought_tag: think\n"
    )
    prompt = prompt_from(str(path))
    assert prompt.name == "mine" and prompt.render(NUMBER) == "Look.\n" + NUMBER.question
    assert prompt.render(CHOICE) == "Look.\nWhich is closest?\nOptions:\nA. stove\nB. tv"
    assert prompt.answer("x <answer>4 END</answer>") == "x <answer>4 "
    assert prompt_from("vsi-bench") is PROMPTS["vsi-bench"]


def test_a_template_that_places_the_options_itself_shows_them_once(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("template: |-\n  {question}\n  {options}\n  Answer {briefly}.\nmax_answer_tokens: 8\n")
    prompt = prompt_from(str(path))
    assert prompt.render(CHOICE) == "Which is closest?\nA. stove\nB. tv\nAnswer {briefly}."
    assert prompt.render(NUMBER) == NUMBER.question + "\n\nAnswer {briefly}."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("template: '{question}'\n", "max_answer_tokens: is missing; expected a whole number"),
        ("template: '{question}'\nmax_answer_tokens: true\n", "found True"),
        ("template: hello\nmax_answer_tokens: 8\n", "{question} in it"),
        ("template: '{question}'\nmax_answer_tokens: 8\ncolour: red\n", "unknown field 'colour'"),
        (
            "template: '{question}'\nmax_answer_tokens: 8\nextraction: magic\n",
            "'magic' is not one of plain, answer_tag",
        ),
        ("template: '{question}'\nmax_answer_tokens: 8\nstop: [3]\n", "stop[0]: expected a string, found 3"),
        ("template: '{question}'\nmax_answer_tokens: 8\nstop: 3\n", "stop: expected a list (each a string), found 3"),
        (
            "template: '{question}'\nmax_answer_tokens: 8\nstop: {a: b}\n",
            "stop: expected a list (each a string), found {",
        ),
        (
            "template: '{question}'\nmax_answer_tokens: 8\nchoice_template: x\n",
            "choice_template: must have {question} in it, found 'x'",
        ),
        (
            "template: '{question}'\nmax_answer_tokens: 8\nchoice_template: '{question} A or B?'\n",
            "choice_template: must have {options} in it, or the model would not see them",
        ),
        ("template: '{question}'\nmax_answer_tokens: 8\nname:\n", "name: expected a string, found None"),
        ("template: '{question}'\nmax_answer_tokens: 8\nsystem: 3\n", "system: expected a string or null, found 3"),
        ("just words", "expected fields"),
        ("a: [", "not YAML"),
        (
            "template: '{question}'\nmax_answer_tokens: 4\nmax_answer_tokens: 8",
            "line 3: not YAML ('max_answer_tokens' is there twice)",
        ),
        ("{question} Answer with one number.", "expected fields (such as template and max_answer_tokens)"),
    ],
)
def test_a_wrong_prompt_file_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        prompt_from(str(path))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_error_about_an_unknown_prompt_lists_the_names():
    with pytest.raises(InputError, match="'nonsense' is neither a file nor one of vsi-bench"):
        prompt_from("nonsense")
