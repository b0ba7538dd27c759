"""The Recipe, what determines a run, and the built-in ones."""

from grokinterp.recipe.builtin import BUILTIN, find_recipe, recipes
from grokinterp.recipe.recipe import Recipe, parse_setting
from grokinterp.recipe.schedule import checkpoint_steps

__all__ = ["BUILTIN", "Recipe", "checkpoint_steps", "find_recipe", "parse_setting", "recipes"]
