"""lmms-eval's command line with VSI-Bench's rows out of a file, for the Python of an environment that has lmms-eval:

    HF_HOME=HOME PYTHON tests/support/run_lmms_eval.py test.parquet [--trained-positions] --model qwen2_vl …

Task, model and parser are lmms-eval's own; HOME/vsibench holds the videos, so that it downloads nothing.
`--trained-positions` gives each model that is loaded jaxvsr.patch_transformers.
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
if sys.argv[1] == "--trained-positions":
    del sys.argv[1]
    for name in ("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"):
        kind = getattr(transformers, name)
        load = kind.from_pretrained
        kind.from_pretrained = functools.partial(lambda load, *a, **k: patch_transformers(load(*a, **k)), load)
cli_evaluate()
