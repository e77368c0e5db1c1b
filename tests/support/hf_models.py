"""Random models of transformers of every family, the same weights for ours, and sequences that both can read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.huggingface.hf_config import read_config
from jaxvsr.models.huggingface.model_folder import load_parameters
from jaxvsr.models.inputs.pixels import pack_frames, row_layout
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions
from jaxvsr.models.model_config import ModelConfig, VisionConfig
from jaxvsr.models.tree_batch import VisionInput

VOCAB_SIZE, IMAGE, VIDEO, START, END = 120, 110, 111, 112, 113
# One bucket for every case of the sweep: rows, patches of a row, tokens.
ROWS, PATCHES, TOKENS = 5, 128, 160


def random_config(family: str, rng: np.random.Generator) -> tuple[type, object]:
    heads, key_heads = [(4, 2), (4, 4), (6, 2), (8, 1)][rng.integers(4)]
    dim = int(rng.choice([8, 16]))
    third = dim // 8
    text: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": heads * dim,
        "intermediate_size": int(rng.integers(20, 80)),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rms_norm_eps": float(rng.choice([1e-5, 1e-6])),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(rng.choice([1e4, 1e6])),
            "mrope_section": [dim // 2 - 2 * third, third, third],
        },
    }
    tied = bool(rng.integers(2))
    shared: dict[str, Any] = {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
        "tie_word_embeddings": tied,
    }
    if family == "qwen3_vl":  # heads of another width than the model's share
        text |= {"hidden_size": heads * dim + int(rng.choice([-8, 0, 8])), "head_dim": dim}
    vision_heads, depth = int(rng.choice([2, 4])), int(rng.integers(1, 4))
    vision: dict[str, Any] = {"depth": depth, "num_heads": vision_heads}
    if family == "qwen2_vl":
        vision |= {"embed_dim": 16 * vision_heads, "hidden_size": heads * dim, "mlp_ratio": int(rng.integers(1, 4))}
        return Qwen2VLForConditionalGeneration, Qwen2VLConfig(text_config=text, vision_config=vision, **shared)
    vision |= {
        "hidden_size": 16 * vision_heads,
        "out_hidden_size": text["hidden_size"],
        "intermediate_size": int(rng.integers(20, 60)),
    }
    if family == "qwen3_vl":
        placements = [index for index in range(depth) if rng.integers(2)]
        vision |= {"deepstack_visual_indexes": placements, "num_position_embeddings": int(rng.choice([9, 49]))}
        return Qwen3VLForConditionalGeneration, Qwen3VLConfig(text_config=text, vision_config=vision, **shared)
    vision |= {
        "window_size": int(rng.choice([56, 112])),
        "fullatt_block_indexes": [int(rng.integers(depth))],
        "tokens_per_second": int(rng.choice([2, 4])),
    }
    return Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig(text_config=text, vision_config=vision, **shared)


def random_models(
    family: str, seed: int, folder: Path, noise: float = 0.1
) -> tuple[Any, ModelConfig, dict[str, jax.Array]]:
    """transformers' model, our config and our parameters of the same weights."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    kind, config = random_config(family, rng)
    theirs = kind(config).float().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    theirs.save_pretrained(folder)
    parameters = {name: jnp.asarray(leaf) for name, leaf in load_parameters(folder).items()}
    return theirs, read_config(folder), parameters


def hugging_face_patches(frames: np.ndarray, vision: VisionConfig) -> np.ndarray:
    """Pixel values as Hugging Face's processors lay them out, restated: (time, merge units, 2x2 patches), then
    (channel, frame of the pair, height, width)."""
    pixels, side = (frames / 255 - np.array(vision.pixel_mean)) / np.array(vision.pixel_std), vision.patch_size
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    time, high, wide = len(pixels) // 2, frames.shape[1] // side, frames.shape[2] // side
    split = pixels.reshape(time, 2, high // 2, 2, side, wide // 2, 2, side, 3)
    return split.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(time * high * wide, -1).astype(np.float32)


def conversations(rng: np.random.Generator, config: ModelConfig) -> dict[str, list]:
    """Turns of text (lengths) and media (frames); videos longer than wide included."""
    unit = config.vision.merged_patch

    def frames(count: int, high: int, wide: int) -> np.ndarray:
        return rng.integers(0, 256, (count, unit * high, unit * wide, 3), dtype=np.uint8)

    return {
        "text only": [9],
        "one image": [3, frames(1, 2, 3), 6],
        "images of different sizes": [2, frames(1, 3, 2), frames(1, 1, 4), 5],
        "video": [4, frames(8, 2, 2), 7],
        "long narrow video": [1, frames(9, 1, 1), 3],
        "video and image": [2, frames(4, 2, 3), 3, frames(1, 2, 2), 4],
        "several turns": [5, frames(1, 2, 2), 6, frames(3, 3, 3), 8, 9],
    }


def sequence_of(parts: list, config: ModelConfig, rng: np.random.Generator) -> dict:
    """One case for both models. In Qwen3-VL a video is a block a temporal patch, with text of its time between."""
    text: list[int] = []
    grids, packed, layouts = [], [], []
    pixels: dict[int, list] = {IMAGE: [], VIDEO: []}
    for part in parts:
        if isinstance(part, int):
            text += rng.integers(0, 100, part).tolist()
            continue
        kind = VIDEO if len(part) > 1 else IMAGE
        rows = pack_frames(part, config.vision)
        high, wide = (size // config.vision.patch_size for size in part.shape[1:3])
        grid = MediaGrid(len(rows), high, wide, kind == VIDEO, float(rng.choice([0.5, 1.0, 2.0])))
        blocks = [grid]
        if kind == VIDEO:
            _, blocks = family_of(config).video_blocks(grid, np.arange(len(part)) * 1.0, "blocks")
        grids += blocks
        layouts.append(row_layout(high, wide, config.vision))
        packed.append(rows)
        pixels[kind].append((hugging_face_patches(part, config.vision), (len(rows), high, wide)))
        for number, block in enumerate(blocks):
            text += rng.integers(0, 100, min(number, 3)).tolist()
            text += [START, *[kind] * (block.time * high * wide // 4), END]
    tokens = np.array(text, np.int32)
    positions, _ = mrope_positions(tokens, grids, config)
    vision = VisionInput(
        np.zeros((1, ROWS, PATCHES, config.vision.patch_values), np.uint8),
        np.zeros((1, ROWS, PATCHES), bool),
        np.zeros((1, ROWS, PATCHES, 2), np.int32),
    )
    index, row = [], 0
    for rows, layout in zip(packed, layouts, strict=True):
        size = rows.shape[1]
        for one in rows:
            vision.patches[0, row, :size], vision.valid[0, row, :size] = one, layout.valid
            vision.coordinates[0, row, :size] = layout.coordinates
            index += (row * (PATCHES // 4) + layout.unit_slot).tolist()
            row += 1
    vision_index = np.full(len(tokens), -1, np.int32)
    vision_index[(tokens == IMAGE) | (tokens == VIDEO)] = index
    return {"tokens": tokens, "positions": positions, "vision_index": vision_index, "vision": vision, "pixels": pixels}


def media_of(sequence: dict) -> dict[str, torch.Tensor]:
    """Pixels and grids as transformers' models take them."""
    media = {}
    for kind, name in ((IMAGE, "image"), (VIDEO, "video")):
        if sequence["pixels"][kind]:
            values, grids = zip(*sequence["pixels"][kind], strict=True)
            media["pixel_values" + ("_videos" if kind == VIDEO else "")] = torch.tensor(np.concatenate(values))
            media[f"{name}_grid_thw"] = torch.tensor(grids)
    return media


def their_logits(model: torch.nn.Module, sequence: dict, extra: Sequence[int] = ()) -> np.ndarray:
    tokens = np.concatenate([sequence["tokens"], np.array(extra, np.int32)])
    positions = grown_positions(sequence["positions"], len(extra))
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(tokens[None].astype(np.int64)),
            position_ids=torch.tensor(positions.T[:, None].astype(np.int64)),
            attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
            **media_of(sequence),
        )
    return output.logits[0].float().numpy()


def grown_positions(positions: np.ndarray, more: int) -> np.ndarray:
    after = positions.max() + 1 + np.arange(more)
    return np.concatenate([positions, after[:, None].repeat(3, 1)]).astype(np.int32)
