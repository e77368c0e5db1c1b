"""The loader: an order that depends on (seed, step) alone, in which nothing repeats before its turn."""

import dataclasses
import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.loader import SceneBatch, make_loader
from jaxvsr.data.questions import read_questions, write_questions
from jaxvsr.data.scene_order import order_without_repeats
from jaxvsr.data.scene_pools import folder_pattern, read_pools
from jaxvsr.data.splits import write_splits
from jaxvsr.errors import InputError
from tests.support.data_folders import write_data_folder

POOL_ARGUMENTS = ("split", "question_types", "skip_short_scenes", "mirror")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data_folder(tmp_path_factory.mktemp("a"))


def take(count: int, *folders: Any, **changes: Any) -> list[Any]:
    arguments: dict[str, Any] = {"split": "train", "scenes": 2, "questions": 2, "frames": 2, "seed": 3}
    arguments |= changes
    of_pools = {name: arguments.pop(name) for name in POOL_ARGUMENTS if name in arguments}
    both = {name: arguments[name] for name in ("questions", "frames")}
    pools = read_pools([f if isinstance(f, tuple) else (f, 1.0) for f in folders], **of_pools, **both)
    batches = make_loader(pools, **arguments)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def contents(batch: SceneBatch) -> tuple:
    """Everything in a batch, comparable."""
    return batch.step, [(s.scene, s.frames.tobytes(), s.timestamps.tobytes(), s.questions) for s in batch.scenes]


@given(st.integers(1, 40), st.data())
def test_the_order_repeats_no_item_within_a_window_or_a_cycle(count, data):
    window = data.draw(st.integers(1, count))
    size = data.draw(st.integers(1, 3 * count))
    key = (data.draw(st.integers(0, 2**32)), 1)
    order = order_without_repeats(key, 0, 6 * count, count, window).tolist()
    for cycle in range(6):
        assert sorted(order[cycle * count : (cycle + 1) * count]) == list(range(count))
    for start in range(len(order) - window):
        assert len(set(order[start : start + window])) == window
    start = data.draw(st.integers(0, 3 * count))
    assert order_without_repeats(key, start, size, count, window).tolist() == order[start : start + size]


def test_orders_differ_between_cycles_and_keys():
    orders = {tuple(order_without_repeats((seed, 0), cycle * 30, 30, 30, 4)) for seed in range(4) for cycle in range(4)}
    assert len(orders) == 16


def test_every_item_is_first_in_a_cycle_equally_often():
    """No item is favoured for the first place: χ² over 3,000 cycles of 6 items, p = 1e-6."""
    firsts = Counter(int(order_without_repeats((0,), cycle * 12, 1, 12, 4)[0]) for cycle in range(3000))
    expected = 3000 / 12
    assert sum((firsts[i] - expected) ** 2 / expected for i in range(12)) < 52.2


def test_an_epoch_visits_each_scene_once_and_a_cycle_asks_each_question_once(folder):
    batches = take(30, folder)
    seen = [sample.scene for batch in batches for sample in batch.scenes]
    assert len(seen) == 60
    for epoch in range(10):
        assert len(set(seen[6 * epoch : 6 * epoch + 6])) == 6
    assert "scene0006_00" not in seen
    for batch in batches:
        assert len({sample.scene for sample in batch.scenes}) == 2
    for scene in set(seen):
        asked = [q.id for batch in batches for s in batch.scenes if s.scene == scene for q in s.questions]
        assert len(asked) == 20 and all(name.startswith(scene) for name in asked)
        for cycle in range(4):
            assert len(set(asked[5 * cycle : 5 * cycle + 5])) == 5
        for visit in range(10):
            assert len(set(asked[2 * visit : 2 * visit + 2])) == 2


def test_frames_are_those_of_the_scene_in_both_splits(folder):
    for batch in take(3, folder):
        for sample in batch.scenes:
            assert (sample.frames == FrameStore(folder).read(sample.scene, 2).pixels).all()
            assert sample.timestamps.shape == (2,) and sample.frames.shape == (2, 56, 56, 3)
    heldout = take(4, folder, split="heldout", scenes=1)
    assert {sample.scene for batch in heldout for sample in batch.scenes} == {"scene0006_00"}


def test_equal_seeds_give_equal_batches_and_other_seeds_different_ones(folder):
    first, again, other = take(6, folder), take(6, folder), take(6, folder, seed=4)
    assert [contents(b) for b in first] == [contents(b) for b in again]
    assert [contents(b) for b in first] != [contents(b) for b in other]
    assert [batch.step for batch in first] == list(range(6))


@pytest.mark.parametrize("start", [1, 5, 23])
def test_a_restarted_loader_gives_the_batches_of_an_uninterrupted_one(folder, start):
    whole = take(start + 4, folder)
    assert [contents(b) for b in take(4, folder, start_step=start)] == [contents(b) for b in whole[start:]]


def test_a_loader_of_some_steps_gives_those_batches(folder):
    whole = take(8, folder)
    assert [contents(b) for b in take(3, folder, steps=[1, 5, 6])] == [contents(whole[step]) for step in (1, 5, 6)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(folder, workers):
    expected = [contents(b) for b in take(7, folder)]
    assert [contents(b) for b in take(7, folder, workers=workers)] == expected
    assert [contents(b) for b in take(4, folder, workers=workers, start_step=3)] == expected[3:]


def test_processes_get_contiguous_shares_of_the_same_global_order(folder):
    whole = take(5, folder, scenes=6, questions=1)
    for count in (2, 3, 6):
        shares = [
            take(5, folder, scenes=6, questions=1, process_index=index, process_count=count) for index in range(count)
        ]
        for step, batch in enumerate(whole):
            joined = [scene for share in shares for scene in contents(share[step])[1]]
            assert joined == contents(batch)[1]


@pytest.mark.slow
def test_a_transform_runs_on_every_batch(folder):
    assert take(3, folder, transform=lambda batch: batch.step * 10) == [0, 10, 20]
    assert take(3, folder, transform=lambda batch: batch.step * 10, workers=1) == [0, 10, 20]


def test_blank_frames_are_grey_and_nothing_else_changes(folder):
    for seen, blank in zip(take(4, folder), take(4, folder, blank=True), strict=True):
        for a, b in zip(seen.scenes, blank.scenes, strict=True):
            assert b.frames.shape == a.frames.shape and (b.frames == 128).all()
            assert dataclasses.replace(b, frames=a.frames).questions == a.questions and a.scene == b.scene


def test_question_types_restrict_what_is_asked(folder):
    batches = take(9, folder, question_types=["object_counting"])
    assert {q.question_type for b in batches for s in b.scenes for q in s.questions} == {"object_counting"}
    with pytest.raises(InputError, match=r"no question of type 'object_size'; there are object_counting, room_size"):
        take(1, folder, question_types=["object_size"])


def test_folders_are_drawn_in_proportion_to_their_weights(folder, tmp_path):
    other = write_data_folder(tmp_path, scenes=5, seed=50)
    batches = take(20, (folder, 2.0), (other, 1.0), scenes=3)
    own = {scene: FrameStore(folder).read(scene, 2).pixels.tobytes() for scene in FrameStore(folder).scenes()}
    for batch in batches:
        origins = [sample.frames.tobytes() == own[sample.scene] for sample in batch.scenes]
        assert sum(origins) == 2
    assert [contents(b) for b in take(5, (folder, 2.0), (other, 1.0), scenes=3, start_step=9)] == [
        contents(b) for b in batches[9:14]
    ]


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 0.1, 7.0, 21, 300, 1 / 3]), min_size=1, max_size=4))
def test_the_pattern_of_folders_keeps_the_weights(weights):
    pattern = folder_pattern(weights)
    for index, weight in enumerate(weights):
        assert pattern.count(index) / len(pattern) == pytest.approx(weight / sum(weights), abs=1e-4)


def test_a_folder_without_a_turn_is_refused():
    with pytest.raises(InputError, match=r"weight 1 of 1e\+06 is less than one turn in 10,000"):
        folder_pattern([999_999, 1])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"split": "test"}, "split 'test' is not one of train, heldout"),
        ({"questions": 6}, r"6 of 6 train scenes have fewer than 6 questions \(scene0000_00 has 5\)"),
        ({"questions": 6, "skip_short_scenes": True}, "no train scene with 6 questions"),
        ({"scenes": 7}, "6 scenes, but a step of 7 takes 7 of them"),
        ({"frames": 4}, "has 2 frames stored, not 4"),
        ({"scenes": 3, "process_count": 2}, "scenes 3: must be a multiple of the 2 processes"),
        ({"scenes": 0}, "scenes 0: must be at least 1"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused_before_the_first_batch(folder, changes, says):
    with pytest.raises(InputError, match=says):
        take(1, folder, **changes)


def test_missing_parts_of_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"questions\.jsonl: no such file"):
        take(1, tmp_path)
    write_questions(tmp_path / "questions.jsonl", [])
    with pytest.raises(InputError, match=r"splits\.json: no such file"):
        take(1, tmp_path)
    write_splits(tmp_path, {"train": ["scene0000_00"], "heldout": []})
    with pytest.raises(InputError, match="have fewer than 2 questions"):
        take(1, tmp_path)
    with pytest.raises(InputError, match="weight 0"):
        take(1, (tmp_path, 0.0))


def test_scenes_with_few_questions_are_left_out_only_on_request_and_logged(folder, tmp_path, caplog):
    for name in ("splits.json",):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "frames").symlink_to(folder / "frames")
    lines = (folder / "questions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "questions.jsonl").write_text("".join(lines[4:]))  # scene0000_00 keeps one question
    with pytest.raises(InputError, match=r"1 of 6 train scenes have fewer than 2 questions \(scene0000_00 has 1\)"):
        take(1, tmp_path)
    batches = take(6, tmp_path, skip_short_scenes=True)
    assert "scene0000_00" not in {sample.scene for batch in batches for sample in batch.scenes}
    assert "left out 1 scenes with fewer than 2 questions" in caplog.text


def test_mirrored_questions_get_mirrored_frames(folder, tmp_path):
    (tmp_path / "splits.json").write_text((folder / "splits.json").read_text())
    (tmp_path / "frames").symlink_to(folder / "frames")
    rows = read_questions(folder / "questions.jsonl")
    mirrors = [dataclasses.replace(row, id=row.id + "-mirror", mirror_of=row.id) for row in rows]
    write_questions(tmp_path / "questions.jsonl", rows + mirrors)
    assert [contents(b) for b in take(5, tmp_path)] == [contents(b) for b in take(5, folder)]


def test_writing_into_a_batch_does_not_change_later_batches(folder):
    sample = take(1, folder)[0].scenes[0]
    assert isinstance(sample.frames, np.ndarray) and sample.frames.flags.c_contiguous


@pytest.fixture(scope="module")
def paired(folder, tmp_path_factory):
    """The same folder with mirror images of all questions but one."""
    out = tmp_path_factory.mktemp("paired")
    (out / "splits.json").write_text((folder / "splits.json").read_text())
    (out / "frames").symlink_to(folder / "frames")
    rows = read_questions(folder / "questions.jsonl")
    images = [dataclasses.replace(row, id=f"{row.id}-mirror", mirror_of=row.id, answer="2") for row in rows]
    write_questions(out / "questions.jsonl", [*images[1:][::-1], *rows])  # in any order
    return out


def test_a_scene_and_its_mirror_image_are_adjacent(paired):
    for batch in take(12, paired, mirror="pairs", scenes=6):
        assert len({sample.scene for sample in batch.scenes}) == 3
        for view, image in zip(batch.scenes[0::2], batch.scenes[1::2], strict=True):
            assert (view.scene, view.mirrored, image.mirrored) == (image.scene, False, True)
            stored = FrameStore(paired).read(view.scene, 2).pixels
            np.testing.assert_array_equal(view.frames, stored)
            np.testing.assert_array_equal(image.frames[:, :, ::-1], stored)
            np.testing.assert_array_equal(view.timestamps, image.timestamps)
            assert [row.mirror_of for row in image.questions] == [row.id for row in view.questions]
            assert all(row.mirror_of is None for row in view.questions)


def test_pairs_are_in_the_order_of_single_views_and_skip_questions_without_a_mirror_image(paired, caplog):
    batches = take(12, paired, mirror="pairs", scenes=6)
    assert "left out 1 of 30 questions without a mirror image" in caplog.text
    views = [sample.scene for batch in batches for sample in batch.scenes if not sample.mirrored]
    for epoch in range(6):
        assert len(set(views[6 * epoch : 6 * epoch + 6])) == 6
    asked = {row.id for batch in batches for sample in batch.scenes for row in sample.questions}
    assert len(asked) == 2 * 29 and "scene0000_00-0" not in asked


@pytest.mark.slow
def test_pairs_depend_only_on_seed_and_step_and_stay_together(paired):
    whole = [contents(b) for b in take(7, paired, mirror="pairs", scenes=4)]
    assert [contents(b) for b in take(3, paired, mirror="pairs", scenes=4, start_step=4)] == whole[4:]
    shares = [
        take(7, paired, mirror="pairs", scenes=4, process_index=index, process_count=2, workers=index)
        for index in range(2)
    ]
    for step, (_, scenes) in enumerate(whole):
        assert [scene for share in shares for scene in contents(share[step])[1]] == scenes
        assert all([s.mirrored for s in share[step].scenes] == [False, True] for share in shares)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scenes": 2, "process_count": 2}, "scenes 2: must be a multiple of 4, because a scene and its mirror image"),
        ({"scenes": 3}, "scenes 3: must be a multiple of 2"),
        ({"scenes": 14}, "6 scenes, but a step of 14 takes 7 of them and their mirror images"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(paired, changes, says):
    with pytest.raises(InputError, match=says):
        take(1, paired, mirror="pairs", **changes)


def test_missing_and_unmatched_mirror_images_are_refused(folder, paired, tmp_path):
    with pytest.raises(InputError, match=r"no question has a mirror image .* data\.mirror=none"):
        take(1, folder, mirror="pairs")
    for name in ("splits.json", "frames"):
        (tmp_path / name).symlink_to(paired / name)
    rows = read_questions(paired / "questions.jsonl")
    image = next(row for row in rows if row.mirror_of)
    for stray, says in (
        (
            dataclasses.replace(image, id="x", mirror_of="none"),
            "'x' is the mirror image of 'none', which is missing",
        ),
        (dataclasses.replace(image, id="x"), "are mirror images of the same question"),
    ):
        write_questions(tmp_path / "questions.jsonl", [*rows, stray])
        with pytest.raises(InputError, match=says):
            take(1, tmp_path, mirror="pairs")
