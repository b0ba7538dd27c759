"""Runs side by side: what grokked models have that steady ones do not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
from jaxtyping import Bool
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result, plain_values
from grokinterp.claims.evidence import Evidence, known
from grokinterp.claims.registry import CLAIMS, Claim
from grokinterp.comparison import lineup, manning_coe  # noqa: F401  claims register themselves
from grokinterp.comparison.lineup import REGIMES, RunProfile
from grokinterp.comparison.profile import PROFILED, measure_profile
from grokinterp.reading._load import Subject, runs_of
from grokinterp.runs.run import Run
from grokinterp.sweeps.statistics import contrast, median_interval
from grokinterp.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """Runs side by side, by regime, and a verdict on each published claim.

    `profiles` are the runs with all that was measured of each; `regimes` and `settings` say by
    name where each counts.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> tiny = gi.Recipe(p=7, d_model=8, d_head=4, d_mlp=16, steps=20, checkpoints=(0, 20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     runs = [gi.train(tiny.replace(seed=i), f"{folder}/{i}", progress=False) for i in (0, 1)]
    ...     found = gi.compare(runs)
    >>> found.runs()[["run", "seed", "label", "left_out"]]
      run                 seed        label                             left_out
    0   0  seed 0, data_seed 0  not_learned  it has no accuracies to align it by
    1   1  seed 1, data_seed 0  not_learned  it has no accuracies to align it by
    >>> found.claims[0].name, found.claims[0].verdict
    ('same_features', 'undetermined')
    """

    profiles: tuple[RunProfile, ...] = field(repr=False)
    regimes: Mapping[str, str]
    settings: Mapping[str, str] = field(repr=False)
    claims: tuple[Claim, ...]
    align: str
    by: str

    def _title(self) -> str:
        return f"Comparison of {len(self.profiles)} runs, aligned by {self.align}"

    def _lines(self) -> list[str]:
        return [
            f"{name}: {regime} ({self.settings[name]})" for name, regime in self.regimes.items()
        ]

    def _short_table(self) -> pd.DataFrame:
        return self.claims_table()[["statement", "verdict", "reason", "seeds"]]

    def runs(self) -> pd.DataFrame:
        """One row per run: regime, setting, label, its measures, and why it was left out, if so."""
        measured = [name for name in PROFILED if any(name in p.values for p in self.profiles)]
        return pd.DataFrame(
            [
                {
                    "run": profile.name,
                    "regime": self.regimes[profile.name],
                    "setting": self.settings[profile.name],
                    "seed": profile.seed,
                    "label": None if profile.phases is None else profile.phases.label,
                    "left_out": profile.left_out or "",
                    **{name: profile.values.get(name, math.nan) for name in measured},
                }
                for profile in self.profiles
            ]
        )

    def table(self) -> pd.DataFrame:
        """One row per measure: medians of both regimes with their intervals, and the effect.

        `*_n` runs have the measure; intervals are order statistics over seeds with probability
        `*_coverage` for the median (`MedianInterval`); `shift`, `ratio`, `delta` and the one-sided
        p-values are of grokked against steady (`Contrast`), not corrected for their number.
        """
        rows = []
        for name, meaning in PROFILED.items():
            sides = {regime: known(self._in(regime), name) for regime in REGIMES}
            if not any(sides.values()):
                continue
            row = {
                f"{regime}_{key}": value
                for regime, values in sides.items()
                for key, value in asdict(median_interval(values)).items()
            }
            effect = asdict(contrast(*sides.values()))
            row |= {key: effect[key] for key in ("shift", "ratio", "delta", "p_above", "p_below")}
            rows.append({"measure": name, **row, "meaning": meaning})
        return pd.DataFrame(rows)

    def aligned(self) -> pd.DataFrame:
        """Regimes over training: one row per place, regime and measure.

        By phase, `position` is 0 at the start, 1 where train is learned, 2 where test is and 3 at
        the end of each run; by step, `step` is one that all runs saved. A run without a checkpoint
        near a position is missing there: `n` of `n_runs` are in the median and its interval.
        """
        place = "position" if self.align == "phase" else "step"
        rows = []
        for regime in REGIMES:
            profiles = self._in(regime)
            courses = [p.course.set_index("place") for p in profiles]
            for at in sorted({at for course in courses for at in course.index}):
                here = [course.loc[at] for course in courses if at in course.index]
                for name in courses[0].columns.drop(["position", "step"]):
                    found = median_interval([row[name] for row in here])
                    if found.n:
                        rows.append(
                            {place: at, "regime": regime, "measure": name, "n_runs": len(profiles)}
                            | asdict(found)
                        )
        return pd.DataFrame(rows)

    def stages(self) -> pd.DataFrame:
        """One row per run and stretch of its path: its length and straightness (`InformationPath`).

        Stretches are the whole path, dated phases, and those between learning train and test.
        """
        tables = [
            pd.DataFrame({"run": p.name, "regime": self.regimes[p.name], **p.stages})
            for p in self.profiles
            if not p.stages.empty
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def claims_table(self) -> pd.DataFrame:
        """One row per claim: the verdict, its reason, seeds, and what would change it."""
        columns = ["claim", "statement", "verdict", "reason", "seeds", "would_change", "rule"]
        rows = [
            vars(claim)
            | {
                "claim": claim.name,
                "seeds": ", ".join(f"{n} {regime}" for regime, n in claim.seeds.items()),
            }
            for claim in self.claims
        ]
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `grokinterp compare --json` prints them; what is not defined is None."""
        unprinted = ("notes", "needs", "falsifiers")
        claims = [
            {key: value for key, value in claim.to_dict().items() if key not in unprinted}
            for claim in self.claims
        ]
        found = {
            "align": self.align,
            "by": self.by,
            "runs": self.runs(),
            "measures": self.table(),
            "claims": claims,
            "notes": self.notes,
        }
        return dict(plain_values(found))

    def _in(self, regime: str) -> list[RunProfile]:
        return [profile for profile in self.profiles if self.regimes[profile.name] == regime]


def compare(
    runs: Sequence[Subject],
    *,
    align: str = "phase",
    by: str = "setting",
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Comparison:
    """Set grokked and steady runs side by side: features, compressibility, geometry, norms, losses.

    Give two or more runs of one task and one model shape, with test inputs. The label of a run's
    curves (`gi.detect_phases`) says whether it grokked or was steady. By "setting" its regime is
    that of most such seeds of its setting (the recipe keys in which the runs vary, seeds aside), by
    "label" its own; other runs are listed and measured, and are in no contrast. Each run is
    measured, then each regime summed up in medians over seeds: `.table()`, `.aligned()`,
    `.stages()`, `.runs()`, and `.claims` with a verdict on each registered claim about regimes,
    those of Manning-Coe et al. 2025 (arXiv 2502.01739).

    `align` says where runs are looked at during training: by "phase", at up to 17 checkpoints
    nearest to the same positions between learning train, learning test and the end; by "step", at
    up to 17 steps that all of them saved.

    Runs of other tasks or shapes, and one given twice, are refused. Runs that are unfinished, hold
    NaN, have no label or end before they learned are left out with the reason. Fewer than three
    seeds per regime give no verdict. Runs are compared as they were trained: where they differ in
    more than the initial scale, in checkpoints or in logging, a note says so.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     short = run.recipe.replace(steps=20, checkpoints=(0, 20))
    ...     found = gi.compare([run, gi.train(short, f"{folder}/short", progress=False)])
    >>> found.runs()[["run", "regime", "label", "t_test", "c"]].round(1)
               run    regime        label  t_test    c
    0  mod31-small   grokked      grokked  4620.0  2.0
    1        short  left out  not_learned     NaN  NaN
    >>> {claim.name: claim.verdict for claim in found.claims}["straight_path"]
    'undetermined'
    """
    align, by = word("align", align, ["phase", "step"]), word("by", by, ["setting", "label"])
    empty = isinstance(runs, list | tuple) and not runs
    several: list[Run] = [] if empty else runs_of(runs, task=task, train_mask=train_mask)
    lineup.check_lineup(several)
    names = lineup.names_of(several)
    settings = lineup.settings_of(several, names)
    profiles = [lineup.outcome(run, name) for run, name in zip(several, names, strict=True)]
    regimes = lineup.regimes_of([profile.label for profile in profiles], settings, by=by)
    notes = lineup.lineup_notes(profiles, settings, regimes)
    places = _places([profile for profile in profiles if profile.label], align)
    profiles = [
        measure_profile(profile, places[profile.name]) if profile.label else profile
        for profile in tqdm(profiles, "compare", unit="run", disable=None if progress else True)
    ]
    by_name = dict(zip(names, regimes, strict=True))
    setting_of = dict(zip(names, settings, strict=True))
    grokked, steady = ([p for p in profiles if by_name[p.name] == regime] for regime in REGIMES)
    evidence = Evidence(grokked, steady, setting_of)
    notes += [note for profile in profiles for note in profile.notes]
    return Comparison(
        profiles=tuple(profiles),
        regimes=by_name,
        settings=setting_of,
        claims=tuple(each(evidence) for each in CLAIMS.every() if each.needs == "runs"),
        notes=tuple(notes),
        align=align,
        by=by,
    )


def _places(profiles: Sequence[RunProfile], align: str) -> dict[str, dict[float, int]]:
    """At which checkpoint each run is looked at, by position or by step."""
    if align == "phase":
        return {p.name: p.clock.nearest(p.run.steps) for p in profiles if p.clock}
    shared = lineup.common_steps([profile.run.steps for profile in profiles]) if profiles else ()
    if profiles and not shared:
        raise InputError("no step was saved by all of these runs; give align='phase'.")
    return {profile.name: {float(step): step for step in shared} for profile in profiles}
