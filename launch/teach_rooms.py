"""Teach a small model about procedural rooms: to look, then to answer.

    python launch/teach_rooms.py look base-tiny base-data base-looks --steps 900
    python launch/teach_rooms.py answer base-looks base-data base-answers --steps 2500

MODEL is a folder of `convert.py tiny --untied`, or what the first lesson made; DATA a data folder of procedural rooms
with frames, and questions for the second; OUT the new model folder. It is how the small base model of the demo begins
(docs/base-model.md).
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.devices.large_pages import take_large_pages
from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_large_pages()
    take_signals()

from jaxvsr.command_line import ArgumentParser, natural_int, positive_int, run


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="teach_rooms.py", description=__doc__.splitlines()[0])
    lessons = parser.add_subparsers(dest="lesson", required=True, metavar="LESSON")
    for name, text, steps, rate in (
        ("look", "say at each vision token, and at each name of a category, what was seen", 900, 2e-3),
        ("answer", "answer questions, with the layers above those that look", 2500, 3e-3),
    ):
        lesson = lessons.add_parser(name, help=text)
        lesson.add_argument("model", type=Path, metavar="MODEL")
        lesson.add_argument("data", type=Path, metavar="DATA")
        lesson.add_argument("out", type=Path, metavar="OUT")
        lesson.add_argument("--steps", type=positive_int, default=steps, metavar="N")
        lesson.add_argument("--scenes", type=positive_int, default=8, metavar="N", help="rooms a step")
        lesson.add_argument("--frames", type=positive_int, default=16, metavar="N", help="of a video")
        lesson.add_argument("--layers", type=positive_int, default=4, metavar="N", help="that look; the others answer")
        lesson.add_argument("--learning-rate", type=float, default=rate, metavar="X")
        lesson.add_argument("--seed", type=natural_int, default=0, metavar="N")
    lessons.choices["answer"].add_argument(
        "--questions", type=positive_int, default=20, metavar="N", help="about each room"
    )
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    _teach(arguments)
    print(arguments.out)
    return 0


def _teach(arguments: Namespace) -> None:
    from jaxvsr.training.small_base.lesson import Lesson

    names = ("steps", "learning_rate", "scenes", "frames", "layers", "seed")
    lesson = Lesson(**{name: getattr(arguments, name) for name in names})
    say = lambda line: print(line, flush=True)  # noqa: E731
    if arguments.lesson == "look":
        from jaxvsr.training.small_base.looking import teach_to_look

        teach_to_look(arguments.model, arguments.data, arguments.out, lesson, say)
    else:
        from jaxvsr.training.small_base.answering import teach_to_answer

        teach_to_answer(arguments.model, arguments.data, arguments.out, lesson, arguments.questions, say)


def main(argv: Sequence[str] | None = None) -> int:
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
