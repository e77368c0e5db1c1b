"""jaxvsr: visual-spatial reasoning in video, trained with GRPO in JAX.

    policy = jaxvsr.load("rooms-base", lora=jaxvsr.Lora(rank=16))
    scenes = [jaxvsr.Scene(frames, questions=["How many chairs are there?"], answers=["4"])]
    state, batch = policy.start(seed=0), policy.batch(scenes)
    rollouts = policy.sample(state, batch, group=8)
    rewards = [[[float(text == "4") for text in group] for group in scene] for scene in rollouts.texts]
    state, metrics = policy.update(state, batch, rollouts, rewards, jaxvsr.Objective(beta=0.01))
    policy.save(state, "out")

Importing the package imports nothing heavy: a name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxvsr.api.load_model import load
    from jaxvsr.api.policy import Policy, Rollouts
    from jaxvsr.api.scenes_in_memory import Scene, read_scenes
    from jaxvsr.api.train_and_evaluate import Trained, evaluate, train, tree_logprobs
    from jaxvsr.config.algorithm import AdvantageRule, Objective
    from jaxvsr.config.algorithm import OptimizerConfig as Optimizer
    from jaxvsr.errors import InputError, NotFiniteError
    from jaxvsr.models.huggingface.trained_positions import patch_transformers
    from jaxvsr.models.lora import LoraConfig as Lora
    from jaxvsr.rewards.registry import Reward

# What `import jaxvsr` offers: the module that has it, and its name there where that is another.
_PUBLIC = {
    "AdvantageRule": "jaxvsr.config.algorithm",
    "InputError": "jaxvsr.errors",
    "Lora": "jaxvsr.models.lora:LoraConfig",
    "NotFiniteError": "jaxvsr.errors",
    "Objective": "jaxvsr.config.algorithm",
    "Optimizer": "jaxvsr.config.algorithm:OptimizerConfig",
    "Policy": "jaxvsr.api.policy",
    "Reward": "jaxvsr.rewards.registry",
    "Rollouts": "jaxvsr.api.policy",
    "Scene": "jaxvsr.api.scenes_in_memory",
    "Trained": "jaxvsr.api.train_and_evaluate",
    "evaluate": "jaxvsr.api.train_and_evaluate",
    "load": "jaxvsr.api.load_model",
    "patch_transformers": "jaxvsr.models.huggingface.trained_positions",
    "read_scenes": "jaxvsr.api.scenes_in_memory",
    "train": "jaxvsr.api.train_and_evaluate",
    "tree_logprobs": "jaxvsr.api.train_and_evaluate",
}
__all__ = [
    "AdvantageRule",
    "InputError",
    "Lora",
    "NotFiniteError",
    "Objective",
    "Optimizer",
    "Policy",
    "Reward",
    "Rollouts",
    "Scene",
    "Trained",
    "evaluate",
    "load",
    "patch_transformers",
    "read_scenes",
    "train",
    "tree_logprobs",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxvsr' has no attribute {name!r}; it offers {', '.join(_PUBLIC)}")
    module, _, name_there = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), name_there or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
