"""The base model's first lesson: it teaches the layers that look, and no others."""

import re
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.training.looking import Lesson, teach_to_look
from launch import build_data
from launch.teach_to_look import main
from tests.support.models import DEEP


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_rooms(root, scenes=4, seed=1, frames=4, size=(56, 56))
    assert build_data.main(["frames", str(root), str(root), "--frames", "4", "--max-pixels", "3136"]) == 0
    asked = ("questions", str(root), str(root), "--recipe", "rooms", "--set", "per_task=1", "--heldout", "0.25")
    assert build_data.main(list(asked)) == 0
    return root


def weights(folder: Path) -> dict[str, np.ndarray]:
    model = open_folder(folder)
    return {name: np.asarray(model.read(name)) for name in parameter_shapes(model.config)}


@pytest.mark.slow
def test_layers_that_look_learn_and_the_others_stay_as_they_were(data, tiny_model, tmp_path, capsys):
    model, out = tiny_model("qwen2_vl", DEEP), tmp_path / "looks"
    assert main([str(model), str(data), str(out), "--steps", "100", "--scenes", "3", "--layers", "1",
                 "--frames", "4", "--learning-rate", "0.01"]) == 0  # fmt: skip
    shares = [int(share) for share in re.findall(r"category (\d+) %", capsys.readouterr().out)]
    assert len(shares) == 4 and shares[-1] > max(50, shares[0]), "three rooms are soon known by heart"
    before, after = weights(model), weights(out)
    for name, old in before.items():
        if name.startswith("language_model.layers"):
            assert not np.array_equal(old[0], after[name][0]) or "norm" in name, name
            np.testing.assert_array_equal(old[1], after[name][1], err_msg=name)
    assert not np.array_equal(before["visual.patch_embed.proj.weight"], after["visual.patch_embed.proj.weight"])


def test_a_model_without_layers_that_answer_is_refused(data, tiny_model, tmp_path):
    with pytest.raises(InputError, match=r"2 layers that look: .* has 2, and some must be left to answer"):
        teach_to_look(tiny_model("qwen2_vl", DEEP), data, tmp_path / "out", Lesson(layers=2), print)
