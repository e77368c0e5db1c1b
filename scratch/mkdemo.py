"""Throwaway: python mkdemo.py FOLDER…: docs/demo.md from FOLDER/demo.log and FOLDER/runs/demo/comparison.json of three seeds."""

import json, re, sys
from pathlib import Path

folders = [Path(a) for a in sys.argv[1:]]
log = (folders[0] / "demo.log").read_text()
stages = re.split(r"\n(?=\[\d+/\d+\] )", log)
head, stages = stages[0], stages[1:]


def body(stage, keep):
    lines = stage.rstrip().splitlines()
    return lines


def indent(lines):
    return "\n".join(("    " + l).rstrip() for l in lines)


out = []


def take(n):
    return stages[n - 1].rstrip().splitlines()


rooms, questions, frames, grpo, blank, start, ev_blank, after, saved, page, export = [take(i) for i in range(1, 12)]
short = lambda lines: lines[:2] + ["…"]
q = questions[:2] + ["…", next(l for l in questions if "held out" in l)]
steps = [l for l in grpo if l.startswith("step ")]
g = [l for l in grpo if not l.startswith("writing")]
table = [l for l in page if "|" not in l]
ti = next(i for i, l in enumerate(page) if l.startswith("question type") and "after − start" in l)
tbl = page[ti : ti + 7]
times_start = next(i for i, l in enumerate(export) if re.match(r"\s+[\d.]+ s  rooms", l))
tail = [l for l in export[times_start:]]
blocks = [
    rooms,
    q,
    [l for l in frames if "flaws" not in l],
    g,
    short(blank),
    short(start),
    saved,
    page[:2] + tbl + ["…"],
    tail,
]
shell = "\n\n".join(indent(b) for b in blocks)
seeds = [json.loads((f / "runs/demo/comparison.json").read_text()) for f in folders]
rows = []
for seed, f in enumerate(folders):
    text = (f / "demo.log").read_text()
    i = text.index("question type             n  constant")
    for l in text[i:].splitlines()[2:7]:
        m = re.match(
            r"(.+?)  +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +(\S+ \([^)]*\)) +(\S+ \([^)]*\)) +(\S+ \([^)]*\))",
            l,
        )
        rows.append((m[1].strip(), seed, *m.groups()[2:]))
order = []
for r in rows:
    if r[0] not in order:
        order.append(r[0])
lines = [
    "| question type | seed | constant | start | blank | after | after − start | after − blank | after − constant |",
    "|---|---|---|---|---|---|---|---|---|",
]
for name in order:
    for r in rows:
        if r[0] == name:
            lines.append("| " + " | ".join(map(str, r)) + " |")
print(shell)
print()
print("\n".join(lines))
