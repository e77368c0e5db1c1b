"""The notebook of the examples runs from top to bottom, and what it says of itself is so."""

import json
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from traitlets import default

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_steps.ipynb"
KEPT = """
import json

again = [text for (text,) in saved.answers(saved.start(), heldout_rooms)]
found = {"reward": reward.tolist(), "before": before, "after": after, "target": target}
json.dump({**found, "python": sys.executable, "folder": str(folder.resolve()), "again": again}, open(WHERE, "w"))
"""


class OwnKernel(AsyncKernelManager):
    """The kernel of this Python: where no folder of kernels is searched, there is no other."""

    @default("kernel_spec_manager")
    def _without_folders(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


@pytest.mark.slow
def test_the_notebook_trains_a_model_that_answers_better_and_saves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(KEPT.replace("WHERE", repr(str(tmp_path / "found.json")))))
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, kernel_manager_class=OwnKernel, timeout=600, resources=where).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3

    found = json.loads((tmp_path / "found.json").read_text())
    assert found["python"] == sys.executable
    # In the stored outputs the closeness of held-out answers rises from 0.49 to 0.76.
    assert np.mean(found["reward"][-10:]) - np.mean(found["reward"][:5]) > 0.2
    errors = {name: np.abs(np.array(found[name], float) / found["target"] - 1).mean() for name in ("before", "after")}
    assert errors["after"] < 0.6 * errors["before"]
    assert (Path(found["folder"]) / "model.safetensors").is_file()
    # The saved weights are rounded to bfloat16, as those of the base model are: most answers stay.
    assert np.mean(np.array(found["again"]) == np.array(found["after"])) > 0.5


def test_the_stored_notebook_was_run_in_order_and_its_file_is_small():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 400_000
    said = [output["text"] for cell in code for output in cell.outputs if output.output_type == "stream"]
    assert said and not re.search(r"warning|error|/tmp/|/home/|/root/", " ".join(said), re.IGNORECASE)
