"""Pages from the templates in `templates/`: every text is escaped there, numbers and pictures have filters here."""

from __future__ import annotations

import base64
import math
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jaxvsr import outside_text


class Cell(NamedTuple):
    """A cell of a table."""

    text: str | None  # None: there is no answer
    css_class: str = ""
    small: str = ""  # in small print after the text, in parentheses


def visible(value: object) -> object:
    """A text with its control and direction characters made visible; finished markup as it is."""
    return value if hasattr(value, "__html__") else outside_text.visible(str(value))


def number(value: float, digits: int = 3) -> str:
    """A short text: three significant digits or `digits`, thousands as k, exponents where they save space.

    >>> number(0.12345), number(13440.0), number(120.0), number(1e-5)
    ('0.123', '13.4k', '120', '1e-5')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 1e4:
        return f"{value / 1e3:.{digits}g}k"
    return f"{value:.{digits}g}" if size < 1e3 else f"{value:.{max(0, digits - 4)}f}"


def signed(value: float) -> str:
    """A number with its sign; zero has none."""
    return f"+{number(value)}" if value > 0 else number(value).replace("-", "−")


def percent(value: float, largest: float) -> float:
    """Length of a bar that is full at `largest`; 0 where there is no such length."""
    return 100 * min(max(value / largest, 0.0), 1.0) if largest > 0 and math.isfinite(value) else 0.0


def data_uri(picture: bytes | str, kind: str) -> Markup:
    """A picture inside the page, of kind `jpeg`, `png` or `svg+xml`; as a picture, a script in an SVG does not run."""
    data = picture.encode() if isinstance(picture, str) else picture
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}")


TEMPLATES = Environment(
    loader=PackageLoader("jaxvsr.report"),
    autoescape=True,
    finalize=visible,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"number": number, "signed": signed, "percent": percent, "data_uri": data_uri}


def render(template: str, **values: object) -> Markup:
    """A template of `templates/` with these values, as finished markup."""
    return Markup(TEMPLATES.get_template(template).render(values))
