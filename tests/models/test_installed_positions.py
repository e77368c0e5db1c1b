"""What transformers does to positions, told apart: the installed version, and stand-ins for what other versions do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from jaxvsr.devices.mesh import open_mesh
from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.greedy import GreedyModel
from jaxvsr.models.huggingface.hf_config import config_json
from jaxvsr.models.huggingface.installed_positions import position_differences
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.huggingface.trained_positions import patch_code, patch_transformers
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions
from jaxvsr.models.inputs.processor import ScenePrompt, Video
from jaxvsr.models.tiny.tiny_model import TinyShape
from jaxvsr.runs.model_source import open_model
from launch.convert import main
from tests.support.hf_processor import hugging_face_inputs

TRAINED = [tuple(range(16)), (0, 15, 30, 45, 60, 75, 90, 105)]


def stand_in(change):
    """Classes whose positions are the trained rule's, but for `change(positions, seconds) -> (positions, seconds)`."""

    def class_of(name):
        shape = "qwen2.5-vl-3b" if "2_5" in name else "qwen2-vl-2b"

        def get_rope_index(self, input_ids, video_grid_thw, second_per_grid_ts):
            seconds, finish = change(float(second_per_grid_ts[0]))
            grid = MediaGrid(*video_grid_thw[0].tolist(), True, seconds)
            positions, _ = mrope_positions(input_ids[0].numpy().astype(np.int32), [grid], PUBLISHED[shape])
            return torch.tensor(finish(positions)).T[:, None], None

        return SimpleNamespace(get_rope_index=get_rope_index)

    return class_of


def test_the_rule_of_training_differs_in_nothing():
    found = position_differences(stand_in(lambda seconds: (seconds, lambda positions: positions)))
    assert [one.times for one in found] == TRAINED and all(one.as_trained for one in found)
    assert [one.text_at for one in found] == [20, 110]
    assert "as trained" in found[0].to_text() and "trained:" not in found[0].to_text()


def test_whole_seconds_are_told_apart():
    first, second = position_differences(stand_in(lambda seconds: (float(int(seconds)), lambda positions: positions)))
    assert first.as_trained and not second.as_trained
    assert second.times[:3] == (0, 14, 28) and (second.text_at, second.trained_text_at) == (103, 110)
    assert "times 0, 14, 28, 42, … (trained: 0, 15, 30, 45, …)" in second.to_text()


def test_one_time_for_all_and_another_order_are_told_apart():
    def finish(positions):
        positions[4:-4, 0] = 4
        positions[4:-4] = positions[4:-4][::-1]
        return positions

    for one in position_differences(stand_in(lambda seconds: (seconds, finish))):
        assert set(one.times) == {0} and not one.places_as_trained


@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="the table has these rows for 5.18 and later")
def test_the_installed_version_does_what_the_table_says(capsys):
    found = position_differences()
    assert found[0].text_at != 20, "this version starts text as trained: docs/serving.md needs a new row"
    assert [(one.times, one.text_at) for one in found] == [(times, 12) for times in TRAINED]
    assert main(["positions"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(f"transformers {transformers.__version__}\n")
    assert "text after it at 12 (trained: 20)" in printed and "jaxvsr.patch_transformers(model)" in printed


@pytest.mark.parametrize("shape", ["qwen2-vl-2b", "qwen2.5-vl-3b"])
def test_a_patched_model_has_the_trained_positions(shape):
    config = PUBLISHED[shape]
    prefix = "Qwen2VL" if shape == "qwen2-vl-2b" else "Qwen2_5_VL"
    with torch.device("meta"):  # without memory: only its positions are asked for
        model = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")(**config_json(config)))
    names: dict[str, object] = {}
    exec(patch_code(), names)  # as it stands in the card of an export
    assert names["patch_transformers"](model) is model
    media = [MediaGrid(8, 4, 6, True, 3.75), MediaGrid(1, 6, 4, False), MediaGrid(5, 4, 4, True, 0.4)]
    text, lines = [7] * 3, []
    for grids in (media, media[2:]):
        tokens = list(text)
        for grid in grids:
            tokens += [config.video_token_id if grid.is_video else config.image_token_id] * (
                grid.time * grid.height * grid.width // 4
            )
            tokens += text
        lines.append((tokens, grids))
    longest = max(len(tokens) for tokens, _ in lines)
    padded = torch.tensor([[0] * (longest - len(tokens)) + tokens for tokens, _ in lines])
    mask = torch.tensor([[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens, _ in lines])
    every = [grid for _, grids in lines for grid in grids]

    def sizes(is_video):
        return torch.tensor([[one.time, one.height, one.width] for one in every if one.is_video == is_video])

    seconds = torch.tensor([grid.seconds_per_patch for grid in every if grid.is_video])
    found, deltas = model.get_rope_index(
        padded, attention_mask=mask, image_grid_thw=sizes(False), video_grid_thw=sizes(True), second_per_grid_ts=seconds
    )
    for row, (tokens, grids) in enumerate(lines):
        ours, following = mrope_positions(np.array(tokens, np.int32), grids, config)
        np.testing.assert_array_equal(found[:, row, mask[row].bool()].T, ours)
        assert int(deltas[row]) == following - len(tokens)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_a_patched_model_generates_our_answers_about_long_videos(family, tiny_model):
    folder = tiny_model(family, TinyShape(), seed=1)
    ours = GreedyModel(open_model(str(folder)), open_mesh("cpu", "1")[0], answer_tokens=12)
    rng = np.random.default_rng(0)
    videos = [Video(rng.integers(0, 256, (20, 56, 56, 3), dtype=np.uint8), np.arange(20) * 2.0) for _ in range(3)]
    asked = [(video, f"How many {thing} are there?") for video in videos for thing in ("chairs", "tables", "sofas")]
    expected = [ours.answer([ours.processor.encode(ScenePrompt((video,), (text,)))])[0][0] for video, text in asked]

    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    text_of, never = ours.processor.chat.text, list(ours.processor.chat.suppressed_token_ids)

    def theirs():
        said = []
        for video, question in asked:
            inputs = hugging_face_inputs(folder, (video,), question)
            tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}
            if "second_per_grid_ts" in tensors:  # of two frames, by their distance and not by the video's length
                tensors["second_per_grid_ts"] = torch.tensor([4.0])
            answer = model.generate(**tensors, max_new_tokens=12, do_sample=False, suppress_tokens=never)
            said.append(text_of(answer[0, tensors["input_ids"].shape[1] :].numpy().astype(np.int32)))
        return said

    assert theirs() != expected
    patch_transformers(model)
    assert theirs() == expected and len(set(expected)) > 2


def test_a_version_without_the_function_is_one_line():
    with pytest.raises(InputError, match="Qwen2VL: has no get_rope_index"):
        position_differences(lambda name: SimpleNamespace())
