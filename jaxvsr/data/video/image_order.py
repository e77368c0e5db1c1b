"""Which images of a folder are frames of its video, and in which order.

Names are compared with their numbers taken out: those of one series are equal then (`frame-#.color`). The frames are in
the order of the number that changes. Depth, masks and the like are left out by their names. What may be two videos, or
two orders, is refused: a wrong order looks like any other video.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from jaxvsr.data.video.picture_files import IMAGE_SUFFIXES
from jaxvsr.errors import InputError

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WHOLE = re.compile(r"\d+")
_NO_DECIMAL = re.compile(r"[a-z.]\d+\.\d|\d\.\d+0(?!\d)", re.IGNORECASE)  # clip1.9 and clip1.10, or 1.10
_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d([-_.]?)[01]\d\1[0-3]\d(?!\d)")
# A date with its time of day is one number.
_TIME = r"(?:[-_. tT]*(?:at )?[0-2]\d[-_.:hH]?[0-5]\d(?:[-_.:mM]?[0-5]\d)?)?"
_STAMP = re.compile(_DATE.pattern.removesuffix(r"(?!\d)") + _TIME)
_AFTER_A_LETTER = re.compile(r"[a-z]\d+\.\d", re.IGNORECASE)
_EXPONENT = re.compile(r"\d+(?:\.\d+)?e[-+]?\d+", re.IGNORECASE)
_SIDE = re.compile(r"(?<![a-z])(?:l|r|left|right)(?![a-z])")
_NO_COLOR = (
    "albedo|alpha|annotations?|conf|confidence|depths?|depthmap|disp|disparity|edges?|flow|inst|instances?|ir|labels?|"
    "masks?|matte|normals?|pose|segm?|segmentation|semantics?|uncertainty"
)
_NO_COLOR_WORD = re.compile(rf"(?<![a-z])(?:{_NO_COLOR})(?![a-z])")
# A number of so many digits may be seconds, milli-, micro- or nanoseconds since 1970.
_SECONDS_BY_DIGITS = {10: Decimal(1), 13: Decimal("1e-3"), 16: Decimal("1e-6"), 19: Decimal("1e-9")}
_THIS_CENTURY = range(1_000_000_000, 2_000_000_000)


@dataclasses.dataclass(frozen=True)
class OrderedImages:
    """The frames in a folder, in order.

    Args:
        paths: the images.
        numbers: the number of each, ascending; None where the names have none, or several that change.
        seconds: the time of each since the first, if the names are times.
    """

    paths: tuple[Path, ...]
    numbers: tuple[int, ...] | None
    seconds: tuple[float, ...] | None


def ordered_images(folder: Path) -> OrderedImages | None:
    """The images of a folder; None if there are none.

    Raises:
        InputError: there are several series, or several orders are possible.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        return None
    if exponent := next((path for path in paths if _EXPONENT.fullmatch(path.stem)), None):
        raise InputError(f"{folder}: the name of {exponent.name} has an exponent; rename the images with plain numbers")
    series = _color_series(folder, paths)
    if len(series) > 1:
        sides = {_SIDE.sub("", key) for key in series}
        if len(sides) < len(series) or any(len(names) > 1 for names in series.values()):
            first, second = (names[0].name for names in itertools.islice(series.values(), 2))
            raise InputError(
                f"{folder}: has images of several series, such as {first} and {second}; keep one video's in a folder"
            )
        return OrderedImages(tuple(path for names in series.values() for path in names), None, None)
    (names,) = series.values()
    return _by_number(folder, names)


def _color_series(folder: Path, paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The images by their names without numbers; without depth, masks and the like if there are others."""
    series: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        series[_WHOLE.sub("#", path.stem.lower()).replace("#.#", "#")].append(path)
    color = {key: names for key, names in series.items() if not _NO_COLOR_WORD.search(key)}
    return color or series


def _by_number(folder: Path, paths: list[Path]) -> OrderedImages:
    if len(paths) == 1:
        numbers = _WHOLE.findall(paths[0].stem)
        return OrderedImages(tuple(paths), (int(numbers[0]),) if len(numbers) == 1 else None, None)
    decimals = {path: tuple(map(Decimal, _NUMBER.findall(path.stem))) for path in paths}
    wholes = {path: tuple(map(Decimal, _WHOLE.findall(path.stem))) for path in paths}
    readings = [reading for reading in (decimals, wholes) if len(set(map(len, reading.values()))) == 1]
    orders = [sorted(paths, key=lambda path, reading=reading: reading[path]) for reading in readings]  # type: ignore[misc]
    if len(orders) == 2 and orders[0] != orders[1] and any(_NO_DECIMAL.search(path.stem) for path in paths):
        one, other = next((a, b) for a, b in zip(*orders, strict=True) if a != b)
        raise InputError(
            f"{folder}: {one.name} and {other.name} come in another order with decimal numbers than with whole ones; "
            "rename the images with one number of equal length each"
        )
    reading, ordered = readings[0], orders[0]
    whole_changes = sum(len(set(column)) > 1 for column in zip(*wholes.values(), strict=True)) if readings[1:] else 0
    if whole_changes == 1 and all(_AFTER_A_LETTER.search(path.stem) for path in paths):
        reading = wholes  # shot1.0001, shot1.0002: the first number is a name's
    for before, after in itertools.pairwise(ordered):
        if reading[before] == reading[after]:
            raise InputError(f"{folder}: {before.name} and {after.name} have the same number; keep one of each")
    columns = list(zip(*(reading[path] for path in ordered), strict=True))
    changing = [column for column in columns if len(set(column)) > 1]
    rising = all(a <= b for column in changing for a, b in itertools.pairwise(column))
    if not rising and not _dates_rise(ordered):
        raise InputError(
            f"{folder}: two numbers change from image to image, such as in {ordered[0].name} and {ordered[-1].name}; "
            "keep one video's images in a folder, with one number each"
        )
    timed = [(column, scale) for column in changing if (scale := _seconds_each(column)) is not None]
    if len(timed) == 1 and not all(_DATE.search(path.stem) for path in ordered):  # 12.59.59 is a time of day
        ((column, scale),) = timed
        return OrderedImages(tuple(ordered), None, tuple(float((number - column[0]) * scale) for number in column))
    return OrderedImages(tuple(ordered), tuple(map(int, changing[0])) if len(changing) == 1 else None, None)


def _dates_rise(ordered: Sequence[Path]) -> bool:
    """Whether the images have dates, and no number falls where a date with its time of day is read as one."""
    stems = [_STAMP.sub(lambda stamp: re.sub(r"\D", "", stamp[0]), path.stem) for path in ordered]
    rows = [tuple(map(int, _WHOLE.findall(stem))) for stem in stems]
    if not all(_DATE.search(path.stem) for path in ordered) or len(set(map(len, rows))) > 1:
        return False
    return all(a <= b for column in zip(*rows, strict=True) for a, b in itertools.pairwise(column))


def _seconds_each(column: Sequence[Decimal]) -> Decimal | None:
    """How many seconds a step of one in these numbers is, if they are times."""
    scale = _SECONDS_BY_DIGITS.get(len(str(int(column[0]))))
    if scale is not None and int(column[0] * scale) in _THIS_CENTURY:
        return scale
    return Decimal(1) if any(number.as_tuple().exponent for number in column) else None
