"""The papers' presets: headers and numbers agree, every line in them is a command, and each plans what it says."""

import dataclasses
import importlib.util
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from jaxvsr.config.config_file import parse_assignment, read_config
from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.splits import write_splits
from jaxvsr.data.video.frame_writer import FrameSettings, write_frames
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.errors import InputError
from jaxvsr.evaluation.tables import published_rows as published
from jaxvsr.measure.dry_run import plan
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.prompts import PROMPTS
from launch import build_data, evaluate, train
from tests.support.recipes import CHOSEN
from tests.support.scans import write_sens_scan

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted(
    path
    for name in ("vsgrpo", "spatial-r1", "svqa-r1", "rooms-2b", "spatial-qwen3-vl", "svqa-qwen3-vl")
    for path in (ROOT / "configs").glob(f"{name}*.yaml")
)
EACH = pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
TASKS = (
    ("object_counting", "How many trash can(s)in the room?", "3", "number"),
    ("object_size_estimation", "What is the length of the table, measured in centimeters?", "113", "number"),
    ("object_rel_direction_easy", "Is the bicycle to the left or the right of the shower?", "left", "word"),
    ("object_rel_distance", "Which of these objects (sink, pillow, bed)is the closest to the bicycle?", "sink", "word"),
)
# What the papers and releases state: learning rate, rollouts, KL, answer tokens.
STATED = {
    "vsgrpo-2b": (1e-5, 14, 1e-4, 16),
    "vsgrpo-2b-think": (1e-5, 14, 1e-4, 256),
    "vsgrpo-2b-observe": (1e-5, 14, 1e-4, 256),
    "vsgrpo-7b": (5e-6, 14, 1e-4, 16),
    "vsgrpo-7b-think": (5e-6, 14, 1e-4, 256),
    "vsgrpo-7b-observe": (5e-6, 14, 1e-4, 256),
    "spatial-r1-7b": (1e-6, 8, 0.04, 1024),
    "spatial-r1-7b-april": (1e-6, 4, 0.04, 256),
    "spatial-r1-7b-staged": (1e-6, 4, 0.04, 256),
    "svqa-r1-3b": (1e-6, 8, 0.04, 2048),
    # No paper's: vsGRPO's and SVQA-R1's values on today's model.
    "spatial-qwen3-vl-2b": (1e-5, 14, 1e-4, 16),
    "spatial-qwen3-vl-4b": (1e-5, 14, 1e-4, 16),
    "spatial-qwen3-vl-8b": (5e-6, 14, 1e-4, 16),
    "svqa-qwen3-vl-4b": (1e-5, 8, 0.04, 2048),
}


def header(path: Path) -> str:
    """The comment above the fields."""
    return "\n".join(line[2:] for line in path.read_text().splitlines() if line.startswith("#"))


def commands(text: str) -> list[list[str]]:
    """`python launch/…` lines, with their continuation."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [line.strip() for line in lines if line.strip().startswith("python launch/")]
    return [shlex.split(line, comments=True)[1:] for line in found]


def check_command(words: list[str]) -> None:
    """Its flags are known, and of a training run the config too; nothing is opened."""
    script, *rest = words
    if script == "launch/train.py":
        arguments = train._parse(rest)
        train._config(arguments)
    elif script == "launch/evaluate.py":
        arguments = evaluate._parser().parse_args(rest)
        assert arguments.prompt is None or arguments.prompt in PROMPTS
    elif script == "launch/build_data.py":
        build_data._parser().parse_args(rest)
    else:
        assert (ROOT / script).is_file(), script


def test_every_experiment_has_a_preset() -> None:
    names = {path.stem for path in PRESETS}
    assert names >= {*STATED, "vsgrpo-sft-2b", "vsgrpo-sft-7b", "vsgrpo-dpo-2b", "vsgrpo-dpo-7b", "rooms-2b"}


@EACH
def test_the_header_has_the_command_and_says_what_is_stated_left_open_and_chosen(path: Path) -> None:
    text = header(path)
    assert f"python launch/train.py --config configs/{path.stem}.yaml" in text
    parts = ("Stated by the paper:", "Left open:", "Chosen here:")
    assert path.stem == "rooms-2b" or all(part in text for part in parts)
    assert "Nobody has run" in text
    assert all(map(str.isascii, text.replace("…", "")))


def size_of_an_update(config: TrainConfig) -> str:
    """The words of a header about it, made from the fields."""
    scenes, questions, group = config.data.scenes, config.data.questions, config.sampling.group
    media = f"{scenes} pictures ({scenes // 2} and their {scenes // 2} mirror images)"
    media = media if config.data.mirror == "pairs" else f"{scenes} scenes"
    asked = f"One update: {media} x {questions} question{'s' * (questions > 1)}"
    if config.objective == "sft":
        return f"{asked} = {scenes * questions} answers"
    if config.objective == "dpo":
        return f"{asked} x 2 answers = {scenes * questions} pairs"
    total = f"{scenes * questions} questions, " * (questions > 1) + f"{scenes * questions * group} rollouts"
    return f"{asked} x {group} rollouts = {total}"


@EACH
def test_the_update_size_in_the_header_equals_the_fields(path: Path) -> None:
    line = size_of_an_update(read_config(path))
    assert line in " ".join(header(path).split()), "the header must have these words"


def test_recipes_on_vsi_100k_train_for_one_epoch_of_the_papers_117k_questions() -> None:
    configs = [read_config(path) for path in PRESETS]
    on_vsi_100k = [config for config in configs if config.data.folders == ("data/vsi100k",)]
    assert len(on_vsi_100k) == 10
    for config in on_vsi_100k:
        assert config.steps == 117_120 // (config.data.scenes * config.data.questions)


@pytest.mark.parametrize("name", STATED)
def test_recipes_have_the_values_that_papers_and_releases_state(name: str) -> None:
    config = read_config(ROOT / "configs" / f"{name}.yaml")
    rate, group, beta, tokens = STATED[name]
    assert (config.optimizer.learning_rate, config.sampling.group) == (rate, group)
    assert (config.grpo.beta, config.grpo.kl, config.sampling.temperature) == (beta, "k3", 1.0)
    assert config.sampling.answer_tokens == tokens


@EACH
def test_answers_are_as_long_as_the_prompt_allows_and_rewards_exist(path: Path) -> None:
    config = read_config(path)
    assert config.sampling.answer_tokens == PROMPTS[config.data.prompt].max_answer_tokens
    assert len(rewards_from(config.rewards)) == len(config.rewards)


@pytest.mark.parametrize("size", ["2b", "7b"])
@pytest.mark.parametrize(("mode", "tag"), [("", None), ("-think", "think"), ("-observe", "observe")])
def test_vsgrpo_recipes_train_lora_and_have_a_format_reward_if_their_prompt_has_a_tag(
    size: str, mode: str, tag: str | None
) -> None:
    config = read_config(ROOT / "configs" / f"vsgrpo-{size}{mode}.yaml")
    assert PROMPTS[config.data.prompt].thought_tag == tag and config.lora is not None
    assert [term for term in config.rewards if "format" in term] == ([f"vsgrpo_format_{tag}"] if tag else [])


@EACH
def test_commands_in_the_header_can_be_typed(path: Path) -> None:
    found = commands(header(path))
    assert {words[0] for words in found} >= {"launch/train.py", "launch/evaluate.py"}
    for words in found:
        check_command(words)


@pytest.mark.slow
def test_ablations_in_the_headers_can_be_typed() -> None:
    """The settings, rewards and prompts that headers name are read, and each setting changes something."""
    settings, rewards, prompts = set(), set(), set()
    for path in PRESETS:
        flat = " ".join(header(path).split())
        for assignment in re.findall(r"--set (\S+?=[^\s;)]*)", flat):
            # An ablation of mirrored views needs several flags together.
            more = ["view_consistency.rewards="] if assignment.startswith("data.mirror=none") else []
            changed = read_config(path, [parse_assignment(one.rstrip(".,:")) for one in (*more, assignment)])
            assert changed != read_config(path), assignment
            settings.add(assignment.rstrip(".,:"))
        for terms in re.findall(r'--rewards ("[^"]*"|[\w,.*()=]+)', flat):
            if "…" not in terms and "NAME" not in terms:
                assert rewards_from(terms.strip('"').rstrip("."))
                rewards.add(terms)
        named = re.findall(r"--prompt ([\w-]+)", flat)
        assert set(named) <= set(PROMPTS)
        prompts |= set(named)
    assert len(settings) >= 12 and len(rewards) >= 7 and len(prompts) >= 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """A tiny model and a data folder with every task and its mirror images: 32 scenes of small frames.

    Half of them are held out, since a step of held-out questions takes as many scenes as one of training.
    """
    root = tmp_path_factory.mktemp("presets")
    names = [f"scene{index:04d}_00" for index in range(32)]
    scans = [
        write_sens_scan(root, name, frames=32, height=56, width=56, seed=index) for index, name in enumerate(names)
    ]
    write_frames(scans, root / "data", FrameSettings((1, 16, 32), 4000))
    rows = []
    for name in names:
        for number, (task, text, answer, kind) in enumerate(TASKS * 2):
            row = Question(f"{name}-{number}", name, task, f"{number}. {text}", None, answer, kind)  # type: ignore[arg-type]
            rows += [row, dataclasses.replace(row, id=f"{row.id}-m", mirror_of=row.id)]
    write_questions(root / "data" / "questions.jsonl", rows)
    write_splits(root / "data", {"train": names[:16], "heldout": names[16:]})
    for family in FAMILIES:
        (root / family).symlink_to(tiny_model(family))
    return root


def planned(config: TrainConfig) -> list[str]:
    """The lines of a dry run up to where programs are compiled."""
    lines = []
    for line in plan(config, make_mesh(MeshShape(), jax.devices()[:1])):
        lines.append(line)
        if line.startswith("tokens"):
            break
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("path", CHOSEN, ids=lambda path: path.stem)
def test_a_preset_plans_on_a_tiny_model_and_rooms_by_changing_paths(path: Path, place: Path) -> None:
    family = "qwen3_vl" if "qwen3" in path.stem else "qwen2_vl"
    paths = [f"model.path={place / family}", f"data.folders={place / 'data'}", "data.max_pixels=null"]
    config = read_config(path, [parse_assignment(text) for text in paths])
    lines = planned(config)
    group = {"grpo": config.sampling.group, "sft": 1, "dpo": 2}[config.objective]
    rollouts = config.data.scenes * config.data.questions * group
    assert f"= {rollouts:,} " in lines[0]
    assert lines[-1].startswith("tokens")
    assert any(" questions; all of them once is " in line for line in lines)


def test_the_dry_run_of_vsgrpo_prints_its_update_and_epoch_sizes(tmp_path: Path) -> None:
    lines = []
    config = read_config(ROOT / "configs" / "vsgrpo-2b.yaml", [("--model", "model.path", str(tmp_path / "absent"))])
    with pytest.raises(InputError) as error:
        for line in plan(config, make_mesh(MeshShape(), jax.devices()[:1])):
            lines.append(line)
    assert "absent" in str(error.value) and "\n" not in str(error.value)  # the first thing missing stops the plan
    assert "16 scenes × 4 questions × 14 answers = 896 rollouts" in lines[0]
    assert "1,830 steps of 64 questions ask 117,120" in lines[1]
    assert "vsgrpo-vanilla-train" in lines[2] and "16 frames of at most 100,352 pixels" in lines[2]


def test_a_dry_run_stops_at_settings_that_the_run_would_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error_of(*assignments: str) -> str:
        absent = f"model.path={tmp_path / 'absent'}"
        config = read_config(
            ROOT / "configs" / "svqa-r1-3b.yaml", [parse_assignment(text) for text in (absent, *assignments)]
        )
        with pytest.raises(InputError) as error:
            list(plan(config, make_mesh(MeshShape(), jax.devices()[:1])))
        return str(error.value)

    assert "view_consistency.rewards: 'svqa_semantic' is not one of this run's rewards" in error_of(
        "rewards=svqa_format"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "wandb is not installed" in error_of("logging.trackers=wandb")


def test_a_prompt_sets_its_token_budget(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {prompt: vsgrpo-think-train}\n")
    assert read_config(path).sampling.answer_tokens == 256
    assert read_config(path, [("--prompt", "data.prompt", "svqa-r1")]).sampling.answer_tokens == 2048
    given = [("--prompt", "data.prompt", "svqa-r1"), ("--set", "sampling.answer_tokens", "64")]
    assert read_config(path, given).sampling.answer_tokens == 64
    path.write_text("data: {prompt: vsgrpo-think-train}\nsampling: {answer_tokens: 32}\n")
    assert read_config(path).sampling.answer_tokens == 32
    own = tmp_path / "own.yaml"
    own.write_text("template: 'Say it. {question}'\nmax_answer_tokens: 7\n")
    assert read_config(path, [("--prompt", "data.prompt", str(own))]).sampling.answer_tokens == 7
    with pytest.raises(InputError, match="'nonsense' is neither a file nor one of"):
        read_config(path, [("--prompt", "data.prompt", "nonsense")])


@pytest.mark.slow
def test_every_command_of_the_papers_page_can_be_typed() -> None:
    found = commands((ROOT / "docs" / "papers.md").read_text(encoding="utf-8"))
    for words in found:
        check_command(words)
    trained = {words[words.index("--config") + 1] for words in found if "--config" in words}
    papers = {f"configs/{path.stem}.yaml" for path in PRESETS if path.stem != "rooms-2b"}
    assert papers - trained == {"configs/vsgrpo-7b-think.yaml", "configs/vsgrpo-7b-observe.yaml"}  # no row of a paper
    outs = [words[words.index(flag) + 1] for words in found for flag in ("--out", "--run-dir") if flag in words]
    assert len(outs) == len(set(outs))  # no command writes over another's


def test_values_of_the_papers_page_are_those_of_the_published_rows() -> None:
    """They are in two places: beside one's own scores, and beside the commands."""
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    after = re.findall(r"^    python .*    # (?!choice tasks)(.*)$", text, re.MULTILINE)
    named = {float(value) for line in after for value in re.findall(r"\d+\.\d+", line)}
    rows = (*published._VSI_BENCH_ROWS, *published._Q_SPATIAL_ROWS, *published._OPEN_ENDED_ROWS)
    known = {number for *_, numbers in rows for number in numbers if number is not None}
    assert len(named) > 50 and named <= known
