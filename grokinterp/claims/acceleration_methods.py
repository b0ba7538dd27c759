"""What is said to make grokking faster: each method as changes of a recipe, and as a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grokinterp.base.checks import listed, member
from grokinterp.base.errors import InputError
from grokinterp.reading._load import RunOrPath, recipe_of
from grokinterp.recipe.recipe import Recipe
from grokinterp.sweeps.sweep import Sweep, paired_seeds

BASELINE = "baseline"
SAVED = 12  # checkpoints of a run: dates are of its log, and runs are many
TOGETHER = 6  # runs in an ensemble, at most: those that differ in seeds, rate and decay

Changes = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train that is said to be faster, and what to know of it.

    `rule` says what changes and `changes(recipe)` are the keys; `source` is where it was proposed,
    `published` the figure given there ("" for none), `caveat` what stands beside that figure or
    beside ours. `tuning`: it is the baseline at another learning rate or weight decay.

    >>> import grokinterp as gi
    >>> method = gi.claims.METHODS["grokfast_ema"]
    >>> method.changes(gi.Recipe())
    {'gradient_filter': 'ema', 'filter_alpha': 0.98, 'filter_lambda': 2.0}
    >>> method.published
    '39,890 to 910 updates'
    >>> [name for name, each in gi.claims.METHODS.items() if each.tuning]
    ['lr_x0.3', 'lr_x3', 'decay_x0.3', 'decay_x3', 'lr_x3_decay_x0.3']
    """

    name: str
    rule: str
    changes: Callable[[Recipe], Changes] = field(repr=False)
    source: str = field(repr=False)
    published: str = field(default="", repr=False)
    caveat: str = field(default="", repr=False)
    tuning: bool = False

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe trained in this way; InputError where it cannot be."""
        return recipe.replace(**self.changes(recipe))


def _fixed(**changes: Any) -> Callable[[Recipe], Changes]:
    return lambda recipe: dict(changes)


def _times(recipe: Recipe, key: str, factor: float) -> float:
    """A key of a recipe times a factor, to six digits: 0.003 x 0.3 is 0.0009."""
    value = recipe.to_dict().get(key)
    if value is None:
        raise InputError(f"optimizer={recipe.optimizer!r} has no {key}; leave this setting out.")
    return float(f"{value * factor:.6g}")


def _scaled(**factors: float) -> Callable[[Recipe], Changes]:
    return lambda recipe: {key: _times(recipe, key, factor) for key, factor in factors.items()}


def _muon(recipe: Recipe) -> Changes:
    """Muon's published rate for hidden matrices, that of the recipe for all other weights."""
    return {"optimizer": "muon", "lr": 0.02, "adamw_lr": recipe.lr}


GROKFAST, PRIETO = "Lee et al. 2024, arXiv 2405.20233", "Prieto et al. 2025, arXiv 2501.04697"
OMNIGROK = "Liu et al. 2023, arXiv 2210.01117"
OWN = "own control"
_GROKFAST_BASELINE = (
    "the unfiltered runs of the paper's code have no weight decay and the filtered ones have; "
    "one seed, strength and memory from a grid search"
)

METHODS: Mapping[str, Method] = {
    each.name: each
    for each in (
        Method(
            name="grokfast_ema",
            rule="adds 2 times an exponential average (memory .98) of the gradients",
            changes=_fixed(gradient_filter="ema", filter_alpha=0.98, filter_lambda=2.0),
            source=f"{GROKFAST}, algorithm 2",
            published="39,890 to 910 updates",
            caveat=_GROKFAST_BASELINE,
        ),
        Method(
            name="grokfast_ma",
            rule="adds 5 times the mean of the last 100 gradients, once there are 100",
            changes=_fixed(gradient_filter="ma", filter_window=100, filter_lambda=5.0),
            source=GROKFAST,
            published="39,890 to 790 updates; 13.6 times fewer without decay",
            caveat=_GROKFAST_BASELINE,
        ),
        Method(
            name="perpendicular",
            rule="leaves of each gradient what is perpendicular to its weights; no weight decay",
            changes=_fixed(orthogonal_gradients=True, weight_decay=0.0),
            source=f"{PRIETO}, section 5",
            published="no delay in its figures (p = 113), no table",
            caveat="in the released code the option for Adam's beta2 does not reach these runs",
        ),
        Method(
            name="perpendicular_decay",
            rule="the same, with the weight decay of the recipe",
            changes=_fixed(orthogonal_gradients=True),
            source=OWN,
            caveat="not of the paper, whose runs have no decay: it tells the two apart",
        ),
        Method(
            name="stablemax",
            rule="StableMax in place of the softmax, in float64",
            changes=_fixed(objective="stablemax"),
            source=f"{PRIETO}, section 4",
            published="groks without decay (lr .01, 80,000 epochs), no table",
            caveat="it repairs a loss that is rounded to 0 in float32; the losses here are exact, "
            "so that the baseline trains on too",
        ),
        Method(
            name="held_norm_0.8",
            rule="the norm of all weights held at 0.8 times the initial one; no weight decay",
            changes=_fixed(norm_clamp="global", clamp_from=0, clamp_to=0.8, weight_decay=0.0),
            source=OMNIGROK,
            published="no delay at a norm within its zone",
            caveat="where the zone lies depends on the model: 0.8 lies in that of mod31-grokked; "
            "a held norm holds the scale of the logits too",
        ),
        Method(
            name="temperature_0.1",
            rule="logits times 0.1 before the loss",
            changes=lambda recipe: {"output_scale": _times(recipe, "output_scale", 0.1)},
            source=f"{OWN}, of held norms; temperatures are studied in arXiv 2606.18465",
            caveat="no published figure that we could read",
        ),
        Method(
            name="mse",
            rule="squared error on one-hot labels in place of cross-entropy",
            changes=_fixed(objective="mse"),
            source=f"as {OMNIGROK} (on images)",
            caveat="not proposed as an acceleration: with many classes its gradients are small",
        ),
        Method(
            name="muon",
            rule="Muon (lr .02, momentum .95) for hidden matrices, AdamW for all other weights",
            changes=_muon,
            source="Tveit et al. 2025, arXiv 2504.16041",
            published="153.09 to 102.89 epochs (means)",
            caveat="Essential AI, over widths and batch sizes, could not confirm it; "
            "its rate is not tuned here",
        ),
        *(
            Method(
                name=name,
                rule=rule,
                changes=_scaled(**factors),
                source=OWN,
                tuning=True,
            )
            for name, rule, factors in (
                ("lr_x0.3", "learning rate times 0.3", {"lr": 0.3}),
                ("lr_x3", "learning rate times 3", {"lr": 3.0}),
                ("decay_x0.3", "weight decay times 0.3", {"weight_decay": 0.3}),
                ("decay_x3", "weight decay times 3", {"weight_decay": 3.0}),
                (
                    "lr_x3_decay_x0.3",
                    "learning rate times 3, weight decay times 0.3",
                    {"lr": 3.0, "weight_decay": 0.3},
                ),
            )
        ),
    )
}


def accelerations(
    recipe: Recipe | RunOrPath,
    *,
    only: str | Sequence[str] | None = None,
    seeds: int = 3,
) -> Sweep:
    """The sweep that asks which published method makes this recipe grok sooner, and by how much.

    `recipe` is a recipe, the name of a built-in one, a TOML file, or a run whose recipe it is. The
    sweep has a variant for the `baseline`, for each of `METHODS` (Grokfast's two filters,
    perpendicular gradients with and without decay, StableMax, a held norm, a temperature, squared
    error, Muon) and for five settings of learning rate and weight decay, among which `speed_ups`
    finds the tuned baseline: a method that beats an untuned baseline has shown little. `only` names
    some of them; the baseline is always there. What the recipe cannot be given, or has already, is
    left out (`left_out` says what and why); named in `only`, it is refused.

    Every variant is trained with the same `seeds` pairs of `seed` and `data_seed`, from those of
    the recipe on, so that runs are compared that begin with the same weights and rows. Runs save 12
    checkpoints: their dates are those of the log. Methods have their published settings and are not
    tuned, which is to be said beside any ratio.

    Published methods that need another architecture or a second model are not among them:
    embeddings transferred from a weaker model (GrokTransfer, arXiv 2504.13292) and a residual
    stream bounded to a sphere (arXiv 2603.05228).

    >>> import grokinterp as gi
    >>> sweep = gi.accelerations("mod31-grokked", only=["perpendicular", "lr_x3"], seeds=2)
    >>> list(sweep.recipes())[:4]
    ['baseline,seed=0', 'baseline,seed=1', 'perpendicular,seed=0', 'perpendicular,seed=1']
    >>> sweep.recipes()["perpendicular,seed=1"].data_seed
    1
    """
    base = recipe_of(recipe)
    possible, out = _variants(base)
    if only is not None:
        given = [only] if isinstance(only, str) else listed("only", only, such_as="['mse']")
        names = [member(name, METHODS, "method") for name in given if name != BASELINE]
        if refused := [name for name in names if name in out]:
            raise InputError(
                f"only={refused[0]!r} is not for this recipe: {out[refused[0]]}; leave it out."
            )
        possible = {name: x for name, x in possible.items() if name in names}
    saved = f"every:{max(1, -(-base.steps // SAVED))}"
    return Sweep(
        base.replace(checkpoints=saved),
        (paired_seeds(base, seeds),),
        ensemble=TOGETHER,
        variants={BASELINE: {}, **possible},
    )


def left_out(recipe: Recipe | RunOrPath) -> dict[str, str]:
    """Which of `METHODS` a recipe cannot be given, or has already, and why.

    >>> import grokinterp as gi
    >>> left_out("mod31-grokked")
    {}
    >>> left_out(gi.Recipe(p=31, weight_decay=0))["decay_x3"]
    'it is the baseline'
    """
    return _variants(recipe_of(recipe))[1]


def _variants(base: Recipe) -> tuple[dict[str, Changes], dict[str, str]]:
    """The changes of each method by its name, and why others are left out."""
    found: dict[str, Changes] = {}
    out: dict[str, str] = {}
    made = {BASELINE: base}
    for name, method in METHODS.items():
        try:
            changes, recipe = method.changes(base), method.of(base)
        except InputError as error:
            out[name] = str(error).rstrip(".")
            continue
        if same := [other for other, its in made.items() if its == recipe]:
            out[name] = f"it is {'the baseline' if same[0] == BASELINE else same[0]}"
        else:
            found[name], made[name] = changes, recipe
    return found, out
