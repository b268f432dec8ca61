from pathlib import Path

import pytest
import yaml

from crosscontext.errors import SettingsError
from crosscontext.evaluation import EvaluateSettings
from crosscontext.layers import Layer, resolve
from crosscontext.planning import PretrainSettings
from crosscontext.recipes import find_recipe, recipe_layers, shipped_recipes
from crosscontext.settings import Settings

VERBS: dict[str, tuple[type[Settings], dict[str, str]]] = {
    "pretrain": (PretrainSettings, {"out": "run"}),
    "evaluate": (EvaluateSettings, {"run": "run"}),
}
SHIPPED = [(verb, name) for verb in VERBS for name, _ in shipped_recipes(verb)]


def test_a_file_is_its_own_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("epochs: 1\n")
    assert find_recipe("pretrain", str(path)) == path


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match="No recipe 'zzz' for pretrain; there are "):
        find_recipe("pretrain", "zzz")


def test_there_are_recipes_for_each_verb() -> None:
    assert {verb for verb, _ in SHIPPED} == set(VERBS)


@pytest.mark.parametrize(("verb", "name"), SHIPPED)
def test_shipped_recipes_are_found_by_name_and_are_settings(verb: str, name: str) -> None:
    kind, needed = VERBS[verb]
    assert find_recipe(verb, name).stem == name
    layers = recipe_layers(verb, [name])
    if verb == "pretrain" and "data" not in layers[0].values:  # a recipe for the user's own folder
        needed = {**needed, "data": "folder"}
    settings = resolve(kind, [*layers, Layer("this test", needed)])
    for key in yaml.safe_load(find_recipe(verb, name).read_text()):
        assert key in settings.model_fields_set


@pytest.mark.parametrize(("verb", "name"), SHIPPED)
def test_shipped_recipes_say_source_command_time_and_what_to_expect(verb: str, name: str) -> None:
    text = find_recipe(verb, name).read_text()
    wanted = ["# source: ", "# command: ", "# time: ", "# expected: "]
    assert [start for start in wanted if f"\n{start}" not in text] == []
