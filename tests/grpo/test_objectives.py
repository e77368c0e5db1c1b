"""The GRPO loss against TRL 1.16's own method and against sums written out in plain Python."""

import collections
import itertools
import math
import types
import warnings
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxvsr.config.algorithm import Objective, Ratio, Reduction
from jaxvsr.errors import InputError
from jaxvsr.grpo.advantages import gather_informative
from jaxvsr.grpo.objective_variants import DIVERGENCES, grpo_variant_loss
from jaxvsr.grpo.objectives import MAXIMA, merge_metrics, step_normaliser, token_mask
from tests.support.everything import ALL

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl.trainer.grpo_trainer import GRPOTrainer

BUCKET = (2, 2, 4, 6)  # S Q G R: every input of the sweep is padded to it
SWEEP = 500 if ALL else 180  # random inputs and settings; every two values of two settings meet several times
METRICS = {"kl": "kl", "clip_ratio/low_mean": "clip_ratio/low", "clip_ratio/high_mean": "clip_ratio/high",
           "clip_ratio/region_mean": "clip_ratio", "cispo_clip_ratio": "clip_ratio"}  # fmt: skip


def random_rollouts(rng, shape, spread=0.5, dtype=np.float64):
    """Log-probabilities of policy, old policy and reference, advantages and lengths of s·q·g rollouts."""
    *groups, tokens = shape
    policy = -rng.exponential(1.5, shape)
    old, reference = (policy + spread * rng.standard_normal(shape) for _ in range(2))
    advantages = rng.standard_normal(groups) * (rng.random(groups) > 0.2)
    return [x.astype(dtype) for x in (policy, old, reference, advantages)], rng.integers(1, tokens + 1, groups)


def random_objective(rng):
    """One of the objectives that TRL 1.16 has."""
    cispo = rng.random() < 0.2
    clip_high = float(rng.uniform(0.05, 0.5))
    return Objective(
        reduction="dapo" if cispo else str(rng.choice(["grpo", "bnpo", "dr_grpo", "dapo"])),
        ratio=str(rng.choice(["token", "sequence_mean"])),
        clip_low=float(rng.uniform(0.05, 0.5)),
        clip_high=clip_high,
        delta=None if cispo or rng.random() < 0.6 else 1 + clip_high + float(rng.uniform(0.01, 1)),
        cispo=float(rng.uniform(0.8, 3)) if cispo else None,
        kl=str(rng.choice(["k3", "k3_corrected"])),
        beta=float(rng.choice([0.0, 1e-4, 0.04, 0.5])),
        mask_truncated=bool(rng.random() < 0.3),
    )


def trl_loss(arrays, mask, objective, answer_tokens):
    """`GRPOTrainer._compute_loss` on a namespace that carries only the fields it reads."""
    rows = mask.shape[0] * mask.shape[1] * mask.shape[2]
    policy, old, reference = (torch.tensor(x.reshape(rows, -1)) for x in arrays[:3])
    policy.requires_grad_()
    mask = torch.tensor(mask.reshape(rows, -1)).int()
    trainer = types.SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (policy, torch.zeros_like(policy), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token" if objective.ratio == "token" else "sequence",
        beta=objective.beta,
        loss_type=objective.reduction if objective.cispo is None else "cispo",
        epsilon_low=objective.clip_low,
        epsilon_high=objective.clip_high if objective.cispo is None else objective.cispo,
        args=types.SimpleNamespace(
            use_bias_correction_kl=objective.kl == "k3_corrected", delta=objective.delta, steps_per_generation=1
        ),
        use_vllm=False,
        model=types.SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=types.SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x),
        max_completion_length=answer_tokens,
        _entropy_bonus_enabled=False,
        _metrics={"train": collections.defaultdict(list)},
    )
    prompt = torch.ones(rows, 1, dtype=torch.int)
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": prompt,
        "completion_ids": torch.zeros_like(mask),
        "completion_mask": mask,
        "advantages": torch.tensor(arrays[3].reshape(rows)),
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    (gradient,) = torch.autograd.grad(loss, policy)
    return loss.item(), gradient.numpy(), {name: values[0] for name, values in trainer._metrics["train"].items()}


def padded(array, shape, garbage):
    out = np.full(shape, garbage, array.dtype)
    out[tuple(slice(n) for n in array.shape)] = array
    return jnp.asarray(out)


def our_loss(arrays, mask, objective, answer_tokens):
    """Ours, padded to the bucket with NaN where nothing may be read."""
    arrays = [np.where(mask, x, np.nan) for x in arrays[:3]] + [arrays[3]]
    policy, old, reference = (padded(x, BUCKET, np.nan) for x in arrays[:3])
    advantages = padded(arrays[3], BUCKET[:3], np.nan)
    total = step_normaliser(mask, objective, answer_tokens)
    full_mask = padded(mask, BUCKET, False)

    def loss(policy):
        return grpo_variant_loss(
            policy, old, reference if objective.beta else None, advantages, full_mask, objective, total
        )

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(policy)
    real = tuple(slice(n) for n in mask.shape)
    outside = np.ones(BUCKET, bool)
    outside[real] = ~mask
    assert not np.asarray(gradient)[outside].any()
    return value, np.asarray(gradient)[real].reshape(-1, mask.shape[-1]), metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype, tolerance, configurations", [(np.float64, 1e-12, SWEEP), (np.float32, 1e-6, SWEEP // 3)]
)
def test_loss_gradient_and_metrics_equal_trl(dtype, tolerance, configurations):
    worst_loss = worst_gradient = 0.0
    for seed in range(configurations):
        rng = np.random.default_rng(seed)
        shape = tuple(int(rng.integers(1, n + 1)) for n in BUCKET)
        # An old policy that is the policy itself (the first inner step) puts every ratio on the tie of the minimum.
        arrays, lengths = random_rollouts(rng, shape, spread=float(rng.choice([0.0, 0.1, 0.7])), dtype=dtype)
        objective, answer_tokens = random_objective(rng), shape[-1] + int(rng.integers(3))
        truncated = rng.random(shape[:3]) < 0.3 if objective.mask_truncated else None
        mask = np.asarray(token_mask(lengths, BUCKET[-1]))[..., : shape[-1]]
        if truncated is not None:
            mask = mask & ~truncated[..., None]

        expected, expected_gradient, expected_metrics = trl_loss(arrays, mask, objective, answer_tokens)
        with jax.enable_x64(dtype == np.float64):
            loss, gradient, metrics = our_loss(arrays, mask, objective, answer_tokens)
            assert loss.dtype == dtype
        # float32 rounds relative to the loss, which grows with the ratio where delta is off
        scale = max(1.0, abs(expected))
        loss_error = abs(float(loss) - expected) / scale
        gradient_error = float(np.abs(gradient - expected_gradient).max()) / scale
        assert loss_error < tolerance and gradient_error < tolerance, (seed, objective)
        worst_loss, worst_gradient = max(worst_loss, loss_error), max(worst_gradient, gradient_error)
        if truncated is None:
            for theirs, ours in METRICS.items():
                if theirs in expected_metrics:
                    assert float(metrics[ours]) == pytest.approx(expected_metrics[theirs], abs=2e-6), (seed, theirs)
    worst = f"worst loss {worst_loss:.1e}, worst gradient {worst_gradient:.1e}"
    print(f"\n{configurations} configurations in {np.dtype(dtype)}: {worst}")


def clip(x, low, high):
    return min(max(x, low), high)


def test_sequence_product_is_equation_1_of_the_vsgrpo_paper():
    rng, epsilon, beta = np.random.default_rng(0), 0.3, 0.2
    (policy, old, reference, advantages), lengths = random_rollouts(rng, BUCKET, spread=0.3)
    groups = []
    for s, q in np.ndindex(BUCKET[:2]):
        group = []
        for i in range(BUCKET[2]):
            n = lengths[s, q, i]
            pi, pi_old, pi_ref = (math.exp(x[s, q, i, :n].sum()) for x in (policy, old, reference))
            a, ratio = advantages[s, q, i], pi / pi_old
            kl = pi_ref / pi - math.log(pi_ref / pi) - 1
            group.append(min(ratio * a, clip(ratio, 1 - epsilon, 1 + epsilon) * a) - beta * kl)
        groups.append(sum(group) / len(group))
    objective = Objective("grpo", "sequence_product", clip_low=epsilon, clip_high=epsilon, beta=beta, kl="k3")
    with jax.enable_x64(True):
        loss, _, _ = our_loss([policy, old, reference, advantages], np.asarray(token_mask(lengths, 6)), objective, None)
    assert -float(loss) == pytest.approx(sum(groups) / len(groups), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", get_args(Reduction))
def test_reductions_are_the_means_they_name(reduction):
    """On policy with advantage 1 and no KL a token's term is -1, so the loss is minus the sum of the shares."""
    lengths, width = np.array([[[1, 4], [6, 3]]]), 6
    mask = jnp.asarray(token_mask(lengths, width, np.array([[[False, False], [True, False]]])))
    zeros, ones = jnp.zeros(mask.shape), jnp.ones(lengths.shape)
    objective = Objective(reduction=reduction, mask_truncated=True)
    loss, _ = grpo_variant_loss(zeros, zeros, None, ones, mask, objective, step_normaliser(mask, objective))
    assert float(loss) == pytest.approx({"grpo": -3 / 4, "bnpo": -1, "dapo": -1, "dr_grpo": -8 / 24}[reduction])


def test_kl_estimators_have_their_closed_forms_and_mean():
    """Over the policy's own samples k1 and k3 average to the KL; k3_corrected does so over the old policy's samples."""
    p, r, old = (np.array(x) for x in ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3]))
    exact = float((p * np.log(p / r)).sum())
    x, ratio = jnp.log(r / p)[None, None, None], jnp.asarray(p / old)[None, None, None]
    for estimator, sampler in (("k1", p), ("k3", p), ("k3_corrected", old)):
        assert float((DIVERGENCES[estimator](x, ratio)[0, 0, 0] * sampler).sum()) == pytest.approx(exact, abs=1e-6)
    np.testing.assert_allclose(DIVERGENCES["k2"](x, ratio)[0, 0, 0], np.log(p / r) ** 2 / 2, rtol=1e-5)


@pytest.mark.parametrize("ratio", ["token", "sequence_product", "sequence_mean"])
@pytest.mark.parametrize("kl", ["k1", "k2", "k3", "k3_corrected"])
def test_kl_term_of_every_ratio_equals_an_explicit_sum(ratio, kl):
    rng = np.random.default_rng(1)
    (policy, old, reference, advantages), lengths = random_rollouts(rng, BUCKET, spread=0.2)
    expected = []
    for s, q, g in np.ndindex(BUCKET[:3]):
        n = lengths[s, q, g]
        log_ratio, x = (policy - old)[s, q, g, :n], (reference - policy)[s, q, g, :n]
        if ratio == "sequence_product":
            log_ratio, x = log_ratio.sum(keepdims=True), x.sum(keepdims=True)
        if ratio == "sequence_mean":
            log_ratio = log_ratio.mean() * np.ones(n)
        k3 = np.exp(x) - x - 1
        expected.append({"k1": -x, "k2": x**2 / 2, "k3": k3, "k3_corrected": k3 * np.exp(log_ratio)}[kl].mean())
    objective = Objective(reduction="grpo", ratio=ratio, kl=kl, beta=0.7)
    with jax.enable_x64(True):
        arrays, mask = [policy, old, reference, 0 * advantages], np.asarray(token_mask(lengths, 6))
        loss, _, metrics = our_loss(arrays, mask, objective, None)
    assert float(loss) == pytest.approx(0.7 * np.mean(expected), abs=1e-12)
    if ratio == "sequence_product":
        assert float(metrics["kl"]) == pytest.approx(np.mean(expected), abs=1e-12)


REDUCTIONS, RATIOS = get_args(Reduction), get_args(Ratio)
ALL_OBJECTIVES = [
    Objective(reduction=reduction, ratio=ratio, cispo=cispo, beta=0.1)
    for reduction, ratio, cispo in itertools.product(REDUCTIONS, RATIOS, (None, 1.1))
    if ratio != "sequence_product" or (reduction == "grpo" and cispo is None)
]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=str)
def test_micro_batches_of_scenes_add_up_to_the_step(objective):
    arrays, lengths = random_rollouts(np.random.default_rng(2), BUCKET)
    with jax.enable_x64(True):
        policy, old, reference, advantages = (jnp.asarray(x) for x in arrays)
        mask = jnp.asarray(token_mask(lengths, BUCKET[-1]))
        total = step_normaliser(mask, objective)

        def loss(policy, scenes):
            rest = (x[scenes] for x in (old, reference, advantages, mask))
            return grpo_variant_loss(policy[scenes], *rest, objective, total)

        losses = jax.value_and_grad(loss, has_aux=True)
        (whole, metrics), gradient = losses(policy, slice(None))
        parts = [losses(policy, slice(s, s + 1)) for s in range(BUCKET[0])]
        assert float(sum(value for (value, _), _ in parts)) == pytest.approx(float(whole), abs=1e-14)
        np.testing.assert_allclose(sum(part for _, part in parts), gradient, atol=1e-14)
        stacked = {name: jnp.stack([m[name] for (_, m), _ in parts]) for name in metrics}
        for name, value in merge_metrics(stacked).items():
            assert float(value) == pytest.approx(float(metrics[name]), abs=1e-14), name
        assert set(MAXIMA) <= set(metrics)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Objective(reduction=r) for r in get_args(Reduction)], ids=str)
def test_leaving_out_groups_without_advantage_changes_nothing(objective):
    shape = (2, 4, 3, 5)
    (policy, old, _, advantages), lengths = random_rollouts(np.random.default_rng(3), shape)
    informative = np.array([[False, True, False, True], [False, False, True, False]])
    advantages = np.where(informative[..., None], advantages + 0.1, 0.0)
    bucket = gather_informative(informative)
    assert bucket.index.shape == (2, 2)

    with jax.enable_x64(True):
        mask = np.asarray(token_mask(lengths, shape[-1]))
        total = step_normaliser(mask, objective)

        def whole(policy):
            rest = [jnp.asarray(x) for x in (old, advantages, mask)]
            return grpo_variant_loss(policy, rest[0], None, rest[1], rest[2], objective, total)

        def gathered(policy):
            taken = policy[jnp.arange(2)[:, None], bucket.index]
            rest = [jnp.asarray(bucket.take(x)) for x in (old, advantages, mask)]
            real = rest[2] & bucket.real[..., None, None]
            return grpo_variant_loss(taken, rest[0], None, rest[1], real, objective, total)

        (a, metrics_a), gradient_a = jax.value_and_grad(whole, has_aux=True)(jnp.asarray(policy))
        (b, metrics_b), gradient_b = jax.value_and_grad(gathered, has_aux=True)(jnp.asarray(policy))
    assert float(a) == pytest.approx(float(b), abs=1e-14)
    np.testing.assert_allclose(gradient_a, gradient_b, atol=1e-14)
    for name in ("clip_ratio", "clip_ratio/low", "clip_ratio/high"):
        assert float(metrics_a[name]) == pytest.approx(float(metrics_b[name]), abs=1e-14)


def test_on_policy_ratio_metrics_are_zero_and_ignore_padding():
    arrays, lengths = random_rollouts(np.random.default_rng(4), (1, 2, 3, 5), spread=0.0, dtype=np.float32)
    _, _, metrics = our_loss(arrays, np.asarray(token_mask(lengths, 5)), Objective(), None)
    assert metrics["ratio_deviation"] == metrics["logprob_gap"] == metrics["clip_ratio"] == 0
    assert metrics["ratio_max"] == 1


@pytest.mark.parametrize("level", ["token", "sequence_mean"])
def test_ratio_metrics_are_of_what_is_updated(level):
    mask = token_mask(np.array([[[2, 3], [4, 1]]]), 5)
    policy, old, advantages = jnp.full(mask.shape, jnp.log(0.9)), jnp.zeros(mask.shape), jnp.ones((1, 2, 2))
    objective = Objective(ratio=level, beta=0.0)
    for groups in ([True, True], [True, False]):
        updated = jnp.asarray(mask & np.array(groups)[:, None, None])
        total = step_normaliser(mask, objective, updated=updated)
        _, metrics = grpo_variant_loss(policy, old, None, advantages, updated, objective, total)
        assert float(metrics["ratio_deviation"]) == pytest.approx(0.1, rel=1e-5)
        assert float(metrics["ratio_max"]) == pytest.approx(0.9, rel=1e-5)


@pytest.mark.slow
def test_a_step_with_every_rollout_masked_has_zero_loss_and_gradient():
    arrays, _ = random_rollouts(np.random.default_rng(5), BUCKET, dtype=np.float32)
    for objective in ALL_OBJECTIVES:
        loss, gradient, metrics = our_loss(arrays, np.zeros(BUCKET, bool), objective, None)
        assert float(loss) == 0 and not gradient.any()
        assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.slow
def test_beta_without_a_reference_is_an_error():
    x, mask = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1), bool)
    objective = Objective(beta=0.1)
    with pytest.raises(ValueError, match="reference"):
        grpo_variant_loss(x, x, None, x[..., 0], mask, objective, step_normaliser(mask, objective))


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"reduction": "mean"}, "reduction 'mean'"),
        ({"ratio": "sequence"}, "sequence_product"),
        ({"kl": "k4"}, "k3_corrected"),
        ({"clip_low": 1.0}, "clip_low 1.0"),
        ({"clip_high": -0.1}, "clip_high -0.1"),
        ({"delta": 1.2}, "delta 1.2"),
        ({"cispo": 0.0}, "cispo 0.0"),
        ({"cispo": 5.0, "delta": 2.0}, "delta 2.0"),
        ({"beta": -1.0}, "beta -1.0"),
        ({"beta": math.nan}, "beta nan"),
        ({"ratio": "sequence_product"}, "reduction must be grpo"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(fields, named, without_type_checks):
    with pytest.raises(InputError, match=named) as error:
        Objective(**fields)
    assert "\n" not in str(error.value)
