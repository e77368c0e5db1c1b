"""Optimizer, schedules, clipping and weight decay against torch and transformers."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jaxvsr.config.algorithm import OptimizerConfig
from jaxvsr.errors import InputError
from jaxvsr.grpo.optimizer import clip_by_global_norm, decayed, learning_rate_schedule, make_optimizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

STEPS = 50
SHAPES = {"head.weight": (7,), "layers.q_proj.lora_A": (3, 4), "layers.q_proj.lora_B": (5, 3)}  # in JAX's order


def torch_schedule(config, optimizer):
    if config.schedule == "constant":
        return transformers.get_constant_schedule_with_warmup(optimizer, config.warmup_steps)
    if config.schedule == "linear":
        return transformers.get_linear_schedule_with_warmup(optimizer, config.warmup_steps, STEPS)
    return transformers.get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup_steps, weight_decay, clip_norm", [(0, 0.0, None), (7, 0.1, 1.0), (50, 0.01, 5.0)])
def test_fifty_steps_equal_torch_adamw_under_the_hugging_face_schedule(schedule, warmup_steps, weight_decay, clip_norm):
    config = OptimizerConfig(0.03, schedule, warmup_steps, weight_decay, b1=0.8, b2=0.95, eps=1e-6, clip_norm=clip_norm)
    rng = np.random.default_rng(0)
    start = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    theirs = [torch.tensor(value, requires_grad=True) for value in start.values()]
    reference = torch.optim.AdamW(
        theirs, lr=config.learning_rate, betas=(config.b1, config.b2), eps=config.eps, weight_decay=weight_decay
    )
    scheduler = torch_schedule(config, reference)

    ours = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    optimizer, learning_rate = make_optimizer(config, STEPS), learning_rate_schedule(config, STEPS)
    state, update = optimizer.init(ours), jax.jit(optimizer.update)
    norms = []
    for step in range(STEPS):
        # Norms from far below to far above the clip.
        gradients = {name: rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 1) for name, shape in SHAPES.items()}
        for parameter, gradient in zip(theirs, gradients.values(), strict=True):
            parameter.grad = torch.tensor(gradient)
        norms.append(torch.nn.utils.clip_grad_norm_(theirs, clip_norm or torch.inf).item())
        assert float(learning_rate(step)) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-5, abs=1e-8)
        reference.step()
        scheduler.step()
        updates, state = update({name: jnp.asarray(g, jnp.float32) for name, g in gradients.items()}, state, ours)
        ours = optax.apply_updates(ours, updates)
        for parameter, value in zip(theirs, ours.values(), strict=True):
            np.testing.assert_allclose(value, parameter.detach().numpy(), atol=2e-6, err_msg=f"step {step}")
    assert clip_norm is None or min(norms) < clip_norm < max(norms)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-3, 0.3, 40.0])
def test_clipping_equals_torchs_including_its_epsilon(size):
    """A small limit makes the 1e-6 in torch's denominator visible."""
    rng, limit = np.random.default_rng(1), 1e-3
    gradients = {name: rng.standard_normal(shape).astype(np.float32) * size for name, shape in SHAPES.items()}
    parameters = [torch.zeros(shape) for shape in SHAPES.values()]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_(parameters, limit)
    transform = clip_by_global_norm(limit)
    clipped, _ = transform.update(jax.tree.map(jnp.asarray, gradients), transform.init(gradients))
    for parameter, value in zip(parameters, clipped.values(), strict=True):
        np.testing.assert_allclose(value, parameter.grad, rtol=1e-5)


def test_weight_decay_acts_on_the_parameters_that_the_hugging_face_trainer_decays():
    text = dict(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
    )
    vision = dict(depth=1, embed_dim=16, num_heads=2, hidden_size=16)
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision))
    expected = {ours(name) for name in transformers.Trainer.get_decay_parameter_names(None, model)}
    names = {ours(name) for name, _ in model.named_parameters()}
    assert expected and expected != names
    assert {name for name, acts in decayed(dict.fromkeys(names, 0.0)).items() if acts} == expected


def ours(name):
    """Our name of a Hugging Face parameter: no leading "model.", layers stacked."""
    return name.removeprefix("model.").replace(".0.", ".")


@pytest.mark.slow
def test_undecayed_parameters_keep_their_value_without_a_gradient():
    names = ("layers.input_layernorm.weight", "layers.q_proj.bias", "layers.q_proj.weight")
    ones = dict.fromkeys(names, jnp.ones(2))
    optimizer = make_optimizer(OptimizerConfig(0.1, "constant", weight_decay=0.5), STEPS)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, ones), optimizer.init(ones), ones)
    moved = optax.apply_updates(ones, updates)
    assert [float(value[0]) for value in moved.values()] == pytest.approx([1, 1, 0.95])


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"schedule": "exponential"}, "schedule 'exponential': must be one of constant, linear, cosine"),
        ({"learning_rate": -1.0}, "learning_rate -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"warmup_steps": -1}, "warmup_steps -1"),
        ({"b2": 1.0}, "b2 1.0"),
        ({"eps": 0.0}, "eps 0.0"),
        ({"clip_norm": 0.0}, "clip_norm 0.0"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(fields, named, without_type_checks):
    with pytest.raises(InputError, match=named) as error:
        OptimizerConfig(**fields)
    assert "\n" not in str(error.value)
