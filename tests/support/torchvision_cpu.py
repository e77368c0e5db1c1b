"""Import this before transformers' processors or TRL: it lets a torchvision built for another torch be imported.

torchvision need not be here at all. Where it is, its pure-Python part is all that is used, and that imports once the
names of its compiled operators exist.
"""

import importlib.util
import pathlib
import re

import torch


def _define_operators(folder: pathlib.Path) -> "torch.library.Library":
    source = (folder / "_meta_registrations.py").read_text()
    names = re.findall(r'register_meta\("(\w+)"\)|register_fake\("torchvision::(\w+)"\)', source)
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted({"nms"} | {a or b for a, b in names}):
        library.define(f"{name}(Tensor a) -> Tensor")
    return library


def _compiled_operators_load(folder: pathlib.Path) -> bool:
    try:
        torch.ops.load_library(folder / "_C.so")
    except OSError:
        return False
    return True


_spec = importlib.util.find_spec("torchvision")
if _spec is not None and _spec.submodule_search_locations:
    _folder = pathlib.Path(_spec.submodule_search_locations[0])
    if not _compiled_operators_load(_folder):
        _library = _define_operators(_folder)
