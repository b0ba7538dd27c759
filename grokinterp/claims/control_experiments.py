"""Which runs would decide why a network generalises so late? A recipe, with one thing changed each.

>>> import grokinterp as gi
>>> held = [x for x in gi.claims.every_control("mod31-grokked") if x.name == "held_norm_0.8"][0]
>>> held.changes
{'weight_decay': 0.0, 'constraint': 'norm_clamp', 'norm_clamp': 'global', 'clamp_from': 0,
'clamp_to': 0.8}
>>> print(held.decides)
C1, C2, A1: do norms in one zone generalise, and does a norm held there remove the delay?
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grokinterp.base.checks import listed
from grokinterp.base.errors import InputError, nearest, shown
from grokinterp.reading._load import RunOrPath, recipe_of
from grokinterp.recipe.recipe import Recipe
from grokinterp.sweeps.sweep import Sweep, paired_seeds

HELD = (0.8, 1.0, 1.3, 5.0, 8.0)  # over the initial norm
# A held norm, and the one that it imitates by the scale of its logits: the last for networks that
# do not fit their training inputs near the initial norm.
SCALED = ((1.0, 0.8), (1.0, 1.3), (5.0, 8.0))
DECAYS = (0.3, 0.6, 3.0)
SIZES = (0.2, 0.4, 0.6, 0.8)  # shares of the inputs
STARTS = (0.5, 2.0)
TOGETHER = 3  # runs as one model, where that is faster: the usual seeds of a control
SAVED = 12  # checkpoints between the initial weights and the last, that one included


@dataclass(frozen=True, kw_only=True)
class Control:
    """One change of a recipe, what it decides, and why this recipe cannot have it ("" if it can).

    `changes` are keys of the recipe and the values that they would have in the control.

    >>> import grokinterp as gi
    >>> recipe = gi.Recipe(p=7, weight_decay=0)
    >>> [(x.name, x.why_not) for x in gi.claims.every_control(recipe) if x.why_not][0]
    ('no_decay', 'this recipe is that already')
    """

    name: str
    decides: str
    changes: Mapping[str, Any]
    why_not: str = ""


def controls(
    recipe: Recipe | RunOrPath, *, only: str | Sequence[str] | None = None, seeds: int = 3
) -> Sweep:
    r"""The control experiments of a recipe, or of the recipe of a run: what `run_sweep` takes.

    Each is a variant of the recipe, at `seeds` seeds: `seed` and `data_seed` count up together from
    the recipe's own, so that what differs between controls is paired by seed. By their names, in
    which f is a factor or a share:

    - `baseline`: the recipe; `no_decay`: weight_decay 0; `decay_xf`: weight_decay times f, for
      1 / f as many steps where f < 1, since the delay grows so;
    - `held_norm_f`: the norm of all weights together held at f times the initial one from the
      start, without decay (Liu et al. 2023, arXiv 2210.01117); `perpendicular`: gradients
      perpendicular to each weight, without decay (Prieto et al. 2025, arXiv 2501.04697, section 5);
    - `temperature_0.1`: logits times 0.1 in the objective; `held_norm_f_scale_s`: a held
      norm and logits times s, which is what weights sqrt(s) times as large do to the logits of a
      network of degree 2 (1 like 0.8 and 1.3, and 5 like 8);
    - `random_labels_f` and `data_f`: a share f of the inputs to train on, with random and with true
      answers; `init_xf`: the initial weights times f.

    The factors, and logits scaled beside a held norm, are our choice.

    `only` takes names, or beginnings of them up to an underscore: "held_norm" is all of these. What
    a recipe cannot have, and what it is already, is left out: `every_control` says why, and what
    each control decides.

    Metrics are logged as in the recipe. Of weights, the initial ones are saved and 12 checkpoints,
    logged steps about evenly spaced in log(step) from 1 % of the steps to the last: whatever
    happens has one within about half its step, and the controls of `mod31-grokked` (72 runs of
    227,000 weights) take less than 1 GB. Norms at every logged step are in `run.dynamics`. A
    schedule of the rate stretches with the steps.

    InputError for what is no recipe and for a run without one, for a name in `only` that is no
    control or that this recipe cannot have, and for what a `Sweep` refuses.

    What they do not show: anything of other architectures or tasks than the recipe's.

    >>> import grokinterp as gi
    >>> sweep = gi.controls("mod31-grokked", only=["no_decay", "held_norm"], seeds=2)
    >>> list(sweep.variants)
    ['no_decay', 'held_norm_0.8', 'held_norm_1', 'held_norm_1.3', 'held_norm_5', 'held_norm_8',
    'held_norm_1_scale_0.64', 'held_norm_1_scale_1.69', 'held_norm_5_scale_2.56']
    >>> list(sweep.recipes())[:3]
    ['no_decay,seed=0', 'no_decay,seed=1', 'held_norm_0.8,seed=0']
    >>> len(gi.controls("mod31-grokked").recipes())
    72
    """
    base = _few_checkpoints(recipe_of(recipe))
    asked = every_control(recipe, only=only)
    variants = {control.name: control.changes for control in asked if not control.why_not}
    return Sweep(base, (paired_seeds(base, seeds),), ensemble=TOGETHER, variants=variants)


def every_control(
    recipe: Recipe | RunOrPath, *, only: str | Sequence[str] | None = None
) -> tuple[Control, ...]:
    """Every control that `controls` has or leaves out, in its order; with `only`, of those asked.

    InputError as of `controls`.

    >>> import grokinterp as gi
    >>> ising = gi.claims.every_control("ising-grokked")
    >>> [x.why_not for x in ising if x.name == "data_0.2"]
    ["task='ising' draws its training inputs itself, so there is no train_fraction"]
    >>> print([x.decides for x in ising if x.name == "no_decay"][0])
    A1: does it generalise without weight decay?
    """
    given = recipe_of(recipe)
    base = _few_checkpoints(given)
    found = _all(base, given.checkpoints)
    every = tuple(x if x.why_not else _checked(base, x) for x in found)
    return every if only is None else _asked(every, only)


def _all(base: Recipe, saved: str | tuple[int, ...]) -> Iterator[Control]:
    """Every control, with the reason where one means nothing for this recipe."""
    decay = base.to_dict().get("weight_decay", 0.0)
    free = {"weight_decay": 0.0} if decay else {}

    def held(factor: float) -> dict[str, Any]:
        clamp = {"norm_clamp": "global", "clamp_from": 0, "clamp_to": factor}
        return {**free, "constraint": "norm_clamp", **clamp}

    def scaled(factor: float) -> dict[str, Any]:
        return {"output_scale": _times(base.output_scale, factor)}

    def control(name: str, decides: str, changes: Mapping[str, Any], why_not: str = "") -> Control:
        return Control(name=name, decides=decides, changes=changes, why_not=why_not)

    yield control(
        "baseline",
        "the other seeds: how much of a difference is chance?",
        {"checkpoints": saved},
    )
    yield control("no_decay", "A1: does it generalise without weight decay?", {"weight_decay": 0.0})
    why_not = "" if decay else "this recipe has no weight decay that could be multiplied"
    for x in DECAYS:
        yield control(
            f"decay_x{x:g}",
            "A4: does the delay go as 1 / weight decay?",
            {"weight_decay": _times(decay, x), **(_longer(base, x) if x < 1 else {})},
            why_not,
        )
    for x in HELD:
        yield control(
            f"held_norm_{x:g}",
            "C1, C2, A1: do norms in one zone generalise, and does a norm held there remove the "
            "delay?",
            held(x),
        )
    yield control(
        "perpendicular",
        "A1: does it generalise without decay, with gradients that leave the norm alone?",
        {"orthogonal_gradients": True, **free},
    )
    yield control(
        "temperature_0.1",
        "C1: is it the scale of the logits, through which a norm acts?",
        scaled(0.1),
    )
    for norm, like in SCALED:
        scale = (like / norm) ** 2
        yield control(
            f"held_norm_{norm:g}_scale_{scale:.3g}",
            f"C1: does a scale of the logits make held_norm_{norm:g} do as held_norm_{like:g}?",
            {**held(norm), **scaled(scale)},
        )
    sizes, answers = _why_no_sizes(base), _why_no_random_answers(base)
    for x in SIZES:
        yield control(
            f"random_labels_{x:g}",
            "efficiency: what norm does memorising take at this size, for a given logit?",
            {"operation": "random", "train_fraction": x},
            sizes or answers,
        )
    for x in SIZES:
        yield control(
            f"data_{x:g}",
            "efficiency, critical size: what norm does generalising take, and from which size on?",
            {"train_fraction": x},
            sizes,
        )
    why_not = "it starts from the weights of a run, which no init_scale multiplies"
    for x in STARTS:
        yield control(
            f"init_x{x:g}",
            "C2: does the delay follow from how far from the zone it starts?",
            {"init_scale": _times(base.init_scale, x)},
            why_not if base.start else "",
        )


def _why_no_sizes(base: Recipe) -> str:
    if "train_fraction" in base.to_dict():
        return ""
    return f"task={base.task!r} draws its training inputs itself, so there is no train_fraction"


def _why_no_random_answers(base: Recipe) -> str:
    if base.build_task().modular is None or "operation" not in base.to_dict():
        return f"task={base.task!r} has answers of its own, which no operation replaces"
    random = base.replace(operation="random") == base
    return "its answers are random already: data_0.2 and so on are these" if random else ""


def _checked(base: Recipe, control: Control) -> Control:
    """The control, told why not where the recipe refuses it or is that already."""
    try:
        made = base.replace(**control.changes)
    except InputError as error:
        return replace(control, why_not=str(error).rstrip("."))
    same = made == base and control.name != "baseline"
    return replace(control, why_not="this recipe is that already") if same else control


def _few_checkpoints(recipe: Recipe) -> Recipe:
    return recipe.replace(checkpoints=_spaced(recipe.steps, recipe.log_every))


def _spaced(steps: int, log_every: int) -> tuple[int, ...]:
    """From 1 % of the steps to the last, evenly in log(step), and the initial weights.

    They are logged steps, since a checkpoint is logged too: the log then stays what it was.
    """
    later = (steps * 100 ** (i / (SAVED - 1) - 1) for i in range(SAVED))
    logged = (round(step / log_every) * log_every for step in later)
    return tuple(sorted({0, *(step for step in logged if step < steps), steps}))


def _longer(base: Recipe, factor: float) -> dict[str, Any]:
    """1 / factor times the steps, up to a logged one, and their checkpoints."""
    steps = math.ceil(base.steps / factor / base.log_every) * base.log_every
    return {"steps": steps, "checkpoints": _spaced(steps, base.log_every)}


def _times(value: float, factor: float) -> float:
    return float(f"{value * factor:.12g}")  # 0.3 * 3 is 0.9, and its name should say so


def _asked(every: Sequence[Control], only: str | Sequence[str]) -> tuple[Control, ...]:
    """Those that are asked for; refused where a name has none that this recipe can have."""
    names = [only] if isinstance(only, str) else listed("only", only, such_as="['no_decay']")
    if not names:
        raise InputError("only=[] names no control; leave it out for all of them.")
    asked: list[Control] = []
    for name in names:
        exact = [control for control in every if control.name == name]
        those = exact or [control for control in every if control.name.startswith(f"{name}_")]
        if not those:
            known = [control.name for control in every]
            families = (re.sub(r"(_x?[0-9.]+)$", "", each) for each in known)
            advice = nearest(name, dict.fromkeys([*families, *known]))
            raise InputError(f"only={shown(name)} is no control; {advice}")
        if all(control.why_not for control in those):
            why = those[0].why_not
            raise InputError(f"only={shown(name)} is no control of this recipe: {why}.")
        asked += those
    return tuple(control for control in every if control in asked)
