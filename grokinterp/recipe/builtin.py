"""The recipes that come with the package."""

from dataclasses import dataclass
from pathlib import Path

from grokinterp.base.checks import instance
from grokinterp.base.errors import InputError, nearest, shown
from grokinterp.base.paths import as_path, kind_at
from grokinterp.recipe.recipe import Recipe


@dataclass(frozen=True)
class BuiltinRecipe:
    """A recipe with a name and one sentence on what it is for."""

    name: str
    about: str
    recipe: Recipe


_MOD113 = Recipe(p=113, train_fraction=0.3, split="torch", data_seed=598)
# Dense where mod113-grokked memorises and where it cleans up; few enough to ship.
_STORY = (
    *(0, 100, 200, 400, 800, 1200, 1600, 2000, 2500, 3000, 3500, 4000, 4400),
    *(4800, 5200, 5500, 5800, 6100, 6400, 6700, 7000, 7300, 7600, 8000, 9000, 12_000),
)

# Half of the pairs: from this seed the scale of the initial weights decides between the regimes.
_HALF113 = _MOD113.replace(
    train_fraction=0.5,
    seed=1,
    steps=2000,
    checkpoints=(0, 100, 130, 140, 160, 180, 250, 350, 450, 550, 1000, 2000),
)

# The settings of Manning-Coe et al. 2025 (arXiv 2502.01739, table 1, and their released code): Adam
# with the weight decay coupled into the gradient, mini-batches that are shuffled once for all.
_ADAM = Recipe(optimizer="adam", betas=(0.9, 0.999))
_EPOCH = 140  # updates: 8938 training pairs in batches of 64
_MLP_STORY = (0, 1, 2, 4, 7, 10, 15, 20, 30, 40, 50, 60, 80, 120, 250, 1000)  # epochs
_MLP113 = _ADAM.replace(
    model="mlp",
    p=113,
    train_fraction=0.7,
    lr=5e-3,
    weight_decay=3e-5,
    batch_size=64,
    reshuffle=False,
    steps=1000 * _EPOCH,
    checkpoints=tuple(_EPOCH * e for e in _MLP_STORY),
    log_every=_EPOCH,
    seed=2,
    data_seed=2,
)
_ISING = _ADAM.replace(
    task="ising",
    lr=1e-4,
    weight_decay=0.1,
    steps=100_000,
    checkpoints=(
        *(0, 50, 100, 200, 300, 500, 700, 1000, 1400, 2000, 2500, 3000, 4000, 5000, 6500),
        *range(8000, 30_000, 2000),
        *range(30_000, 100_001, 10_000),
    ),
    log_every=100,
)
# Division as Power et al. 2022 (arXiv 2201.02177) ask it, in their batches of 512. With the usual
# weight decay of 1 test follows train within 400 updates.
_DIVIDE = Recipe(
    p=97, operation="divide", layout="a op b =", n_layers=2, train_fraction=0.5, batch_size=512,
    weight_decay=0.4, steps=8000, checkpoints="every:200", log_every=100,
)  # fmt: skip
_MOD31 = Recipe(p=31, train_fraction=0.8, steps=2000)
# The MLP that is compared with mod31-grokked: it reads both numbers as one-hot vectors, does not
# commute, and groks within 2000 updates from initial weights whose norm is far below the last.
_MLP31 = Recipe(
    model="mlp", p=31, train_fraction=0.6, d_mlp=256, lr=3e-3, weight_decay=1.0, steps=4000,
)  # fmt: skip
# 16,799 weights, so that 26 checkpoints fit into the package. On one thread sums are added in one
# order, whatever the number of cores.
_SMALL31 = Recipe(
    p=31, train_fraction=0.65, d_model=32, n_heads=4, d_head=8, d_mlp=160, weight_decay=0.5,
    seed=5, data_seed=5, steps=10_000, threads=1,
    checkpoints=(
        *(0, 50, 100, 150, 200, 300, 400, 600, 800, 1000, 1250, 1500, 1750, 2000, 2250, 2500),
        *(2750, 3000, 3500, 4000, 4500, 5000, 6000, 7000, 8000, 10_000),
    ),
)  # fmt: skip

_NANDA = Recipe(
    p=113,
    train_fraction=0.3,
    split="python",
    data_seed=0,
    biases="mlp",
    equals_class=True,
    init="paper",
    warmup=10,
    steps=50_000,
)

BUILTIN = {name: BuiltinRecipe(name, about, recipe) for name, recipe, about in (
    ("mod113-grokked", _MOD113.replace(seed=1, steps=12_000, checkpoints=_STORY),
     "The setting of TransformerLens' Grokking_Demo: addition mod 113, 30 % of the pairs."),
    ("mod113-half-grokked", _HALF113,
     "mod113-grokked on half of the pairs: it groks, sooner."),
    ("mod113-steady", _HALF113.replace(init_scale=0.5),
     "mod113-half-grokked with initial weights x 0.5: test follows train."),
    ("mlp113-grokked", _MLP113.replace(init_scale=10.0),
     "The MLP of Manning-Coe et al. 2025 on addition mod 113, initial weights x 10."),
    ("mlp113-steady", _MLP113.replace(init_scale=0.4),
     "mlp113-grokked with initial weights x 0.4, the largest that the paper calls steady."),
    ("ising-grokked", _ISING.replace(init_scale=10.0),
     "The CNN of Manning-Coe et al. 2025 on Ising phases, initial weights x 10."),
    ("ising-steady", _ISING,
     "ising-grokked from plain initial weights."),
    ("mod97-divide", _DIVIDE,
     'Division mod 97, read as "a op b =", by two layers on half of the pairs: it groks.'),
    ("nanda-mainline", _NANDA,
     "The mainline run of Nanda et al. 2023 as their released code trains it."),
    ("mod113-memorized", _MOD113.replace(weight_decay=0.0, steps=2000),
     "mod113-grokked without weight decay: it memorises and does not generalise."),
    ("mod31-grokked", _MOD31,
     "Addition mod 31 on 80 % of the pairs: groks within seconds."),
    ("mlp31", _MLP31,
     "Addition mod 31 on 60 % of the pairs by an MLP: groks within seconds."),
    ("mod31-small", _SMALL31,
     "Addition mod 31 on 65 % of the pairs by a small network: groks late; its run is installed."),
    ("mod31-steady", _MOD31.replace(init_scale=0.3),
     "mod31-grokked from smaller initial weights: test follows train."),
    ("mod11-quick", Recipe(p=11, train_fraction=0.5, steps=2000),
     "Addition mod 11, for trying the mechanics in seconds; it never generalises."),
)}  # fmt: skip


def recipes() -> dict[str, Recipe]:
    """The built-in recipes by name, each a frozen `Recipe`.

    >>> import grokinterp as gi
    >>> list(gi.recipes())[-3:]
    ['mod31-small', 'mod31-steady', 'mod11-quick']
    >>> gi.recipes()["mod31-steady"]
    Recipe(p=31, train_fraction=0.8, init_scale=0.3, steps=2000)
    """
    return {name: entry.recipe for name, entry in BUILTIN.items()}


def find_recipe(name_or_path: str | Path, *, beside: Path | None = None) -> Recipe:
    """A built-in recipe by its name, or one from a TOML file by its path, `beside` another's.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import grokinterp as gi
    >>> gi.recipe.find_recipe("mod31-grokked")
    Recipe(p=31, train_fraction=0.8, steps=2000)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.toml")
    ...     _ = path.write_text(gi.Recipe(p=31, model="mlp").to_toml())
    ...     gi.recipe.find_recipe(path)
    Recipe(p=31, model='mlp')
    """
    if isinstance(name_or_path, str) and name_or_path in BUILTIN:
        return BUILTIN[name_or_path].recipe
    path = as_path("recipe", name_or_path, such_as="mod31-grokked")
    name = str(path)
    if kind_at(file := (beside or Path()) / path) == "file":
        return Recipe.from_toml(file)
    there = f" in {beside}" if beside else ""
    raise InputError(
        f"recipe {shown(name)} is neither built in nor a TOML file{there}; {nearest(name, BUILTIN)}"
    )


def as_recipe(given: object) -> Recipe:
    """A recipe that was given as itself, by its name or by the path of its TOML file."""
    if isinstance(given, Recipe):
        return given
    give = "gi.Recipe(...), or the name of a built-in one such as 'mod31-grokked'"
    return find_recipe(instance(given, (str, Path), "recipe", give=give))
