"""Recipes: files of settings for whole runs and studies, the user's own or one that comes with the package.

name or path → **recipes** → layers
"""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from crosscontext.complaints import nearest
from crosscontext.errors import SettingsError
from crosscontext.layers import Layer
from crosscontext.settings import load_yaml


def recipe_layers(verb: str, recipes: Sequence[str]) -> list[Layer]:
    """Read recipes, each a layer over the one before.

    Args:
        verb: that they are for.
        recipes: see `find_recipe`.

    Raises:
        SettingsError: there is no such recipe, or it cannot be read.
    """
    paths = [find_recipe(verb, recipe) for recipe in recipes]
    return [Layer(str(path), load_yaml(path)) for path in paths]


def recipes_known(verb: str) -> str:
    """Say in a sentence what may be given as a recipe."""
    shipped = ", ".join(name for name, _ in shipped_recipes(verb)) or "none"
    return f"RECIPE: a YAML file, or the name of a shipped one: {shipped}."


def find_recipe(verb: str, recipe: str) -> Path:
    """Find the file of a recipe.

    Args:
        verb: that the recipe is for; names are looked up among the shipped recipes of this verb.
        recipe: path of a YAML file, or name of a shipped recipe.

    Raises:
        SettingsError: there is neither such a file nor such a name.
    """
    path = Path(recipe)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return path
    shipped = dict(shipped_recipes(verb))
    if recipe not in shipped:
        known = ", ".join(shipped) or "none"
        hint = nearest(recipe, list(shipped)) or ". Give one of them, or a YAML file."
        raise SettingsError(f"No recipe '{recipe}' for {verb}; there are {known}{hint}")
    return shipped[recipe]


def shipped_recipes(verb: str) -> Iterator[tuple[str, Path]]:
    """Names and files of the recipes that come with the package, in sorted order."""
    package = Path(str(files("crosscontext")))
    installed, root = package / "recipes" / verb, package.parents[1]
    checkout = root / "studies" if verb == "study" else root / "recipes" / verb
    for path in sorted((installed if installed.is_dir() else checkout).glob("*.yaml")):
        yield path.stem, path
