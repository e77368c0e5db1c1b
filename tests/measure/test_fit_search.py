"""Which settings fit on chips that are not here: the arithmetic, and the search, with a compiler that is made up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxvsr.config.config_file import find_config, parse_assignment, read_config
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.devices.targets import GIB, parse_target
from jaxvsr.measure import fit_search
from jaxvsr.measure.fit_search import candidates, fewer_scenes, fit_on_target, smallest_that_fits
from jaxvsr.measure.hardware_table import page, read_cells
from jaxvsr.measure.named_shapes import shape_named
from jaxvsr.measure.target_estimate import Settings, estimate
from jaxvsr.measure.target_plan import assumed_workload

CONFIG, MODEL = read_config(find_config("vsgrpo-7b")), shape_named("qwen2-vl-7b")
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fit_search.metadata, "version", lambda name: "1")  # the compilers are not installed


def test_arithmetic_is_near_what_the_tpu_compiler_counted() -> None:
    """Of vsgrpo-7b on v5p:2x2x1 with fsdp 4 libtpu 0.0.42.1 counted 7.28 and 7.93 GiB."""
    settings = Settings(MeshShape(fsdp=4), "full", 2, 16)
    sizes = assumed_workload(CONFIG).sizes(MODEL)
    memory = estimate(CONFIG, MODEL, sizes, parse_target("v5p:2x2x1"), settings).memory
    assert 0.9 < memory["reference"] / GIB / 7.28 < 1.4
    assert 0.9 < memory["update"] / GIB / 7.93 < 1.4


def test_settings_are_flags_that_give_them() -> None:
    one = next(one for one in candidates(CONFIG, MODEL, parse_target("v5e:4x4")) if one.settings.mesh.tensor == 2)
    words = one.settings.flags(CONFIG).split()
    pairs = [
        ("mesh.spec=" + text if flag == "--mesh" else text) for flag, text in zip(words[::2], words[1::2], strict=True)
    ]
    read = read_config(find_config("vsgrpo-7b"), [parse_assignment(pair) for pair in pairs])
    assert read == one.settings.applied(CONFIG)


def _compiler(gib_of: Any, calls: list[str]) -> Any:
    """A plan whose programs need what `gib_of` says of the settings."""

    def plan(config: Any, target: Any, shape: str | None, results: dict[str, Any]) -> Iterator[str]:
        calls.append(str(config.mesh.spec))
        size = int(gib_of(config) * GIB)
        programs = {name: {"memory_bytes": size} for name in ("sample", "reference", "update")}
        results |= {"programs": programs, "fits": size <= target.memory, "seconds_per_step": 64.0,
                    "seconds_per_question": 1.0}  # fmt: skip
        yield "sample      as made up"

    return plan


def test_the_fastest_that_the_compiler_lets_fit_is_found_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    target = parse_target("v5e:2x2")
    # More than arithmetic says for what is not split over tensor 4, and so too much.
    monkeypatch.setattr(
        fit_search, "plan_on_target", _compiler(lambda config: 12 if "tensor=4" in config.mesh.spec else 40, calls)
    )
    results: dict[str, Any] = {}
    lines = list(fit_on_target(CONFIG, target, None, results))
    assert "tensor=4" in results["fit"]["flags"] and results["fits"]
    assert lines[-1].startswith("fastest     --mesh tensor=4") and 1 < len(calls) <= fit_search.MOST_COMPILED
    count, again = len(calls), dict[str, Any]()
    assert list(fit_on_target(CONFIG, target, None, again))[-1] == lines[-1]
    assert len(calls) == count and again == results
    other = read_config(find_config("vsgrpo-7b"), [parse_assignment("data.questions=5")])
    list(fit_on_target(other, target, None, {}))
    assert len(calls) > count, "another config is another question"


def test_where_nothing_fits_the_plan_says_by_how_much_and_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_search, "plan_on_target", _compiler(lambda config: 20, []))
    results: dict[str, Any] = {}
    target = parse_target("v5e:2x2")
    lines = list(fit_on_target(CONFIG, target, None, results))
    assert not results["fits"]
    assert lines[-2].startswith("nothing     fits on v5e:2x2: at the least 4.2 GiB a device too much, of 15.8")
    assert lines[-1].endswith("by arithmetic: v5e:2x4")
    large = shape_named("qwen2.5-vl-72b")
    found = smallest_that_fits(CONFIG, large, parse_target("v5e:1x1"))
    assert found is not None and any(one.fits(found) for one in candidates(CONFIG, large, found))
    assert found.devices > 4 and not any(one.fits(target) for one in candidates(CONFIG, large, target))


def test_scenes_are_halved_as_long_as_the_config_allows() -> None:
    assert [one.data.scenes for one in fewer_scenes(CONFIG)] == [8, 4, 2, 1]
    pairs = read_config(find_config("svqa-r1-3b"), [parse_assignment("data.scenes=8")])  # a scene and its mirror image
    assert [one.data.scenes for one in fewer_scenes(pairs)] == [4, 2]
    assert {one.settings.scenes for one in candidates(pairs, MODEL, parse_target("h100:3"))} == {12}


def test_flags_with_fewer_scenes_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[TrainConfig] = []

    def plan(config: TrainConfig, target: Any, shape: str | None, results: dict[str, Any]) -> Iterator[str]:
        planned.append(config)
        yield from _compiler(lambda config: 12 if config.data.scenes == 4 else 90, [])(config, target, shape, results)

    monkeypatch.setattr(fit_search, "plan_on_target", plan)
    own = read_config(find_config("vsgrpo-7b"), [parse_assignment("intervals.video_gain=10")])
    results: dict[str, Any] = {}
    list(fit_on_target(own, parse_target("h100:1"), None, results))
    assert results["fits"]
    words = results["fit"]["flags"].split()
    pairs = ["mesh.spec=" + words[1], *words[3::2], "intervals.video_gain=10"]
    assert words[0] == "--mesh" and set(words[2::2]) == {"--set"} and "data.scenes=4" in pairs
    read = read_config(find_config("vsgrpo-7b"), [parse_assignment(pair) for pair in pairs[::-1]])
    assert read in planned


def test_settings_that_the_compiler_refuses_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    compiled = _compiler(lambda config: 12, calls)

    def refusing(config: TrainConfig, *rest: Any) -> Iterator[str]:
        if not config.mesh.spec or "tensor=4" not in config.mesh.spec:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem")
        yield from compiled(config, *rest)

    monkeypatch.setattr(fit_search, "plan_on_target", refusing)
    results: dict[str, Any] = {}
    lines = list(fit_on_target(CONFIG, parse_target("v5e:2x2"), None, results))
    assert any("its compiler refuses: RESOURCE_EXHAUSTED: Ran out" in line for line in lines)
    assert results["fits"] and len(results["fit"]["tried"]) == len(calls) > 0
    monkeypatch.setattr(fit_search, "MOST_COMPILED", 1)
    other = read_config(find_config("vsgrpo-7b"), [parse_assignment("data.questions=5")])
    with pytest.raises(jax.errors.JaxRuntimeError):
        list(fit_on_target(other, parse_target("v5e:2x2"), None, {}))


def test_the_hardware_page_is_that_of_its_data() -> None:
    cells = read_cells(DOCS / "hardware.json")
    assert (DOCS / "hardware.md").read_text(encoding="utf-8") == page(cells.values())
