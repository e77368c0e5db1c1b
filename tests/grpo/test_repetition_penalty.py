"""The repetition penalty against transformers: its logits processor, and `generate` on the same folder and image."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from jaxvsr.devices.mesh import open_mesh
from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.greedy import GreedyModel
from jaxvsr.grpo.repetition_penalty import penalise_seen, seen_tokens
from jaxvsr.grpo.sampler import SamplingOptions
from jaxvsr.models.inputs.processor import Image, ScenePrompt
from jaxvsr.models.model_config import VisionConfig
from jaxvsr.runs.model_source import open_model
from tests.support.models import DEEP
from tests.support.trees import random_tree

THEIRS = {"qwen2_vl": Qwen2VLForConditionalGeneration, "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration}
TOKENS = 16


def test_penalised_logits_equal_transformers_processor():
    rng = np.random.default_rng(0)
    for penalty in (1.05, 2.0, 0.7):
        logits = rng.normal(size=(4, 50)).astype(np.float32)
        said = rng.integers(0, 50, (4, 20))
        seen = np.zeros((4, 50), bool)
        seen[np.arange(4)[:, None], said] = True
        expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(said), torch.tensor(logits))
        found = penalise_seen(jnp.asarray(logits), jnp.asarray(seen), penalty)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)
        assert (np.asarray(found) != logits).any()


@pytest.mark.slow
def test_seen_tokens_are_those_before_the_lengths():
    prompt = random_tree(2, 3, 1).prompt
    found = np.asarray(seen_tokens(jax.tree.map(jnp.asarray, prompt), 96))
    for s, q in np.ndindex(2, 3):
        scene = prompt.scene_tokens[s, : prompt.scene_length[s]]
        question = prompt.question_tokens[s, q, : prompt.question_length[s, q]]
        assert set(np.flatnonzero(found[s, q])) == {*scene.tolist(), *question.tolist()}


def test_a_repetition_penalty_is_only_for_greedy_answers():
    with pytest.raises(InputError, match=r"repetition_penalty 1\.05 must be positive, and 1 unless greedy"):
        SamplingOptions(1, 1, (), repetition_penalty=1.05)
    with pytest.raises(InputError, match="must be positive"):
        SamplingOptions(1, 1, (), greedy=True, repetition_penalty=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "penalty"), [("qwen2_vl", 1.5), ("qwen2_5_vl", 1.05)])
def test_greedy_tokens_equal_transformers_generate_with_the_folders_penalty(family, penalty, tiny_model, tmp_path):
    """On an image, one row of time: both rules of where text positions start give the same. It is one window."""
    folder = tmp_path / family
    shutil.copytree(tiny_model(family, DEEP, seed=3), folder)
    (folder / "SHA256SUMS").unlink()  # of the folder as it was
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": penalty}))
    pixels = np.random.default_rng(1).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    asked = ("How many chairs are in this room?", "Which of these objects is the closest to the table?")
    model = GreedyModel(open_model(str(folder)), open_mesh("cpu", "1")[0], answer_tokens=TOKENS)
    encoded = model.processor.encode(ScenePrompt((Image(pixels),), asked))
    answers = model.answer([encoded])[0]
    assert model.repetition_penalty == penalty

    theirs = THEIRS[family].from_pretrained(folder, attn_implementation="eager").float().eval()
    mean, std = (torch.tensor(values).reshape(1, 3, 1) for values in (VisionConfig.pixel_mean, VisionConfig.pixel_std))
    patches = encoded.patches[0][0]
    values = (torch.tensor(patches).reshape(len(patches), 3, -1) / 255 - mean) / std

    def generated(question, **options):
        tokens = torch.tensor(np.concatenate([encoded.tokens, question])[None].astype(np.int64))
        with torch.no_grad():
            said = theirs.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                mm_token_type_ids=(tokens == model.processor.config.image_token_id).int(),
                pixel_values=values.reshape(len(patches), -1),
                image_grid_thw=torch.tensor([[1, 4, 4]]),
                max_new_tokens=TOKENS,
                do_sample=False,
                suppress_tokens=list(model.processor.chat.suppressed_token_ids),
                **options,
            )
        return model.processor.chat.text(said[0, tokens.shape[1] :].numpy().astype(np.int32))

    assert [generated(question) for question in encoded.questions] == answers  # the folder's own penalty
    if penalty == 1.5:
        without = [generated(question, repetition_penalty=1.0) for question in encoded.questions]
        assert without != answers, "a penalty that changes nothing shows nothing"
