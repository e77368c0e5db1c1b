"""Pieces of HTML. Every text that comes from outside (model output, labels, file names) goes through `text`."""

from __future__ import annotations

import base64
import html
import math
import unicodedata
from collections.abc import Sequence
from importlib import resources

from jaxvsr.report.charts import number

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_page(title: str, sections: Sequence[str]) -> str:
    """A self-contained page of these sections; empty ones are left out."""
    css = resources.files("jaxvsr.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Nothing is loaded and nothing runs, whatever a model wrote.
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Escaped for HTML content and attributes, with control and direction characters made visible.

    A model may emit anything: markup, terminal escapes, or the characters that reverse what stands behind them.

    >>> text("<b>\\x1b[31m")
    '&lt;b&gt;␛[31m'
    """
    visible = []
    for character in str(value):
        code = ord(character)
        if code < 0x20 and character not in "\n\t":
            visible.append(chr(0x2400 + code))
        elif unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") and character not in "\n\t":
            visible.append(f"\\u{code:04x}")
        else:
            visible.append(character)
    return html.escape("".join(visible))


def image(data: bytes, kind: str, description: str, css_class: str = "") -> str:
    """A picture inside the page. SVG is shown as a picture too: a script in it does not run.

    kind: `jpeg`, `png` or `svg+xml`.
    """
    encoded = base64.b64encode(data).decode("ascii")
    shown = f' class="{css_class}"' if css_class else ""
    return f'<img{shown} src="data:image/{kind};base64,{encoded}" alt="{text(description)}">'


def frame_strip(frames: Sequence[bytes], scene: str) -> str:
    """JPEG frames of a scene in a row."""
    if not frames:
        return ""
    pictures = "".join(image(frame, "jpeg", f"{scene}, frame {index + 1}") for index, frame in enumerate(frames))
    return f'<div class="strip">{pictures}</div>'


def reward_bar(value: float, largest: float) -> str:
    """A number with a bar from 0 to `largest`."""
    share = min(max(value / largest, 0.0), 1.0) if largest > 0 and math.isfinite(value) else 0.0
    return f'<span class="bar"><i style="left:0;width:{100 * share:.0f}%"></i></span>{number(value)}'


def advantage_bar(value: float, largest: float) -> str:
    """A signed number with a bar to the left or right of the middle."""
    share = min(abs(value) / largest, 1.0) * 50 if largest > 0 and math.isfinite(value) else 0.0
    left, sign = (50.0, "plus") if value >= 0 else (50.0 - share, "minus")
    return f'<span class="bar"><i class="{sign}" style="left:{left:.0f}%;width:{share:.0f}%"></i></span>{signed(value)}'


def signed(value: float) -> str:
    """A number with its sign; zero has none."""
    return f"+{number(value)}" if value > 0 else number(value).replace("-", "−")
