"""There and back: our reward and adapter in TRL's GRPOTrainer, and what it trained read here (docs/trl.md)."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.huggingface.peft_adapter import load_adapter, save_adapter
from jaxvsr.models.huggingface.stages import merged_weights
from jaxvsr.models.huggingface.write_model_folder import save_folder
from jaxvsr.models.lora import LoraConfig
from jaxvsr.rewards.registry import REWARDS
from jaxvsr.rewards.trl import for_trl
from jaxvsr.rewards.vsi_bench import vsi_bench
from jaxvsr.runs.named_models import ROOMS_BASE, named_folder
from tests.support.models import random_adapter

PAGE = Path(__file__).parents[2] / "docs" / "trl.md"
MESSAGES = [
    [{"role": "assistant", "content": "4"}],
    [{"role": "assistant", "content": [{"type": "text", "text": "3"}]}],
]


def test_completions_are_texts_or_messages():
    columns = {"answer": ["4", "4"], "answer_kind": ["number", "number"], "prompts": [None, None]}
    reward = for_trl(vsi_bench)
    assert reward(MESSAGES, **columns) == reward(completions=["4", "3"], **columns) == vsi_bench(["4", "3"], **columns)
    assert reward.__name__ == "vsi_bench"


def logits(model):
    """In float64: where attention is sharp, merged weights and an adapter differ by float32's rounding, up to 2e-4."""
    with torch.no_grad():
        return model.double()(input_ids=torch.arange(5, 25)[None]).logits.numpy()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TRL's, transformers' and PEFT's about each other
def test_the_code_of_the_page_trains_our_adapter_with_our_reward_and_it_is_read_here(
    data_folder, tmp_path, monkeypatch
):
    """One step, on the shipped model in float32."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "base"
    save_folder(folder, open_folder(named_folder(ROOMS_BASE)), dtype="float32")
    base = open_folder(folder)
    start = random_adapter(base.config, LoraConfig(4, 8.0, ("q_proj", "v_proj")))
    save_adapter(tmp_path / "adapter", start, base.config, str(folder), processor=folder)
    called = []

    def recorded(completions, *, answer, answer_kind, **columns):
        called.append((completions, answer, answer_kind))
        return [float(len(set(text))) + index % 2 for index, text in enumerate(completions)]  # differs in every group

    monkeypatch.setitem(REWARDS, "vsi_bench", recorded)
    small = {
        '"data/mine"': repr(str(data_folder)),
        ", 8\n": ", 2\n",
        '"BASE"': repr(str(folder)),
        '"trl", max_steps=100, num_generations=8': '"trl", max_steps=1, num_generations=4, use_cpu=True, bf16=False',
        "learning_rate=1e-5": "learning_rate=1e-2, report_to=[]",
    }
    for there, here in small.items():
        assert there in code, there
        code = code.replace(there, here)
    names: dict = {}
    exec(code, names)

    completions, answers, kinds = called[0]
    assert len(called) == 1 and len(completions) == 8
    assert all(isinstance(text, str) for text in completions) and any(completions)
    assert set(answers) == {"1"} and set(kinds) == {"number"}

    adapter = load_adapter(tmp_path / "trained-in-trl", base.config)
    assert adapter.modules == start.modules and adapter.lora.alpha == 8
    save_folder(tmp_path / "merged", base, merged_weights(base, [adapter]))
    here = logits(AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval())
    there = logits(names["trainer"].model.eval())
    np.testing.assert_allclose(here, there, atol=1e-4 * np.abs(there).max())
    save_folder(tmp_path / "before", base, merged_weights(base, [start]))
    before = logits(AutoModelForImageTextToText.from_pretrained(tmp_path / "before").eval())
    assert np.abs(here - before).max() > 1e-2 * np.abs(there).max()  # one step was taken from our adapter
    assert (
        np.abs(here - before).max() < np.abs(before - logits(AutoModelForImageTextToText.from_pretrained(folder))).max()
    )
