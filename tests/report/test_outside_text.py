"""Whatever a model, a file or a scan says is text on every page: no tag, no attribute, no control character."""

import csv
import dataclasses
import html.parser
import io
import math
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvsr import outside_text
from jaxvsr.command_line import run
from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.data.scannet.read_scan import list_scans, read_scene
from jaxvsr.errors import InputError
from jaxvsr.report.answers_page import AnsweredQuestion, answers_csv, answers_html
from jaxvsr.report.floor_plan import Mark, Plan
from jaxvsr.report.rendering import TEMPLATES
from jaxvsr.report.run_page import BeforeAfter, Page, run_page
from jaxvsr.report.run_rows import HackedRollout, SampledAnswer, SampledQuestion
from jaxvsr.report.scene_page import scene_page
from launch.evaluate import main as evaluate

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><style>*{display:none}</style>\x1b[31m\u202eabc"
SHOWN = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><style>*{display:none}</style>␛[31m\\u202eabc"


@given(st.text())
def test_no_control_or_direction_character_is_left(text):
    shown = outside_text.visible(text)
    assert not [one for one in shown if one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co")]
    shown.encode()  # no half a character either
    if not [one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co")]:
        assert shown == text


def test_what_a_command_prints_cannot_steer_the_terminal(capsys):
    def command(argv):
        print("answer:", HOSTILE, "\ud800")
        sys.stdout.write(f"{HOSTILE}\n")
        raise InputError(f"label {HOSTILE!s}: is not known")

    assert run(command, []) == 2
    captured = capsys.readouterr()
    assert (
        captured.out == f"answer: {SHOWN} \\ud800\n{SHOWN}\n"
        and captured.err == f"error: label {SHOWN}: is not known\n"
    )


def test_a_file_name_cannot_steer_the_terminal(tmp_path, capsys):
    assert evaluate(["--score", str(tmp_path / "\x1b[2J.jsonl"), "--benchmark", "vsi-bench", "--out", "o"]) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.err + captured.out and "␛[2J.jsonl: no such file" in captured.err


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-3", "@a", '=HYPERLINK("x")', "-1+1", "\t=1", "＝1", "-inf()", "a", "", "-٣"]
)
def test_cells_of_csv_are_never_formulas(text):
    question = Question("q", "s", text or "t", "Which?", None, "left", "word")
    rows = csv.reader(
        io.StringIO(answers_csv(["=a", "b"], [AnsweredQuestion(question, [text, None], [1.0, math.nan])]))
    )
    header, cells = rows
    for cell in (*header, *cells):
        assert cell[:1] not in "=+-@＝\t" or not cell or float(cell) is not None
    assert text in (cells[header.index("'=a")], cells[header.index("'=a")][1:])


class Outline(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def paragraph(words: str) -> str:
    return TEMPLATES.from_string("<p>{{ words }}</p>").render(words=words)


@given(st.text(max_size=60))
def test_any_text_is_shown_as_text_only(words: str):
    outline = Outline(paragraph(words))
    assert [tag for tag, _ in outline.tags] == ["p"]
    shown = "".join(outline.words)
    assert all(ord(character) >= 0x20 or character in "\n\t" for character in shown)


@given(st.text(alphabet=st.characters(exclude_categories=["C"]), max_size=60))
def test_visible_text_is_shown_unchanged(words: str):
    assert "".join(Outline(paragraph(words)).words) == words


def run_of(words: str) -> str:
    answers = (SampledAnswer(words, 0.0, -1.0), SampledAnswer(words, 1.0, 1.0))
    question = SampledQuestion(1, words, words, words, words, words, answers)
    rewards = {f"reward/{index}{words.replace('/', '')}": 1.0 for index in range(2)}  # a legend has their names
    page = Page(
        name=words,
        metrics=[{"step": 1.0, **rewards}],
        config_text=words,
        facts={words: words},
        scores=[{"question_type": words, "n": 3, f"score/{words}": 1.0, words: {"mean": 1.0}}],
        before_after=BeforeAfter(question, question),
        savings=words,
        samples=[question],
        hacking=[HackedRollout(1, words, words, words, 1.0, (words,))],
        frames={"other": [b"jpeg"]},
        frames_note=words,
    )
    pictured = dataclasses.replace(page, frames={words: [b"jpeg"]}, before_after=None)
    return run_page(page) + run_page(pictured)


def answers_of(words: str) -> str:
    question = Question(words, "room", words, words, None, words, "text")
    row = AnsweredQuestion(question, [words, None], [1.0, math.nan])
    return answers_html([words, words], [row])


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    write_rooms(folder, scenes=1, seed=0, frames=2, size=(56, 56))
    return folder


@pytest.fixture
def scene_of(room: Path) -> Callable[[str], str]:
    def page(words: str) -> str:
        (scan,) = list_scans(room)
        question = Question(words, scan.name, words, words, (words, words), words, "text")
        mirrored = dataclasses.replace(question, id=f"{words} mirrored", mirror_of=words)
        write_questions(room / "questions.jsonl", [question, mirrored])
        return scene_page(room, scan.name, room)

    return page


def shape(page: str) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(attributes)) for tag, attributes in Outline(page).tags]


@pytest.mark.parametrize("page", ["run", "answers", "scene"])
def test_text_from_outside_adds_no_tag_and_no_attribute_to_a_page(page: str, scene_of: Callable[[str], str]):
    page_of = {"run": run_of, "answers": answers_of, "scene": scene_of}[page]
    hostile = page_of(HOSTILE)
    assert shape(hostile) == shape(page_of("harmless"))
    assert "\x1b" not in hostile and "\u202e" not in hostile
    assert SHOWN in "".join(Outline(hostile).words)


def test_text_from_outside_adds_no_element_to_a_plan(room: Path):
    scene = read_scene(list_scans(room)[0])

    def plan(words: str) -> str:
        objects = tuple(dataclasses.replace(one, category=words) for one in scene.objects)
        named = Plan(dataclasses.replace(scene, objects=objects))
        corner = scene.floor_points[0, :2].astype(float)
        return named.svg({words}, [Mark(corner, label=words), Mark(corner, corner + 1, words)])

    assert shape(plan(HOSTILE)) == shape(plan("harmless"))
    assert SHOWN in "".join(Outline(plan(HOSTILE)).words)


def test_a_page_loads_nothing_and_runs_nothing(room: Path, scene_of: Callable[[str], str]):
    answers = (SampledAnswer("3", 0.0, -1.0), SampledAnswer("4", 1.0, 1.0))
    run = run_page(
        Page(
            name="run",
            metrics=[{"step": float(step), "reward/mean": 0.5, "kl": math.nan} for step in range(1, 30)],
            samples=[SampledQuestion(1, "q", "scene0000_00", "object_counting", HOSTILE, HOSTILE, answers)],
            frames={"scene0000_00": [b"\xff\xd8jpeg"]},
        )
    )
    for page in (run, answers_of(HOSTILE), scene_of(HOSTILE)):
        outline = Outline(page)
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in outline.tags}
        for _, attributes in outline.tags:
            assert not any(name.startswith("on") for name in attributes)
            for name in ("src", "href"):
                assert attributes.get(name) is None or str(attributes[name]).startswith("data:")
        assert "url(" not in page and "@import" not in page
        assert any("default-src 'none'" in str(attributes.get("content")) for _, attributes in outline.tags)
