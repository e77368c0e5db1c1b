"""The scene tree loses nothing: loss and gradients equal those of separate sequences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxvsr.models import attention
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.lora import LANGUAGE_LINEAR, LoraConfig
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import ForwardOptions, tree_logprobs
from tests.support.trees import TreeCase, random_parameters, random_tree, separate_logprobs, small_config

FLOAT64 = ForwardOptions(dtype="float64")
CHUNKED = ForwardOptions(
    dtype="float64", remat="full", attention_chunk=8, attention_keep=0, unroll=False, score_rows=16, logit_chunk=3
)
EVERYWHERE = LoraConfig(rank=2, alpha=6.0, target_modules=r".*(qkv|proj|q_proj|v_proj|gate_proj|down_proj)")


def _tree(model, prompt, rollouts, options, temperature=1.0):
    return tree_logprobs(model, prompt, rollouts, temperature, options)[0]


def _compiled(definition, options):
    """The log-probabilities of a tree by a model with these parameters, as one program."""
    program = jax.jit(lambda parameters, *tree: _tree(bind(definition, parameters), *tree, options))
    return lambda parameters, case: np.asarray(program(parameters, *case.on_device))


def _gradients(config, lora, parameters, case, options, names):
    """Value and gradients, by the tree and by separate sequences, of a random weighting of the log-probabilities."""
    weights = np.random.default_rng(7).normal(size=case.mask.shape) * case.mask
    definition = model_definition(config, lora)
    frozen = {name: leaf for name, leaf in parameters.items() if name not in names}

    def tree(trainable):
        model = bind(definition, {**frozen, **trainable})
        logprobs = _tree(model, *case.on_device, options, 0.7)
        return jnp.sum(logprobs * weights)

    def separate(trainable):
        logprobs = separate_logprobs(config, lora, {**frozen, **trainable}, case, 0.7, options.dtype)
        return jnp.sum(logprobs * weights)

    trainable = {name: parameters[name] for name in names}
    return jax.jit(jax.value_and_grad(tree))(trainable), jax.jit(jax.value_and_grad(separate))(trainable)


def _worst(ours, theirs):
    ours, theirs = jax.device_get((ours, theirs))
    size = {name: float(np.linalg.norm(leaf)) for name, leaf in theirs.items()}
    distance = {name: float(np.linalg.norm(ours[name] - theirs[name])) / (size[name] + 1e-300) for name in theirs}
    assert all(norm > 0 for name, norm in size.items() if not name.endswith("k_proj.bias")), "dead leaf"
    return max(distance.values())


CASES = [
    # family, lora, trained, S, Q, G, media, options
    ("qwen2_vl", LoraConfig(rank=2, alpha=6.0, target_modules=LANGUAGE_LINEAR), "lora", 2, 3, 2, "video", FLOAT64),
    ("qwen2_vl", EVERYWHERE, "lora", 1, 2, 3, "images", CHUNKED),
    ("qwen2_vl", None, "all", 2, 1, 2, "image", FLOAT64),
    ("qwen2_vl", None, "language", 1, 1, 1, "video", FLOAT64),
    ("qwen2_5_vl", LoraConfig(rank=2, alpha=6.0, target_modules=LANGUAGE_LINEAR), "lora", 1, 4, 2, "images", FLOAT64),
    ("qwen2_5_vl", EVERYWHERE, "lora", 2, 2, 1, "video", FLOAT64),
    ("qwen2_5_vl", None, "all", 1, 2, 2, "images", CHUNKED),
    ("qwen3_vl", LoraConfig(rank=2, alpha=6.0, target_modules=LANGUAGE_LINEAR), "lora", 2, 3, 2, "video", FLOAT64),
    ("qwen3_vl", EVERYWHERE, "lora", 1, 2, 2, "images", CHUNKED),
    ("qwen3_vl", None, "all", 1, 2, 2, "images", dataclasses.replace(CHUNKED, unroll=False)),
]


FAST = (3, 4, 9)  # one of each family; DeepStack inside of a scan
MARKED = [pytest.param(*case, marks=[] if i in FAST else pytest.mark.slow) for i, case in enumerate(CASES)]


@pytest.mark.slow
@pytest.mark.parametrize("family, lora, trained, scenes, questions, group, media, options", MARKED)
def test_tree_gradients_equal_separate_sequences(family, lora, trained, scenes, questions, group, media, options):
    with jax.enable_x64(True):
        config = small_config(family, tied=scenes == 2)
        parameters = random_parameters(config, lora, jnp.float64)
        case = random_tree(scenes, questions, group, media=media, seed=scenes + 10 * questions)
        names = [
            name
            for name in parameters
            if {"lora": "lora_" in name, "all": True, "language": not name.startswith("visual.")}[trained]
        ]
        (value, ours), (expected, theirs) = _gradients(config, lora, parameters, case, options, names)
        assert abs(value - expected) <= 1e-10 * abs(expected)
        assert _worst(ours, theirs) <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_padding_never_changes_a_result(family):
    with jax.enable_x64(True):
        config = small_config(family)
        parameters = random_parameters(config, None, jnp.float64)
        case = random_tree(2, 2, 2, media="images")
        prompt, rng = case.prompt, np.random.default_rng(99)

        def garbage(array, real):
            noise = rng.integers(0, 90, array.shape).astype(array.dtype)
            return np.where(real.reshape(real.shape + (1,) * (array.ndim - real.ndim)), array, noise)

        in_scene = np.arange(prompt.scene_tokens.shape[1]) < prompt.scene_length[:, None]
        in_question = np.arange(prompt.question_tokens.shape[2]) < prompt.question_length[..., None]
        vision = dataclasses.replace(
            prompt.vision,
            patches=garbage(prompt.vision.patches, prompt.vision.valid),
            coordinates=garbage(prompt.vision.coordinates, prompt.vision.valid),
        )
        other = dataclasses.replace(
            prompt,
            vision=vision,
            scene_tokens=garbage(prompt.scene_tokens, in_scene),
            scene_positions=garbage(prompt.scene_positions, in_scene),
            question_tokens=garbage(prompt.question_tokens, in_question),
        )
        rollouts = dataclasses.replace(case.rollouts, tokens=garbage(case.rollouts.tokens, case.mask))
        run = _compiled(model_definition(config), FLOAT64)
        scores = [run(parameters, TreeCase(p, r)) for p, r in ((prompt, case.rollouts), (other, rollouts))]
        assert not np.array_equal(prompt.scene_tokens, other.scene_tokens)
        np.testing.assert_array_equal(np.where(case.mask, scores[0], 0), np.where(case.mask, scores[1], 0))


@pytest.mark.slow
def test_a_leak_between_sibling_rollouts_changes_the_result(monkeypatch):
    """The comparison above has teeth: let rollouts see one key of a sibling and it fails by orders of magnitude."""
    with jax.enable_x64(True):
        config = small_config("qwen2_vl")
        parameters = random_parameters(config, None, jnp.float64)
        case = random_tree(1, 2, 2)
        honest = attention.attend

        def leaky(query, segments):
            if len(segments) == 3:  # a rollout: its own segment gets its neighbour's values
                own = segments[2]
                segments = [
                    *segments[:2],
                    attention.KeyValueSegment(own.key, jnp.roll(own.value, 1, axis=3), own.visible),
                ]
            return honest(query, segments)

        monkeypatch.setattr("jaxvsr.models.tree.attend", leaky)
        names = ["language_model.layers.mlp.up_proj.weight"]
        (_, ours), (_, theirs) = _gradients(config, None, parameters, case, FLOAT64, names)
        assert _worst(ours, theirs) > 1e-3


@pytest.mark.slow
def test_lora_switched_off_is_the_base_model_exactly():
    config, lora = small_config("qwen2_vl"), LoraConfig(rank=2)
    parameters = random_parameters(config, lora, jnp.float32)
    base = {name: leaf for name, leaf in parameters.items() if "lora_" not in name}
    case, options = random_tree(1, 2, 2), ForwardOptions()
    switched_off = _compiled(model_definition(config), options)
    scores = [switched_off(weights, case) for weights in (parameters, base)]
    np.testing.assert_array_equal(*scores)
    changed = _compiled(model_definition(config, lora), options)(parameters, case)
    assert np.abs(changed - scores[0]).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "full", "dots"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_backward_pass_keeps_no_second_copy_of_the_frozen_weights(family, remat):
    config = small_config(family)
    parameters = random_parameters(config, EVERYWHERE, jnp.float32)
    frozen = {name: leaf for name, leaf in parameters.items() if "lora_" not in name}
    trainable = {name: leaf for name, leaf in parameters.items() if name not in frozen}
    case = random_tree(1, 2, 2)
    options = ForwardOptions(dtype="float32", remat=remat, unroll=False)

    def total(trainable):
        model = bind(model_definition(config, EVERYWHERE), {**frozen, **trainable})
        return jnp.sum(_tree(model, *case.on_device, options))

    depths = {config.text.num_hidden_layers, config.vision.depth}
    stacked = {leaf.shape for leaf in frozen.values() if leaf.ndim == 3 and leaf.shape[0] in depths}
    copies = stacked | {(depth, columns, rows) for depth, rows, columns in stacked}
    gradients = jax.make_jaxpr(jax.grad(total))(trainable).jaxpr
    scans = [eqn for eqn in _equations(gradients) if eqn.primitive.name == "scan"]
    assert len(scans) >= 4  # tower and language model, forward and backward
    kept = {var.aval.shape for eqn in scans for var in eqn.outvars[eqn.params["num_carry"] :]}
    assert not kept & copies


def _equations(jaxpr):
    """All equations, those inside of others too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from _equations(inner)
