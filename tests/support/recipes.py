"""The recipes of `configs/` that the tests train and plan: one of each kind, or with JAXVSR_ALL=1 every one."""

from pathlib import Path

from tests.support.everything import ALL

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_ONE_OF_EACH = ("vsgrpo-2b-observe", "vsgrpo-dpo-2b", "spatial-r1-7b-april", "svqa-r1-3b", "spatial-qwen3-vl-2b")
CHOSEN = sorted(path for path in CONFIGS.glob("*.yaml") if ALL or path.stem in _ONE_OF_EACH)
