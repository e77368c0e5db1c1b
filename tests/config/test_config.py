"""Configs: what can be written, what comes back, and that every mistake is one line that says what would be right."""

from pathlib import Path

import pytest
import yaml

from jaxvsr.config.config_file import config_from, find_config, parse_assignment, read_config, to_yaml
from jaxvsr.config.config_reference import field_table, reference_page
from jaxvsr.config.known_names import KNOWN_NAMES, KNOWN_PATHS
from jaxvsr.config.train_config import DataSettings, TrainConfig
from jaxvsr.errors import InputError
from jaxvsr.fields import flat_fields, to_tree

ROOT = Path(__file__).resolve().parents[2]


def with_set(*assignments: str) -> TrainConfig:
    return read_config(None, [parse_assignment(text) for text in assignments])


def test_a_config_written_as_yaml_is_read_back_equal() -> None:
    config = with_set(
        "data.folders=a:2,b", "lora.rank=4", "optimizer.learning_rate=1e-5", "mesh.spec=8", "intervals.time_limit=90",
        "rewards=0.5*svqa_format,vsgrpo_accuracy(numeric=mra,other=1),mine.py:f", "data.question_types=object_counting",
    )  # fmt: skip
    assert config.rewards == ("0.5*svqa_format", "vsgrpo_accuracy(numeric=mra,other=1)", "mine.py:f")
    assert (config.mesh.spec, config.optimizer.learning_rate) == ("8", 1e-5)
    assert config_from(yaml.safe_load(to_yaml(config))) == config


def test_a_full_fine_tuning_config_written_as_yaml_is_read_back_equal() -> None:
    config = with_set("lora=null")
    assert config.lora is None and config_from(yaml.safe_load(to_yaml(config))) == config


def test_flags_override_the_file_and_later_flags_override_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 7\ndata: {scenes: 2, folders: [x]}\nlora: null\n")
    config = read_config(
        path, [("--set", "data.scenes", "6"), ("--set", "data.scenes", "8"), ("--set", "lora.rank", "2")]
    )
    assert (config.steps, config.data.scenes, config.data.folders) == (7, 8, ("x",))
    assert config.lora is not None and config.lora.rank == 2


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        (
            "data.scene=8",
            r"unknown field 'data.scene' \(value '8'\); did you mean 'data.scenes'\? \(fields of data: folders",
        ),
        ("group=8", "did you mean 'sampling.group'"),
        ("data.scenes=four", "--set data.scenes=four: expected a whole number, found 'four'"),
        ("data.scenes=2.5", "expected a whole number, found 2.5"),
        ("data.scenes=null", "--set data.scenes=null: expected a whole number, found None"),
        ("data.blank=maybe", "expected true or false, found 'maybe'"),
        ("data.scenes.x=1", "'data.scenes' has no fields"),
        ("data=3", "--set data=3: expected fields"),
        ("objective=gpro", "'gpro' is not one of grpo, sft, dpo; did you mean 'grpo'"),
        ("sampling.temperature=0", "sampling.temperature 0.0: must be above 0"),
        ("sampling.top_p=2", "sampling.top_p 2.0: must be above 0 and at most 1"),
        ("grpo.beta=-1", "grpo.beta -1.0: must be at least 0"),
        ("grpo.clip_low=2", "grpo.clip_low 2.0: must be at least 0 and below 1"),
        ("lora.rank=0", "^lora.rank 0: must be at least 1"),
        ("lora.alpha=.nan", "^lora.alpha nan: must be a finite number above 0"),
        ("lora.alpha=-1", "^lora.alpha -1.0: must be a finite number above 0"),
        ("evaluation.questions=0", "questions 0: must be at least 1"),
        ("mesh.spec=tens=2", "mesh 'tens=2': no axis 'tens'; did you mean 'tensor'"),
        ("steps=0", "steps 0: must be at least 1"),
        ("seed=-1", "seed -1: must be from 0"),
        ("update.accumulation=3", "must divide data.scenes=4"),
        ("steps", "expected field=value"),
    ],
)
def test_a_mistake_is_refused_in_one_line_that_says_what_would_be_right(assignment: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        with_set(assignment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("num_generations", "sampling.group"),
        ("max_completion_length", "sampling.answer_tokens"),
        ("beta", "grpo.beta"),
        ("per_device_train_batch_size", "data.scenes"),
        ("learning_rate", "optimizer.learning_rate"),
        ("algorithm.kl_coef", "grpo.beta"),
        ("worker.rollout.n", "sampling.group"),
        ("worker.actor.optim.lr", "optimizer.learning_rate"),
        ("gradient_accumulation_steps", "update.accumulation"),
    ],
)
def test_an_error_about_a_name_of_trl_or_easyr1_gives_our_field(there: str, here: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"here it is {here}"):
        with_set(f"{there}=1")
    *parents, last = there.split(".")
    tree: dict = {last: 1}
    for parent in reversed(parents):
        tree = {parent: tree}
    path = tmp_path / "there.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=f"config {path}: .*{there}.* here it is {here}"):
        read_config(path)


def test_the_fields_given_for_names_of_trl_and_easyr1_exist() -> None:
    fields = {path for path, *_ in field_table()} | {"lora", "rewards"}
    for answer in [*KNOWN_NAMES.values(), *KNOWN_PATHS.values()]:
        first = answer.split(" ")[0].rstrip(",")
        assert first in fields or first.startswith(("--", "nothing")), answer


def test_every_field_has_a_description() -> None:
    undocumented = [path for path, _, meaning in field_table() if not meaning]
    assert undocumented == []


def test_the_reference_names_every_field_once() -> None:
    paths = [path for path, *_ in field_table()]
    assert len(paths) == len(set(paths))
    assert set(paths) == {path for path, _ in flat_fields(to_tree(TrainConfig()))}


def test_the_reference_page_is_that_of_these_fields() -> None:
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == reference_page()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: 3\nsteps: 4\n", "line 2: not YAML .*'steps' is there twice"),
        ("steps: [1\n", "not YAML"),
        ("steps: 3\n? [a]\n: 1\n", "line 2: not YAML .*a list or mapping cannot be the name of a field"),
        ("{{a: 1}: 1}\n", "a list or mapping cannot be the name of a field"),
        ("- 3\n", "expected fields .*found list"),
        ("data: {folders: a:x}\n", "expected DIR or DIR:WEIGHT, found weight 'x'"),
    ],
)
def test_a_broken_file_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_config(path).data.weighted_folders()


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_sft_and_dpo_refuse_more_than_one_inner_step(objective: str) -> None:
    with pytest.raises(InputError, match=f"update.inner_steps 2: .*objective {objective} it must be 1"):
        with_set(f"objective={objective}", "update.inner_steps=2")


def test_a_missing_config_lists_the_recipes() -> None:
    with pytest.raises(InputError, match="--config nothing: neither a file nor a recipe"):
        find_config("nothing")


def test_data_folders_can_have_weights() -> None:
    assert DataSettings(folders=("a:2", "b/c", "d:0.5")).weighted_folders() == (("a", 2.0), ("b/c", 1.0), ("d", 0.5))
    with pytest.raises(InputError, match="must be above 0"):
        DataSettings(folders=("a:0",)).weighted_folders()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_config(path: Path) -> None:
    config = read_config(path)
    assert config != TrainConfig() and config_from(yaml.safe_load(to_yaml(config))) == config


def write_configs(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def test_a_config_has_the_fields_of_the_one_that_it_extends(tmp_path: Path) -> None:
    write_configs(
        tmp_path,
        base="steps: 7\ndata: {scenes: 2, questions: 3, folders: [x, y]}\nlora: {rank: 4}\n",
        middle="extends: base\ndata: {scenes: 6, folders: [z]}\n",
        last="extends: middle.yaml\nlora: null\nseed: 5\n",
    )
    config = read_config(tmp_path / "last.yaml", [("--steps", "steps", "9")])
    assert (config.steps, config.seed, config.lora) == (9, 5, None)
    assert (config.data.scenes, config.data.questions, config.data.folders) == (6, 3, ("z",))
    assert "extends" not in to_yaml(config) and config_from(yaml.safe_load(to_yaml(config))) == config


def test_extends_prefers_a_file_in_the_same_folder_and_takes_paths(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_configs(tmp_path / "mine", one="extends: vsgrpo-2b\n", two="extends: ../other\n")
    write_configs(tmp_path, other="steps: 3\n")
    assert read_config(tmp_path / "mine" / "one.yaml") == read_config(find_config("vsgrpo-2b"))
    assert read_config(tmp_path / "mine" / "two.yaml").steps == 3
    (tmp_path / "mine" / "vsgrpo-2b.yaml").write_text("steps: 4\n")
    assert read_config(tmp_path / "mine" / "one.yaml").steps == 4


def test_a_config_with_another_prompt_than_its_base_gets_the_prompts_token_budget(tmp_path: Path) -> None:
    write_configs(
        tmp_path,
        base="sampling: {answer_tokens: 9}\n",
        other="extends: base\ndata: {prompt: vsgrpo-think-train}\n",
        both="extends: base\ndata: {prompt: vsgrpo-think-train}\nsampling: {answer_tokens: 7}\n",
        last="extends: other\nsteps: 3\n",
    )
    tokens = {name: read_config(tmp_path / f"{name}.yaml").sampling.answer_tokens for name in ("other", "both", "last")}
    assert tokens == {"other": 256, "both": 7, "last": 256}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: mine\n", r"mine.yaml: extends itself: \S*mine.yaml extends \S*mine.yaml$"),
        ("extends: back\n", r"back.yaml: extends itself: \S*mine.yaml extends \S*back.yaml extends \S*mine.yaml$"),
        (
            "extends: vsgrpo-2\n",
            r"mine.yaml: extends 'vsgrpo-2': neither .* did you mean 'vsgrpo-2b'\? \(",
        ),
        ("extends: [vsgrpo-2b]\n", "mine.yaml: extends: expected the name of a recipe or a file, found"),
        ("extends: wrong\n", "wrong.yaml: unknown field 'stpes'"),
        ("extends: untyped\n", "untyped.yaml: steps: expected a whole number, found 'many'"),
        ("extends: vsgrpo-2b\ndata: {extends: vsgrpo-7b}\n", "mine.yaml: unknown field 'data.extends'"),
    ],
)
def test_a_base_config_that_cannot_be_read_is_refused_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    write_configs(tmp_path, mine=text, back="extends: mine\n", wrong="stpes: 3\n", untyped="steps: many\n")
    with pytest.raises(InputError, match=says) as error:
        read_config(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)


MODE = {"data.prompt", "sampling.answer_tokens", "rewards"}
SIZE = {"model.path", "optimizer.learning_rate"}
RELEASE = {"steps", "sampling.group", "sampling.top_p"}
RELEASE |= {"optimizer.schedule", "optimizer.weight_decay", "optimizer.clip_norm"}
SHORTER = {"steps", "data.folders", "data.scenes", "optimizer.schedule", "optimizer.warmup_steps"}
SHORTER |= {"intervals.checkpoint", "intervals.evaluate", "intervals.video_gain"}


@pytest.mark.parametrize(
    ("recipe", "base", "differs"),
    [
        ("vsgrpo-2b-think", "vsgrpo-2b", MODE),
        ("vsgrpo-2b-observe", "vsgrpo-2b", MODE),
        ("vsgrpo-7b", "vsgrpo-2b", SIZE),
        ("vsgrpo-7b-think", "vsgrpo-7b", MODE),
        ("vsgrpo-7b-observe", "vsgrpo-7b", MODE),
        ("vsgrpo-sft-7b", "vsgrpo-sft-2b", SIZE),
        ("vsgrpo-dpo-2b", "vsgrpo-sft-2b", {"objective"}),
        ("vsgrpo-dpo-7b", "vsgrpo-dpo-2b", SIZE),
        ("spatial-r1-7b-april", "spatial-r1-7b", RELEASE | MODE - {"rewards"}),
        ("spatial-r1-7b-staged", "spatial-r1-7b-april", {"steps", "data.question_types"}),
        ("rooms-2b", "vsgrpo-2b", SHORTER),
    ],
)
def test_related_recipes_differ_only_in_these_fields(recipe: str, base: str, differs: set[str]) -> None:
    one, other = (dict(flat_fields(to_tree(read_config(find_config(name))))) for name in (recipe, base))
    assert {field for field in one if one[field] != other[field]} == differs
