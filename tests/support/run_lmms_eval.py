"""lmms-eval's command line with VSI-Bench's rows out of a file, for the Python of an environment that has lmms-eval:

    HF_HOME=HOME PYTHON tests/support/run_lmms_eval.py test.parquet [--trained-positions] --model qwen2_vl …

Task, model and parser are lmms-eval's own; HOME/vsibench holds the videos, so that it downloads nothing. Models compute
in float32 (its Qwen2.5-VL and Qwen3-VL say bfloat16, whose rounding no other code repeats), and with
`--trained-positions` they have jaxvsr.patch_transformers.
"""

import functools
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import torchvision_cpu  # noqa: E402, F401, I001  # first: PyTorch's own index is needed for a torchvision that loads
import datasets  # noqa: E402
import transformers  # noqa: E402
from lmms_eval.__main__ import cli_evaluate  # noqa: E402

from jaxvsr.models.huggingface.trained_positions import patch_transformers  # noqa: E402

rows = sys.argv.pop(1)
datasets.load_dataset = lambda *_, **__: datasets.DatasetDict({"test": datasets.Dataset.from_parquet(rows)})
trained_positions = sys.argv[1] == "--trained-positions"
if trained_positions:
    del sys.argv[1]


def load_in_float32(load, *arguments, **settings):
    settings.pop("torch_dtype", None)
    model = load(*arguments, **settings | {"dtype": "float32"})
    return patch_transformers(model) if trained_positions else model


for family in ("Qwen2VL", "Qwen2_5_VL", "Qwen3VL"):
    kind = getattr(transformers, f"{family}ForConditionalGeneration")
    kind.from_pretrained = functools.partial(load_in_float32, kind.from_pretrained)
cli_evaluate()
