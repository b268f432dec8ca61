from pathlib import Path

import pytest
import yaml

from crosscontext.errors import SettingsError
from crosscontext.recipes import find_recipe, shipped_recipes


def test_a_file_is_its_own_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("epochs: 1\n")
    assert find_recipe("pretrain", str(path)) == path


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match="No recipe 'zzz' for pretrain; there are "):
        find_recipe("pretrain", "zzz")


def test_shipped_recipes_are_found_by_name_and_hold_settings() -> None:
    for name, path in shipped_recipes("pretrain"):
        assert find_recipe("pretrain", name) == path
        assert isinstance(yaml.safe_load(path.read_text()), dict)
