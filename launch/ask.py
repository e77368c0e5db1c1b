"""Ask a model a question about a video.

    python launch/ask.py --model Qwen/Qwen2-VL-2B-Instruct --video room.mp4 "How many chairs are in this room?"
    python launch/ask.py --model runs/demo --video runs/demo-data/scans/scene0001_00 "How many windows are there?"

FILE is a video (mp4 and others), a scan or its .sens, or a folder of images. Prints the answer, then the number of
frames and video tokens, and the seconds. A run, its export and rooms-base are asked as they were trained: with the same
prompt, number of frames and pixels.
"""

from __future__ import annotations

from jaxvsr.devices.large_pages import take_large_pages
from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_large_pages()
    take_signals()

import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from jaxvsr.command_line import ArgumentParser, positive_int, run
from jaxvsr.data.video.frame_sampling import SamplingRule
from jaxvsr.errors import InputError
from jaxvsr.models.model_config import VIDEO_PROMPTS

FRAMES = 16  # or all, if the video has fewer


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="ask.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    models = "Hugging Face folder, hub id, or a run: RUN, RUN@best, RUN@STEP"
    parser.add_argument("--model", required=True, metavar="MODEL", help=models)
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    parser.add_argument(
        "--base", metavar="FOLDER", help="base model of an adapter or a run, where it is not where they say"
    )
    parser.add_argument("--video", required=True, type=Path, metavar="FILE", help="mp4, .sens, or a folder of images")
    as_trained = "default: as the model was trained"
    frames = f"{as_trained}, else {FRAMES}; all if fewer"
    parser.add_argument("--frames", type=positive_int, metavar="N", help=frames)
    parser.add_argument("--fps", type=float, metavar="N", help="frames per second, in place of --frames")
    parser.add_argument("--rule", choices=get_args(SamplingRule), help=f"which frames; {as_trained}, else linspace")
    parser.add_argument("--max-pixels", type=positive_int, metavar="N", help=f"per frame; {as_trained}, or its limits")
    parser.add_argument(
        "--video-prompt", choices=VIDEO_PROMPTS, help="how a video of Qwen3-VL is written; default: as trained"
    )
    parser.add_argument("--prompt", metavar="NAME|FILE", help=f"{as_trained}, else only the question")
    parser.add_argument("--answer-tokens", type=positive_int, metavar="N", help="at most; default: the prompt's")
    parser.add_argument("--mesh", metavar="SPEC", help="8, or fsdp=4,tensor=2; default: all devices")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu", "tpu"), default="auto", help="kind of device")
    parser.add_argument("--show-prompt", action="store_true", help="print the prompt's tokens, and what each is")
    parser.add_argument("question")
    parser.take_buckets("model")
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    start = time.monotonic()
    import jax

    from jaxvsr.data.questions import Question
    from jaxvsr.data.video.frame_sampling import FrameRate
    from jaxvsr.data.video.video_sources import open_video
    from jaxvsr.devices.choose_devices import is_out_of_memory, keep_compiled_programs
    from jaxvsr.devices.mesh import open_mesh
    from jaxvsr.evaluation.answering.greedy import GreedyModel
    from jaxvsr.evaluation.answering.scene_media import read_video
    from jaxvsr.models.families.known_families import family_of
    from jaxvsr.models.inputs.chat import check_text
    from jaxvsr.models.inputs.processor import ScenePrompt
    from jaxvsr.models.inputs.processor_config import read_processor_config
    from jaxvsr.models.inputs.prompt_text import prompt_lines
    from jaxvsr.runs.model_source import open_model
    from jaxvsr.runs.trained_as import prompt_of, trained_as

    if not arguments.question.strip():
        raise InputError("the question is empty")
    trained = trained_as(arguments.model, arguments.revision)
    prompt = prompt_of(trained, arguments.prompt, "question")
    check_text(arguments.question, "the question")
    source = open_video(arguments.video)
    if arguments.fps and arguments.frames:
        raise InputError("--fps and --frames: give one of them")
    rate = None if arguments.fps is None else FrameRate(arguments.fps)
    count = arguments.frames or min((trained.frames if trained else None) or FRAMES, len(source))
    rule = arguments.rule or (trained.rule if trained else "linspace")
    try:
        video = read_video(source, count, rule, rate)
        frames = len(video.frames)
    except InputError as error:
        raise InputError(f"--video {arguments.video}: {error}") from None
    chosen = open_model(arguments.model, arguments.revision, arguments.base)
    mesh, line = open_mesh(arguments.device, arguments.mesh)
    print(line, file=sys.stderr, flush=True)
    keep_compiled_programs()
    answer_tokens = arguments.answer_tokens or prompt.max_answer_tokens
    # Frames of a data folder are stored in their final size; those of a video are resized as the model folder says.
    limits = read_processor_config(chosen.folder.path, chosen.config).video
    max_pixels = arguments.max_pixels or (trained.max_pixels if trained else None)
    max_pixels = max_pixels or family_of(chosen.config).frame_limits(limits, frames).maximum
    model = GreedyModel(
        chosen, mesh, answer_tokens=answer_tokens, max_pixels=max_pixels, video_prompt=arguments.video_prompt
    )
    question = Question("ask", "video", "question", arguments.question, None, "", "text")
    try:
        scene = model.processor.encode(ScenePrompt((video,), (prompt.render(question),), prompt.system))
    except InputError as error:
        raise InputError(f"--video {arguments.video}: {error}") from None
    if arguments.show_prompt:
        print("\n".join(prompt_lines(model.processor.chat, scene)), flush=True)
    asked, context = len(scene.tokens) + len(scene.questions[0]), chosen.config.text.max_position_embeddings
    if asked + answer_tokens > context:
        raise InputError(
            f"video and question are {asked:,} tokens, the answer may be {answer_tokens:,}: the context window is "
            f"{context:,} tokens; use fewer --frames, a smaller --max-pixels or fewer --answer-tokens"
        )
    if trained:
        print(f"trained with {trained}", file=sys.stderr)
    print(f"asked with prompt {prompt.name}, {frames} frames of at most {max_pixels:,} pixels", file=sys.stderr)
    model.program.on_compile = lambda *_: print("compiling", file=sys.stderr, flush=True)
    try:
        answer = model.answer([scene] * model.scene_shards)[0][0]
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            "out of device memory: use fewer --frames, a smaller --max-pixels or a larger --mesh"
        ) from None
    print(prompt.completion(answer).strip())
    tokens = int((scene.vision_row >= 0).sum())
    seconds = time.monotonic() - start
    print(
        f"\n{frames} of {len(source):,} frames, {tokens:,} video tokens, {seconds:.1f} s "
        f"({model.program.seconds:.1f} s of them compiling)"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
