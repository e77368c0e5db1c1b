"""A table as text: Markdown, or aligned columns for a terminal. The first column is aligned left, the others right."""

from __future__ import annotations

from collections.abc import Sequence

Cells = Sequence[Sequence[str]]  # rows; the first is the header


def markdown_table(table: Cells) -> str:
    """A Markdown table."""
    header, *rows = table
    rule = ["---", *(["---:"] * (len(header) - 1))]
    lines = (header, rule, *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def plain_table(table: Cells) -> str:
    """Aligned columns with a line under the header."""
    widths = [max(len(row[index]) for row in table) for index in range(len(table[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def format_number(value: float | None, decimals: int = 1) -> str:
    """The number with that many decimals; a dash for None and nan."""
    return "–" if value is None or value != value else f"{value:.{decimals}f}"
