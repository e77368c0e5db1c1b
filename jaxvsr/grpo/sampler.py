"""Sampling on the scene tree: scene and questions prefilled once, then all S·Q·G rollouts decoded together.

Random numbers belong to (seed, step, question, rollout, token): not to a device, a process or a place in the batch. A
token is drawn by one uniform number and a cumulative sum of two levels, which costs a small fraction of a Gumbel draw
over a large vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int32, UInt32

from jaxvsr.errors import InputError
from jaxvsr.grpo.repetition_penalty import penalise_seen, seen_tokens
from jaxvsr.models.attention import KeyValueSegment, attend
from jaxvsr.models.language import DecoderLayer
from jaxvsr.models.qwen_vl import QwenVL, in_blocks
from jaxvsr.models.sharding import platform, split
from jaxvsr.models.tree import (
    ForwardOptions,
    PromptCache,
    question_visible,
    rollout_positions,
    scene_visible,
    tree_hidden,
)
from jaxvsr.models.tree_batch import AnyArray, RolloutTokens, TreePrompt


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """What a draw may be. Log-probabilities are always those of the full softmax at the temperature."""

    group: int  # G, rollouts a question
    answer_tokens: int  # R, tokens a rollout may have, its end-of-sequence token included
    eos_ids: tuple[int, ...]  # generation_config's; none: every rollout runs to its full length
    pad_id: int = 0  # stands behind a rollout's end; never read
    suppressed_ids: tuple[int, ...] = ()  # never drawn: vision tokens, <|im_start|>, vocabulary rows without a token
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    greedy: bool = False
    repetition_penalty: float = 1.0  # of greedy answers alone; 1: off

    def __post_init__(self) -> None:
        if self.group < 1 or self.answer_tokens < 1:
            raise InputError(f"sampling: group {self.group} and answer_tokens {self.answer_tokens} must be at least 1")
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise InputError(f"sampling: top_p {self.top_p} must be in (0, 1] and top_k {self.top_k} at least 0")
        if self.repetition_penalty <= 0 or (self.repetition_penalty != 1 and not self.greedy):
            raise InputError(
                f"sampling: repetition_penalty {self.repetition_penalty} must be positive, and 1 unless greedy is true"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampled:
    """G rollouts of every question with the log-probability of each token when it was drawn (0 behind the end)."""

    rollouts: RolloutTokens
    logprobs: Float[AnyArray, "S Q G R"]
    truncated: Bool[AnyArray, "S Q G"]  # ran to its full length without an end-of-sequence token


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _DecodeState:
    step: Int32[Array, ""]  # tokens drawn so far
    tokens: Int32[Array, "S Q G R"]
    logprobs: Float[Array, "S Q G R"]
    done: Bool[Array, "S Q G"]
    length: Int32[Array, "S Q G"]
    own: Any  # keys and values of the rollouts: a pair [S, K, Q, G, R - 2, D] a layer, or stacked [layers, …]
    seen: Bool[Array, "SQG vocab"] | None  # tokens of prompt and rollout so far; only a repetition penalty needs them


def rollout_keys(
    seed: UInt32[Array, ""], step: Int[Array, ""], question_keys: UInt32[Array, "S Q"], group: int
) -> Array:
    """One random key a rollout, [S, Q, G], from (seed, step, question, rollout)."""
    base = jax.random.fold_in(jax.random.key(seed), step)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    questions = fold(base, question_keys.reshape(-1))
    rollouts = jax.vmap(fold, in_axes=(0, None))(questions, jnp.arange(group))
    return rollouts.reshape(*question_keys.shape, group)


def allowed_logits(
    logits: Float[Array, "rows blocks width"], options: SamplingOptions
) -> Float[Array, "rows blocks width"]:
    """Logits with -inf where a draw is not allowed: suppressed ids, then top-k, then top-p (the nucleus keeps the token
    that crosses `top_p`, and always the likeliest)."""
    if options.suppressed_ids:
        suppressed = np.isin(np.arange(logits[0].size), options.suppressed_ids).reshape(logits.shape[1:])
        logits = jnp.where(suppressed, -jnp.inf, logits)
    if not options.top_k and options.top_p == 1:
        return logits
    flat = logits.reshape(len(logits), -1)
    if options.top_k:
        kept = min(options.top_k, flat.shape[-1])
        flat = jnp.where(flat >= jax.lax.top_k(flat, kept)[0][..., -1:], flat, -jnp.inf)
    if options.top_p < 1:
        falling = -jnp.sort(-flat, axis=-1)
        mass = jax.nn.softmax(falling, axis=-1)
        inside = jnp.cumsum(mass, axis=-1) - mass < options.top_p
        floor = jnp.min(jnp.where(inside, falling, jnp.inf), axis=-1, keepdims=True)
        flat = jnp.where(flat >= floor, flat, -jnp.inf)
    return flat.reshape(logits.shape)


def inverse_cumulative(
    logits: Float[Array, "rows blocks width"], uniform: Float[Array, "rows n"]
) -> tuple[Int32[Array, "rows n"], Float[Array, "rows n"]]:
    """The first token at which the cumulative sum of the softmax's weights exceeds `uniform` times their total, and its
    logit.

    Two levels (blocks, then places inside one block) need two short sums instead of one over the whole vocabulary. A
    token of weight 0 is never returned.
    """

    def search(rising: Array, target: Array) -> tuple[Array, Array]:
        """First index whose cumulative mass exceeds target; what is left of the target inside it."""
        # Rounding must not carry the target past the last positive weight.
        target = jnp.minimum(target, jnp.nextafter(rising[..., -1], jnp.zeros((), rising.dtype)))
        index = jnp.sum(rising <= target[..., None], axis=-1)
        before = jnp.where(index > 0, jnp.take_along_axis(rising, jnp.maximum(index - 1, 0)[..., None], -1)[..., 0], 0)
        return index, target - before

    top = jnp.max(logits, axis=(1, 2), keepdims=True)
    sums = jnp.sum(jnp.exp(logits - top), axis=-1)
    total, rising = jnp.sum(sums, axis=-1, keepdims=True), jnp.cumsum(sums, axis=-1)
    block, rest = search(jnp.broadcast_to(rising[:, None], (*uniform.shape, rising.shape[-1])), uniform * total)
    inside = jnp.take_along_axis(logits, block[..., None], axis=1)
    place, _ = search(jnp.cumsum(jnp.exp(inside - top), axis=-1), rest)
    chosen = jnp.take_along_axis(inside, place[..., None], axis=-1)[..., 0]
    return (block * logits.shape[-1] + place).astype(jnp.int32), chosen


def uniform_numbers(keys: Array, count: int) -> Float[Array, "count S Q G"]:
    """One number in [0, 1) for each of `count` tokens of every rollout, from (key, token)."""
    tokens = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(0, None)), in_axes=(None, 0))
    drawn = jax.vmap(jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32)))
    return drawn(tokens(keys.reshape(-1), jnp.arange(count))).reshape(count, *keys.shape)


@jax.named_scope("draw")
def draw(
    logits: Float[Array, "rows blocks width"],
    uniform: Float[Array, "rows n"],
    temperature: Float[Array, ""],
    options: SamplingOptions,
    seen: Bool[Array, "rows_n vocab"] | None = None,
) -> tuple[Int32[Array, "rows n"], Float[Array, "rows n"]]:
    """Draw n tokens of each row, with their log-probabilities under the full softmax at `temperature`.

    A row is a question where its first tokens are drawn (n = G), and a rollout afterwards (n = 1). `logits` are
    `QwenVL.logits_in_blocks`. `seen`: `penalise_seen`, one for each token; of greedy answers alone.
    """
    scaled = logits / temperature.astype(logits.dtype)
    top = jnp.max(scaled, axis=(1, 2), keepdims=True)
    normaliser = jnp.log(jnp.sum(jnp.exp(scaled - top), axis=(1, 2))) + top[:, 0, 0]
    if not options.greedy:
        tokens, chosen = inverse_cumulative(allowed_logits(scaled, options), uniform.astype(scaled.dtype))
        return tokens, chosen - normaliser[:, None]

    wanted = scaled
    if seen is not None:  # a row for each token then
        scaled, normaliser = (jnp.repeat(part, uniform.shape[1], axis=0) for part in (scaled, normaliser))
        wanted = penalise_seen(scaled, in_blocks(seen, scaled.shape[-1], False), options.repetition_penalty)
    allowed = allowed_logits(wanted, options)
    block = jnp.argmax(jnp.max(allowed, axis=-1), axis=-1)[:, None]
    inside, chosen = (jnp.take_along_axis(part, block[..., None], axis=1)[:, 0] for part in (allowed, scaled))
    place = jnp.argmax(inside, axis=-1)[:, None]
    chosen = jnp.take_along_axis(chosen, place, axis=-1) - normaliser[:, None]
    tokens = (block * logits.shape[-1] + place).astype(jnp.int32)
    tokens, chosen = (jnp.broadcast_to(part.reshape(len(uniform), -1), uniform.shape) for part in (tokens, chosen))
    return tokens, chosen


def sample(
    model: QwenVL,
    prompt: TreePrompt,
    keys: Array,
    temperature: Float[Array, ""],
    sampling: SamplingOptions,
    forward: ForwardOptions,
    *,
    scanned: bool = False,
) -> Sampled:
    """Decode G rollouts of every question; `keys` is `rollout_keys(…)`, `scanned` that of a `DecodePlan`."""
    with jax.named_scope("prefill"):
        question_hidden, _, cache = tree_hidden(model, prompt, None, forward)
    assert cache is not None
    with jax.named_scope("decode"):
        return decode(model, prompt, question_hidden, cache, keys, temperature, sampling, forward, scanned=scanned)


def decode(
    model: QwenVL,
    prompt: TreePrompt,
    question_hidden: Float[Array, "S Q H"],
    cache: PromptCache,
    keys: Array,
    temperature: Float[Array, ""],
    sampling: SamplingOptions,
    forward: ForwardOptions,
    *,
    scanned: bool = False,
) -> Sampled:
    """One `while_loop` until every rollout has ended, against the shared keys and values plus the rollouts' own."""
    scenes, questions = prompt.question_tokens.shape[:2]
    shape = (scenes, questions, sampling.group, sampling.answer_tokens)
    text, dtype = model.config.text, forward.compute_dtype
    own_shape = (scenes, text.num_key_value_heads, *shape[1:3], max(sampling.answer_tokens - 2, 1), text.head_dim)
    through_layers = (_scanned if scanned else _unrolled)(model, prompt, cache)
    head, eos = model.head(dtype), jnp.array(sampling.eos_ids, jnp.int32)
    table = head if text.tie_word_embeddings else None
    uniform = uniform_numbers(keys, 1 if sampling.greedy else sampling.answer_tokens)

    def record(state: _DecodeState, logits: Array) -> _DecodeState:
        """Draw the next token of every rollout that has not ended; `logits` has a row for each of them, or for each
        question."""
        number = uniform[0] if sampling.greedy else jax.lax.dynamic_index_in_dim(uniform, state.step, keepdims=False)
        drawn = draw(logits, number.reshape(len(logits), -1), temperature, sampling, state.seen)
        token, logprob = (part.reshape(number.shape) for part in drawn)
        seen = None if state.seen is None else state.seen | (jnp.arange(text.vocab_size) == token.reshape(-1, 1))
        token = jnp.where(state.done, sampling.pad_id, token)
        logprob = jnp.where(state.done, 0, logprob)
        ended = jnp.any(token[..., None] == eos, axis=-1)
        return dataclasses.replace(
            state,
            step=state.step + 1,
            tokens=jax.lax.dynamic_update_index_in_dim(state.tokens, token, state.step, axis=3),
            logprobs=jax.lax.dynamic_update_index_in_dim(state.logprobs, logprob, state.step, axis=3),
            length=jnp.where(state.done, state.length, state.step + 1),
            done=state.done | ended,
            seen=seen,
        )

    def advance(state: _DecodeState) -> _DecodeState:
        """Feed the last token of every rollout and draw the next."""
        fed = state.step - 1
        last = jax.lax.dynamic_index_in_dim(state.tokens, fed, axis=3, keepdims=False)
        positions = rollout_positions(prompt, fed, 1)[..., None]  # [S, Q, 1, 1]
        positions = jnp.broadcast_to(positions, (*last.shape, 3)).reshape(scenes, -1, 3)
        rotary = model.language_model.rotary(positions, dtype)
        x = model.language_model.embed(last, dtype, table).reshape(scenes, questions * sampling.group, -1)
        x, new = through_layers(x, rotary, state.own, fed)
        logits = model.logits_in_blocks(x.reshape(-1, x.shape[-1]), head)
        return record(dataclasses.replace(state, own=_grown(state.own, new, fed)), logits)

    first_logits = model.logits_in_blocks(question_hidden.reshape(scenes * questions, -1), head)
    seen = None
    if sampling.repetition_penalty != 1:
        seen = seen_tokens(prompt, text.vocab_size).reshape(-1, text.vocab_size)
        seen = jnp.repeat(seen, sampling.group, axis=0)
    start = _DecodeState(
        step=jnp.zeros((), jnp.int32),
        tokens=jnp.full(shape, sampling.pad_id, jnp.int32),
        logprobs=jnp.zeros(shape, jnp.promote_types(dtype, jnp.float32)),
        done=jnp.zeros(shape[:3], bool),
        length=jnp.zeros(shape[:3], jnp.int32),
        own=_empty(own_shape, dtype, text.num_hidden_layers, scanned),
        seen=seen,
    )
    first = record(start, first_logits)
    state = first
    if sampling.answer_tokens > 1:
        state = jax.lax.while_loop(
            lambda state: (state.step < sampling.answer_tokens) & ~jnp.all(state.done), advance, first
        )
    return Sampled(RolloutTokens(state.tokens, state.length), state.logprobs, ~state.done)


# One new token a rollout through all layers: its hidden states [S, QG, H], its rotary pairs, the rollouts' caches and
# how many tokens are in them -> hidden states, and its keys and values [S, K, Q, G, 1, D] in the caches' structure.
ThroughLayers = Callable[[Array, tuple[Array, Array], Any, Int[Array, ""]], tuple[Array, Any]]


def _unrolled(model: QwenVL, prompt: TreePrompt, cache: PromptCache) -> ThroughLayers:
    """Layer after layer; their weights are cut out of the stack here, before the loop of tokens: without the barrier
    XLA brings norms and biases into the shape of one layer anew for every token."""
    definition, weights = nnx.split(model.language_model.unstacked_layers())
    layers = nnx.merge(definition, jax.lax.optimization_barrier(weights))
    shared = [
        _shared(prompt, jax.tree.map(lambda leaf, index=index: leaf[index], _leaves(cache)))
        for index in range(len(layers))
    ]

    def through(x: Array, rotary: tuple[Array, Array], own: Any, position: Array) -> tuple[Array, Any]:
        new = []
        for layer, segments, cached in zip(layers, shared, own, strict=True):
            x, key_and_value = _decode_layer(layer, x, rotary, segments, cached, position)
            new.append(key_and_value)
        return x, tuple(new)

    return through


def _scanned(model: QwenVL, prompt: TreePrompt, cache: PromptCache) -> ThroughLayers:
    """One loop body for all layers, over the stacks as they are."""
    definition, weights = nnx.split(model.language_model.layers)

    def through(x: Array, rotary: tuple[Array, Array], own: Any, position: Array) -> tuple[Array, Any]:
        def layer(x: Array, parts: tuple[Any, ...]) -> tuple[Array, Any]:
            weights, shared, cached = parts
            return _decode_layer(nnx.merge(definition, weights), x, rotary, _shared(prompt, shared), cached, position)

        return jax.lax.scan(layer, x, (weights, _leaves(cache), own))

    return through


def _leaves(cache: PromptCache) -> tuple[Array, ...]:
    return cache.scene_key, cache.scene_value, cache.question_key, cache.question_value


def _shared(prompt: TreePrompt, cache: tuple[Array, ...]) -> tuple[KeyValueSegment, KeyValueSegment]:
    """What all rollouts of a question see, of one layer."""
    scene_key, scene_value, question_key, question_value = cache
    return (
        KeyValueSegment(scene_key, scene_value, scene_visible(prompt)),
        KeyValueSegment(question_key, question_value, question_visible(prompt)),
    )


def _empty(shape: tuple[int, ...], dtype: jnp.dtype, layers: int, stacked: bool) -> Any:
    """Caches of the rollouts before the first token."""
    if stacked:
        return tuple(split(jnp.zeros((layers, *shape), dtype), None, "scenes", "heads") for _ in range(2))
    return tuple(tuple(split(jnp.zeros(shape, dtype), "scenes", "heads") for _ in range(2)) for _ in range(layers))


def _decode_layer(
    layer: DecoderLayer,
    x: Float[Array, "S QG H"],
    rotary: tuple[Array, Array],
    shared: tuple[KeyValueSegment, KeyValueSegment],
    own: tuple[Array, Array],
    position: Int[Array, ""],
) -> tuple[Array, tuple[Array, Array]]:
    """One layer on one new token a rollout: attends to the scene, the question, the rollout's `position` tokens before
    it, and itself. Returns its key and value, [S, K, Q, G, 1, D]."""
    scenes, key_heads, questions, group, length, dim = own[0].shape
    scene, question = shared

    def attend_to_all(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, Array]]:
        query, key, value = (
            jnp.moveaxis(part, 1, 2).reshape(scenes, key_heads, questions, group, -1, dim)
            for part in (query, key, value)
        )
        before = KeyValueSegment(*own, jnp.arange(length) < position)
        new = KeyValueSegment(key, value, jnp.ones(1, bool))
        segments = [scene, question, before, new]
        if platform() == "tpu":
            segments = [scene, _with_new_tokens(question, new, query.shape[-2]), before]
        mixed = attend(query, segments)
        mixed = mixed.reshape(scenes, key_heads, questions * group, -1, dim)
        return jnp.moveaxis(mixed, 2, 1), (key, value)

    return layer(x, rotary, attend_to_all)


def _with_new_tokens(question: KeyValueSegment, new: KeyValueSegment, rows: int) -> KeyValueSegment:
    """A question's keys and the new ones [S, K, Q, G, 1, D] of its rollouts as one segment, of which each rollout, of
    `rows` query rows, sees its own new one. By the count of the TPU's compiler that takes less than a product with one
    key for each; on CPU it takes more."""
    group = new.key.shape[3]
    own = jnp.repeat(jnp.eye(group, dtype=bool), rows, axis=0)
    lead = (*question.visible.shape[:-2], len(own))
    visible = [jnp.broadcast_to(part, (*lead, part.shape[-1])) for part in (question.visible, own)]
    key, value = (
        jnp.concatenate([old, token[..., 0, :]], axis=-2)
        for old, token in ((question.key, new.key), (question.value, new.value))
    )
    return KeyValueSegment(key, value, jnp.concatenate(visible, axis=-1))


def _grown(own: Any, new: Any, position: Int[Array, ""]) -> Any:
    """The caches with the new token's keys and values at `position`.

    All caches are read before any is written, so that XLA writes in place; the last token's are never read, and have no
    place: there the write is clamped to a place that is not read any more either.
    """
    return jax.tree.map(
        lambda cache, token: jax.lax.dynamic_update_slice_in_dim(cache, token, position, axis=cache.ndim - 2), own, new
    )
