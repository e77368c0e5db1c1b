"""Questions of the vsi100k recipe: answers follow from the geometry, and nothing is asked twice or against itself."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvsr.data.geometry.directions import turn_degrees
from jaxvsr.data.questions import Question
from jaxvsr.data.recipes import common_questions, vsi100k
from jaxvsr.data.recipes.generate_questions import QuestionSettings, generate_questions
from jaxvsr.data.recipes.recipe import Census, ask_scene, load_recipe
from jaxvsr.data.recipes.task import Candidate, Selection, Task, select, swap_sides, task_rng
from jaxvsr.data.recipes.vsi100k import RECIPE, TEMPLATES, Options
from jaxvsr.errors import InputError
from tests.support.scenes import make_scene, random_scene, transformed


def ask(scene, seed=0, census=Census(), **options):  # noqa: B008
    return ask_scene(RECIPE, RECIPE.tasks(Options(**options), census), scene, seed)


def of_type(rows, name):
    return [row for row in rows if row.question_type == name]


def test_templates_are_those_printed_in_the_paper():
    """vsGRPO, Figure 2, spacing as printed."""
    filled = [
        TEMPLATES[vsi100k.COUNT].format(category="trash can"),
        TEMPLATES[vsi100k.ROOM].format(),
        TEMPLATES[vsi100k.DISTANCE].format(first="shower", second="kitchen counter"),
        TEMPLATES[vsi100k.SIZE].format(category="coffee table"),
        TEMPLATES[vsi100k.DIRECTION].format(stand="shelf", face="shower", query="bicycle"),
        TEMPLATES[vsi100k.NEAREST].format(choices="sink, pillow, bed, guitar", target="bicycle"),
    ]
    assert filled == [
        "How many trash can(s)in the room?",
        "What is the size of this room (in square meters)?",
        "What is the distance between the shower and the kitchen counter (in meters)?",
        "What is the length of the longest dimension (length,width, or height) of the coffee table, "
        "measured in centimeters?",
        "If I am standing by the shelf and facing the shower is the bicycle to the left or the right of the shower?",
        "Which of these objects (sink, pillow, bed, guitar)is the closest to the bicycle?",
    ]


def test_answers_of_a_room_that_can_be_checked_by_hand():
    line = np.linspace(0, 4, 41)
    floor = np.stack(np.meshgrid(line, line / 2), -1).reshape(-1, 2) - [1.5, 0.5]  # all but lamp and plant stand on it
    scene = make_scene(
        [
            ("bed", [0, 0, 0.25], [2, 1, 0.5]),
            ("lamp", [0, 3, 0.25], [0.2, 0.2, 1.5]),
            ("plant", [-4, 3, 0.25], [0.3, 0.3, 0.4]),
            ("chair", [1, 1, 0.5], [0.5, 0.5, 1]),
            ("chair", [2, 1, 0.5], [0.5, 0.5, 1]),
            ("wall", [0, 4, 1], [5, 0.1, 2]),
            ("floor", [0, 0, 0], [5, 5, 0.01]),
        ],
        floor=np.column_stack([floor, 0 * floor[:, 0]]),
    )
    answers = {row.question: row.answer for row in ask(scene, direction_per_scene=None)}
    for asked, answer in {
        "How many chair(s)in the room?": "2",
        "What is the size of this room (in square meters)?": "8.0",
        "What is the distance between the bed and the lamp (in meters)?": "3.0",
        "What is the distance between the bed and the plant (in meters)?": "5.0",
        "What is the distance between the lamp and the plant (in meters)?": "4.0",
        "What is the length of the longest dimension (length,width, or height) of the bed, "
        "measured in centimeters?": "200",
        "What is the length of the longest dimension (length,width, or height) of the lamp, "
        "measured in centimeters?": "150",
        "What is the length of the longest dimension (length,width, or height) of the plant, "
        "measured in centimeters?": "40",
        "If I am standing by the bed and facing the lamp is the plant to the left or the right of the lamp?": "left",
        "If I am standing by the lamp and facing the bed is the plant to the left or the right of the bed?": "right",
        "If I am standing by the bed and facing the plant is the lamp to the left or the right of the plant?": "right",
        "If I am standing by the plant and facing the bed is the lamp to the left or the right of the bed?": "left",
        "If I am standing by the lamp and facing the plant is the bed to the left or the right of the plant?": "left",
        "If I am standing by the plant and facing the lamp is the bed to the left or the right of the lamp?": "right",
    }.items():
        assert answers.pop(asked) == answer
    assert answers == {}


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_answers_equal_brute_force(seed):
    scene = random_scene(np.random.default_rng(seed))
    rows = ask(scene, seed)
    objects = {item.category: item for item in scene.objects}
    centers = {category: item.points.mean(0) for category, item in objects.items()}

    def distance(a, b):
        return np.linalg.norm(centers[a] - centers[b])

    for row in rows:
        names = re.findall(r"(?:thing|many)\d", row.question)
        if row.question_type == vsi100k.COUNT:
            assert int(row.answer) == sum(item.category == names[0] for item in scene.objects)
        elif row.question_type == vsi100k.DISTANCE:
            assert float(row.answer) == round(distance(*names), 1)
        elif row.question_type == vsi100k.NEAREST:
            *choices, target = names
            assert len({*choices, target}) == 5
            assert row.answer == min(choices, key=lambda name: distance(name, target))
            near, second = sorted(distance(name, target) for name in choices)[:2]
            assert second - near >= 0.15
        elif row.question_type == vsi100k.DIRECTION:
            stand, face, query, again = names
            assert again == face and len({stand, face, query}) == 3
            forward, toward = (centers[face] - centers[stand])[:2], (centers[query] - centers[stand])[:2]
            left = np.array([-forward[1], forward[0]])  # forward turned by 90° counter-clockwise
            assert row.answer == ("left" if toward @ left > 0 else "right")
        elif row.question_type == vsi100k.ROOM:
            assert row.answer == "36.0"
    assert Counter(row.question_type for row in rows) == {
        vsi100k.COUNT: 2, vsi100k.ROOM: 1, vsi100k.DISTANCE: 21, vsi100k.SIZE: 7, vsi100k.DIRECTION: 5,
        vsi100k.NEAREST: len(of_type(rows, vsi100k.NEAREST)),
    }  # fmt: skip


def test_repeated_and_structural_categories_appear_only_in_counting_questions():
    scene = random_scene(np.random.default_rng(0))
    for row in ask(scene):
        assert "wall" not in row.question
        assert ("many" in row.question) == (row.question_type == vsi100k.COUNT)
    with_walls = ask(scene, exclude_structural=False, distance="aabb_exact")
    assert any("wall" in row.question for row in with_walls)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 10_000), st.booleans())
def test_questions_and_ids_are_unique(seed, bounded):
    scene = random_scene(np.random.default_rng(seed), unique=6)
    rows = ask(scene, seed, **({"per_task": 3} if bounded else {"direction_per_scene": None}))
    assert len({(row.question_type, row.question) for row in rows}) == len(rows) == len({row.id for row in rows})
    pairs = [frozenset(re.findall(r"thing\d", row.question)) for row in of_type(rows, vsi100k.DISTANCE)]
    assert len(set(pairs)) == len(pairs)
    if bounded:
        assert max(Counter(row.question_type for row in rows).values()) == 3


def test_candidates_that_contradict_each_other_are_not_asked():
    candidates = [Candidate({"x": name}, answer) for name, answer in ("a1", "b2", "a3", "b2")]
    task = Task("t", "number", "What is {x}?", lambda scene, rng: candidates)
    rows = task.generate(make_scene([("bed", [0, 0, 0], [1, 1, 1])]), np.random.default_rng(0))
    assert [(row.question, row.answer) for row in rows] == [("What is b?", "2")]


@pytest.mark.slow
def test_questions_and_ids_depend_only_on_scene_and_seed():
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, name=f"scene000{i}_00") for i in range(3)]
    first = [ask(scene, 1) for scene in scenes]
    assert [ask(scene, 1) for scene in reversed(scenes)] == first[::-1]
    assert ask(scenes[0], 2) != first[0]
    alone = ask(scenes[0], 1, tasks=(vsi100k.NEAREST,))
    assert alone == of_type(first[0], vsi100k.NEAREST)
    assert all(row.id.startswith("vsi100k-") for row in first[0])
    shared = {row.question: row.id for row in first[0]}
    assert all(shared.get(row.question, row.id) == row.id for row in ask(scenes[0], 2))


def test_rows_have_the_kinds_and_fields_of_the_data_folder():
    rows = ask(random_scene(np.random.default_rng(0)))
    kinds = {row.question_type: row.answer_kind for row in rows}
    assert [kinds[name] for name in (vsi100k.COUNT, vsi100k.ROOM, vsi100k.DISTANCE, vsi100k.SIZE)] == ["number"] * 4
    assert kinds[vsi100k.DIRECTION] == kinds[vsi100k.NEAREST] == "word"
    for row in rows:
        assert row.options is None and row.mirror_of is None
        assert Question.from_json(row.to_json()) == row
        if row.answer_kind == "number":
            assert float(row.answer) > 0


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_the_mirrored_scene_asks_the_mirrored_questions(seed):
    scene = random_scene(np.random.default_rng(seed))
    mirrored = transformed(scene, np.diag([-1.0, 1, 1]))
    tasks = {task.name: task for task in RECIPE.tasks(Options(), Census())}
    expected = []
    for row in ask(scene, seed, balance=False):
        twin = tasks[row.question_type].mirror(row)
        assert twin.mirror_of == row.id and twin.id != row.id
        assert (twin.answer == row.answer) == (row.question_type != vsi100k.DIRECTION)
        assert tasks[row.question_type].mirror(twin).answer == row.answer
        expected.append((twin.question_type, twin.question, twin.answer))
    assert [(row.question_type, row.question, row.answer) for row in ask(mirrored, seed, balance=False)] == expected


def test_a_mirror_swaps_whole_words_only():
    assert swap_sides("front-left") == "front-right" and swap_sides("right") == "left"
    assert swap_sides("leftover lights on the right") == "leftover lights on the left"


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_turning_the_room_changes_no_answer_on_oriented_definitions(seed):
    """Definitions on centres of points, oriented boxes and point clouds; those on axis-aligned boxes depend on it."""
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = transformed(scene, turn)
    generator = np.random.default_rng(0)
    for a, b in itertools.combinations(range(4), 2):
        for definition, center in (
            ("center", "points"), ("center", "obb"), ("obb_exact", "points"), ("points", "points"),
        ):  # fmt: skip
            pair = [
                vsi100k.object_distance(s.objects[a], s.objects[b], definition, center, generator)
                for s in (scene, turned)
            ]
            assert pair[0] == pytest.approx(pair[1], abs=1e-6)
    before, after = (of_type(ask(s, seed), vsi100k.DIRECTION) for s in (scene, turned))
    assert before == after


@pytest.mark.parametrize("distance", ["aabb_exact", "aabb_sample", "obb_exact", "obb_grid", "points"])
def test_every_definition_of_distance_is_at_most_that_of_the_centres(distance):
    scene = random_scene(np.random.default_rng(3))
    only = {"tasks": (vsi100k.DISTANCE,), "distance_minimum": 0.0}
    near = {row.question: float(row.answer) for row in ask(scene, distance=distance, **only)}
    far = {row.question: float(row.answer) for row in ask(scene, **only)}
    assert far and all(near[question] <= metres + 0.05 for question, metres in far.items())
    assert sum(near[question] < metres for question, metres in far.items()) > len(far) / 2


@given(st.lists(st.sampled_from("aaaaab01"), max_size=30), st.integers(1, 8), st.integers(0, 99))
def test_balanced_selection_alternates_between_answers(answers, bound, seed):
    chosen = select(answers, Selection(per_scene=bound), np.random.default_rng(seed))
    assert len(chosen) == min(bound, len(answers)) and chosen == sorted(set(chosen))
    taken, offered = Counter(answers[i] for i in chosen), Counter(answers)
    for answer, other in itertools.permutations(offered, 2):
        assert taken[answer] <= taken[other] + 1 or taken[other] == offered[other]
    few = select(answers, Selection(per_answer=2), np.random.default_rng(seed))
    assert Counter(answers[i] for i in few) == {answer: min(count, 2) for answer, count in offered.items()}


def test_left_and_right_are_asked_equally_often():
    scenes = [random_scene(np.random.default_rng(seed), name=f"scene{seed:04d}_00") for seed in range(30)]
    answers = Counter(row.answer for s in scenes for row in ask(s, direction_per_scene=6, tasks=(vsi100k.DIRECTION,)))
    assert answers == {"left": 90, "right": 90}


@pytest.mark.slow
def test_absent_categories_are_counted_as_often_as_present_ones():
    census = Census(10, {"thing0": 9, "many0": 5, "piano": 4, "guitar": 1, "wall": 10, "floor": 10, "oven": 8})
    counts = Counter()
    scene = random_scene(np.random.default_rng(0))
    for seed in range(100):
        rows = ask(scene, seed, census, count_absent=True, tasks=(vsi100k.COUNT,))
        zeros = [row.question for row in rows if row.answer == "0"]
        assert len(zeros) == 2 and len(rows) == 4
        counts.update(zeros)
    asked = {re.search(r"many (.*)\(s\)", question)[1]: count for question, count in counts.items()}
    assert set(asked) == {"piano", "guitar", "oven"}
    assert asked["oven"] > asked["piano"] > asked["guitar"]
    assert not [row for row in ask(scene, 0, census) if row.answer == "0"]


@pytest.mark.slow
def test_a_category_is_counted_as_zero_as_often_as_otherwise():
    """Twenty categories, each in its own share of the scans: the name alone must not give the answer away."""
    rng = np.random.default_rng(0)
    shares = {f"thing{i}": share for i, share in enumerate(np.linspace(0.1, 0.45, 20))}
    present = [[name for name, share in shares.items() if rng.random() < share] for _ in range(600)]
    census = Census(600, Counter(name for names in present for name in names))
    zeros, others = Counter(), Counter()
    for index, names in enumerate(present):
        scene = make_scene([(name, [i, 0, 0], [1, 1, 1]) for i, name in enumerate([*names, "wall"])], f"s{index}")
        for row in ask(scene, 0, census, tasks=(vsi100k.COUNT,), count_minimum=1, count_absent=True):
            (zeros if row.answer == "0" else others)[re.search(r"thing\d+", row.question)[0]] += 1
    shares_of_zero = {name: zeros[name] / (zeros[name] + others[name]) for name in shares}
    assert min(shares_of_zero.values()) > 0.4 and max(shares_of_zero.values()) < 0.65


@pytest.mark.slow
def test_bounds_and_margins_are_options():
    scene = random_scene(np.random.default_rng(5))
    assert len(of_type(ask(scene, count_minimum=3), vsi100k.COUNT)) == 1
    assert len(of_type(ask(scene, count_minimum=1), vsi100k.COUNT)) == 9
    assert all(float(r.answer) >= 2 for r in of_type(ask(scene, distance_minimum=2.0), vsi100k.DISTANCE))
    assert all(int(r.answer) >= 80 for r in of_type(ask(scene, size_minimum=0.8), vsi100k.SIZE))
    strict = ask(scene, direction_minimum_angle=60.0, direction_minimum_distance=1.5, direction_per_scene=None)
    loose = ask(scene, direction_minimum_angle=0.0, direction_minimum_distance=0.0, direction_per_scene=None)
    assert len(of_type(loose, vsi100k.DIRECTION)) == 7 * 6 * 5
    assert 0 < len(of_type(strict, vsi100k.DIRECTION)) < 7 * 6 * 5
    assert {r.question_type for r in ask(scene, tasks=(vsi100k.ROOM, vsi100k.SIZE))} == {vsi100k.ROOM, vsi100k.SIZE}
    turned = [r.answer for r in of_type(ask(scene, size_box="aabb"), vsi100k.SIZE)]
    assert turned != [r.answer for r in of_type(ask(scene), vsi100k.SIZE)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tasks": ("counting",)}, "'counting' is not one of object_counting"),
        ({"count_minimum": 0}, "count_minimum 0: must be at least 1"),
        ({"per_task": 0}, "per_task 0"),
        ({"room_radius": 0.0}, "room_radius"),
    ],
)
def test_impossible_options_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        Options(**options)


def test_empty_rooms_have_no_questions():
    assert ask(make_scene([("wall", [0, 0, 0], [1, 1, 1])])) == []


def test_a_recipe_can_be_a_users_file(tmp_path):
    path = tmp_path / "heights.py"
    path.write_text(
        "from jaxvsr.data.recipes.recipe import Recipe\n"
        "from jaxvsr.data.recipes.task import Candidate, Task\n"
        "import dataclasses\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Options:\n"
        "    least: float = 0.0\n"
        "def candidates(scene, rng):\n"
        "    return [Candidate({'x': o.category}, f'{o.aabb.extent[2]:.2f}') for o in scene.objects]\n"
        "TASK = Task('height', 'number', 'How high is {x}?', candidates)\n"
        "RECIPE = Recipe('heights', Options(), lambda o, c: (TASK,))\n"
    )
    recipe = load_recipe(str(path))
    scene = make_scene([("bed", [0, 0, 0], [1, 1, 0.75])])
    rows = ask_scene(recipe, recipe.tasks(recipe.options, Census()), scene, 0)
    assert [(row.id[:8], row.question, row.answer) for row in rows] == [("heights-", "How high is bed?", "0.75")]


RECIPE_IMPORT = "from jaxvsr.data.recipes.recipe import Recipe\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "defines no RECIPE"),
        ("import nothing_like_this", "ModuleNotFoundError"),
        (
            RECIPE_IMPORT + "RECIPE = Recipe('a b', None, lambda o, c: ())",
            "letters, digits",
        ),
        (
            RECIPE_IMPORT + "RECIPE = Recipe('a', None, lambda o, c: ())",
            "must be a dataclass",
        ),
    ],
)
def test_files_that_are_not_recipes_are_refused(tmp_path, text, says):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        load_recipe(str(path))
    with pytest.raises(InputError, match="is not one of vsi100k"):
        load_recipe("vsi200k")
    with pytest.raises(InputError, match="no such recipe file"):
        load_recipe(str(tmp_path / "other.py"))


def test_random_numbers_depend_only_on_seed_scene_and_task():
    draws = {
        (seed, scene, task): task_rng(seed, scene, task).integers(2**60)
        for seed in (0, 1) for scene in ("a", "b") for task in ("c", "d")
    }  # fmt: skip
    assert len(set(draws.values())) == 8
    assert task_rng(1, "a", "d").integers(2**60) == draws[1, "a", "d"]


@pytest.mark.parametrize(
    ("kind", "candidate", "says"),
    [
        ("word", Candidate({}, ""), "an answer must be a non-empty string"),
        ("word", Candidate({}, "\ud800"), "an answer must be a non-empty string"),
        ("number", Candidate({}, "three"), "answer_kind is 'number', but 'three' is not a number"),
        ("choice", Candidate({}, "a"), "options belong to answer_kind 'choice'"),
        ("word", Candidate({}, "a", ("a", "b")), "options belong to answer_kind 'choice'"),
        ("choice", Candidate({}, "a", ("a", "b", "b")), "2 to 26 different options"),
        ("choice", Candidate({}, "c", ("a", "b")), "that include 'c'"),
        ("choice", Candidate({}, "0", tuple(map(str, range(27)))), "2 to 26 different options"),
    ],
)
def test_candidates_that_could_not_be_read_back_are_refused(kind, candidate, says):
    with pytest.raises(InputError, match=says):
        Task("mine", kind, "Which?", lambda scene, rng: [candidate]).generate(make_scene([]), np.random.default_rng(0))


def test_fields_of_a_wrong_type_are_refused_where_types_are_not_checked():
    task, candidate = Task("mine", "number", "Which?", lambda scene, rng: [candidate]), Candidate({}, "3")
    object.__setattr__(candidate, "answer", 3)
    with pytest.raises(InputError, match="an answer must be a non-empty string, found 3"):
        task.generate(make_scene([]), np.random.default_rng(0))
    object.__setattr__(task, "answer_kind", "nmber")
    with pytest.raises(InputError, match="answer_kind 'nmber' is not one of number"):
        task.__post_init__()


def test_two_tasks_with_one_name_are_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\n"
        "from jaxvsr.data.recipes.recipe import Recipe\n"
        "from jaxvsr.data.recipes.task import Candidate, Task\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Options:\n"
        "    pass\n"
        "def candidates(scene, rng):\n"
        "    return [Candidate({}, 'a')]\n"
        "task = Task('mine', 'word', 'Which?', candidates)\n"
        "RECIPE = Recipe('mine', Options(), lambda o, c: (task, task))\n"
    )
    with pytest.raises(InputError, match="two of its tasks have the same name"):
        generate_questions([], QuestionSettings(str(path), None), workers=1)


def test_triples_of_many_objects_are_sampled_and_correct(monkeypatch):
    monkeypatch.setattr(common_questions, "_PLACES", 6)
    places = np.random.default_rng(0).uniform(0, 5, (20, 3))
    found, turns = common_questions.triples(places, np.random.default_rng(1), minimum=0.3, maximum=4.0)
    assert len(np.unique(found)) <= 6 and found.max() >= 6, "indices are those of all places"
    for (stand, face, query), turn in zip(found, turns, strict=True):
        assert turn == turn_degrees(places[stand], places[face], places[query])
        pairs = itertools.combinations(places[[stand, face, query], :2], 2)
        assert all(0.3 <= np.linalg.norm(a - b) <= 4.0 for a, b in pairs)
