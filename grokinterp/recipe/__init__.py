"""What determines a run: the Recipe, its keys, and the built-in ones."""

from grokinterp.base.names import room_names
from grokinterp.recipe.builtin import BUILTIN, find_recipe, recipes
from grokinterp.recipe.keys import checkpoint_steps
from grokinterp.recipe.recipe import Recipe, parse_setting

__all__ = ["BUILTIN", "Recipe", "checkpoint_steps", "find_recipe", "parse_setting", "recipes"]
__getattr__, __dir__ = room_names(__name__, __all__)
