"""Write an import into a data folder: rows, split, card, and the list of rows that were left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from jaxvsr.data.data_folder import (
    bullets,
    merge_questions,
    questions_in,
    summary_table,
    write_all_questions,
    write_card_section,
)
from jaxvsr.data.importers.formats import TERMS
from jaxvsr.data.importers.import_questions import ImportReport, ImportSettings
from jaxvsr.data.importers.pairing import Pairing
from jaxvsr.data.scannet.benchmark_scenes import benchmark_in
from jaxvsr.data.scannet.read_scan import SCANNET_TERMS
from jaxvsr.data.splits import SPLITS_FILE, read_splits, room_of, split_by_room, write_splits
from jaxvsr.data.subsets import DEBIASED, write_subsets
from jaxvsr.files import replacing

_SHOWN = 3
# The kinds of left-out rows in the printed summary.
_MEANING = {
    "refused": "refused",
    "unpaired": "without video or images",
    "benchmark": "about benchmark scenes (--include takes them, as held out)",
    "contradiction": "contradict each other",
    "duplicate": "in the set twice",
}


def write_import(
    out: Path, settings: ImportSettings, report: ImportReport, pairing: Pairing, heldout: float, seed: int
) -> list[str]:
    """Write everything, in place of an earlier import of the same name; returns the lines to print about it."""
    replaced = sum(row.id.startswith(f"{settings.name}-") for row in questions_in(out))
    out.mkdir(parents=True, exist_ok=True)
    rows = merge_questions(out, settings.name, report.questions)
    before = read_splits(out) if (out / SPLITS_FILE).exists() else None
    scenes = {row.scene for row in rows}
    benchmark = set(report.benchmark_scenes)
    if before is None:  # splits.json may have been deleted: benchmark scenes of other imports too
        benchmark |= {row.scene for row in rows if (row.video or row.images) and benchmark_in(row.scene)}
    splits = split_by_room(scenes, heldout, seed=seed, always_heldout=benchmark, before=before)
    pairing.keep({image for row in report.questions for image in row.images or ()})
    write_all_questions(out, rows)
    write_splits(out, splits)
    write_subsets(out, {DEBIASED: report.debiased}, owner=f"{settings.name}-")
    _write_left_out(out / f"{settings.name}-left-out.tsv", report)
    terms = [TERMS[report.format]] if report.format in TERMS else []
    if any(room_of(scene) != scene for scene in scenes):
        terms.append(f"{SCANNET_TERMS} (scans of ScanNet)")
    facts = {
        "source": settings.source.name,
        "terms": ", ".join(terms) or "those of the source",
        "format": report.format,
        "fields": ", ".join(f"{ours}={theirs}" for ours, theirs in settings.field_map.items()) or "as published",
        "rows": f"{report.source_rows:,}",
        "questions": f"{len(report.questions):,}",
        "paired with video or images": f"{report.paired:,}",
        **{f"left out, {kind}": f"{count:,}" for kind, count in report.counts().items()},
        f"in the {DEBIASED} subset": f"{len(report.debiased):,}",
        "scenes of benchmarks, held out": f"{len(report.benchmark_scenes):,}",
        **{note: f"{count:,}" for note, count in report.notes.items()},
    }
    write_card_section(out, f"Questions: {settings.name}", f"{bullets(facts)}\n\n{summary_table(report.questions)}")
    lines = _lines(report)
    if replaced:
        lines.append(
            f"in place of {replaced:,} rows of an earlier import named {settings.name}; another name keeps both"
        )
    lines.append(
        f"{len(report.questions):,} questions out of {report.source_rows:,} rows of {settings.source} imported as "
        f"{report.format}, about {len({row.scene for row in report.questions}):,} scenes, into {out}: "
        f"{len(splits['train'])} train, {len(splits['heldout'])} held out"
    )
    return lines


def _lines(report: ImportReport) -> list[str]:
    """The table of tasks, then every kind of row left out with its first cases."""
    missing = report.counts()["unpaired"]
    lines = [summary_table(report.questions), f"pairs: {report.paired:,} found, {missing:,} missing"]
    by_owner = Counter(report.benchmark_scenes.values())
    lines += [f"{count:,} scenes of {owner}, held out" for owner, count in sorted(by_owner.items())]
    if report.debiased:
        lines.append(f"subset {DEBIASED}: {len(report.debiased):,} questions were not pruned")
    lines += [f"{note}: {count:,} rows" for note, count in sorted(report.notes.items())]
    for kind, count in report.counts().items():
        if count:
            lines.append(f"left out, {_MEANING[kind]}: {count:,}")
            cases = [one for one in report.left_out if one.kind == kind]
            lines += [f"  {one.where}: {one.reason}" for one in cases[:_SHOWN]]
            if count > _SHOWN:
                lines.append("  …")
    return lines


def _write_left_out(path: Path, report: ImportReport) -> None:
    """All rows left out, as `kind, where, reason`; no file if there are none."""
    if not report.left_out:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for one in report.left_out:
            file.write("\t".join(" ".join(part.split()) for part in (one.kind, one.where, one.reason)) + "\n")
