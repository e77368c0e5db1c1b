"""Teach a small model to look: to say at each vision token of a room's video what it shows.

    python launch/teach_to_look.py base-tiny base-data base-looks --steps 1200

MODEL is a folder of `convert.py tiny`, DATA a data folder of procedural rooms with frames, OUT the new model folder. It
is how the small base model begins (docs/base-model.md); answers to questions alone are too weak a signal for that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_signals()

from jaxvsr.command_line import ArgumentParser, natural_int, positive_int, run


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="teach_to_look.py", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=positive_int, default=1200, metavar="N")
    parser.add_argument("--scenes", type=positive_int, default=8, metavar="N", help="rooms a step")
    parser.add_argument("--frames", type=positive_int, default=16, metavar="N", help="of a video")
    parser.add_argument("--layers", type=positive_int, default=4, metavar="N", help="of the language model that look")
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="X")
    parser.add_argument("--seed", type=natural_int, default=0, metavar="N")
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = vars(_parser().parse_args(argv))
    model, data, out = (arguments.pop(name) for name in ("model", "data", "out"))
    from jaxvsr.training.looking import Lesson, teach_to_look

    teach_to_look(model, data, out, Lesson(**arguments), lambda line: print(line, flush=True))
    print(out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
