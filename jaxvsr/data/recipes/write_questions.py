"""Write a recipe's questions into a data folder: rows, splits, card; and the lines to print about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.data.data_folder import (
    QUESTIONS_FILE,
    bullets,
    merge_questions,
    repeated_line,
    summary_table,
    write_all_questions,
    write_card_section,
)
from jaxvsr.data.questions import read_questions
from jaxvsr.data.recipes.generate_questions import LEFT_OUT_UNALIGNED, QuestionReport, QuestionSettings
from jaxvsr.data.recipes.recipe import Recipe
from jaxvsr.data.recipes.unfinished_questions import PARTS_DIR, remove_parts
from jaxvsr.data.scannet.benchmark_scenes import benchmark_in, benchmark_of
from jaxvsr.data.scannet.read_scan import SCANNET_TERMS, is_procedural
from jaxvsr.data.shards import Shard
from jaxvsr.data.splits import SPLITS_FILE, read_splits, split_by_room, write_splits
from jaxvsr.errors import InputError


@dataclasses.dataclass(frozen=True)
class QuestionSet:
    """What was asked of which scans. `left_out`: scans left out per benchmark; `heldout`: share of rooms held out."""

    recipe: Recipe
    settings: QuestionSettings
    scans: Sequence[Path]
    left_out: dict[str, int]
    heldout: float


def write_question_set(out: Path, asked: QuestionSet, report: QuestionReport) -> list[str]:
    """Write everything, replacing what the recipe wrote before, and return the lines to print about it.

    Raises:
        InputError: there is no question.
    """
    recipe, scans = asked.recipe, asked.scans
    flaws = dict(report.flaws)
    unaligned = _unaligned_line(flaws.pop(LEFT_OUT_UNALIGNED, 0), len(scans))
    if not report.questions:
        remove_parts(out, recipe.name)
        why = f" ({unaligned})" if unaligned else ""
        raise InputError(f"{out}: nothing written, because there is no question for any of {len(scans)} scans{why}")
    procedural = {scan.name for scan in scans if is_procedural(scan)}
    splits = _write_rows(out, asked, report, procedural)
    originals = [row for row in report.questions if row.mirror_of is None]
    table = summary_table(originals, recipe.paper_counts)
    facts = {
        "source": recipe.source,
        "terms": "; ".join(_terms(scans, procedural)),
        "scans": f"{len(scans)}, {len(procedural)} of them procedural rooms",
        "scans left out as benchmarks": sum(asked.left_out.values()),
        "scans left out as broken": len(report.broken),
        "scans left out without axisAlignment": report.flaws.get(LEFT_OUT_UNALIGNED, 0),
        "flaws worked around": flaws or "none",
        "seed": asked.settings.seed,
        "mirrored": asked.settings.mirror,
        **dataclasses.asdict(asked.settings.options),
    }
    write_card_section(out, f"Questions: {recipe.name}", f"{bullets(facts)}\n\n{table}")
    remove_parts(out, recipe.name)
    lines = [table, *([unaligned] if unaligned else [])]
    if without := report.flaws.get("no_instance_masks"):
        lines.append(
            f"{without} of {len(scans)} scans have no _2d-instance-filt.zip: no question about the order of appearance"
        )
    if flaws:
        lines.append("flaws worked around: " + ", ".join(f"{name} {count}" for name, count in flaws.items()))
    if line := repeated_line(read_questions(out / QUESTIONS_FILE)):
        lines.append(line)
    images = len(report.questions) - len(originals)
    mirrored = f" and {images:,} mirrored ones" if images else ""
    left = len(scans) - len(report.broken) - report.flaws.get(LEFT_OUT_UNALIGNED, 0)
    about = f"about {left} scans in {out}"
    shares = f"{len(splits['train'])} train, {len(splits['heldout'])} held out"
    return [*lines, f"{len(originals):,} questions{mirrored} {about}: {shares}"]


def _unaligned_line(left_out: int, scans: int) -> str:
    """What to print about scans left out for lack of axisAlignment; empty if there are none."""
    if not left_out:
        return ""
    return (
        f"left out {left_out} of {scans} scans: no axisAlignment in their .txt, and this recipe measures along the axes"
    )


def shard_line(out: Path, shard: Shard, asked: int, scans: int) -> str:
    """What to print when `asked` of `scans` scans, one shard, are done."""
    return (
        f"shard {shard}: {asked} of {scans} scans asked, kept in {out / PARTS_DIR}; when all shards are "
        "there, the same command without --shard puts them together"
    )


def _terms(scans: Sequence[Path], procedural: set[str]) -> list[str]:
    """The terms of the scans: procedural rooms have this project's."""
    terms = ["procedural rooms, made by jaxvsr, under its licence alone (Apache-2.0)"] if procedural else []
    if len(procedural) < len(scans):
        terms.append(f"scans of ScanNet under its terms of use, {SCANNET_TERMS}")
    return terms


def _write_rows(out: Path, asked: QuestionSet, report: QuestionReport, procedural: set[str]) -> dict[str, list[str]]:
    """Write the rows and the splits with their scenes; returns the splits."""
    merged = merge_questions(out, asked.recipe.name, report.questions)
    before = read_splits(out) if (out / SPLITS_FILE).exists() else None
    scenes = {row.scene for row in merged}
    benchmark = [scan.name for scan in asked.scans if benchmark_of(scan.name) and scan.name not in procedural]
    if before is None:  # splits.json may have been deleted: imported scenes of benchmarks too
        benchmark += [scene for scene in scenes - procedural if benchmark_in(scene)]
    splits = split_by_room(scenes, asked.heldout, seed=asked.settings.seed, always_heldout=benchmark, before=before)
    write_all_questions(out, merged)
    write_splits(out, splits)
    return splits
