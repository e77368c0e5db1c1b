"""The card of a data folder says under which terms its scans stand: rooms of this project, or scans of ScanNet."""

from pathlib import Path

import pytest

from jaxvsr.data.data_folder import card_sources
from jaxvsr.data.questions import Question
from jaxvsr.data.recipes.generate_questions import QuestionReport, QuestionSettings
from jaxvsr.data.recipes.recipe import RECIPES, load_recipe
from jaxvsr.data.recipes.write_questions import QuestionSet, write_question_set

TERMS = "http://kaldir.vc.in.tum.de/scannet/ScanNet_TOS.pdf"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kinds", [("room",), ("scan",), ("room", "scan")])
def test_only_cards_of_real_scans_name_the_terms_of_scannet(
    recipe: str, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    loaded = load_recipe(recipe)
    scans, asked = [], []
    for number, kind in enumerate(kinds):
        scan = tmp_path / "scans" / f"scene000{number}_00"
        scan.mkdir(parents=True)
        (scan / f"{scan.name}.txt").write_text(
            "generator = jaxvsr rooms 1\n" if kind == "room" else "sceneType = Bed\n"
        )
        scans.append(scan)
        asked.append(
            Question(f"{loaded.name}-{number}", scan.name, "object_counting", "How many?", None, "2", "number")
        )
    settings = QuestionSettings(recipe, loaded.options)
    out = tmp_path / "out"
    out.mkdir()
    write_question_set(out, QuestionSet(loaded, settings, scans, {}, 0.5), QuestionReport(tuple(asked), {}, {}))
    said = "\n".join(card_sources(out))
    assert ("made by jaxvsr, under its licence alone (Apache-2.0)" in said) == ("room" in kinds)
    assert (TERMS in said) == ("ScanNet" in said) == ("scan" in kinds)
