"""Hugging Face folders in and out.

    python launch/convert.py to-hf runs/demo out/demo              merged weights, as the base model's folder has them
    python launch/convert.py to-hf runs/demo out/lora --adapter    a PEFT adapter of the base model
    python launch/convert.py from-hf Qwen/Qwen2-VL-2B-Instruct models/2b    layers stacked: loads without stacking
    python launch/convert.py verify models/2b                      logits and 32 greedy tokens, against transformers
    python launch/convert.py positions                             what the installed transformers does to positions
    python launch/convert.py push out/demo you/demo                what an upload to the hub would do; --yes does it
    python launch/convert.py tiny models/tiny --seed 0             a small random model, with no download
    python launch/convert.py random models/2b-random --shape qwen2-vl-2b    random weights of a published shape, 4.4 GB

MODEL is a folder (of a model, or a PEFT adapter's), a hub id, or a run (RUN, RUN@best, RUN@STEP). Training needs no
conversion first. OUT must be new; it appears when it is complete.
"""

from __future__ import annotations

from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_signals()

import os
import resource
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvsr.command_line import ArgumentParser, positive_int, run
from jaxvsr.errors import InputError
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.huggingface.published_shapes import PUBLISHED

if TYPE_CHECKING:
    from jaxvsr.runs.model_source import Model
    from jaxvsr.runs.trained_as import TrainedAs

# Largest difference of logits that float32 rounding explains, relative to the largest logit.
TOLERANCE = 1e-4
EXIT_DIFFERENT = 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="convert.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, purpose: str, model: bool = True, out: bool = True) -> ArgumentParser:
        added = commands.add_parser(name, help=purpose, description=purpose)
        if model:
            added.add_argument("model", metavar="MODEL", help="folder, hub id, RUN, RUN@best or RUN@STEP")
            added.add_argument("--revision", metavar="REV", help="of a hub id")
            added.add_argument(
                "--base", metavar="FOLDER", help="base model of an adapter or a run, where it is not where they say"
            )
            added.take_buckets("model", "base")
        if out:
            added.add_argument("out", metavar="OUT", type=Path, help="new folder")
            added.take_buckets("out")
        return added

    command("from-hf", "a Hugging Face folder with its layers stacked, for faster loading")
    to_hf = command("to-hf", "a Hugging Face folder, or with --adapter a PEFT adapter")
    to_hf.add_argument("--adapter", action="store_true", help="write the LoRA adapter instead of merged weights")
    to_hf.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights; default: the base's"
    )
    to_hf.add_argument(
        "--scores",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="of evaluate.py, for the README; repeatable; default: all that were written of this checkpoint",
    )
    verify = command("verify", "compare logits and greedy tokens with transformers (needs torch)", out=False)
    verify.add_argument("--tokens", type=positive_int, default=32, metavar="N", help="greedy tokens (default 32)")
    purpose = "say how positions behind a video are computed by the installed transformers (needs torch)"
    command("positions", purpose, model=False, out=False)
    purpose = "say what an upload of a model folder to the hub would do, and what its card lacks; --yes uploads it"
    push = command("push", purpose, model=False, out=False)
    push.add_argument("folder", metavar="FOLDER", type=Path, help="that to-hf wrote")
    push.add_argument("repository", metavar="NAME/MODEL", help="on the hub; made where it is missing")
    push.add_argument("--yes", action="store_true", help="upload, as HF_TOKEN or `hf auth login` says who")
    push.add_argument("--public", action="store_true", help="a new repository is public; default: private")
    tiny = command("tiny", "write a small random model as a complete folder", model=False)
    tiny.add_argument("--seed", type=int, default=0, metavar="N")
    tiny.add_argument("--family", choices=tuple(FAMILIES), default="qwen2_vl")
    tiny.add_argument("--width", type=positive_int, default=128, metavar="N", help="a multiple of 64")
    tiny.add_argument("--layers", type=positive_int, default=3, metavar="N", help="of the language model")
    tiny.add_argument("--vision-layers", type=positive_int, default=2, metavar="N")
    tiny.add_argument("--untied", action="store_true", help="a head of its own instead of the embedding")
    tiny.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    random = command("random", "write random weights of a published shape, to measure with", model=False)
    random.add_argument("--seed", type=int, default=0, metavar="N")
    random.add_argument("--shape", choices=tuple(PUBLISHED), default="qwen2-vl-2b")
    random.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if getattr(arguments, "seed", 0) < 0:
        raise InputError(f"--seed {arguments.seed}: must be at least 0")
    if not hasattr(arguments, "out"):
        return _run_command(arguments)
    from jaxvsr.buckets.places import place
    from jaxvsr.buckets.publishing import published

    arguments.out = place(arguments.out, "written")
    with published(arguments.out):
        return _run_command(arguments)


def _run_command(arguments: Namespace) -> int:
    start = time.perf_counter()
    if arguments.command == "tiny":
        return _tiny(arguments)
    if arguments.command == "random":
        return _random(arguments, start)
    if arguments.command == "positions":
        return _positions()
    if arguments.command == "push":
        return _push(arguments)
    from jaxvsr.runs.model_source import open_model

    model, start = open_model(arguments.model, arguments.revision, arguments.base), time.perf_counter()
    if arguments.command == "verify":
        return _verify(arguments, model)
    if arguments.command == "to-hf" and arguments.scores and not model.stages:
        raise InputError(f"--scores: {arguments.model} is no run and keeps its own README.md")
    model.check_in_full()
    if arguments.command == "to-hf" and arguments.adapter:
        _write_adapter(arguments, model)
    elif arguments.command == "to-hf":
        _write_merged(arguments, model)
    else:
        _write_stacked(arguments, model)
    _report(arguments.out, start)
    return 0


def _report(out: Path, start: float) -> None:
    """Size, speed, and the most memory that this process ever had."""
    seconds = time.perf_counter() - start
    megabytes = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    speed = f"{megabytes:,.1f} MB in {seconds:.1f} s, {megabytes / seconds:,.0f} MB/s"
    print(f"{out}: {speed}, peak host memory {peak:,.0f} MB")


def _positions() -> int:
    """Exit code 0 where the installed transformers follows the rule of training, else 1."""
    import transformers

    from jaxvsr.models.huggingface.installed_positions import position_differences

    found = position_differences()
    print(f"transformers {transformers.__version__}")
    for one in found:
        print(f"  {one.to_text()}")
    if all(one.as_trained for one in found):
        print("positions are those of training: nothing is to be done")
        return 0
    print("positions differ from those of training: jaxvsr.patch_transformers(model) gives a model the trained ones")
    return EXIT_DIFFERENT


def _push(arguments: Namespace) -> int:
    from jaxvsr.runs.hub_upload import plan_upload, upload

    planned = plan_upload(arguments.folder, arguments.repository)
    for name, size in planned.files:
        print(f"{size / 1e6:12,.3f} MB  {name}")
    for concern in planned.concerns:
        print(f"look at: the card {concern}")
    what = f"{len(planned.files)} files, {planned.size / 1e6:,.1f} MB"
    if not arguments.yes:
        print(f"nothing was uploaded: --yes sends these {what} to {planned.repository}")
        return 0
    print(f"{what} uploaded: {upload(planned, public=arguments.public)}")
    return 0


def _tiny(arguments: Namespace) -> int:
    from jaxvsr.models.qwen_vl import parameter_shapes
    from jaxvsr.models.tiny.tiny_model import shape_of_width, write_tiny_model

    shape = shape_of_width(arguments.width, arguments.layers, arguments.vision_layers, not arguments.untied)
    config = write_tiny_model(
        arguments.out, arguments.seed, shape=shape, family=arguments.family, dtype=arguments.dtype
    )
    count = sum(leaf.size for leaf in parameter_shapes(config).values())
    print(f"{arguments.out}: {config.family}, {count / 1e6:.2f}M parameters, vocabulary {config.text.vocab_size:,}")
    return 0


def _random(arguments: Namespace, start: float) -> int:
    from jaxvsr.models.tiny.random_weights import write_random_folder

    write_random_folder(arguments.out, PUBLISHED[arguments.shape], arguments.seed, arguments.dtype)
    _report(arguments.out, start)
    return 0


def _write_stacked(arguments: Namespace, model: Model) -> None:
    from jaxvsr.models.huggingface.write_model_folder import save_stacked_folder

    if model.stages:
        raise InputError(
            f"from-hf {arguments.model}: is not a Hugging Face folder of a whole model; write one with to-hf first"
        )
    trained = _trained_as(arguments)
    save_stacked_folder(arguments.out, model.folder, trained.file() if trained else {})


def _write_merged(arguments: Namespace, model: Model) -> None:
    from jaxvsr.models.huggingface.write_model_folder import save_folder

    save_folder(arguments.out, model.folder, model.weight, _texts(arguments, model), model.changed, arguments.dtype)


def _write_adapter(arguments: Namespace, model: Model) -> None:
    from jaxvsr.models.huggingface.peft_adapter import join, save_adapter
    from jaxvsr.models.huggingface.verify import merging_difference
    from jaxvsr.runs.checkpoints import is_run, open_run
    from jaxvsr.runs.run_card import loaded_by

    if arguments.dtype:
        raise InputError("--dtype: of whole weights; an adapter keeps its own; leave --adapter or --dtype out")
    if not is_run(arguments.model) or any(stage.lora is None for stage in model.stages):
        what = "holds full weights" if is_run(arguments.model) else "is not a run with an adapter"
        raise InputError(f"--adapter: {arguments.model} {what}; leave --adapter out")
    record, texts = open_run(arguments.model).record, _texts(arguments, model)
    base = loaded_by(record)
    if arguments.base and base == record.base_folder:  # it is not there any more
        base = os.path.abspath(arguments.base)
    adapter, processor = join(model.stages), model.folder.path
    save_adapter(arguments.out, adapter, model.config, base, texts, record.revision, processor)
    difference = merging_difference(model.folder, model.stages)
    print(f"merged weights, rounded to {model.config.dtype}, move logits by at most {difference:.2g}")


def _trained_as(arguments: Namespace) -> TrainedAs | None:
    from jaxvsr.runs.trained_as import trained_as

    return trained_as(arguments.model, arguments.revision)


def _texts(arguments: Namespace, model: Model) -> dict[str, str]:
    """The files of an export that say how the model was asked in training, where that is known, and its README.md; a
    model that nothing is merged into keeps its own.
    """
    from jaxvsr.models.huggingface.model_card import README
    from jaxvsr.runs.run_card import export_card

    trained = _trained_as(arguments)
    if not model.stages:
        return trained.file() if trained else {}
    command = ["python", "launch/convert.py", "to-hf", arguments.model, "OUT", *(["--adapter"] * arguments.adapter)]
    if arguments.dtype:
        command += ["--dtype", arguments.dtype]
    if arguments.revision is not None:
        command += ["--revision", arguments.revision]
    card = export_card(model, shlex.join(command), adapter=arguments.adapter, scores=arguments.scores, trained=trained)
    return {**(trained.export_files(model.folder, adapter=arguments.adapter) if trained else {}), README: card}


def _verify(arguments: Namespace, model: Model) -> int:
    from jaxvsr.models.huggingface.verify import compare

    if model.stages:
        raise InputError(f"verify {arguments.model}: takes a Hugging Face folder; write one with to-hf first")
    found = compare(model.folder, arguments.tokens)
    difference, scale = found.logit_difference, found.logit_scale
    print(f"logits: differ by at most {difference:.3g} of {scale:.3g} ({found.prompt_tokens} tokens)")
    print(f"greedy: {found.tokens_equal} of {len(found.ours)} tokens equal")
    same = found.relative_difference <= TOLERANCE and found.tokens_equal == len(found.ours)
    print("the same model" if same else f"NOT the same model (logits within {TOLERANCE:g} of their scale are)")
    return 0 if same else EXIT_DIFFERENT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
