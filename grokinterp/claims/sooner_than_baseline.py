"""How much sooner do runs generalise that were trained in another way than the baseline?"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import instance, member, number
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result, text_card
from grokinterp.claims.acceleration_methods import BASELINE
from grokinterp.claims.control_runs import Runs, RunsByName, runs_in
from grokinterp.claims.paired_dates import (
    FAILED,
    GROKS,
    NEVER,
    UNKNOWN,
    SpeedUp,
    middle,
    speed_up,
)
from grokinterp.claims.settings_of_runs import (
    NO_RECIPE,
    Setting,
    baseline_of,
    changed,
    in_words,
    names_of,
    setting_of,
)
from grokinterp.claims.zone_of_norms import norm_at, path_of
from grokinterp.fourier._key_frequencies import key_frequencies
from grokinterp.fourier.localization import neuron_ipr
from grokinterp.models.architecture import all_finite
from grokinterp.progress.levels import Thresholds
from grokinterp.progress.phases import phases_of_metrics
from grokinterp.reading._load import progress_bar
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

TUNED_BY = {"lr", "weight_decay"}  # in which the settings of a tuned baseline differ
LAST_ROWS = 5  # of a log: whether a run fits its training data is by their median
COLUMNS = (
    "method", "verdict", "runs", "failed", "never", "t99", "t95", "delay", "no_delay", "pairs",
    "ratio", "ratio_low", "ratio_high", "sooner", "p", "p_later", "ratio_tuned", "seconds",
    "ratio_seconds", "test_acc", "norm_start", "norm_max", "norm", "changes",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpeedUps(Result):
    """Each way to train beside the baseline, and every run: see `speed_ups`.

    `methods` has one `SpeedUp` each, soonest first; `baseline` and `tuned` name two of them
    (`tuned` is "" without one that generalises), `budget` is the number of updates of the longest
    run.

    >>> import grokinterp as gi
    >>> found = gi.claims.speed_ups(gi.load("mod31-small"))
    >>> found.runs()[["method", "outcome", "t99", "t95", "t95_unmirrored", "label"]]
         method outcome    t99     t95  t95_unmirrored    label
    0  baseline   groks  260.0  3530.0          4620.0  grokked
    """

    methods: tuple[SpeedUp, ...] = field(repr=False)
    baseline: str
    tuned: str
    budget: int
    rows: tuple[dict[str, Any], ...] = field(repr=False)

    def table(self) -> pd.DataFrame:
        """One row per way to train, soonest first; columns as the fields of `SpeedUp`."""
        return pd.DataFrame([{x: getattr(each, x) for x in COLUMNS} for each in self.methods])

    def runs(self) -> pd.DataFrame:
        """One row per run: method, seeds, outcome, dates, and what it ended with."""
        return pd.DataFrame(list(self.rows))

    def __getitem__(self, method: str) -> SpeedUp:
        by_name = {each.method: each for each in self.methods}
        return by_name[member(method, by_name, "method of these runs")]

    def _title(self) -> str:
        return "Speed-ups beside the baseline"

    def _lines(self) -> list[str]:
        lines = [f"{self.budget} updates at most; ratio: t95 of the baseline over the method's"]
        if self.tuned:
            tuned = self[self.tuned]
            lines.append(f"tuned baseline: {self.tuned}, t95 {in_updates(tuned.t95)}")
        for verdict in ("sooner", "later", "mixed", "never", "failed"):
            if names := [each.method for each in self.methods if each.verdict == verdict]:
                lines.append(f"{verdict}: {', '.join(names)}")
        return lines

    def __str__(self) -> str:
        """All methods, as a shell is shown them; a card in a notebook has the first twelve."""
        table, most = self._short_table(), len(self.methods)
        return text_card(self._title(), self._lines(), table, notes=self.notes, most=most)

    def _short_table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "method": each.method,
                "t99": in_updates(each.t99),
                "t95": FAILED if each.verdict == FAILED else in_updates(each.t95),
                "ratio": each.ratio,
                "of pairs": _span(each.ratio_low, each.ratio_high),
                "to tuned": each.ratio_tuned,
                "seconds": each.seconds if math.isfinite(each.seconds) else math.nan,
                "test acc": each.test_acc,
                "norm": f"{each.norm_start:.3g} to {each.norm:.3g}",
            }
            for each in self.methods
        ).dropna(axis="columns", how="all")


def in_updates(t: float) -> str:
    """A date in words."""
    return NEVER if t == math.inf else "-" if math.isnan(t) else f"{t:.0f}"


def _span(low: float, high: float) -> str | None:
    return None if math.isnan(low) else f"{low:.3g} to {high:.3g}"


def speed_ups(
    x: Runs,
    *,
    baseline: Recipe | None = None,
    seconds: Mapping[str, float] | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> SpeedUps:
    r"""How much sooner than the baseline does each way to train generalise, and with which end?

    `x` is the folder that a sweep of `gi.accelerations` was trained into, a list of runs, or a dict
    of them by name. Runs of one setting differ in seeds alone. Settings are named after the
    `METHODS` that lead to them from the baseline, or else after the keys that differ. The baseline
    is the setting from which most others follow, or that of the recipe `baseline`; names of folders
    do not matter.

    Of each run, in updates and from its log alone: t99 and t95, the `memorization_step` and
    `grok_step` of `gi.detect_phases` (99 % of the training rows, 95 % of all test pairs;
    `t95_unmirrored` is of those whose mirror is not trained on), and delay = t95 - t99. Its outcome
    "groks"; "never", if it fits the training data and does not reach t95 within its steps; or
    "failed", if it does not fit them: a median train accuracy of the last five logged rows below
    .99, or weights that are not finite. Failed is not slow. Its end: label, accuracies, key
    frequencies, mean input IPR of its neurons, and the norm of all trained weights at the first and
    the last checkpoint, and the largest that is known.

    Of each setting, over pairs of runs with the same seeds, ratio = median t95 of the baseline /
    median t95 of the method, and the ratios of single pairs. "sooner": every pair is above 1;
    "later": every pair is below 1, where a run that never generalises is later than one that
    does; "mixed" else; "never" and "failed" if half of its runs are; "unpaired" without a pair. "No
    delay" is t95 <= 2 t99 in every run. `p` is an exact sign test: three pairs reach 1/8 at best,
    so "sooner" by three seeds is a direction, and some of many methods are by chance. `notes` count
    them.

    The tuned baseline is the soonest, by median t95, of the baseline and the settings that differ
    from it in `lr` and `weight_decay` alone; one with a failed run cannot be it. It is chosen on
    the seeds that it is compared on, which favours it a little, and methods have settings that are
    not tuned, which favours it too. Without such settings `notes` say that it is not tuned.

    `seconds` are those of an update by method, as `seconds_per_update` measures them; seconds to
    t95 are their product. A ratio does not show why, nor what a method does at other settings,
    sizes or tasks. InputError where the recipes do not tell the baseline.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> tiny = gi.Recipe(p=5, model="mlp", widths=[8], steps=20)
    >>> sweep = gi.accelerations(tiny, only=["mse"], seeds=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = gi.run_sweep(sweep, folder, progress=False)
    ...     found = gi.claims.speed_ups(folder)
    >>> found.table()[["method", "verdict", "runs", "failed"]]
         method verdict  runs  failed
    0  baseline  failed     1       1
    1       mse  failed     1       1
    """
    runs = runs_in(x, task=task, train_mask=train_mask)
    groups: dict[Setting | None, list[str]] = defaultdict(list)
    for name, run in runs.items():
        groups[setting_of(run.recipe)].append(name)
    recipes = {key: runs[names[0]].recipe for key, names in groups.items()}
    base = baseline_of(recipes, baseline)
    called = names_of(recipes, base)
    changes = {called[key]: changed(recipes[base], its) for key, its in recipes.items()}
    method_of = {name: called[key] for key, names in groups.items() for name in names}
    times = _checked_seconds(seconds, changes)
    names, rows = list(runs), []
    for i in progress_bar(range(len(names)), "speed-ups", progress):
        method = method_of[names[i]]
        row = {"method": method, "run": names[i], **_row(runs[names[i]])}
        rows.append(row | {"seconds": row["t95"] * times.get(method, math.nan)})
    frame = pd.DataFrame(rows)
    of_method = {name: frame[frame["method"] == name] for name in changes}
    tuned = _tuned(of_method, changes)
    base_runs, tuned_runs = of_method[BASELINE], of_method.get(tuned, frame.head(0))
    found = [
        speed_up(name, its, base_runs, tuned_runs, changes=in_words(changes[name]))
        for name, its in of_method.items()
    ]
    return SpeedUps(
        methods=tuple(sorted(found, key=_soonest)),
        baseline=BASELINE,
        tuned=tuned,
        budget=int(frame["steps"].max()),
        rows=tuple(rows),
        notes=(*runs.notes, *_notes(frame, found, tuned, runs)),
    )


def _soonest(each: SpeedUp) -> tuple[float, str]:
    """Methods by t95; those that never generalise after them, then those that failed."""
    last = {NEVER: 1e12, UNKNOWN: 1e13, FAILED: 1e14}
    return last.get(each.verdict, min(each.t95, 1e11)), each.method


def _checked_seconds(given: object, methods: Mapping[str, Any]) -> dict[str, float]:
    give = "such as {'baseline': 0.004}, or what gi.claims.seconds_per_update(sweep).seconds has"
    known = instance({} if given is None else given, Mapping, "dict of seconds", give=give)
    return {
        name: number(f"seconds[{name!r}]", known[name], such_as="0.004")
        for name in methods
        if name in known
    }


def _row(run: Run) -> dict[str, Any]:
    """What one run did, by its log and its first and last weights."""
    keys = {} if run.recipe is None else run.recipe.to_dict()
    weights = run.weights()
    finite = all_finite(run.architecture.parameters(weights))
    row = {"seed": keys.get("seed"), "data_seed": keys.get("data_seed"), "steps": run.steps[-1]}
    row |= _dates(run)
    if not finite:
        row |= {"outcome": FAILED, "t95": math.nan, "delay": math.nan}
    return row | _norms(run) | _features(run, finite=finite)


def _dates(run: Run) -> dict[str, Any]:
    """Outcome, dates and accuracies by the log; unknown where it has no accuracies."""
    log = run.metrics
    known = {x: not log.empty and bool(log[x].notna().any()) for x in ("train_acc", "test_acc")}
    last = log.iloc[-LAST_ROWS:].median(skipna=False)
    found: dict[str, Any] = {"outcome": UNKNOWN, "label": "undetermined"}
    found |= dict.fromkeys(("t99", "t95", "t95_unmirrored", "delay"), math.nan)
    for column in ("train_acc", "test_acc", "test_acc_unmirrored"):
        found[column] = float(last.get(column, math.nan))
    if not known["train_acc"]:
        return found
    phases = phases_of_metrics(run)
    t99, t95, unmirrored = (
        math.nan if step is None else float(step)
        for step in (phases.memorization_step, phases.grok_step, phases.grok_step_unmirrored)
    )
    found |= {"label": phases.label, "t99": t99}
    if not found["train_acc"] >= Thresholds().train_acc:
        return found | {"outcome": FAILED}
    if not known["test_acc"] or not run.steps_known:
        return found
    if math.isnan(t95):
        if found["test_acc"] >= Thresholds().test_acc * run.task.ceiling:
            return found  # it came about before the log begins, or at its very end
        return found | {"outcome": NEVER, "t95": math.inf, "delay": math.inf}
    return found | {
        "outcome": GROKS, "t95": t95, "t95_unmirrored": unmirrored, "delay": t95 - t99,
    }  # fmt: skip


def _norms(run: Run) -> dict[str, float]:
    """The norm of all trained weights: at the first and last checkpoint, and the largest known."""
    norms = [norm_at(run, run.steps[0]), *(norm for _, norm in path_of(run))]
    return {"norm_start": norms[0], "norm_max": float(np.max(norms)), "norm": norms[-1]}


def _features(run: Run, *, finite: bool) -> dict[str, Any]:
    """Key frequencies and mean input IPR at the end; None and NaN where they are not defined."""
    found: dict[str, Any] = {"key_frequencies": None, "ipr_input": math.nan}
    if not finite or run.architecture.missing:
        return found
    seen = run.snapshot()
    try:
        found["key_frequencies"] = key_frequencies(seen).frequencies
        found["ipr_input"] = neuron_ipr(seen).means["ipr_input"]
    except InputError:  # neurons that read no operands, or a task without residues
        pass
    return found


def _tuned(of_method: Mapping[str, pd.DataFrame], changes: Mapping[str, Mapping[str, Any]]) -> str:
    """The soonest setting of rate and decay, of those without a failed run; "" if none groks."""
    settings = [
        name
        for name, keys in changes.items()
        if name == BASELINE or (keys and keys.keys() <= TUNED_BY)
    ]
    if len(settings) < 2:
        return ""
    medians = {
        name: middle(of_method[name]["t95"])
        for name in settings
        if not of_method[name]["t95"].isna().any()
    }
    best = min(medians, key=lambda name: medians[name], default="")
    return best if best and math.isfinite(medians[best]) else ""


def _notes(
    frame: pd.DataFrame, found: Sequence[SpeedUp], tuned: str, runs: RunsByName
) -> list[str]:
    """What to read with the numbers."""
    notes = []
    others = [each for each in found if each.method != BASELINE and each.pairs]
    if tuned:
        notes.append(
            "the tuned baseline is chosen on the seeds that it is compared on; methods have their "
            "published settings, and are not tuned"
        )
    elif others:
        notes.append(
            "the baseline is not tuned: there are no runs at other lr or weight_decay, or none of "
            "them generalises in most seeds"
        )
    if others:
        least, most = (f([each.pairs for each in others]) for f in (min, max))
        expected = sum(0.5**each.pairs for each in others)
        notes.append(
            f"pairs of seeds: {least if least == most else f'{least} to {most}'}; all of them "
            f"sooner has p = {0.5**most:.3g} at best, and chance alone would make {expected:.2g} "
            f"of {len(others)} settings sooner"
        )
    if alone := [each.method for each in found if not each.pairs and each.method != BASELINE]:
        notes.append(f"no dated run of the baseline to pair with: {', '.join(alone)}")
    if any(run.task.commutative for run in runs.values()):
        notes.append(
            "t95 is of all test pairs, mirrors of trained ones among them; t95_unmirrored and, "
            "where it is logged, test_acc are of those whose mirror is not trained on"
        )
    if (least := frame["steps"].min()) < (most := frame["steps"].max()):
        notes.append(f"runs have {least} to {most} updates; never means within a run's own")
    if unknown := frame.loc[frame["outcome"] == UNKNOWN, "run"].tolist():
        notes.append(
            f"{', '.join(unknown[:4])}{' ...' * (len(unknown) > 4)}: no dates, as accuracies or "
            "steps are not known, or the log does not show when test was learned"
        )
    if (frame["method"] == NO_RECIPE).any():
        notes.append("runs without a recipe are compared with nothing: nobody knows their setting")
    said: dict[str, list[str]] = defaultdict(list)
    for each in found:
        published = f"published: {each.published}" if each.published else ""
        said["; ".join(filter(None, (published, each.caveat)))].append(each.method)
    return [*notes, *(f"{', '.join(names)}: {text}" for text, names in said.items() if text)]
