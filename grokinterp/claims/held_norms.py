"""At which norms of the weights does a network generalise, and does training walk to them?

The norm is held for that, a run each; what is free is compared with what is held.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import number, word
from grokinterp.base.result import Result
from grokinterp.claims.control_runs import Runs, alike, budgets, dated, left_out, runs_in
from grokinterp.claims.evidence import FEWEST
from grokinterp.claims.zone_of_norms import DATES, Zone, norm_at, path_of, walked
from grokinterp.reading._load import progress_bar
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

HELD, FREE, SCALED = "held", "free", "scaled"
OF_THE_NORM = ("constraint", "norm_clamp", "clamp_from", "clamp_to", "weight_decay", "output_scale")
LAST = ("train_loss", "test_loss", "train_acc", "test_acc")
MEASURED = (*LAST, *(f"best_{name}" for name in LAST), *DATES)
Table = Literal["norms", "runs", "free", "scaled"]


@dataclass(frozen=True, kw_only=True)
class NormLandscape(Result):
    """What training comes to at every held norm, and where the norms of free runs go.

    `n0` is the initial norm (median of the runs), `zone` the norms that generalise, `budget` the
    fewest and the most updates of the runs. The tables are described at `norm_landscape`.

    >>> import grokinterp as gi
    >>> found = gi.claims.norm_landscape(gi.load("mod31-small"))  # one free run
    >>> found.table("free")[["run", "n0", "alpha_t95", "alpha_max", "over_max_t95"]].round(2)
               run     n0  alpha_t95  alpha_max  over_max_t95
    0  mod31-small  17.99        1.3       1.61          0.81
    """

    norms: tuple[dict[str, Any], ...] = field(repr=False)
    runs: tuple[dict[str, Any], ...] = field(repr=False)
    free: tuple[dict[str, Any], ...] = field(repr=False)
    scaled: tuple[dict[str, Any], ...] = field(repr=False)
    paths: Mapping[str, tuple[tuple[int, float], ...]] = field(repr=False)
    n0: float
    zone: Zone
    budget: tuple[int, int] | None
    degree: float

    def table(self, of: Table = "norms") -> pd.DataFrame:
        """A row per held norm; or per run, per free run, per scale of the logits at a held norm."""
        word("of", of, ("norms", "runs", "free", "scaled"))
        return pd.DataFrame(list(getattr(self, of)))

    def _lines(self) -> list[str]:
        zone, lines = self.zone, []
        if math.isfinite(self.n0):
            lines.append(f"initial norm N0 = {self.n0:.4g}")
        if zone.low is not None and zone.high is not None:
            ends = " to ".join(dict.fromkeys((_times(zone.low), _times(zone.high))))
            fails = [_times(alpha) for alpha in (zone.below, zone.above) if alpha is not None]
            lines.append(f"generalises at {ends} N0, fails at {' and '.join(fails) or 'none'}")
        elif self.norms:
            lines.append(f"generalises at none of {len(self.norms)} held norms")
        for row in self.free[:FEWEST]:
            came = {"": "", "inside": ", inside from the start"}.get(
                row["came_from"], f", from {row['came_from']}"
            )
            late = f"{_times(row['alpha_t95'])} when it generalises{came}"
            late = "never generalises" if row["t95"] is None else late
            lines.append(f"free run {row['run']}: N/N0 at most {_times(row['alpha_max'])}, {late}")
        return lines

    def _short_table(self) -> pd.DataFrame:
        columns = ["alpha", "norm", "n_seeds", "n_generalize", "train_loss", "test_acc",
                   "best_test_acc", "t99", "t95"]  # fmt: skip
        return self.table()[columns] if self.norms else pd.DataFrame()


def norm_landscape(
    runs: Runs,
    *,
    degree: float = 2.0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> NormLandscape:
    r"""At which norms does training generalise, and does a free run walk from outside to them?

    `runs` are a list, a dict by name, or a folder of runs, some with `norm_clamp` from step 0 on
    (`clamp_to` = alpha, weight decay 0 as in Omnigrok), and, for the path, some with weight decay
    alone. By their recipes, not their names: `held`, `free`, and `scaled`, which are held and have
    another `output_scale` than most runs. They may differ in these keys, in seeds and in steps;
    what differs elsewhere is left out with a note. With N_0 the norm of the initial weights, all
    trained parameters together,

        l_S(alpha) = l_S(argmin { l_train(theta) : |theta| = alpha N_0 }),

    the reduced landscape of Liu et al. 2023 (Omnigrok, arXiv 2210.01117, section 2), with "argmin"
    for where the optimiser is at the end of its steps, as in their code.

    `.table()`, a row per alpha: norm (alpha N_0), n_seeds, n_fit (seeds with t99), n_generalize
    (with t95); then, as medians over seeds, with the smallest and largest as `_low` and `_high`,
    train_loss, test_loss (nats), train_acc, test_acc of the last logged step, the `best_` of each
    over the log (losses the least, accuracies the most: the landscapes of the released code record
    these), and the updates t99 and t95 after which train accuracy keeps .99, test accuracy .95,
    null where half of the seeds or more do not come to it. `.table("runs")`: the same of every run,
    and its label. `zone`: where more than half of the seeds have t95.

    `.table("free")`: n0, and N/N_0 as alpha_t99, alpha_t95, alpha_max, alpha_last; N at t95 over
    the largest N as over_max_t95; where these lie (`starts`, `at_t99`, `at_max`, `at_t95`: see
    `Zone.where`), and `came_from`: "above" or "below", the side of the zone on which the norm was
    last before t95; "inside" if it never left; "outside" if it generalises there.

    `.table("scaled")`: a network of degree L in its weights has the logits of alpha s^(1/L) at
    alpha, if they are multiplied by s, `output_scale` over that of most runs: that is `acts_like`,
    with L = `degree`, 2 for one hidden layer without biases. Beside it the share of seeds that
    generalise and t95 at the `nearest` held norm to that, and at `own`, that of the run. If the
    first says what happens, the norm acts through the scale of the logits.

    It does not show that a minimum was found, nor what lies between or beyond the norms that were
    tried, nor that a held norm trains as fast as a free one. InputError for a folder without a
    finished run.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> tiny = gi.Recipe(model="mlp", p=5, d_mlp=8, steps=20, weight_decay=0.0)
    >>> held = [tiny.replace(norm_clamp="global", clamp_to=alpha) for alpha in (0.5, 2.0)]
    >>> with tempfile.TemporaryDirectory() as out:
    ...     runs = [gi.train(one, f"{out}/{i}", progress=False) for i, one in enumerate(held)]
    ...     found = gi.claims.norm_landscape(runs)
    >>> found.table()[["alpha", "norm", "n_seeds", "n_generalize"]].round(2)
       alpha  norm  n_seeds  n_generalize
    0    0.5  1.99        1             0
    1    2.0  7.98        1             0
    """
    degree = number("degree", degree, least=1, such_as="2.0")
    given = runs_in(runs, task=task, train_mask=train_mask)
    scale = _usual_scale(given.values())
    sorted_out, notes = _kinds(given, scale)
    notes = [*given.notes, *notes]
    names = list(sorted_out)
    rows = [
        _row(names[i], given[names[i]], sorted_out[names[i]])
        for i in progress_bar(range(len(names)), "norm landscape", progress)
    ]
    norms = [_of_norm(those) for those in _grouped(rows, HELD, "alpha")]
    zone = Zone.of({each["alpha"]: each["n_generalize"] / each["n_seeds"] for each in norms})
    paths = {row["run"]: path_of(given[row["run"]]) for row in rows if row["kind"] == FREE}
    known = [row["n0"] for row in rows if math.isfinite(row["n0"])]
    scaled = [
        _of_scale(those, norms, degree, scale)
        for those in _grouped(rows, SCALED, "alpha", "output_scale")
    ]
    budget = budgets(given[name] for name in names)
    return NormLandscape(
        norms=tuple(norms),
        runs=tuple(rows),
        free=tuple(walked(row, paths[row["run"]], zone) for row in rows if row["kind"] == FREE),
        scaled=tuple(scaled),
        paths=paths,
        n0=float(np.median(known)) if known else math.nan,
        zone=zone,
        budget=budget,
        degree=degree,
        notes=(*notes, *_notes(rows, norms, zone, budget, given)),
    )


def _usual_scale(runs: Iterable[Run]) -> float:
    """The `output_scale` that most runs have: that of the network, which others are controls of."""
    found = Counter(run.recipe.to_dict()["output_scale"] for run in runs if run.recipe)
    return max(found, key=lambda scale: (found[scale], scale == 1), default=1.0)


def _kinds(runs: Mapping[str, Run], scale: float) -> tuple[dict[str, str], list[str]]:
    """The kind of every run that is looked at, by its recipe, and notes about the others."""
    kinds: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for name, run in runs.items():
        kind, why = _kind(run.recipe, scale)
        if kind:
            kinds[name] = kind
        else:
            others.setdefault(why, []).append(name)
    notes = [left_out(names, why) for why, names in others.items()]
    held = [name for name, kind in kinds.items() if kind == HELD]
    kept, more = alike({name: runs[name] for name in kinds}, but=OF_THE_NORM, of=held)
    how = Counter(_how(kept[name].recipe) for name in held if name in kept)
    if len(how) > 1:
        usual = how.most_common(1)[0][0]
        odd = [n for n in kept if kinds[n] != FREE and _how(kept[n].recipe) != usual]
        more.append(left_out(odd, "norm_clamp or weight_decay other than of most held runs"))
        kept = {name: run for name, run in kept.items() if name not in odd}
    return {name: kinds[name] for name in kept}, [*notes, *more]


def _kind(recipe: Recipe | None, scale: float) -> tuple[str, str]:
    """What a run is for, or "" and why it is for nothing here."""
    if recipe is None:
        return "", "no recipe says whether the norm was held"
    keys = recipe.to_dict()
    if keys["constraint"] == "norm_clamp" and keys["norm_clamp"] != "none":
        if keys["clamp_from"]:
            return "", "the norm is not held from step 0 on"
        return (HELD if keys["output_scale"] == scale else SCALED), ""
    if keys["constraint"] not in ("none", "norm_clamp"):
        return "", f"constraint={keys['constraint']!r}"
    if not keys.get("weight_decay"):
        return "", "neither a held norm nor weight decay"
    if keys["output_scale"] != scale:
        return "", "another output_scale without a held norm"
    return FREE, ""


def _how(recipe: Recipe | None) -> tuple[Any, ...]:
    """How a norm is held."""
    keys = {} if recipe is None else recipe.to_dict()
    return keys.get("norm_clamp"), keys.get("weight_decay")


def _row(name: str, run: Run, kind: str) -> dict[str, Any]:
    """The numbers of one run."""
    assert run.recipe is not None
    keys, logged, phases = run.recipe.to_dict(), run.metrics, dated(run)
    alpha = math.nan if kind == FREE else float(keys["clamp_to"])
    first = norm_at(run, run.steps[0]) if run.steps[0] == 0 else math.nan
    row: dict[str, Any] = {
        "run": name,
        "kind": kind,
        "seed": keys["seed"],
        "alpha": alpha,
        "norm": norm_at(run, run.steps[-1]),
        "n0": first if kind == FREE else first / alpha,
        "weight_decay": keys.get("weight_decay"),
        "output_scale": keys["output_scale"],
        "steps": run.steps[-1],
        "label": "undetermined" if phases is None else phases.label,
    }
    for column in LAST:
        unmirrored = f"{column}_unmirrored"
        values = logged[unmirrored if unmirrored in logged else column].to_numpy(float)
        best = np.fmax.reduce if column.endswith("acc") else np.fmin.reduce
        row |= {column: float(values[-1]), f"best_{column}": float(best(values))}
    return row | {
        "t99": None if phases is None else phases.memorization_step,
        "t95": None if phases is None else phases.grok_step,
    }


def _grouped(rows: Sequence[dict[str, Any]], kind: str, *by: str) -> list[list[dict[str, Any]]]:
    """The rows of a kind that agree in these columns, in their order."""
    found: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == kind:
            found.setdefault(tuple(row[column] for column in by), []).append(row)
    return [found[key] for key in sorted(found)]


def _of_norm(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One held norm over its seeds."""
    found = {
        "alpha": rows[0]["alpha"],
        "norm": float(np.median([row["norm"] for row in rows])),
        "n_seeds": len(rows),
        "n_fit": sum(row["t99"] is not None for row in rows),
        "n_generalize": sum(row["t95"] is not None for row in rows),
    }
    for name in MEASURED:
        values = [row[name] for row in rows]
        found |= {name: _median(values), f"{name}_low": _end(values, min)}
        found[f"{name}_high"] = _end(values, max)
    return found


def _median(values: Iterable[float | None]) -> float | None:
    """The median, with what never happens after all else; None if that is in the middle."""
    numbers = [math.inf if value is None else value for value in values]
    if any(math.isnan(value) for value in numbers):
        return None  # a run that diverged
    middle = float(np.median(numbers))
    return middle if math.isfinite(middle) else None


def _end(values: Iterable[float | None], which: Any) -> float | None:
    """The least or the largest; None where something never happens for the largest."""
    numbers = [math.inf if value is None else float(value) for value in values]
    found = math.nan if any(map(math.isnan, numbers)) else which(numbers)
    return found if math.isfinite(found) else None


def _of_scale(
    rows: Sequence[dict[str, Any]], norms: Sequence[dict[str, Any]], degree: float, usual: float
) -> dict[str, Any]:
    """Held norms with scaled logits over their seeds, beside the norms that they act like."""
    alpha, scale = rows[0]["alpha"], rows[0]["output_scale"]
    acts_like = alpha * (scale / usual) ** (1 / degree)
    found: dict[str, Any] = {
        "alpha": alpha, "output_scale": scale, "acts_like": acts_like, "n_seeds": len(rows),
        "share": sum(row["t95"] is not None for row in rows) / len(rows),
        "test_acc": _median([row["test_acc"] for row in rows]),
        "t95": _median([row["t95"] for row in rows]),
    }  # fmt: skip
    near = min(norms, key=lambda x: abs(math.log(x["alpha"] / acts_like)), default=None)
    own = next((each for each in norms if each["alpha"] == alpha), None)
    for name, each in (("nearest", near), ("own", own)):
        found |= {
            name: each and each["alpha"],
            f"{name}_share": each and each["n_generalize"] / each["n_seeds"],
            f"{name}_test_acc": each and each["test_acc"],
            f"{name}_t95": each and each["t95"],
        }
    return found


def _notes(
    rows: Sequence[dict[str, Any]],
    norms: Sequence[dict[str, Any]],
    zone: Zone,
    budget: tuple[int, int] | None,
    runs: Mapping[str, Run],
) -> list[str]:
    """What to read with the numbers."""
    notes = []
    free = [runs[row["run"]] for row in rows if row["kind"] == FREE]
    if not norms:
        notes.append(
            "no run holds its norm from step 0 on, so there is no landscape: give runs with "
            "norm_clamp='global', clamp_to=2 and weight_decay=0, say"
        )
    elif zone.low is None:
        notes.append("there is no zone: no norm that was tried generalises within the steps given")
    else:
        for side, fails in (("below", zone.below), ("above", zone.above)):
            if fails is None:
                notes.append(f"the zone is open {side}: no norm was tried there that fails")
        if zone.gaps:
            failing = ", ".join(f"{alpha:g}" for alpha in zone.gaps)
            notes.append(f"norms inside the zone fail: {failing} N0")
    if norms and max(each["n_seeds"] for each in norms) < FEWEST:
        notes.append(f"fewer than {FEWEST} seeds a norm: the order of norms, and no more")
    if norms and not free:
        notes.append("no run has weight decay and a free norm, so there is no path")
    if any(run.dynamics is None for run in free):
        notes.append("norms of free runs between checkpoints are on straight lines")
    if budget and budget[0] < budget[1]:
        notes.append(f"not all runs are as long: {budget[0]:,} to {budget[1]:,} updates")
    if any(runs[row["run"]].task.commutative for row in rows):
        notes.append("test loss and accuracy are on unmirrored pairs; t95 is on all test pairs")
    if any(row["kind"] == SCALED for row in rows):
        notes.append("losses of runs with an output_scale are those of their logits without it")
    return notes


def _times(alpha: float | None) -> str:
    return "none" if alpha is None or math.isnan(alpha) else f"{alpha:.3g}"
