"""Positions of Qwen2-VL and Qwen2.5-VL in transformers as the checkpoints were trained (docs/serving.md, "Positions by
version"). The function needs nothing of jaxvsr: the cards of exports have its text.
"""

from __future__ import annotations

import inspect
from typing import Any


def patch_transformers(model: Any) -> Any:
    """Give a transformers model of Qwen2-VL or Qwen2.5-VL the positions that it was trained with; returns the model."""
    import inspect

    import torch

    def patched(owner: Any) -> Any:
        config, vision = owner.config, owner.config.vision_config
        if config.model_type not in ("qwen2_vl", "qwen2_5_vl"):
            raise ValueError(f"positions of {config.model_type} are as trained: nothing is to be patched")
        names = list(inspect.signature(owner.get_rope_index).parameters)

        def get_rope_index(*values: Any, **named: Any) -> tuple[Any, Any]:
            given = {**dict(zip(names, values, strict=False)), **named}
            tokens, mask = given["input_ids"], given.get("attention_mask")
            images, videos, times = (
                [] if given.get(name) is None else given[name].tolist()
                for name in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
            )
            seconds = iter(times or [1.0] * len(videos))
            grids = {config.image_token_id: iter(images), config.video_token_id: iter(videos)}
            found = torch.zeros(3, *tokens.shape, dtype=torch.long)
            deltas = []
            for row, line in enumerate(tokens.cpu()):
                kept = torch.ones_like(line).bool() if mask is None else mask[row].cpu().bool()
                ids, blocks, at, start = line[kept].tolist(), [], 0, 0
                while at < len(ids):
                    block = torch.zeros(3, 1, dtype=torch.long)  # a token of text
                    if ids[at] in grids:
                        time, height, width = next(grids[ids[at]])
                        steps = torch.arange(time, dtype=torch.float32)
                        if ids[at] == config.video_token_id and config.model_type == "qwen2_5_vl":
                            steps = steps * (vision.tokens_per_second * torch.tensor(next(seconds)))
                        sides = [torch.arange(side // vision.spatial_merge_size) for side in (height, width)]
                        block = torch.stack(torch.meshgrid(steps.long(), *sides, indexing="ij")).reshape(3, -1)
                    blocks.append(block + start)
                    at, start = at + block.shape[1], start + int(block.max()) + 1  # after time too
                found[:, row, kept] = torch.cat(blocks, dim=1)
                deltas.append([start - len(ids)])
            return found.to(tokens.device), torch.tensor(deltas, device=tokens.device)

        return get_rope_index

    owners = [part for part in model.modules() if hasattr(type(part), "get_rope_index")]
    for owner in owners:
        owner.get_rope_index = patched(owner)
    if not owners:
        raise ValueError("this transformers has no get_rope_index: pass position_ids")
    return model


def patch_code() -> str:
    """`patch_transformers` as text that runs by itself."""
    return "from typing import Any\n\n\n" + inspect.getsource(patch_transformers)
