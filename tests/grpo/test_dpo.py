"""DPO and SFT losses against the methods of TRL 1.16's trainers."""

import collections
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxvsr.config.algorithm import PreferenceObjective
from jaxvsr.errors import InputError
from jaxvsr.grpo.dpo import dpo_loss
from jaxvsr.grpo.objectives import step_normaliser, token_mask
from jaxvsr.grpo.sft import sft_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_trainer import SFTTrainer

TOKENS = 5
METRICS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")


class Identity:
    """An accelerator of one process."""

    device, num_processes, parallelism_config = "cpu", 1, None

    def gather(self, x):
        return x

    gather_for_metrics = gather


def random_pairs(seed, shape):
    rng = np.random.default_rng(seed)
    policy = -rng.exponential(1.5, (*shape, TOKENS))
    reference = policy + rng.standard_normal(policy.shape)
    return policy, reference, np.asarray(token_mask(rng.integers(1, TOKENS + 1, shape), TOKENS))


def trl_outputs(log_probs, label_mask):
    zeros = torch.zeros_like(log_probs)
    return types.SimpleNamespace(
        log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), label_mask=label_mask
    )


def trl_dpo(policy, reference, mask, objective, loss_type):
    """`DPOTrainer._compute_loss`: TRL's batch holds all chosen answers first, then all rejected ones."""
    rows = [torch.tensor(x[:, :, i].reshape(-1, TOKENS)) for i in range(2) for x in (policy, reference, mask)]
    policy, reference, mask = (torch.cat([rows[i], rows[i + 3]]) for i in range(3))
    policy.requires_grad_()
    first = torch.zeros(len(mask), 1, dtype=torch.int)
    chosen, rejected = (reference * mask).sum(1).chunk(2)
    model = lambda **_: trl_outputs(policy * mask, mask)  # noqa: E731
    trainer = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True),
        accelerator=Identity(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=objective.beta,
        label_smoothing=objective.label_smoothing,
        use_weighting=False,
        _metrics={"train": collections.defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.zeros(len(mask), TOKENS + 1, dtype=torch.long),
        "completion_mask": torch.cat([first, mask.int()], dim=1),
        "attention_mask": torch.ones(len(mask), TOKENS + 1),
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    loss = DPOTrainer._compute_loss(trainer, model, inputs, False)
    (gradient,) = torch.autograd.grad(loss, policy)
    return loss.item(), gradient.numpy(), {name: trainer._metrics["train"][name][0] for name in METRICS}


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["sigmoid", "robust", "aot"])
def test_dpo_equals_trl(loss_type):
    """TRL smooths labels conservatively in `aot` alone, which on a single pair is DPO."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shape = (1, 1, 2) if loss_type == "aot" else (2, 3, 2)
        smoothing = 0.0 if loss_type == "sigmoid" else float(rng.uniform(0, 0.49))
        objective = PreferenceObjective(float(rng.uniform(0.01, 2)), smoothing, robust=loss_type == "robust")
        policy, reference, mask = random_pairs(seed, shape)
        expected, expected_gradient, expected_metrics = trl_dpo(policy, reference, mask, objective, loss_type)
        with jax.enable_x64(True):
            garbage = jnp.where(mask, jnp.asarray(reference), jnp.nan)

            def loss(policy, garbage=garbage, mask=mask, objective=objective):
                return dpo_loss(
                    policy, garbage, jnp.asarray(mask), objective, np.asarray(step_normaliser(mask).rollouts / 2)
                )

            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.where(mask, policy, jnp.nan))
        assert float(value) == pytest.approx(expected, abs=1e-12)
        gradient = np.concatenate([np.asarray(gradient)[:, :, i].reshape(-1, TOKENS) for i in range(2)])
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-12)
        assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected_metrics, abs=1e-7)


@pytest.mark.slow
def test_dpo_micro_batches_add_up_and_padding_pairs_count_nothing():
    policy, reference, mask = (jnp.asarray(x) for x in random_pairs(0, (2, 3, 2)))
    mask = mask.at[1, 2].set(False)

    def sums(*parts):
        """Loss and metrics of scenes x questions, added up over parts; five of the six pairs are real."""
        results = [
            dpo_loss(policy[part], reference[part], mask[part], PreferenceObjective(0.3, 0.1), 5) for part in parts
        ]
        return [float(sum(loss for loss, _ in results))] + [float(sum(m[name] for _, m in results)) for name in METRICS]

    rows = np.index_exp[:1], np.index_exp[1:]
    real = np.index_exp[:1], np.index_exp[1:, :1], np.index_exp[1:, 1:2]
    assert sums(np.index_exp[:]) == pytest.approx(sums(*rows), abs=1e-6)
    assert sums(np.index_exp[:]) == pytest.approx(sums(*real), abs=1e-6)


def trl_sft(policy, mask, tokens):
    rows = torch.tensor(policy.reshape(-1, TOKENS), requires_grad=True)
    rows_mask = torch.tensor(mask.reshape(-1, TOKENS))
    trainer = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True),
        accelerator=Identity(),
        aux_loss_enabled=False,
        compute_loss_func=None,
        label_smoother=None,
        args=types.SimpleNamespace(loss_type="nll", average_tokens_across_devices=False),
        _metrics={"train": collections.defaultdict(list)},
        _total_train_tokens=0,
        get_tp_size=lambda: 1,
        _tp_size=1,
    )
    inputs = {"labels": rows_mask, "attention_mask": rows_mask}
    model = lambda **_: trl_outputs(rows * rows_mask, rows_mask)  # noqa: E731
    loss = SFTTrainer.compute_loss(trainer, model, inputs, num_items_in_batch=tokens)
    (gradient,) = torch.autograd.grad(loss, rows)
    return loss.item(), gradient.numpy()


@pytest.mark.slow
def test_sft_equals_trl_and_accumulation_changes_nothing():
    """Scene by scene with the whole step's token count, as the Trainer does under gradient accumulation."""
    for seed in range(20):
        policy, _, mask = random_pairs(seed, (2, 3, 1))
        expected, expected_gradient = trl_sft(policy, mask, torch.tensor(mask.sum()))
        with jax.enable_x64(True):
            tokens = step_normaliser(mask).tokens

            def loss(policy, scene, mask=mask, tokens=tokens):
                return sft_loss(policy[scene : scene + 1], jnp.asarray(mask[scene : scene + 1]), tokens)

            parts = [jax.value_and_grad(loss)(jnp.where(mask, policy, jnp.nan), scene) for scene in (0, 1)]
        assert float(parts[0][0] + parts[1][0]) == pytest.approx(expected, abs=1e-12)
        np.testing.assert_allclose((parts[0][1] + parts[1][1]).reshape(-1, TOKENS), expected_gradient, atol=1e-12)


def test_a_step_without_target_tokens_has_loss_zero():
    mask = np.zeros((1, 1, 1, TOKENS), bool)
    assert float(sft_loss(jnp.full(mask.shape, jnp.nan), jnp.asarray(mask), step_normaliser(mask).tokens)) == 0


@pytest.mark.parametrize(
    "fields, named", [({"beta": 0.0}, "beta 0.0"), ({"label_smoothing": 0.5}, "label_smoothing 0.5")]
)
def test_a_wrong_field_is_named_in_one_line(fields, named):
    with pytest.raises(InputError, match=named):
        PreferenceObjective(**fields)
