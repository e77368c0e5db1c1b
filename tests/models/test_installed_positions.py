"""What transformers does to positions, told apart: the installed version, and stand-ins for what other versions do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.installed_positions import position_differences
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions
from launch.convert import main

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
    if found[0].text_at == 20:
        pytest.skip("this version starts text as trained: docs/serving.md needs a new row")
    assert [(one.times, one.text_at) for one in found] == [(times, 12) for times in TRAINED]
    assert main(["positions"]) == 1
    printed = capsys.readouterr().out
    assert (
        printed.startswith(f"transformers {transformers.__version__}\n")
        and "text after it at 12 (trained: 20)" in printed
    )


def test_a_version_without_the_function_is_one_line():
    with pytest.raises(InputError, match="Qwen2VL: has no get_rope_index"):
        position_differences(lambda name: SimpleNamespace())
