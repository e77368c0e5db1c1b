"""What the metrics of metrics.jsonl are called in tables and figures, with their units."""

from __future__ import annotations

_LABELS = {
    "reward/mean": "mean reward",
    "reward/std": "reward spread within groups",
    "frac_reward_zero_std": "groups with equal rewards (share)",
    "video_gain": "gain from the video",
    "kl": "KL (nats per token)",
    "entropy": "entropy (nats per token)",
    "clip_ratio": "clipped ratios (share of tokens)",
    "completion_length": "answer length (tokens)",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens per second",
    "tokens_per_second_per_device": "tokens per second and device",
    "memory_gib_per_device": "most memory of a device (GiB)",
    "seconds/step": "time per step (s)",
    "eval/overall": "held-out score (%)",
    # all metrics under a name
    "eval/": "held-out scores (%)",
    "reward/": "rewards by name",
    "rewards/accuracies": "pairs in the right order (share)",
    "rewards/": "implicit rewards (DPO)",
    "hacking/": "reward hacking (share of rollouts)",
    "seconds/": "time per phase (s)",
}


def label(metric: str) -> str:
    """Words and unit of a metric; its own name where there are no better words.

    >>> label("kl"), label("eval/room_size_estimation"), label("loss")
    ('KL (nats per token)', 'held-out room_size_estimation (%)', 'loss')
    """
    if metric.startswith("eval/"):
        return _LABELS.get(metric, f"held-out {metric.removeprefix('eval/')} (%)")
    return _LABELS.get(metric, metric)


def name_in_legend(metric: str) -> str:
    """A metric among others of its kind, in words; a reward by its name."""
    kind, _, name = metric.rpartition("/")
    return name if kind == "reward" else name.replace("_", " ")


def title(metric: str) -> str:
    """The label as a heading."""
    words = label(metric)
    return words[0].upper() + words[1:]
