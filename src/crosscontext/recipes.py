"""Recipes: files of settings for whole runs, the user's own or one that comes with the package.

name or path → **recipes** → layers
"""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from crosscontext.complaints import nearest
from crosscontext.errors import SettingsError


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
    installed, checkout = package / "recipes" / verb, package.parents[1] / "recipes" / verb
    for path in sorted((installed if installed.is_dir() else checkout).glob("*.yaml")):
        yield path.stem, path
