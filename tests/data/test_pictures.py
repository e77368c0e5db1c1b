"""Folders of images in the order of their numbers, colour alone; pictures of every mode as RGB, or refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvsr.data.video.video_sources import open_video
from jaxvsr.errors import InputError


def images(folder: Path, names: list[str]) -> Path:
    """Images of the names in this order, each of its own grey."""
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        Image.fromarray(np.full((30, 30, 3), 3 * index, np.uint8)).save(folder / name)
    return folder


def order(folder: Path) -> list[int]:
    source = open_video(folder)
    return [int(pixels[0, 0, 0]) // 3 for pixels in source.frames(range(len(source)))]


TIMES = ["1305031102.175304", "1305031102.211214", "1305031103.0"]
INCREASING = {
    "whole numbers": [f"{index}.png" for index in (0, 1, 2, 9, 10, 11, 100)],
    "another number stays": [f"scene0000_00_{index}.png" for index in (1, 2, 10, 20)],
    "behind the number too": [f"640x480-{index}_v2.png" for index in (8, 9, 10)],
    "decimals": ["0.0.png", "0.25.png", "0.5.png", "2.75.png", "10.0.png", "10.25.png"],
    "decimals of a whole second": ["t_3.png", "t_3.5.png", "t_4.png", "t_10.125.png"],
    "times": [f"{time}.png" for time in TIMES],
    "more than nine digits": [f"{1403636579763555584 + 50_000_000 * index}.png" for index in range(-8, 8)],
    "a counter and a time": [f"{index}_{1305031102 + index}.5.png" for index in (8, 9, 10)],
    "dates": ["20231231_235959.png", "20240101_000000.png", "20240101_000001.png", "20240102_000000.png"],
    "dates in parts": ["2024-01-01 11-59-58.png", "2024-01-01 12-00-01.png", "2024-01-01 12-01-00.png"],
    "an extension of each": ["1.png", "2.bmp", "10.PNG"],
    "words": ["bath.png", "hall.png", "kitchen.png"],
}


@pytest.mark.parametrize("kind", INCREASING)
def test_images_are_in_the_order_of_the_number_that_changes(kind, tmp_path):
    assert order(images(tmp_path / "walk", INCREASING[kind])) == list(range(len(INCREASING[kind])))


@pytest.mark.parametrize(
    ("names", "seconds"),
    [
        (INCREASING["whole numbers"][:3], [0, 1, 2]),
        (INCREASING["decimals"], [0, 0.25, 0.5, 2.75, 10, 10.25]),
        (INCREASING["times"], [0, 0.03591, 0.824696]),
        (INCREASING["more than nine digits"], np.arange(16) * 0.05),
        ([f"{1305031102000 + 40 * index}.png" for index in range(3)], [0, 0.04, 0.08]),
        ([f"{1305031102000.5 + 40 * index:.2f}.png" for index in range(3)], [0, 0.04, 0.08]),
        (["shot1.0001.png", "shot1.0002.png", "shot1.0003.png"], [0, 1, 2]),
        (["2024-01-01 12.59.59.png", "2024-01-01 13.00.00.png"], [0, 1]),
        (INCREASING["a counter and a time"], [0, 1, 2]),
        (INCREASING["dates"], [0, 1, 2, 3]),
    ],
)
def test_times_in_names_are_the_images_times(names, seconds, tmp_path):
    source = open_video(images(tmp_path / "walk", names))
    assert source.timestamps(range(len(names))) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "beside",
    ["frame-{:06d}.depth.png", "frame-{:06d}_mask.png", "depth_{:06d}.png", "{:06d}-Normals.png", "sem.label{}.png"],
)
def test_depth_and_masks_beside_colour_are_left_out(beside, tmp_path):
    color = [f"frame-{index:06d}.color.png" for index in (0, 1, 2, 10)]
    folder = images(tmp_path / "seq-01", [*color, *(beside.format(index) for index in (0, 1, 2, 10))])
    assert order(folder) == [0, 1, 2, 3]


@pytest.mark.parametrize("place", ["color", "exported/color"])
def test_a_scans_colour_folder_is_read_the_same_way(place, tmp_path):
    names = [f"frame-{index:06d}.color.png" for index in (0, 10, 20)]
    folder = images(tmp_path / "scene0000_00" / place, [*names, *(name.replace("color", "depth") for name in names)])
    scan = folder.parents[len(Path(place).parts) - 1]
    assert order(scan) == [0, 1, 2]
    assert open_video(scan).timestamps([0, 1, 2]) == pytest.approx([0, 1 / 3, 2 / 3])


def pairs(first: str, second: str) -> list[str]:
    return [name.format(index) for index in (1, 2, 3) for name in (first, second)]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (pairs("left_{}.png", "right_{}.png"), "images of several series, such as left_1.png and right_1.png"),
        (pairs("{}_L.png", "{}_R.png"), "several series"),
        (pairs("cam0_{}.png", "cam1_{}.png"), "two numbers change from image to image, such as in cam0_1.png"),
        (["0001_L.png", "0001_R.png"], "several series"),
        (["left.png", "right.png"], "several series"),
        (pairs("cam0_20240101_00000{}.png", "cam1_20240101_00000{}.png"), "two numbers change"),
        (pairs("20240101_clip1_{}.png", "20240101_clip2_{}.png"), "two numbers change"),
        (["1e-05.png", "2e-05.png", "1e-04.png"], "has an exponent"),
        (pairs("{}.png", "{}.bmp"), "1.bmp and 1.png have the same number"),
        (pairs("{}.png", "0{}.png"), "have the same number"),
        (["clip1.9.png", "clip1.10.png", "clip1.11.png"], "come in another order with decimal numbers"),
        (["1.8.png", "1.9.png", "1.10.png"], "come in another order with decimal numbers"),
        ([f"part{part}-{index}.png" for part, index in itertools.product((1, 2), (0, 1))], "two numbers change"),
    ],
)
def test_two_series_or_two_orders_are_refused(names, says, tmp_path):
    with pytest.raises(InputError, match=rf"walk: .*{says}"):
        open_video(images(tmp_path / "walk", names))


def saved(folder: Path, image: Image.Image, suffix: str = "png", **options: object) -> np.ndarray:
    image.save(folder / f"a.{suffix}", **options)  # type: ignore[arg-type]
    return open_video(folder / f"a.{suffix}").frame(0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L", "1"])
def test_transparent_pixels_lie_on_white_as_qwen_vl_utils_lays_them(mode, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 4), np.uint8)
    pixels[:, :10, 3], pixels[:, 20:, 3] = 0, 255
    image = Image.fromarray(pixels)
    if mode in ("RGB", "L", "1", "P"):  # one colour, or one of the palette, is transparent
        image = image.convert("RGB").convert(mode)
        first = image.getpixel((0, 0))
        suffix, options = "png", {"transparency": first if mode != "1" else 0}
    elif mode == "PA":
        image, suffix, options = image.convert("P"), "png", {"transparency": bytes(range(256))}
    else:
        image, suffix, options = image.convert(mode), "png" if mode == "LA" else "webp", {}
        options = {"lossless": True, "exact": True} if mode == "RGBA" else {}
    got = saved(tmp_path, image, suffix, **options)
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        rgba = stored.convert("RGBA")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.split()[3])
    np.testing.assert_array_equal(got, np.asarray(white))
    assert (np.asarray(rgba)[..., 3] < 255).any()
    np.testing.assert_array_equal(got[np.asarray(rgba)[..., 3] == 0], 255)


@pytest.mark.parametrize(
    ("pixels", "suffix", "says"),
    [
        (np.full((20, 30), 2500, np.uint16), "png", "16-bit"),
        (np.full((20, 30), 70_000, np.int32), "tiff", "32-bit"),
        (np.full((20, 30), 1.5, np.float32), "tiff", "float"),
    ],
)
def test_grey_pictures_of_more_than_eight_bits_are_refused(pixels, suffix, says, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, "PNG" if suffix == "png" else "TIFF")  # Pillow goes by what a file holds
    with pytest.raises(InputError, match=rf"a\.png: has one channel of {says} values: is this depth\?"):
        open_video(path).frame(0)


def test_colours_of_sixteen_bits_keep_their_upper_eight(tmp_path):
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">3H", 0x1234, 0x80FF, 0xFF00) * 2
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )  # fmt: skip
    assert open_video(tmp_path / "a.png").frame(0).tolist() == [[[0x12, 0x80, 0xFF]] * 2]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L", "1"])
def test_other_modes_keep_their_colours(mode, tmp_path):
    image = Image.fromarray(np.full((16, 16, 3), (250, 250, 250), np.uint8)).convert(mode)
    got = saved(tmp_path, image, "png" if mode in ("L", "1") else "jpg")
    assert np.abs(got.astype(int) - 250).max() <= 6
