"""Frames of video files by number, compared with the ffmpeg program; files that are cut off, damaged or cut."""

from __future__ import annotations

import gc
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.video.video_file import VideoFileSource
from jaxvsr.errors import InputError
from launch.build_data import main
from tests.support.encodes import ENCODINGS, FPS, GREYS, encode, ffmpeg, packet_places, shown_by_ffmpeg
from tests.support.everything import ALL


def all_frames(source: VideoFileSource) -> np.ndarray:
    return np.stack(list(source.frames(range(len(source)))))


def agrees_with_ffmpeg(path: Path, height: int = 48, width: int = 64) -> tuple[VideoFileSource, np.ndarray]:
    """Every frame equals the program's, and times rise; the source and its frames."""
    source = VideoFileSource(path)
    frames = all_frames(source)
    np.testing.assert_array_equal(frames, shown_by_ffmpeg(path, height, width))
    times = source.timestamps(range(len(source)))
    assert times[0] == 0 and (np.diff(times) > 0).all()
    return source, frames


def greys_of(frames: np.ndarray) -> np.ndarray:
    return frames[:, 20, 30, 0].astype(int)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_frames_of_mpeg4_with_b_frames_are_those_asked_for(name, tmp_path):
    source = VideoFileSource(encode(tmp_path / name, "mpeg4-b"))
    for index in (17, 34, 51, 0, 119):
        assert abs(int(source.frame(index)[20, 30, 0]) - 2 * index) <= 1
    assert source.timestamps([17, 34, 51]) == pytest.approx([17 / 30, 34 / 30, 51 / 30], abs=1e-3)
    assert len(source) == 120 and source.fps == FPS


KINDS = [
    ("mpeg4-b", "mp4"), ("mpeg4-b", "avi"), ("mpeg2-b", "mkv"), ("h264-open", "mov"), ("h264", "avi"),
    ("h264-refresh", "mkv"), ("hevc-open", "mp4"), ("hevc-closed", "mkv"), ("vp8", "webm"), ("vp9", "webm"),
    ("mjpeg", "avi"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "container"), KINDS)
def test_frames_and_times_equal_the_ffmpeg_programs(encoding, container, tmp_path):
    source, frames = agrees_with_ffmpeg(encode(tmp_path / f"a.{container}", encoding))
    assert np.abs(greys_of(frames) - GREYS).max() <= 2
    assert source.timestamps(range(120)) == pytest.approx(np.arange(120) / FPS, abs=1e-3) and source.fps == FPS


def test_the_same_bytes_in_any_order_and_from_several_threads(tmp_path):
    source = VideoFileSource(encode(tmp_path / "a.mp4", "h264-open", GREYS[:40]))
    once = all_frames(source)
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(40), 2))
    with ThreadPoolExecutor(8) as pool:
        for index, pixels in zip(order, pool.map(source.frame, order.tolist()), strict=True):
            np.testing.assert_array_equal(pixels, once[index])


@pytest.mark.parametrize("encoding", ["h264", "h264-open", "h264-refresh", "hevc-open", "mpeg4-b", "mpeg2-b", "vp9"])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_clip_that_was_cut_without_encoding_has_the_frames_that_a_player_shows(encoding, container, tmp_path):
    """An edit list in mp4; frames of a group whose beginning was cut away in mkv."""
    whole = encode(tmp_path / f"whole.{container}", encoding)
    cut = tmp_path / f"cut.{container}"
    ffmpeg("-ss", "1.37", "-i", whole, "-c", "copy", cut)
    source, frames = agrees_with_ffmpeg(cut)
    assert source.timestamps(range(len(source))) == pytest.approx(np.arange(len(source)) / FPS, abs=2e-3)
    np.testing.assert_allclose(greys_of(frames), GREYS[-len(source) :], atol=2)
    if container == "mp4":
        assert len(source) == 78 and source.fps == pytest.approx(30)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_variable_frame_rate_keeps_each_frames_time(container, tmp_path):
    times = np.cumsum(np.random.default_rng(2).integers(20, 300, 40)) - 20
    source, _ = agrees_with_ffmpeg(encode(tmp_path / f"a.{container}", "h264", GREYS[:40], times_ms=times.tolist()))
    assert source.timestamps(range(40)) == pytest.approx((times - times[0]) / 1000, abs=2e-3)
    assert source.fps == pytest.approx(39_000 / (times[-1] - times[0]), rel=0.02)


TURNS = [("-display_rotation", "90"), ("-display_rotation", "180"), ("-display_rotation", "270"), ("-display_hflip",),
         ("-display_rotation", "90", "-display_vflip")]  # fmt: skip


@pytest.mark.parametrize("container", ["webm", "mkv"])
def test_one_doubled_time_leaves_all_others_as_they_are(container, tmp_path):
    times = [33 * index * (1 + (index >= 15)) for index in range(30)]
    plain = encode(tmp_path / f"plain.{container}", "vp8", GREYS[:30], times_ms=times)
    doubled = tmp_path / f"doubled.{container}"
    ffmpeg("-i", plain, "-c", "copy", "-bsf:v", "setts=ts='if(eq(N,15),PREV_OUTPTS,TS)'", doubled)
    source = VideoFileSource(doubled)
    expected = [time / 1000 for time in times]
    expected[15] = expected[14]
    assert source.timestamps(range(30)) == pytest.approx(expected, abs=2e-3)
    assert greys_of(all_frames(source)) == pytest.approx(GREYS[:30], abs=2)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_or_mirrored_video_is_upright(turn, tmp_path):
    base, turned = tmp_path / "base.mp4", tmp_path / "turned.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=30:duration=0.3", "-c:v", "libx264", base)
    ffmpeg(*turn, "-i", base, "-c", "copy", turned)
    agrees_with_ffmpeg(turned, *((64, 48) if turn[1:2] in (("90",), ("270",)) else (48, 64)))


def test_a_turn_by_less_than_a_quarter_is_refused(tmp_path):
    base, turned = tmp_path / "base.mp4", tmp_path / "turned.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=30:duration=0.1", "-c:v", "libx264", base)
    ffmpeg("-display_rotation", "30", "-i", base, "-c", "copy", turned)
    with pytest.raises(InputError, match=r"turned\.mp4: is to be shown turned by -?30 degrees; expected quarter turns"):
        all_frames(VideoFileSource(turned))


@pytest.mark.parametrize("tags", [("yuv420p", "bt709"), ("yuvj420p", "smpte170m"), ("yuv444p10le", "bt709")])
def test_colours_follow_the_videos_tags(tags, tmp_path):
    path = tmp_path / "a.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=30:duration=0.2", "-vf", f"scale=out_color_matrix={tags[1]}",
           "-pix_fmt", tags[0], "-colorspace", tags[1], "-c:v", "libx264", path)  # fmt: skip
    np.testing.assert_allclose(all_frames(VideoFileSource(path)).astype(int), shown_by_ffmpeg(path), atol=1)


def test_transparent_pixels_of_a_video_lie_on_white(tmp_path):
    frame = np.zeros((48, 64, 4), np.uint8)  # hidden black
    frame[:, :32] = (200, 0, 0, 255)
    pictures = [Image.fromarray(frame), Image.fromarray(np.roll(frame, 8, 1))]
    path = tmp_path / "a.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    first = VideoFileSource(path).frame(0)
    assert first[20, 10].tolist() == [200, 0, 0] and first[20, 60].tolist() == [255, 255, 255]


def test_depth_in_a_video_is_refused(tmp_path):
    path = tmp_path / "depth.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=30:duration=0.1", "-pix_fmt", "gray16le", "-c:v", "ffv1", path
    )
    with pytest.raises(InputError, match=r"depth\.mkv: frame 0 has one channel of 16 bits: is this depth\?"):
        VideoFileSource(path).frame(0)


def test_a_colon_in_a_name_is_no_protocol_and_a_playlist_is_no_video(tmp_path):
    path = encode(tmp_path / "a.mp4", greys=GREYS[:3])
    assert len(VideoFileSource(path.rename(tmp_path / "http:a.mp4"))) == 3
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/http:a.mp4'\n")
    with pytest.raises(InputError, match=r"list\.mp4: not a video"):
        VideoFileSource(tmp_path / "list.mp4")


def test_what_was_read_leaves_no_threads_until_garbage_is_collected(tmp_path):
    source = VideoFileSource(encode(tmp_path / "a.mp4", greys=GREYS[:6]))
    gc.collect()
    before = len(os.listdir("/proc/self/task"))
    gc.disable()
    try:
        assert len(list(source.frames(range(6)))) == 6
        assert len(os.listdir("/proc/self/task")) <= before
    finally:
        gc.enable()


def test_a_title_that_is_not_utf_8_is_no_matter(tmp_path):
    path = encode(tmp_path / "a.mkv", greys=GREYS[:3], metadata={"title": "Kueche"})
    data = path.read_bytes()
    assert b"Kueche" in data
    path.write_bytes(data.replace(b"Kueche", "Küche ".encode("latin-1")))
    assert len(VideoFileSource(path)) == 3


@pytest.mark.parametrize("container", ["mkv", "webm", "avi", "mp4", "gif"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_file_that_is_cut_off_is_broken(container, share, tmp_path, capfd):
    path = tmp_path / f"clip.{container}"
    if container == "gif":
        noise = np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3), np.uint8)
        first, *others = map(Image.fromarray, noise)
        first.save(path, save_all=True, append_images=others, duration=100)
    else:
        encode(path, "vp9" if container == "webm" else "h264", GREYS[:60], noise=40)
    if container == "mp4":  # with its table in front, as for the web
        ffmpeg("-i", path, "-c", "copy", "-movflags", "faststart", tmp_path / "fast.mp4")
        (tmp_path / "fast.mp4").replace(path)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * share)])
    with pytest.raises(InputError, match=r"clip\.\w+: is cut off"):
        VideoFileSource(path)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip.wmv", "clip.ts", "clip.mpg", "clip.flv", "clip.3gp", "live.mkv", "live.webm"])
def test_other_containers_are_read_and_known_to_be_cut_off(name, tmp_path):
    """Those whose length is not in their header end with a part that is not whole."""
    path, base = tmp_path / name, encode(tmp_path / "base.avi", "mjpeg", GREYS[:60], noise=40)
    codec = {".wmv": "wmv2", ".mpg": "mpeg2video", ".3gp": "mpeg4", ".webm": "libvpx"}.get(path.suffix, "libx264")
    ffmpeg("-i", base, "-c:v", codec, *(("-live", "1") if "live" in name else ()), path)
    assert len(agrees_with_ffmpeg(path)[0]) == 60
    data = path.read_bytes()
    for share in (0.31, 0.52, 0.73, 0.94):
        path.write_bytes(data[: round(len(data) * share) | 1])  # packets of ts have an even length
        with pytest.raises(InputError, match=rf"{name}: is cut off"):
            VideoFileSource(path)


def says_sixty_frames(path: Path) -> None:
    """40 frames behind a header that says 60, the lengths of all parts right."""
    encode(path, "h264", GREYS[:60] if path.suffix == ".mp4" else GREYS[:40])
    data = bytearray(path.read_bytes())
    if path.suffix == ".avi":
        at = data.index(b"vids") - 8  # after its kind and length: flags, …, 28 bytes on, how many
        assert struct.unpack_from("<I", data, at + 8 + 32) == (40,)
        struct.pack_into("<I", data, at + 8 + 32, 60)
    elif path.suffix == ".mkv":
        at = data.index(b"\x44\x89\x88") + 3
        struct.pack_into(">d", data, at, 1.5 * struct.unpack_from(">d", data, at)[0])
    else:
        ffmpeg("-i", path, "-c", "copy", "-movflags", "faststart", path.with_name("fast.mp4"))
        data = bytearray(path.with_name("fast.mp4").read_bytes())
        place, _, _ = packet_places(path.with_name("fast.mp4"))[40]
        at = data.index(b"mdat") - 4
        del data[place:]
        struct.pack_into(">I", data, at, len(data) - at)
    path.write_bytes(data)


@pytest.mark.parametrize("container", ["avi", "mkv", "mp4"])
def test_a_container_that_promises_more_than_it_holds_is_broken(container, tmp_path):
    says_sixty_frames(tmp_path / f"clip.{container}")
    with pytest.raises(InputError, match=r"clip\.\w+: is cut off: (60 frames|2\.00 seconds) by its header|cut off or"):
        VideoFileSource(tmp_path / f"clip.{container}")


# Encodings with some redundancy. In HEVC, VP8, VP9, AV1 and some places of H.264 any bits are a picture.
DAMAGED = [("h264-intra", "mov"), ("mpeg4", "mp4"), ("mpeg4-b", "mkv"), ("mpeg2-b", "mp4"), ("mjpeg", "mov")]


@pytest.mark.parametrize(("encoding", "container"), DAMAGED)
def test_damage_is_named_with_the_number_of_the_frame(encoding, container, tmp_path, capfd):
    path = encode(tmp_path / f"clip.{container}", encoding, GREYS[:60], noise=40)
    data, places = path.read_bytes(), packet_places(path)
    for stored in (7, 20, 50):
        place, size, number = places[stored]
        damaged = bytearray(data)
        damaged[place + size // 4 : place + size // 2] = bytes(size // 2 - size // 4)
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"clip\.\w+: frame {number} is damaged"):
            all_frames(VideoFileSource(path))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["h264", "hevc-closed"])
def test_a_frame_that_the_decoder_leaves_out_is_named(encoding, tmp_path):
    path = encode(tmp_path / "clip.mp4", encoding, GREYS[:60], noise=40)
    place, size, number = packet_places(path)[33]
    damaged = bytearray(path.read_bytes())
    damaged[place : place + size] = b"\0\0\0\1\x7f" * (size // 5) + b"\0" * (size % 5)  # units of no known kind
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=rf"clip\.mp4: frame {number} (is damaged|of 60 is lost)"):
        all_frames(VideoFileSource(path))


def test_a_damaged_video_is_listed_as_broken_and_the_others_are_stored(tmp_path, capfd):
    videos, out = tmp_path / "videos", tmp_path / "out"
    encode(videos / "sound.mp4", "mpeg4-b")
    path = encode(videos / "damaged.mp4", "mpeg4-b", noise=40)
    place, size, number = packet_places(path)[60]
    data = bytearray(path.read_bytes())
    data[place + size // 4 : place + size // 2] = bytes(size // 2 - size // 4)
    path.write_bytes(data)
    arguments = ["frames", str(videos), str(out), "--frames", "8", "--max-pixels", "6000"]
    assert main([*arguments, "--skip-broken"]) == 0
    assert FrameStore(out).scenes() == ["sound"]
    np.testing.assert_allclose(
        greys_of(FrameStore(out).read("sound", 8).pixels), 2 * np.linspace(0, 119, 8).astype(int), atol=1
    )
    printed = capfd.readouterr()
    assert f"broken: damaged: {path}: frame {number} is damaged" in printed.out
    assert "mpeg4" not in printed.err and "concealing" not in printed.err


def test_decord_agrees_where_every_frame_is_a_key_frame(tmp_path):
    """The decoder that other trainers use, by number; in open groups and AVI it gives other frames than asked for."""
    import decord

    path = encode(tmp_path / "a.mp4", "h264-intra", GREYS[:30])
    reader = decord.VideoReader(str(path), num_threads=1)
    frames = np.stack([reader[index].asnumpy() for index in range(30)])
    np.testing.assert_allclose(frames.astype(int), all_frames(VideoFileSource(path)), atol=2)


CONTAINERS = ("mp4", "mov", "mkv", "webm", "avi")
CUTS = [(start, more) for start in ("0.5", "1.37", "3.1") for more in ((), ("-copyts",))]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_in_every_container_whole_and_cut_equals_ffmpeg(encoding, tmp_path):
    """Two of the six cuts for each encoding in each container, all with JAXVSR_ALL=1; every cut of every container."""
    compared = 0
    for place, container in enumerate(CONTAINERS, list(ENCODINGS).index(encoding)):
        path = tmp_path / f"a.{container}"
        try:
            encode(path, encoding)
        except Exception:  # FFmpeg puts not every codec into every container
            continue
        source, frames = agrees_with_ffmpeg(path)
        np.testing.assert_allclose(greys_of(frames), GREYS, atol=2)
        for start, more in CUTS if ALL else CUTS[place % 3 :: 3]:
            cut = tmp_path / f"cut.{container}"
            ffmpeg("-ss", start, "-i", path, "-c", "copy", *more, cut)
            source, frames = agrees_with_ffmpeg(cut)
            np.testing.assert_allclose(greys_of(frames), GREYS[-len(source) :], atol=2)
            compared += 1
        if container != "avi" and encoding != "mpeg2-b":  # neither has a time for each frame
            times = np.cumsum(np.random.default_rng(4).integers(20, 300, 60)).tolist()
            agrees_with_ffmpeg(encode(path, encoding, GREYS[:60], times_ms=times))
    assert compared >= (8 if ALL else 4)
