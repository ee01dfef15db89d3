"""What can be trained by name: one file, one recipe. A new file with a ``RECIPE`` in it is found by itself.

``nuclei_histology.py`` is the recipe ``nuclei-histology``. No torch here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from seglens.core.errors import UnknownName
from seglens.training.recipe import Phase, Recipe
from seglens.training.recipe_file import read_recipe

__all__ = ["RECIPES", "Phase", "Recipe", "find_recipe"]


def _found() -> dict[str, Recipe]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name.replace("_", "-"): importlib.import_module(f"{__name__}.{name}").RECIPE for name in names}


RECIPES: Mapping[str, Recipe] = _found()


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, or in the JSON file of that name.

    Raises:
        UnknownName: there is none.
        BadParameter, ModelMismatch: the file holds no recipe.
    """
    if name.endswith(".json"):
        return read_recipe(Path(name))
    if name not in RECIPES:
        listing = f"Recipes: {', '.join(RECIPES)}; or name a recipe's JSON file."
        raise UnknownName.among("recipe", name, RECIPES, listing=listing)
    return RECIPES[name]
