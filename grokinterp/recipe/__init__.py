"""What determines a run: the Recipe, its keys, and the built-in ones.

`BUILTIN` has every built-in recipe by name, with a sentence on what it is for.

>>> import grokinterp as gi
>>> gi.recipe.BUILTIN["mod31-grokked"].about
'Addition mod 31 on 80 % of the pairs: groks within seconds.'
>>> gi.recipe.BUILTIN["mod31-grokked"].recipe
Recipe(p=31, train_fraction=0.8, steps=2000)
"""

from grokinterp.base.names import room_names
from grokinterp.recipe.builtin import BUILTIN, find_recipe, recipes
from grokinterp.recipe.keys import checkpoint_steps
from grokinterp.recipe.recipe import Recipe, parse_setting

__all__ = ["BUILTIN", "Recipe", "checkpoint_steps", "find_recipe", "parse_setting", "recipes"]
__getattr__, __dir__ = room_names(__name__, __all__)
