"""Sampling on the tree: what is drawn, with which probability, and what is kept of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxvsr.errors import InputError
from jaxvsr.grpo import sampler
from jaxvsr.grpo.sampler import (
    SamplingOptions,
    allowed_logits,
    draw,
    inverse_cumulative,
    rollout_keys,
    sample,
    uniform_numbers,
)
from jaxvsr.models import qwen_vl
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import ForwardOptions, encode_vision, tree_logprobs
from jaxvsr.models.tree_batch import RolloutTokens
from tests.support.trees import VOCAB_SIZE, random_parameters, random_tree, small_config

OPTIONS = ForwardOptions()


@functools.cache
def _program(options: SamplingOptions, family, temperature, scanned):
    config = small_config(family)

    @jax.jit
    def program(parameters, prompt, question_keys, step):
        model = bind(model_definition(config), parameters)
        keys = rollout_keys(jnp.uint32(5), step, question_keys, options.group)
        out = sample(model, prompt, keys, jnp.float32(temperature), options, OPTIONS, scanned=scanned)
        scores, _ = tree_logprobs(model, prompt, out.rollouts, temperature, OPTIONS)
        return out, scores

    return program


def _sampled(
    options: SamplingOptions,
    *,
    family="qwen2_vl",
    scenes=2,
    questions=2,
    temperature=0.8,
    order=None,
    step=3,
    scanned=False,
):
    parameters = random_parameters(small_config(family), None, jnp.float32)
    question_keys = np.arange(scenes * questions, dtype=np.uint32).reshape(scenes, questions)
    scene = np.arange(scenes) if order is None else np.array(order)
    prompt, question_keys = jax.tree.map(
        lambda leaf: jnp.asarray(leaf[scene]), (random_tree(scenes, questions, 1).prompt, question_keys)
    )
    out, scores = _program(options, family, temperature, scanned)(parameters, prompt, question_keys, jnp.int32(step))
    mask = np.arange(options.answer_tokens) < np.asarray(out.rollouts.length)[..., None]
    return jax.device_get(out), np.asarray(scores), mask


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_kept_logprobs_equal_those_of_the_update(family):
    options = SamplingOptions(4, 7, eos_ids=tuple(range(0, 40)), top_k=30, suppressed_ids=(50, 51), top_p=0.95)
    out, scores, mask = _sampled(options, family=family)
    assert 0 < mask.mean() < 1  # some rollouts ended early, some did not
    np.testing.assert_allclose(out.logprobs[mask], scores[mask], rtol=0, atol=1e-5)
    assert (out.logprobs[~mask] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind"),
    [("qwen2_vl", {"top_k": 30}), ("qwen2_5_vl", {"greedy": True, "repetition_penalty": 1.5}), ("qwen3_vl", {})],
)
def test_layers_in_a_scan_draw_the_tokens_of_unrolled_layers(family, kind):
    options = SamplingOptions(4, 6, eos_ids=tuple(range(40)), **kind)
    unrolled, _, mask = _sampled(options, family=family)
    scanned, scores, _ = _sampled(options, family=family, scanned=True)
    np.testing.assert_array_equal(scanned.rollouts.tokens, unrolled.rollouts.tokens)
    np.testing.assert_array_equal(scanned.rollouts.length, unrolled.rollouts.length)
    np.testing.assert_allclose(scanned.logprobs[mask], scores[mask], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scanned", [False, True])
def test_keys_of_new_tokens_beside_those_of_their_question_draw_the_same_tokens(scanned, monkeypatch):
    options, calls = SamplingOptions(4, 6, eos_ids=tuple(range(40))), []
    apart, _, mask = _sampled(options)
    with_new_tokens = sampler._with_new_tokens

    def together(*segments):
        calls.append(segments)
        return with_new_tokens(*segments)

    monkeypatch.setattr(sampler, "_with_new_tokens", together)
    monkeypatch.setattr(sampler, "platform", lambda: "tpu")  # of the decode loop alone: attention is CPU's
    monkeypatch.setitem(globals(), "_program", _program.__wrapped__)  # not kept for other tests
    out, scores, _ = _sampled(options, scanned=scanned)
    assert calls
    np.testing.assert_array_equal(out.rollouts.tokens, apart.rollouts.tokens)
    np.testing.assert_allclose(out.logprobs[mask], scores[mask], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_rollouts_end_at_their_first_eos_also_where_it_is_the_pad_id():
    options = SamplingOptions(16, 6, eos_ids=tuple(range(60)), pad_id=3)
    out, _, mask = _sampled(options)
    ends = np.isin(out.rollouts.tokens, options.eos_ids) & mask
    last = np.arange(6) == out.rollouts.length[..., None] - 1
    assert (ends.sum(-1) <= 1).all() and (ends == (ends & last)).all()
    np.testing.assert_array_equal(out.truncated, ends.sum(-1) == 0)
    assert (out.rollouts.tokens[~mask] == 3).all()
    assert (out.rollouts.length == 1).any(), "an empty answer: the end comes first"


@pytest.mark.slow
@pytest.mark.parametrize("answer_tokens", [1, 2, 5])
def test_without_eos_every_rollout_has_its_full_length_and_keeps_its_logprobs(answer_tokens):
    out, scores, mask = _sampled(SamplingOptions(3, answer_tokens, eos_ids=()))
    assert mask.all() and out.truncated.all()
    np.testing.assert_allclose(out.logprobs, scores, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_draws_depend_on_the_question_and_not_on_its_place_in_the_batch():
    options = SamplingOptions(4, 6, eos_ids=(1, 2))
    first, _, _ = _sampled(options, scenes=3)
    moved, _, _ = _sampled(options, scenes=3, order=[2, 0, 1])
    np.testing.assert_array_equal(first.rollouts.tokens[[2, 0, 1]], moved.rollouts.tokens)
    later, _, _ = _sampled(options, scenes=3, step=4)
    assert (later.rollouts.tokens != first.rollouts.tokens).any()


@pytest.mark.slow
def test_rollouts_of_a_question_differ_and_suppressed_ids_are_never_drawn_but_keep_their_probability():
    suppressed = tuple(range(0, VOCAB_SIZE, 2))
    out, scores, mask = _sampled(SamplingOptions(8, 6, eos_ids=(), suppressed_ids=suppressed))
    assert not np.isin(out.rollouts.tokens[mask], suppressed).any()
    assert all(len({tuple(row) for row in group}) > 4 for group in out.rollouts.tokens.reshape(4, 8, 6))
    np.testing.assert_allclose(out.logprobs[mask], scores[mask], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_greedy_takes_the_likeliest_allowed_token():
    options = SamplingOptions(2, 5, eos_ids=(), greedy=True, suppressed_ids=(7,))
    out, _, _ = _sampled(options)
    np.testing.assert_array_equal(out.rollouts.tokens[:, :, 0], out.rollouts.tokens[:, :, 1])
    config = small_config("qwen2_vl")
    case = random_tree(2, 2, 1)
    prompt, _ = case.on_device
    model = bind(model_definition(config), random_parameters(config, None, jnp.float32))
    prompt = prompt.with_features(jax.jit(lambda prompt: encode_vision(model, prompt, OPTIONS))(prompt))
    chosen = RolloutTokens(jnp.asarray(out.rollouts.tokens[:, :, :1]), jnp.asarray(out.rollouts.length[:, :, :1]))
    score = jax.jit(lambda rollouts: tree_logprobs(model, prompt, rollouts, 1.0, OPTIONS)[0][..., 0])
    best = score(chosen)
    for candidate in set(range(0, VOCAB_SIZE, 5)) - set(options.suppressed_ids):  # no other first token is likelier
        first = np.array(chosen.tokens)
        first[..., 0] = candidate
        other = dataclasses.replace(chosen, tokens=jnp.asarray(first))
        assert (np.asarray(best) >= np.asarray(score(other))).all()


@pytest.mark.slow
def test_rollouts_follow_the_models_own_distribution_at_temperature_1():
    """First and second tokens of 4,000 rollouts of each question against the exact probabilities; false alarm 1e-6."""
    options = SamplingOptions(4000, 2, eos_ids=())
    out, _, _ = _sampled(options, scenes=1, temperature=1.0)
    config = small_config("qwen2_vl")
    prompt, _ = random_tree(1, 2, 1).on_device
    every_pair = np.stack(np.meshgrid(np.arange(VOCAB_SIZE), np.arange(VOCAB_SIZE), indexing="ij"), -1).reshape(
        1, 1, -1, 2
    )
    pairs = jnp.asarray(np.broadcast_to(every_pair, (1, 2, *every_pair.shape[2:])), jnp.int32)

    @jax.jit
    def exact(parameters):
        model = bind(model_definition(config), parameters)
        rollouts = RolloutTokens(pairs, jnp.full(pairs.shape[:3], 2))
        return tree_logprobs(model, prompt, rollouts, 1.0, OPTIONS)[0]

    joint = np.exp(np.asarray(exact(random_parameters(config, None, jnp.float32)), np.float64).sum(-1))
    joint = joint.reshape(2, VOCAB_SIZE, VOCAB_SIZE)
    np.testing.assert_allclose(joint.sum((1, 2)), 1, atol=1e-4)
    for question in range(2):
        for place, expected in enumerate((joint[question].sum(1), joint[question].sum(0))):
            counted = np.bincount(out.rollouts.tokens[0, question, :, place], minlength=VOCAB_SIZE)
            assert _chi_square(counted, expected / expected.sum()) > 1e-6 / 4


def _chi_square(counted, probability):
    """p-value; words that are expected fewer than ten times are counted together."""
    rare = probability * counted.sum() < 10
    counted = np.append(counted[~rare], counted[rare].sum())
    expected = np.append(probability[~rare], probability[rare].sum()) * counted.sum()
    assert (~rare).sum() >= 5
    return stats.chisquare(counted[expected > 0], expected[expected > 0]).pvalue


@pytest.mark.slow
def test_draws_follow_the_softmax():
    """Chi-square of 200,000 draws over 50 words at temperature 0.7; a correct sampler fails once in a million seeds."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(1, 50)) * 2, jnp.float32)
    keys = rollout_keys(jnp.uint32(1), jnp.int32(0), jnp.zeros((1, 1), jnp.uint32), 200_000)
    blocks, numbers = logits.reshape(1, 5, 10), uniform_numbers(keys, 1)[0, 0]
    tokens, _ = draw(blocks, numbers, jnp.float32(0.7), SamplingOptions(200_000, 1, ()))
    counts = np.bincount(np.asarray(tokens).ravel(), minlength=50)
    expected = np.asarray(jax.nn.softmax(logits.ravel() / 0.7), np.float64)
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-6


@pytest.mark.slow
def test_top_k_and_top_p_keep_the_most_likely_tokens():
    logits = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))

    def kept(**options):
        allowed = allowed_logits(logits.reshape(1, 2, 2), SamplingOptions(1, 1, (), **options))
        return np.isfinite(allowed).ravel().tolist()

    assert kept(top_k=2) == [True, True, False, False]
    assert kept(top_p=0.5) == [True, True, False, False]  # the word that crosses 0.5 stays
    assert kept(top_p=0.05) == [True, False, False, False]
    assert kept(top_p=1.0) == [True] * 4
    assert kept(top_p=0.6, suppressed_ids=(0,)) == [False, True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("blocks, width", [(1, 1), (1, 2), (17, 1), (25, 40)])
def test_inverse_cumulative_equals_a_plain_cumulative_sum(blocks, width):
    rng, size = np.random.default_rng(blocks * width), blocks * width
    weights = rng.random((200, size)) * (rng.random((200, size)) < 0.5)
    weights[:, rng.integers(size)] += 0.5
    uniform = rng.random((200, 3))
    with np.errstate(divide="ignore"):
        logits = np.log(weights).reshape(200, blocks, width)
    with jax.enable_x64(True):
        tokens, chosen = jax.device_get(inverse_cumulative(jnp.asarray(logits), jnp.asarray(uniform)))
    rising = np.cumsum(weights, axis=1)[:, None]
    np.testing.assert_array_equal(tokens, (rising <= (uniform * rising[..., -1])[..., None]).sum(axis=-1))
    np.testing.assert_array_equal(chosen, np.take_along_axis(logits.reshape(200, size), tokens, axis=1))
    edges = jnp.array([[0.0, 1.0 - 2.0**-24]])
    for row, weight in zip(logits[:20], weights, strict=False):  # float32, at both ends of the unit interval
        ends, _ = inverse_cumulative(jnp.asarray(row[None], jnp.float32), edges)
        assert (weight[np.asarray(ends)] > 0).all()


@pytest.mark.parametrize("size, blocks", [(256, 2), (300, 3), (96, 1)])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_in_blocks_are_the_logits_on_every_platform(monkeypatch, size, blocks, tied):
    small = small_config("qwen2_vl", tied=tied)
    config = dataclasses.replace(small, text=dataclasses.replace(small.text, vocab_size=size))
    model = bind(model_definition(config), random_parameters(config, None, jnp.float32))
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(5, config.text.hidden_size)), jnp.float32)
    expected = np.asarray(model.logits(hidden))
    for platform in ("cpu", "tpu"):
        monkeypatch.setattr(qwen_vl, "platform", lambda platform=platform: platform)
        cut = np.asarray(model.logits_in_blocks(hidden, model.head(jnp.dtype(jnp.float32))))
        assert cut.shape == (5, blocks, 128) and (cut.reshape(5, -1)[:, size:] == -np.inf).all()
        np.testing.assert_allclose(cut.reshape(5, -1)[:, :size], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("n, with_seen", [(1, False), (3, False), (1, True), (3, True)])
def test_greedy_takes_the_likeliest_token_also_where_tokens_of_the_answer_are_punished(n, with_seen):
    rng = np.random.default_rng(n)
    logits = rng.normal(size=(4, 20)).astype(np.float32)
    options = SamplingOptions(
        n, 1, (), greedy=True, suppressed_ids=(3, 99), repetition_penalty=1.5 if with_seen else 1.0
    )
    seen = rng.random((4 * n, 20)) < 0.4 if with_seen else None
    blocks = jnp.pad(jnp.asarray(logits), [(0, 0), (0, 4)], constant_values=-jnp.inf).reshape(4, 3, 8)
    given = None if seen is None else jnp.asarray(seen)
    tokens, chosen = draw(blocks, jnp.zeros((4, n)), jnp.float32(0.5), options, given)
    rows = np.repeat(logits / 0.5, n, axis=0)
    wanted = rows if seen is None else np.where(seen, np.where(rows < 0, rows * 1.5, rows / 1.5), rows)
    wanted = np.where(np.arange(20) == 3, -np.inf, wanted)
    best = wanted.argmax(axis=1)
    np.testing.assert_array_equal(np.asarray(tokens).ravel(), best)
    softmax = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(np.asarray(chosen).ravel(), softmax[np.arange(4 * n), best], atol=1e-5)


def test_impossible_options_are_refused():
    with pytest.raises(InputError, match="top_p 0"):
        SamplingOptions(1, 1, (), top_p=0.0)
    with pytest.raises(InputError, match="answer_tokens 0"):
        SamplingOptions(1, 0, ())
