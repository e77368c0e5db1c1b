"""The forward pass of a scene tree: every token of S scenes, S·Q questions and S·Q·G rollouts computed once.

All tokens of a scene share one axis, so projections and MLPs are single large matrix products:

    X = | scene V | question 1 T | … | question Q T | rollout 1.1 R | rollout 1.2 R | … | rollout Q.G R |

Only attention knows the tree (see the drawing in `attention.py`). The last real token of a question predicts the first
token of its rollouts, so the head reads that token and all rollout tokens but the last; the last is never fed.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvsr.models.attention import KeyValueSegment, attend, causal_attention
from jaxvsr.models.language import Attend, DeepStack, Read
from jaxvsr.models.layers import at_least_float32
from jaxvsr.models.model_config import Remat
from jaxvsr.models.qwen_vl import QwenVL
from jaxvsr.models.sharding import platform
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt, VisionFeatures
from jaxvsr.models.tree_sizes import TreeSizes

FUSED_FROM = 256  # TPUs: tokens of a tree, or patches of a scene, for which a kernel of its own is worth its start
CUDNN_FROM = 1024  # NVIDIA's cards: tokens of a scene, likewise
# Values of jax_default_matmul_precision with which Mosaic compiles it, by the dtype of activations.
KERNEL_PRECISIONS: dict[str, tuple[str | None, ...]] = {
    "bfloat16": (None, "default", "bfloat16"),
    "float32": (None, "default", "bfloat16", "highest", "float32"),
}


@dataclasses.dataclass(frozen=True)
class ForwardOptions:
    """How to compute, not what: options change results only by rounding."""

    dtype: str = "float32"  # of activations
    remat: Remat = "none"  # what the backward pass recomputes: nothing, whole layers, or all but matrix products
    # The next three are of attention where it is not one kernel.
    attention_chunk: int = 256  # scene tokens whose scores are computed at once
    attention_keep: int = 1024  # up to this many scene tokens, those scores are kept for the backward pass
    score_rows: int = 8192  # question or rollout query rows whose scores are in memory at once, per scene and key head
    logit_chunk: int = 1024  # rollout tokens of a scene whose logits are in memory at once
    unroll: bool | None = None  # layer by layer, not a scan; None: where layers are few (decoding: `decode_plan`)
    # Attention in kernels: on TPUs tree and tower, one each; on NVIDIA's cards the scene's own tokens. None: of enough
    # of them (`FUSED_FROM`, `CUDNN_FROM`).
    fused: bool | None = None

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.dtype)

    def is_fused(self, tokens: int) -> bool:
        """Whether the attention of so many tokens of a tree, or patches of a scene, is one kernel. In float64 it never
        is, nor where products are asked for in a precision that the kernel's compiler refuses."""
        if platform() == "gpu":
            return False
        wanted = platform() == "tpu" and tokens >= FUSED_FROM if self.fused is None else self.fused
        precision: str | None = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        return wanted and precision in KERNEL_PRECISIONS.get(self.dtype, ())

    def takes_cudnn(self, scene_tokens: int, head_dim: int) -> bool:
        """Whether so many tokens of a scene attend to each other in cuDNN's kernel, which is for bfloat16."""
        wanted = scene_tokens >= CUDNN_FROM if self.fused is None else self.fused
        if not wanted or self.dtype != "bfloat16" or platform() != "gpu":
            return False
        from jaxvsr.models.cudnn_attention import has_cudnn

        return has_cudnn(head_dim)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptCache:
    """Keys and values of the scene and question segments, stacked over layers."""

    scene_key: Float[Array, "layers S K V D"]
    scene_value: Float[Array, "layers S K V D"]
    question_key: Float[Array, "layers S K Q T D"]
    question_value: Float[Array, "layers S K Q T D"]


def scene_visible(prompt: TreePrompt) -> Bool[Array, "S 1 1 V"]:
    """Which scene keys a question or rollout token sees."""
    return (jnp.arange(prompt.scene_tokens.shape[1]) < prompt.scene_length[:, None])[:, None, None, :]


def question_visible(prompt: TreePrompt) -> Bool[Array, "S 1 Q 1 T"]:
    """Which keys of its question a rollout token sees."""
    return (jnp.arange(prompt.question_tokens.shape[2]) < prompt.question_length[..., None])[:, None, :, None, :]


def rollout_positions(prompt: TreePrompt, first: int | Int[Array, ""], count: int) -> Int[Array, "S Q count"]:
    """Positions of rollout tokens first, first + 1, …; they are text, so the three axes are equal."""
    start = prompt.question_start[:, None] + prompt.question_length
    return start[..., None] + first + jnp.arange(count)


def encode_vision(model: QwenVL, prompt: TreePrompt, options: ForwardOptions) -> Float[Array, "S U W"]:
    """The merged vision tokens of every scene: those in the prompt, or else from one run of the tower per scene."""
    if isinstance(prompt.vision, VisionFeatures):
        return prompt.vision.merged
    fused = options.is_fused(math.prod(prompt.vision.valid.shape[1:]))
    with jax.named_scope("vision"):
        return model.visual(prompt.vision, options.compute_dtype, options.remat != "none", bool(options.unroll), fused)


@dataclasses.dataclass(frozen=True)
class TreeLayout:
    """All tokens of a tree on one axis X, and how the layers of the language model take them."""

    embedded: Float[Array, "S X H"]
    rotary: tuple[Array, Array]
    attend: Attend
    last: tuple[Attend, Read]  # of the last layer: only what predicts a rollout token is read
    deepstack: DeepStack | None


def lay_out(model: QwenVL, prompt: TreePrompt, rollouts: RolloutTokens | None, options: ForwardOptions) -> TreeLayout:
    """The tree before the first layer. Without rollouts, `attend` keeps keys and values of scene and questions."""
    scenes, scene_size = prompt.scene_tokens.shape
    questions, question_size = prompt.question_tokens.shape[1:]
    dtype, language, width = options.compute_dtype, model.language_model, model.config.text.hidden_size
    three = lambda positions: jnp.broadcast_to(positions[..., None], (*positions.shape, 3))  # noqa: E731
    question_positions = prompt.question_start[:, None, None] + jnp.arange(question_size)
    question_positions = jnp.broadcast_to(question_positions, prompt.question_tokens.shape)
    features = encode_vision(model, prompt, options)
    embedded = [
        model.embed(prompt.scene_tokens, prompt.vision_index, features, dtype),
        language.embed(prompt.question_tokens, dtype).reshape(scenes, questions * question_size, -1),
    ]
    positions = [prompt.scene_positions, three(question_positions.reshape(scenes, -1))]
    group = fed = 0
    if rollouts is not None:
        group, fed = rollouts.tokens.shape[2], rollouts.tokens.shape[3] - 1
        fed_positions = jnp.broadcast_to(rollout_positions(prompt, 0, fed)[:, :, None], (scenes, questions, group, fed))
        embedded.append(
            language.embed(rollouts.tokens[..., :-1], dtype).reshape(scenes, questions * group * fed, width)
        )
        positions.append(three(fed_positions.reshape(scenes, questions * group * fed)))
    heads = model.config.text.num_attention_heads // model.config.text.num_key_value_heads
    attention = _TreeAttention(prompt, group, fed, heads, options, keep_cache=rollouts is None)
    ends = jnp.arange(questions) * question_size + scene_size + prompt.question_length - 1  # [S, Q]

    def read(x: Array) -> Array:
        """Each question's last real token, then all rollout tokens."""
        chosen = jnp.take_along_axis(x, ends.reshape(*ends.shape, *[1] * (x.ndim - 2)), axis=1)
        return jnp.concatenate([chosen, x[:, scene_size + questions * question_size :]], axis=1)

    return TreeLayout(
        jnp.concatenate(embedded, axis=1),
        language.rotary(jnp.concatenate(positions, axis=1), dtype),
        attention,
        (attention.of_read_tokens, read),
        model.deepstack(features, prompt.vision_index),  # the scene's tokens are the first
    )


def tree_hidden(
    model: QwenVL,
    prompt: TreePrompt,
    rollouts: RolloutTokens | None,
    options: ForwardOptions,
) -> tuple[Float[Array, "S Q H"], Float[Array, "S Q G Rm1 H"] | None, PromptCache | None]:
    """Hidden states that predict rollout tokens: at each question's last real token, and all rollout tokens but the
    last.

    Without rollouts this is the prefill, which also returns keys and values of scene and questions (`PromptCache`).
    """
    tree = lay_out(model, prompt, rollouts, options)
    x, kept = model.language_model(
        tree.embedded, tree.rotary, tree.attend, options.remat, tree.last, options.unroll, tree.deepstack
    )
    question_hidden, rollout_hidden = split_read(x, prompt, rollouts)
    return question_hidden, rollout_hidden, PromptCache(*kept) if rollouts is None else None


def split_read(
    read: Float[Array, "S Y H"], prompt: TreePrompt, rollouts: RolloutTokens | None
) -> tuple[Float[Array, "S Q H"], Float[Array, "S Q G Rm1 H"] | None]:
    """What the last layer of a tree gives: at the questions' last tokens, and at all rollout tokens but the last."""
    questions = prompt.question_tokens.shape[1]
    if rollouts is None:
        return read, None
    scenes, _, group, length = rollouts.tokens.shape
    return read[:, :questions], read[:, questions:].reshape(scenes, questions, group, length - 1, read.shape[-1])


class _TreeAttention:
    """`attend` of the language model's layers over the token axis of a tree."""

    def __init__(self, prompt: TreePrompt, group: int, fed: int, heads: int, options: ForwardOptions, keep_cache: bool):
        self.scene_size = prompt.scene_tokens.shape[1]
        self.questions, self.question_size = prompt.question_tokens.shape[1:]
        self.group, self.fed = group, fed
        self.scene_visible, self.question_visible = scene_visible(prompt), question_visible(prompt)
        self.sizes = TreeSizes(self.scene_size, self.questions, self.question_size, group, fed)
        self.heads = heads
        self.options, self.keep_cache = options, keep_cache

    def __call__(self, query: Array, key: Array, value: Array) -> tuple[Array, Any]:
        """query [S, X, K, M, D], key and value [S, X, K, D]."""
        if self.options.is_fused(self.sizes.tokens):
            from jaxvsr.models.fused_attention import tree_attention  # here, since it loads the compiler of kernels

            scene, question, _ = self._keys(jnp.moveaxis(key, 1, 2), jnp.moveaxis(value, 1, 2))
            return tree_attention(query, key, value, self.real, self.sizes), self._kept(scene, question)
        query, key, value = (jnp.moveaxis(part, 1, 2) for part in (query, key, value))
        scene_q, question_q, rollout_q = self._split(query)
        scene, question, rollout = self._keys(key, value)
        lead, tail = query.shape[:2], query.shape[3:]
        mixed = [self._scene(scene_q, scene)]
        causal = dataclasses.replace(question, visible=_causal(self.question_size, tail[0]))
        mixed.append(attend(question_q, [scene, causal]).reshape(*lead, -1, *tail))
        if self.group * self.fed:
            mixed.append(self._rollouts(rollout_q, scene, question, rollout).reshape(*lead, -1, *tail))
        return jnp.moveaxis(jnp.concatenate(mixed, axis=2), 2, 1), self._kept(scene, question)

    def of_read_tokens(self, query: Array, key: Array, value: Array) -> tuple[Array, Any]:
        """The same for queries [S, Q + Q·G·Rm1, K, M, D]: each question's last token, then all rollout tokens."""
        query, key, value = (jnp.moveaxis(part, 1, 2) for part in (query, key, value))
        scene, question, rollout = self._keys(key, value)
        lead, tail = query.shape[:2], query.shape[3:]
        ends = jnp.expand_dims(query[:, :, : self.questions], 3)
        mixed = [attend(ends, [scene, question]).reshape(*lead, -1, *tail)]
        if self.group * self.fed:
            rollout_q = query[:, :, self.questions :].reshape(*lead, self.questions, self.group, self.fed, *tail)
            mixed.append(self._rollouts(rollout_q, scene, question, rollout).reshape(*lead, -1, *tail))
        return jnp.moveaxis(jnp.concatenate(mixed, axis=2), 2, 1), self._kept(scene, question)

    @property
    def real(self) -> Bool[Array, "S X"]:
        """Which tokens of the tree are no padding; those behind a rollout's end count, as nobody else sees them."""
        scenes = len(self.scene_visible)
        rollouts = jnp.ones((scenes, self.questions * self.group * self.fed), bool)
        parts = [self.scene_visible, self.question_visible, rollouts]
        return jnp.concatenate([part.reshape(scenes, -1) for part in parts], axis=1)

    def _scene(self, query: Array, scene: KeyValueSegment) -> Float[Array, "S K V M D"]:
        if self.options.takes_cudnn(self.scene_size, query.shape[-1]):
            from jaxvsr.models.cudnn_attention import cudnn_attention

            return cudnn_attention(query, scene.key, scene.value)
        return causal_attention(
            query, scene.key, scene.value, self.options.attention_chunk, self.options.attention_keep
        )

    def _split(self, part: Array) -> tuple[Array, Array, Array]:
        """[S, K, X, …] into scene [S, K, V, …], question [S, K, Q, T, …] and rollout [S, K, Q, G, Rm1, …]."""
        first, second = self.scene_size, self.scene_size + self.questions * self.question_size
        lead, tail = part.shape[:2], part.shape[3:]
        question = part[:, :, first:second].reshape(*lead, self.questions, self.question_size, *tail)
        rollout = part[:, :, second:].reshape(*lead, self.questions, self.group, self.fed, *tail)
        return part[:, :, :first], question, rollout

    def _keys(self, key: Array, value: Array) -> tuple[KeyValueSegment, KeyValueSegment, KeyValueSegment]:
        """Keys and values of the three segments, and what a rollout token sees of each."""
        (scene_k, question_k, rollout_k), (scene_v, question_v, rollout_v) = self._split(key), self._split(value)
        return (
            KeyValueSegment(scene_k, scene_v, self.scene_visible),
            KeyValueSegment(question_k, question_v, self.question_visible),
            KeyValueSegment(rollout_k, rollout_v, _causal(self.fed, self.heads)),
        )

    def _kept(self, scene: KeyValueSegment, question: KeyValueSegment) -> Any:
        return (scene.key, scene.value, question.key, question.value) if self.keep_cache else None

    def _rollouts(
        self, query: Array, scene: KeyValueSegment, question: KeyValueSegment, rollout: KeyValueSegment
    ) -> Float[Array, "S K Q G Rm1 M D"]:
        rows = self.questions * self.group * self.fed * self.heads
        if self.questions == 1 or rows <= self.options.score_rows:
            return attend(query, [scene, question, rollout])

        # One question at a time, rematerialised: the scores with a long scene are never all in memory.
        def one(parts: tuple[Array, ...]) -> Array:
            query, question_k, question_v, seen, key, value = (jnp.expand_dims(part, 2) for part in parts)
            segments = [
                scene,
                KeyValueSegment(question_k, question_v, seen),
                KeyValueSegment(key, value, rollout.visible),
            ]
            return attend(query, segments)[:, :, 0]

        parts = (query, question.key, question.value, question.visible, rollout.key, rollout.value)
        outputs = jax.lax.map(jax.checkpoint(one), tuple(jnp.moveaxis(part, 2, 0) for part in parts))
        return jnp.moveaxis(outputs, 0, 2)


def _causal(length: int, heads: int) -> Bool[Array, "rows length"]:
    """Causal mask of rows (token, head). With two heads, rows 2 and 3 are token 1, which sees keys 0 and 1."""
    return jnp.repeat(jnp.arange(length), heads)[:, None] >= jnp.arange(length)


def rollout_logprobs(
    model: QwenVL,
    question_hidden: Float[Array, "S Q H"],
    rollout_hidden: Float[Array, "S Q G Rm1 H"],
    tokens: Int[Array, "S Q G R"],
    temperature: float | Float[Array, ""],
    options: ForwardOptions,
) -> tuple[Float[Array, "S Q G R"], Float[Array, "S Q G R"]]:
    """Log-probability of every rollout token under the full softmax at `temperature`, and the softmax's entropy.

    Logits exist for `logit_chunk` tokens of a scene at a time. The first tokens of all G rollouts share a row.
    No gradient flows through the entropy.
    """
    scenes, questions, group, length = tokens.shape
    head = model.head(question_hidden.dtype)  # here, since chunks are a loop

    def score(hidden: Array, chosen: Array) -> tuple[Array, Array]:
        """hidden [S, n, H], chosen [S, n, c]: the c tokens whose log-probability is read from each row of logits."""
        logits = model.logits(hidden, head) / jnp.asarray(temperature, at_least_float32(hidden).dtype)
        top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weight = jnp.exp(logits - top)
        total = jnp.sum(weight, axis=-1, keepdims=True)
        normaliser = jnp.log(total) + top
        picked = jnp.take_along_axis(logits, chosen, axis=-1, mode="clip")
        # A product, not an elementwise sum: XLA reduces the fused exponential an order of magnitude slower on CPU.
        mean = jnp.einsum("...w,...w->...", weight, logits)[..., None] / total
        return picked - normaliser, jax.lax.stop_gradient(normaliser - mean)[..., 0]

    first, first_entropy = score(question_hidden, tokens[..., 0])
    first, first_entropy = first[..., None], jnp.broadcast_to(first_entropy[..., None, None], (*tokens.shape[:3], 1))
    if length == 1:
        return first, first_entropy
    count = questions * group * (length - 1)
    hidden, chosen = rollout_hidden.reshape(scenes, count, -1), tokens[..., 1:].reshape(scenes, count, 1)
    if count <= options.logit_chunk:
        rest, rest_entropy = score(hidden, chosen)
    else:
        chunks = -(-count // options.logit_chunk)
        size = -(-count // chunks)
        spare = [(0, 0), (0, chunks * size - count), (0, 0)]

        def chunked(part: Array) -> Array:
            return jnp.moveaxis(jnp.pad(part, spare).reshape(scenes, chunks, size, -1), 1, 0)

        scored = jax.lax.map(jax.checkpoint(lambda parts: score(*parts)), (chunked(hidden), chunked(chosen)))
        rest, rest_entropy = (jnp.moveaxis(part, 0, 1).reshape(scenes, chunks * size, -1)[:, :count] for part in scored)
    shape = (scenes, questions, group, length - 1)
    return (
        jnp.concatenate([first, rest.reshape(shape)], axis=-1),
        jnp.concatenate([first_entropy, rest_entropy.reshape(shape)], axis=-1),
    )


def tree_logprobs(
    model: QwenVL,
    prompt: TreePrompt,
    rollouts: RolloutTokens,
    temperature: float | Float[Array, ""],
    options: ForwardOptions,
) -> tuple[Float[Array, "S Q G R"], Float[Array, "S Q G R"]]:
    """Log-probabilities and entropies of all rollout tokens; those after a rollout's length mean nothing."""
    question_hidden, rollout_hidden, _ = tree_hidden(model, prompt, rollouts, options)
    assert rollout_hidden is not None
    return rollout_logprobs(model, question_hidden, rollout_hidden, rollouts.tokens, temperature, options)
