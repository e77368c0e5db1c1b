"""Pair the names in published rows with files, scenes, and the benchmarks of those scenes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections import defaultdict
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

from jaxvsr.data.data_folder import questions_in
from jaxvsr.data.importers.row_fields import SourceRow
from jaxvsr.data.importers.turns import Picture
from jaxvsr.data.scannet.benchmark_scenes import Benchmark, benchmark_in
from jaxvsr.data.scannet.read_scan import is_procedural
from jaxvsr.data.scene_names import made_plain
from jaxvsr.data.video.media_index import MediaIndex, Medium, name_parts, shared_parts
from jaxvsr.data.video.picture_files import IMAGE_LIMIT_PIXELS
from jaxvsr.errors import one_line
from jaxvsr.files import partial_name

IMAGES_DIR = "images"
_SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
# A scene's name is also a folder's, and part of longer names.
_NAME_LIMIT_BYTES = 160


@dataclasses.dataclass(frozen=True)
class Place:
    """The scene of a row, and its files below the folder of videos or below the data folder."""

    scene: str
    video: str | None
    images: tuple[str, ...] | None
    benchmark: Benchmark | None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a row's names reach: a `medium`, or the paths of `images`. `names`: each name of a file, with its path."""

    medium: Medium | None
    images: tuple[str, ...]
    names: tuple[tuple[str, str], ...]


class Pairing:
    """Pairs rows with media; images that are part of the set are written to the import's folder.

    Call `find` for all rows, then `place`, because a name may be wrong only beside another row's. At the end, call
    `keep` with the names in use, or `discard`.
    """

    def __init__(self, out: Path, name: str, index: MediaIndex | None) -> None:
        self._index = index
        self._folder = out / IMAGES_DIR / name
        self._partial = partial_name(self._folder)
        self._below = f"{IMAGES_DIR}/{name}"
        self._name = name
        self._scene_of = {  # by path; of other imports in the folder too
            row.video or " ".join(row.images or ()): row.scene
            for row in questions_in(out)
            if (row.video or row.images) and not row.id.startswith(f"{name}-")
        }
        self._taken = set(self._scene_of.values())
        self._names_of: dict[str, dict[tuple[str, ...], str]] = defaultdict(dict)  # by path, then by the name's parts
        self._ranked: dict[str, list[tuple[int, tuple[str, ...]]]] = {}  # by path, those that fit best first
        self._made = [folder for folder in (self._folder.parent, out) if not folder.exists()]

    def find(self, row: SourceRow) -> Found | str:
        """What the row's names reach, or a line that says why one reaches nothing."""
        if row.images:
            found = [self._image(picture) for picture in row.images]
            lost = next((reason for path, reason in found if not path), None)
            if lost is not None:
                return lost
            images = tuple(path for path, _ in found)
            named = zip(row.images, images, strict=True)
            return self._reached(
                None, images, tuple((picture.name, path) for picture, path in named if picture.data is None)
            )
        if row.video is None:
            return "the row names neither video nor images"
        if self._index is None:
            return "no --videos folder was given"
        medium = self._index.find(row.video, ("video", "scan", "folder"))
        if isinstance(medium, str):
            return medium
        return self._reached(medium, (), ((row.video, medium.path.as_posix()),))

    def place(self, row: SourceRow, found: Found) -> Place | str:
        """The row's place, or a line that says whose names contradict its own."""
        wrong = next(filter(None, (self._contradicted(name, path) for name, path in found.names)), None)
        if wrong is not None:
            return wrong
        medium, images = found.medium, found.images
        if medium is None:
            scene = self._scene(_image_scene(images), " ".join(images))
            names = [picture.name for picture in row.images]
            return Place(scene, None, images, self._benchmark((*names, *images, row.scene or "", *row.names), None))
        path = medium.path.as_posix()
        scene = medium.path.name if medium.kind == "folder" else medium.path.stem
        if medium.kind == "scan" and not medium.path.suffix:
            scene = medium.path.name
        scene = self._scene(scene, path)
        return Place(scene, path, None, self._benchmark((row.video or "", path, row.scene or "", *row.names), medium))

    def keep(self, images: set[str]) -> None:
        """Move the written images to their final folder, without those that no row uses."""
        if self._partial.is_dir():
            for path in self._partial.iterdir():
                if f"{self._below}/{path.name}" not in images:
                    path.unlink()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._partial.is_dir() and any(self._partial.iterdir()):
            os.replace(self._partial, self._folder)
        shutil.rmtree(self._partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # not there, or not empty
            self._folder.parent.rmdir()

    def discard(self) -> None:
        """Remove everything that was written."""
        shutil.rmtree(self._partial, ignore_errors=True)
        for folder in self._made:
            with contextlib.suppress(OSError):  # not there, or not empty
                folder.rmdir()

    def _reached(self, medium: Medium | None, images: tuple[str, ...], names: tuple[tuple[str, str], ...]) -> Found:
        for name, path in names:
            self._names_of[path].setdefault(name_parts(name), name)
        return Found(medium, images, names)

    def _contradicted(self, name: str, path: str) -> str | None:
        """Why `path` cannot be what `name` means: another name reaches it too, fits no worse, and neither is the
        other's end. A set that is there only in part would else lend one scene's `video.mp4` to all.
        """
        if path not in self._ranked:
            medium = name_parts(path)
            ranked = [(-shared_parts(parts, medium), parts) for parts in self._names_of[path]]
            self._ranked[path] = sorted(ranked)
        own = name_parts(name)
        rank = -shared_parts(own, name_parts(path))
        for other_rank, other in self._ranked[path]:
            if other_rank > rank:
                break
            if shared_parts(own, other) < min(len(own), len(other)):
                fits = "as well" if other_rank == rank else "better"
                rival = self._names_of[path][other]
                return f"{name[:120]!r} could only be {path[:80]}, which {rival[:120]!r} fits {fits}"
        return None

    def _scene(self, name: str, path: str) -> str:
        """The medium's name, or if another medium of the data folder has it, a longer one: its whole path, and at last
        the import's name before that."""
        if path not in self._scene_of:
            whole = "--".join(PurePosixPath(path).with_suffix("").parts)
            names = [shortened(made_plain(one)) for one in (name, whole, f"{self._name}--{whole}")]
            self._scene_of[path] = next((one for one in names if one not in self._taken), names[-1])
            self._taken.add(self._scene_of[path])
        return self._scene_of[path]

    def _image(self, picture: Picture) -> tuple[str, str]:
        """(path, "") or ("", why not)."""
        if picture.data is not None:
            return self._written(picture.data)
        if self._index is None:
            return "", "no --videos folder was given"
        medium = self._index.find(picture.name, ("image",))
        return ("", medium) if isinstance(medium, str) else (medium.path.as_posix(), "")

    def _written(self, data: bytes) -> tuple[str, str]:
        try:
            with Image.open(BytesIO(data), formats=list(_SUFFIX_OF)) as image:
                kind, (width, height) = image.format or "", image.size
        except Exception as error:  # decoders raise many kinds on broken data
            return "", f"its image cannot be read ({one_line(error)})"
        if width * height > IMAGE_LIMIT_PIXELS:
            return "", f"its image has {width}×{height} pixels; expected at most {IMAGE_LIMIT_PIXELS:,}"
        name = f"{hashlib.sha256(data).hexdigest()[:20]}{_SUFFIX_OF[kind]}"
        path = self._partial / name
        if not path.exists():
            self._partial.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return f"{self._below}/{name}", ""

    def _benchmark(self, names: tuple[str, ...], medium: Medium | None) -> Benchmark | None:
        if medium is not None and medium.kind == "scan" and self._index is not None:
            path = self._index.root / medium.path
            if is_procedural(path if path.is_dir() else path.parent):
                return None  # although their names are like ScanNet's
        return next((owner for name in names if (owner := benchmark_in(name)) is not None), None)


def _image_scene(images: tuple[str, ...]) -> str:
    """A scene's name from its images: the path of the first, and a digest of all if there are several."""
    name = "--".join(PurePosixPath(images[0]).with_suffix("").parts)
    if len(images) > 1:
        name += f"--and-{len(images) - 1}-{hashlib.sha256(chr(10).join(images).encode()).hexdigest()[:8]}"
    return shortened(name)


def shortened(name: str) -> str:
    """The name; if it is too long for a folder, the beginning and a digest."""
    if len(name.encode()) <= _NAME_LIMIT_BYTES:
        return name
    cut = name.encode()[: _NAME_LIMIT_BYTES - 20].decode(errors="ignore")
    return f"{cut}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
