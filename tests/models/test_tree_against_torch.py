"""The scene tree against transformers and peft: gradients by torch's autograd, and greedy rollouts by `generate`.

Both run every rollout as a sequence of its own, with its own video.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model

from jaxvsr.grpo.sampler import SamplingOptions, rollout_keys, sample
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.lora import LANGUAGE_LINEAR, LoraConfig
from jaxvsr.models.model_config import stack_of
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import ForwardOptions, tree_logprobs
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt
from tests.support import hf_models

OPTIONS = ForwardOptions()
WITH_TOWER = r".*(qkv|fc1|linear_fc2|down_proj|q_proj|v_proj|o_proj)"  # some of them lie in the tower


@dataclasses.dataclass(frozen=True)
class Scene:
    """One scene with Q questions, for our tree and as what each question's sequence begins with."""

    sequence: dict
    questions: list[np.ndarray]
    prompt: TreePrompt


def make_scene(parts: list, config, lengths: list[int], rng: np.random.Generator) -> Scene:
    sequence = hf_models.sequence_of(parts, config, rng)
    questions = [rng.integers(0, 100, length).astype(np.int32) for length in lengths]
    padded = np.full((1, len(lengths), max(lengths)), 77, np.int32)
    for row, question in enumerate(questions):
        padded[0, row, : len(question)] = question
    prompt = TreePrompt(
        vision=sequence["vision"],
        scene_tokens=sequence["tokens"][None],
        scene_length=np.array([len(sequence["tokens"])], np.int32),
        scene_positions=sequence["positions"][None].astype(np.int32),
        vision_index=sequence["vision_index"][None].astype(np.int32),
        question_start=np.array([sequence["positions"].max() + 1], np.int32),
        question_tokens=padded,
        question_length=np.array([lengths], np.int32),
    )
    return Scene(sequence, questions, jax.tree.map(jnp.asarray, prompt))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize(
    ("family", "targets"),
    [*((family, LANGUAGE_LINEAR) for family in FAMILIES), ("qwen2_vl", WITH_TOWER), ("qwen3_vl", WITH_TOWER)],
)
def test_tree_gradients_equal_those_of_torch_on_separate_sequences(family: str, targets: str, tmp_path) -> None:
    theirs, config, parameters = hf_models.random_models(family, 1, tmp_path)
    lora = LoraConfig(rank=2, alpha=6.0, target_modules=targets)
    adapted = get_peft_model(theirs, PeftConfig(r=2, lora_alpha=6, target_modules=targets))
    torch.manual_seed(0)
    for name, leaf in adapted.named_parameters():
        if "lora_" in name:
            leaf.data.normal_(0, 0.1)
    rng = np.random.default_rng(0)
    unit = config.vision.merged_patch
    video = rng.integers(0, 256, (6, 2 * unit, 3 * unit, 3), dtype=np.uint8)
    scene = make_scene([3, video, 2, video[:1, :unit]], config, [3, 5], rng)
    group, answer = 2, 4
    tokens = rng.integers(0, 100, (1, 2, group, answer)).astype(np.int32)
    length = np.array([[[1, 4], [3, 2]]], np.int32)
    weights = rng.normal(size=tokens.shape) * (np.arange(answer) < length[..., None])

    total = torch.zeros(())
    for q, question in enumerate(scene.questions):
        for g in range(group):
            rollout = tokens[0, q, g, : length[0, q, g]]
            words = np.concatenate([scene.sequence["tokens"], question, rollout]).astype(np.int64)
            positions = hf_models.grown_positions(scene.sequence["positions"], len(question) + len(rollout))
            output = adapted(
                input_ids=torch.tensor(words[None]),
                position_ids=torch.tensor(positions.T[:, None].astype(np.int64)),
                attention_mask=torch.ones(1, len(words), dtype=torch.long),
                **hf_models.media_of(scene.sequence),
            )
            scores = torch.log_softmax(output.logits[0].float() / 0.8, -1)
            first = len(words) - len(rollout)
            picked = scores[torch.arange(first - 1, len(words) - 1), torch.tensor(words[first:])]
            total = total + (picked * torch.tensor(weights[0, q, g, : len(rollout)])).sum()
    total.backward()

    expected = stacked_gradients(adapted)
    values = {name: jnp.asarray(value) for name, value in stacked_values(adapted).items()}
    definition = model_definition(config, lora)

    def loss(trainable):
        model = bind(definition, {**parameters, **trainable})
        rollouts = RolloutTokens(jnp.asarray(tokens), jnp.asarray(length))
        return jnp.sum(tree_logprobs(model, scene.prompt, rollouts, 0.8, OPTIONS)[0] * weights)

    value, gradients = jax.jit(jax.value_and_grad(loss))(values)
    assert float(value) == pytest.approx(float(total.detach()), rel=1e-4)
    assert set(gradients) == set(expected) and len(expected) > 4
    assert any("visual" in name for name in expected) == (targets == WITH_TOWER)
    for name, right in expected.items():
        distance = np.linalg.norm(np.asarray(gradients[name]) - right) / np.linalg.norm(right)
        assert distance <= 1e-4, (name, distance)


def our_name(name: str) -> tuple[str, int]:
    """`base_model.model.model.language_model.layers.3.mlp.up_proj.lora_A.default.weight` as (our name, layer)."""
    module, side, *_ = name.removeprefix("base_model.model.model.").rsplit(".", 3)
    stack, number, rest = "", 0, module
    for word in ("layers.", "blocks.", "deepstack_merger_list."):
        if word in module:
            stack, tail = module.split(word, 1)
            digits, rest = tail.split(".", 1)
            number, rest = int(digits), f"{stack}{word}{rest}"
    return f"{rest}.{side}", number


def _stacked(model: torch.nn.Module, of) -> dict[str, np.ndarray]:
    layers: dict[str, dict[int, np.ndarray]] = {}
    for name, leaf in model.named_parameters():
        if "lora_" in name:
            ours, number = our_name(name)
            layers.setdefault(ours, {})[number] = of(leaf).detach().numpy()
    return {
        name: np.stack([found[number] for number in sorted(found)]) if stack_of(name) else found[0]
        for name, found in layers.items()
    }


def stacked_gradients(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return _stacked(model, lambda leaf: leaf.grad)


def stacked_values(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return _stacked(model, lambda leaf: leaf)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_rollouts_equal_those_that_transformers_generates(family: str, tmp_path) -> None:
    theirs, config, parameters = hf_models.random_models(family, 3, tmp_path, noise=0.4)
    rng = np.random.default_rng(5)
    # Images, where both rules of positions agree.
    unit = config.vision.merged_patch
    images = [rng.integers(0, 256, (1, unit * high, unit * wide, 3), dtype=np.uint8) for high, wide in ((2, 3), (1, 2))]
    scene = make_scene([3, images[0], 2, images[1]], config, [4, 2, 6], rng)
    eos, suppressed, answer = (17, 18), (*range(0, 100, 3), *range(100, hf_models.VOCAB_SIZE)), 24
    options = SamplingOptions(2, answer, eos_ids=eos, pad_id=18, suppressed_ids=suppressed, greedy=True)

    def program(parameters, prompt):
        model = bind(model_definition(config), parameters)
        keys = rollout_keys(jnp.uint32(0), jnp.int32(0), jnp.zeros((1, 3), jnp.uint32), 2)
        return sample(model, prompt, keys, jnp.float32(1), options, OPTIONS).rollouts

    ours = jax.device_get(jax.jit(program)(parameters, scene.prompt))
    lengths = set()
    for q, question in enumerate(scene.questions):
        words = np.concatenate([scene.sequence["tokens"], question]).astype(np.int64)
        generated = theirs.generate(
            input_ids=torch.tensor(words[None]),
            attention_mask=torch.ones(1, len(words), dtype=torch.long),
            mm_token_type_ids=torch.tensor((words == hf_models.IMAGE)[None].astype(np.int64)),
            **hf_models.media_of(scene.sequence),
            max_new_tokens=answer,
            do_sample=False,
            eos_token_id=list(eos),
            pad_token_id=18,
            suppress_tokens=list(suppressed),
        )[0, len(words) :].numpy()
        for g in range(2):
            assert ours.tokens[0, q, g, : ours.length[0, q, g]].tolist() == generated.tolist()
        lengths.add(len(generated))
    assert len(set(ours.tokens[0, :, 0].ravel().tolist())) > 3, "a model that repeats itself shows little"
