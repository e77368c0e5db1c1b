"""Rows of benchmark tables as the papers print them, in per cent, to print beside new scores.

Frames, resolution and parsing differ between the sources, often by several points on the same weights, so these rows
are context and not a controlled comparison.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxvsr.evaluation.metrics.vsi_bench_scores import TASKS

# (source, row) -> column -> per cent, without the cells that a paper leaves blank.
Rows = Mapping[tuple[str, str], Mapping[str, float]]

VSGRPO = "vsGRPO, Table 2"
VSGRPO_PROMPTS = "vsGRPO, Table 1"  # its vanilla rows are Table 2's
SPATIAL_R1 = "Spatial-R1, Table 1"

_VSI_BENCH_COLUMNS = ("overall", *TASKS)
_VSI_BENCH_ROWS: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
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
    (VSGRPO_PROMPTS, "Qwen2-VL-2B, think", (22.9, 18.4, 4.3, 31.5, 17.3, 28.3, 22.9, 26.2, 16.8)),
    (VSGRPO_PROMPTS, "Qwen2-VL-2B, observe", (21.8, 16.8, 1.7, 32.7, 22.7, 28.8, 27.6, 26.2, 18.1)),
    (VSGRPO_PROMPTS, "Qwen2-VL-7B, think", (31.3, 44.8, 26.1, 25.3, 23.4, 34.7, 30.9, 32.9, 31.5)),
    (VSGRPO_PROMPTS, "Qwen2-VL-7B, observe", (32.0, 29.9, 19.0, 39.6, 32.0, 34.6, 40.0, 36.0, 24.4)),
    (SPATIAL_R1, "Qwen2.5-VL-7B (zero-shot)", (34.4, 34.0, 17.5, 51.9, 36.6, 35.8, 37.7, 29.4, 32.7)),
    (SPATIAL_R1, "Qwen2.5-VL-7B (CoT)", (25.4, 15.8, 12.1, 19.1, 24.2, 31.8, 34.7, 34.5, 30.4)),
    (SPATIAL_R1, "Spatial-R1", (41.8, 62.9, 33.0, 58.1, 31.0, 38.2, 32.7, 28.9, 36.8)),
)


# SVQA-R1 stars the rows without the thinking prompt. The star is lost in its text: they are the rows of the base model
# whose numbers its Tables 3 and 5 do not repeat as "Base".
_STARRED = "Qwen2.5-VL-3B, no thinking prompt"
_BASE = "Qwen2.5-VL-3B"
_Q_SPATIAL_COLUMNS = (
    *("success_rate", "samples_completed", "smape"),
    *("in_range_50_100", "in_range_100_150", "in_range_150_200"),
)
_Q_SPATIAL_ROWS: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
    ("SVQA-R1, Table 2", "GPT-4o", (61.06,)),
    ("SVQA-R1, Table 2", "Gemini-1.5-Flash", (26.73,)),
    ("SVQA-R1, Table 2", "UCSC-VLAA", (25.74, 99.01, 119.33, 10.00, 7.99, 9.01)),
    ("SVQA-R1, Table 2", _STARRED, (48.51, 100.00, 80.93, 20.79, 13.86, 13.86)),
    ("SVQA-R1, Table 2", _BASE, (21.78, 92.08, 117.24, 9.68, 5.38, 8.60)),
    ("SVQA-R1, Table 2", "SpaceThinker-Qwen2.5-VL-3B", (27.72, 98.02, 125.56, 16.16, 7.07, 5.05)),
    ("SVQA-R1, Table 2", "InternVL-2.5", (20.97, 91.02, 120.14, 8.17, 4.69, 8.11)),
    ("SVQA-R1, Table 2", "SVQA-R1", (58.42, 100.00, 68.36, 18.81, 18.81, 21.78)),
    ("SVQA-R1, Table 3", "SFT", (37.62, 100.00, 109.13, 16.83, 6.93, 13.86)),
    ("SVQA-R1, Table 3", "SFT (CoT)", (27.72, 97.03, 124.85, 11.22, 13.27, 4.08)),
    ("SVQA-R1, Table 5", "(b) format reward", (33.66, 94.06, 107.95)),
    ("SVQA-R1, Table 5", "(c) semantic reward", (49.50, 100.00, 81.61)),
    ("SVQA-R1, Table 5", "(d) both", (52.48, 100.00, 74.49)),
    ("SVQA-R1, Table 6", "eta 0", (52.32, 100.00, 73.24)),
    ("SVQA-R1, Table 6", "eta 2", (51.49, 100.00, 77.66)),
    ("SVQA-R1, Table 6", "eta 10", (47.52, 100.00, 80.16)),
    ("SVQA-R1, Table 7", "from UCSC-VLAA", (53.49, 100.00, 76.10)),
    ("SVQA-R1, Table 8", "spatial reasoning prompt", (20.98, 100.00, 184.64, 5.62, 7.96, 10.85)),
    ("SVQA-R1, Table 10", "step 500", (43.56, 100.00, 84.35)),
    ("SVQA-R1, Table 10", "step 1000", (50.50, 100.00, 79.32)),
    ("SVQA-R1, Table 10", "step 1500", (44.55, 100.00, 79.31)),
    ("SVQA-R1, Table 10", "step 2000", (42.57, 100.00, 78.57)),
)

_OPEN_ENDED_COLUMNS = (
    *("judge", "bleu_1", "bleu_2", "sentence_bert"),
    *("box_miou", "box_accuracy_75", "yes_no_judge", "distance"),
)
_SPACELLAVA = "SVQA-R1, Table 4, VQASynth SpaceLLaVA"
_OPEN_SPACES = "SVQA-R1, Table 4, OpenSpaces"
_OPEN_ENDED_ROWS: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
    (_SPACELLAVA, "GPT-4o", (65.92, 65.02, 58.50, 89.23, 45.02, 26.50, 60.05, 22.51)),
    (_SPACELLAVA, "Gemini-1.5-Flash", (31.52, 34.48, 27.37, 63.22, 34.90, 20.50, 49.77, 14.54)),
    (_SPACELLAVA, _STARRED, (45.54, 33.33, 31.31, 68.04, 10.00, 5.80, 39.68, 5.91)),
    (_SPACELLAVA, _BASE, (45.33, 10.00, 7.96, 66.17, 41.01, 19.45, 39.89, 11.29)),
    (_SPACELLAVA, "SpaceThinker-Qwen2.5-VL-3B", (39.39, 0.00, 0.00, 16.14, 37.00, 11.60, 29.37, 10.75)),
    (_SPACELLAVA, "InternVL-2.5", (46.69, 10.30, 8.20, 67.49, 42.24, 20.23, 41.09, 10.95)),
    (_SPACELLAVA, "UCSC-VLAA", (46.11, 0.0, 0.0, 20.90, 42.29, 21.84, 44.21, 13.44)),
    (_SPACELLAVA, "SVQA-R1", (60.77, 63.33, 56.43, 87.84, 43.49, 24.57, 58.31, 23.66)),
    (_OPEN_SPACES, "GPT-4o", (34.54, 58.70, 44.65, 89.54, None, None, 41.56, 15.88)),
    (_OPEN_SPACES, "Gemini-1.5-Flash", (20.56, 45.63, 30.12, 75.41, None, None, 29.10, 6.71)),
    (_OPEN_SPACES, _STARRED, (30.61, 33.33, 33.33, 68.05, None, None, 21.37, 2.18)),
    (_OPEN_SPACES, _BASE, (32.49, 49.71, 32.35, 87.67, None, None, 29.92, 3.83)),
    (_OPEN_SPACES, "SpaceThinker-Qwen2.5-VL-3B", (16.29, 1.03, 1.00, 31.29, None, None, 17.10, 10.81)),
    (_OPEN_SPACES, "InternVL-2.5", (28.95, 50.41, 34.37, 81.25, None, None, 21.77, 4.15)),
    (_OPEN_SPACES, "UCSC-VLAA", (18.03, 54.68, 37.94, 87.66, None, None, 22.16, 8.15)),
    (_OPEN_SPACES, "SVQA-R1", (30.97, 55.00, 41.68, 85.50, None, None, 39.38, 14.44)),
    ("SVQA-R1, Table 5", "(b) format reward", (49.99, 51.55, None, 85.84)),
    ("SVQA-R1, Table 5", "(c) semantic reward", (60.34, 0.00, None, 16.14)),
    ("SVQA-R1, Table 5", "(d) both", (60.35, 54.29, None, 83.51)),
    ("SVQA-R1, Table 6", "eta 0", (59.82, 53.94, None, 81.74)),
    ("SVQA-R1, Table 6", "eta 2", (61.47, 63.34, None, 87.86)),
    ("SVQA-R1, Table 6", "eta 10", (57.17, 62.34, None, 85.48)),
    ("SVQA-R1, Table 7", "from UCSC-VLAA", (61.35, 56.83, None, 83.41)),
    ("SVQA-R1, Table 10", "step 500", (60.06, 52.95, None, 84.74)),
    ("SVQA-R1, Table 10", "step 1000", (54.25, 55.36, None, 86.51)),
    ("SVQA-R1, Table 10", "step 1500", (52.13, 54.29, None, 86.23)),
    ("SVQA-R1, Table 10", "step 2000", (52.37, 53.38, None, 85.64)),
)


def _by_column(columns: tuple[str, ...], rows: tuple[tuple[str, str, tuple[float | None, ...]], ...]) -> Rows:
    """Rows may be shorter than the columns, for papers' tables with fewer columns."""
    return {
        (source, name): {column: value for column, value in zip(columns, values, strict=False) if value is not None}
        for source, name, values in rows
    }


VSI_BENCH = _by_column(_VSI_BENCH_COLUMNS, _VSI_BENCH_ROWS)
Q_SPATIAL = _by_column(_Q_SPATIAL_COLUMNS, _Q_SPATIAL_ROWS)  # Q-Spatial++
OPEN_ENDED = _by_column(_OPEN_ENDED_COLUMNS, _OPEN_ENDED_ROWS)
