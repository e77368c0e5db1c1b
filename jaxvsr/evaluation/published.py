"""VSI-Bench rows as the papers print them, in per cent, to stand beside one's own.

Frames, resolution and parsing differ between the sources, often by several points on the same weights: beside, not
against.
"""

from __future__ import annotations

VSGRPO = "vsGRPO, Table 2"
SPATIAL_R1 = "Spatial-R1, Table 1"

_ORDER = (
    "overall",
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    "object_rel_direction",
    "route_planning",
    "obj_appearance_order",
)

_ROWS: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
    (SPATIAL_R1, "Chance Level (Random)", (None, None, None, None, None, 25.0, 36.1, 28.3, 25.0)),
    (SPATIAL_R1, "Chance Level (Frequency)", (34.0, 62.1, 32.0, 29.9, 33.1, 25.1, 47.9, 28.4, 25.2)),
    (VSGRPO, "Qwen2-VL-2B", (23.3, 21.4, 3.4, 32.3, 31.1, 26.7, 27.7, 24.7, 18.9)),
    (VSGRPO, "Qwen2-VL-2B + SFT", (29.6, 29.6, 23.5, 47.4, 33.5, 26.9, 28.3, 28.8, 18.6)),
    (VSGRPO, "Qwen2-VL-2B + DPO", (23.9, 21.7, 3.7, 34.8, 32.4, 27.1, 28.5, 24.2, 18.6)),
    (VSGRPO, "Qwen2-VL-2B + vsGRPO-T, vanilla", (26.1, 24.7, 10.7, 37.4, 36.2, 27.3, 29.5, 25.7, 17.9)),
    (VSGRPO, "Qwen2-VL-2B + vsGRPO-O, vanilla", (28.0, 26.2, 16.4, 44.8, 38.2, 27.0, 29.3, 24.2, 18.2)),
    (VSGRPO, "Qwen2-VL-2B + vsGRPO-T, think", (29.6, 35.0, 28.2, 34.7, 25.2, 28.0, 38.5, 28.5, 18.7)),
    (VSGRPO, "Qwen2-VL-2B + vsGRPO-O, observe", (31.2, 34.6, 22.5, 44.8, 33.7, 29.4, 41.8, 26.8, 15.8)),
    (VSGRPO, "Qwen2-VL-2B + vsGRPO-V", (35.4, 53.6, 29.0, 52.7, 43.4, 28.1, 30.9, 26.8, 18.9)),
    (VSGRPO, "Qwen2-VL-7B", (32.2, 39.4, 25.0, 25.8, 43.2, 32.6, 30.9, 27.8, 32.6)),
    (VSGRPO, "Qwen2-VL-7B + SFT", (38.1, 44.7, 27.6, 46.1, 50.4, 34.0, 35.7, 33.0, 33.4)),
    (VSGRPO, "Qwen2-VL-7B + DPO", (32.6, 39.1, 25.2, 26.5, 44.2, 32.6, 30.9, 29.3, 33.3)),
    (VSGRPO, "Qwen2-VL-7B + vsGRPO-V", (40.7, 59.9, 29.6, 50.8, 48.3, 35.4, 35.6, 34.0, 31.5)),
    (SPATIAL_R1, "Qwen2.5-VL-7B (zero-shot)", (34.4, 34.0, 17.5, 51.9, 36.6, 35.8, 37.7, 29.4, 32.7)),
    (SPATIAL_R1, "Qwen2.5-VL-7B (CoT)", (25.4, 15.8, 12.1, 19.1, 24.2, 31.8, 34.7, 34.5, 30.4)),
    (SPATIAL_R1, "Spatial-R1", (41.8, 62.9, 33.0, 58.1, 31.0, 38.2, 32.7, 28.9, 36.8)),
)

# (source, row) -> task -> per cent; what a paper leaves blank is not there.
PUBLISHED: dict[tuple[str, str], dict[str, float]] = {
    (source, name): {task: value for task, value in zip(_ORDER, values, strict=True) if value is not None}
    for source, name, values in _ROWS
}
