"""Runs side by side: what grokked models have that steady ones do not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd
from jaxtyping import Bool
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result, plain_values, text_table
from grokinterp.claims.evidence import GATHERED, Evidence, known
from grokinterp.claims.registry import CLAIMS, Claim
from grokinterp.comparison import lineup, manning_coe  # noqa: F401  claims register themselves
from grokinterp.comparison.lineup import REGIMES, RunProfile
from grokinterp.comparison.profile import PROFILED, measure_profile
from grokinterp.comparison.universality import (
    FoundCircuit,
    circuit_of,
    in_words,
    numbers_of,
    shared_frequencies,
)
from grokinterp.fourier.basis import n_frequencies
from grokinterp.reading._load import Subject, runs_of
from grokinterp.runs.run import Run
from grokinterp.sweeps.statistics import contrast, median_interval
from grokinterp.tasks.task import Task

SEEDS = (  # what a card shows of each run
    "run", "label", "memorization_step", "grok_step", "key_frequencies", "clusters", "algorithm"
)  # fmt: skip

OF_INTERVALS = (
    "medians of n runs; the interval of 3 holds the median with 75 %, of 6 or more with 95 %"
)


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """Runs side by side, by regime and one by one, and a verdict on each published claim.

    `profiles` are the runs with all that was measured of each, `circuits` by name what each ended
    with; `regimes` and `settings` say by name where each counts.

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
    circuits: Mapping[str, FoundCircuit] = field(default_factory=dict, repr=False)

    def _title(self) -> str:
        return f"Comparison of {len(self.profiles)} runs, aligned by {self.align}"

    def _lines(self) -> list[str]:
        runs = [f"{name}: {its} ({self.settings[name]})" for name, its in self.regimes.items()]
        return [*runs, *in_words(list(self.circuits.values()))]

    def _short_table(self) -> pd.DataFrame:
        if set(REGIMES) <= set(self.regimes.values()):
            return self.claims_table()[["statement", "verdict", "reason", "seeds"]]
        return self._seeds_shown()

    def _seeds_shown(self) -> pd.DataFrame:
        shown = self.seeds()[list(SEEDS)]
        shown["key_frequencies"] = [
            None if keys is None else ", ".join(map(str, keys)) or "none"
            for keys in shown["key_frequencies"]
        ]
        return shown

    def __str__(self) -> str:
        """Runs, medians with their intervals, verdicts and notes, as a shell is shown them."""
        parts = [[self._title(), *in_words(list(self.circuits.values()))]]
        parts += [text_table(self._runs_shown(), most=len(self.profiles))]
        parts += [[*text_table(self._medians_shown(), most=len(PROFILED)), OF_INTERVALS]]
        for claim in self.claims:
            told = f"{claim.verdict.upper()}: {claim.statement}", f"  {claim.reason}"
            parts.append([*told, f"  would change it: {claim.would_change}"])
        if self.notes:
            parts.append(["to be read with it", *(f"  - {note}" for note in self.notes)])
        return "\n\n".join("\n".join(lines) for lines in parts)

    def _runs_shown(self) -> pd.DataFrame:
        shown = self._seeds_shown()
        shown.insert(1, "counts as", [self.regimes[p.name] for p in self.profiles])
        shown.insert(1, "setting", [self.settings[p.name] for p in self.profiles])
        return shown

    def _medians_shown(self) -> pd.DataFrame:
        rows = []
        for measure in self.table().to_dict("records"):
            row = {"measure": measure["measure"]}
            for regime in (*REGIMES, "all"):
                if not measure.get(f"{regime}_n"):
                    continue
                n, *numbers = (measure[f"{regime}_{x}"] for x in ("n", "median", "low", "high"))
                middle, low, high = (f"{number:.4g}" for number in numbers)
                row |= {regime: f"{middle} [{low}, {high}]" if n > 1 else middle, f"n {regime}": n}
            rows.append(row)
        return pd.DataFrame(rows)

    def seeds(self) -> pd.DataFrame:
        """One row per run: when it learned, its key frequencies and clusters, clock or pizza.

        `clusters` says how many neurons each key frequency has; null is not known or not defined,
        which `.notes` tell.
        """
        rows = []
        for profile in self.profiles:
            circuit, phases = self.circuits[profile.name], profile.phases
            sizes = [f"{k}: {n}" for k, n in circuit.clusters.items()]
            rows.append(
                {
                    "run": profile.name,
                    "setting": self.settings[profile.name],
                    "seed": profile.seed,
                    "label": None if phases is None else phases.label,
                    "memorization_step": phases and phases.memorization_step,
                    "grok_step": phases and phases.grok_step,
                    "key_frequencies": circuit.key_frequencies,
                    "clusters": ", ".join(sizes) or None,
                    "algorithm": circuit.algorithm,
                    "gradient_symmetricity": circuit.gradient_symmetricity,
                    "distance_irrelevance": circuit.distance_irrelevance,
                }
            )
        return pd.DataFrame(rows).astype({"memorization_step": "object", "grok_step": "object"})

    def shared_frequencies(self) -> pd.DataFrame:
        """One row per frequency that is key in some run: in how many, in which, and by chance.

        `neurons` are those of its clusters in all runs. A network trained on relabelled tokens has
        other frequencies and the same circuit: what runs share says more of their embeddings'
        initial values than of the algorithm.
        """
        group = self.profiles[0].run.task.answer_group
        return shared_frequencies(self.circuits, 0 if group is None else n_frequencies(group.order))

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
        """One row per measure: medians with their intervals, and the effect of the regime.

        Of grokked and of steady runs; where there are neither, of all runs, in columns `all_`, with
        the smallest and largest value.

        `*_n` runs have the measure; intervals are order statistics over seeds with probability
        `*_coverage` for the median (`MedianInterval`); `shift`, `ratio`, `delta` and the one-sided
        p-values are of grokked against steady (`Contrast`), not corrected for their number.
        """
        rows = []
        if not set(REGIMES) & set(self.regimes.values()):
            return self._of_all_runs()
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

    def _of_all_runs(self) -> pd.DataFrame:
        rows = []
        for name, meaning in PROFILED.items():
            if values := known(self.profiles, name):
                found = {f"all_{x}": y for x, y in asdict(median_interval(values)).items()}
                ends = {"all_min": min(values), "all_max": max(values)}
                rows.append({"measure": name, **found, **ends, "meaning": meaning})
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
        unprinted = ("id", "notes", "needs", "falsifiers", "threshold", "chance")
        claims = [
            {key: value for key, value in claim.to_dict().items() if key not in unprinted}
            for claim in self.claims
        ]
        found = {
            "align": self.align,
            "by": self.by,
            "runs": self.runs(),
            "seeds": self.seeds(),
            "shared_frequencies": self.shared_frequencies(),
            "measures": self.table(),
            "claims": claims,
            "notes": self.notes,
        }
        return dict(plain_values(found))

    @property
    def evidence(self) -> Evidence:
        """What the claims about regimes are decided on."""
        grokked, steady = (self._in(regime) for regime in REGIMES)
        return Evidence(grokked, steady, self.settings)

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
    """Set runs side by side: seeds of one setting, or grokked and steady ones.

    Give two or more runs of one task and one model shape. The label of a run's
    curves (`gi.detect_phases`) says whether it grokked or was steady. By "setting" its regime is
    that of most such seeds of its setting (the recipe keys in which the runs vary, seeds aside), by
    "label" its own; other runs are listed and measured, and are in no contrast. Each run is
    measured, then each regime summed up in medians over seeds: `.table()`, `.aligned()`,
    `.stages()`, `.runs()`, and `.claims` with a verdict on each registered claim about regimes,
    those of Manning-Coe et al. 2025 (arXiv 2502.01739).

    What the seeds have in common and how far they spread is told of any runs, whatever became of
    them: `.seeds()` has for each run when it learned, its key frequencies and clusters, and clock
    or pizza; `.shared_frequencies()` in how many runs a frequency is key, beside chance.

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
    circuits = {}
    for i, profile in enumerate(profiles):
        found = circuits[profile.name] = circuit_of(profile.run)
        notes += [f"{profile.name}: {note}" for note in found.notes]
        values = {**numbers_of(found, profile), **profile.values}
        ordered = {name: values[name] for name in PROFILED if name in values}
        profiles[i] = replace(profile, values=ordered)
    by_name = dict(zip(names, regimes, strict=True))
    setting_of = dict(zip(names, settings, strict=True))
    notes += [note for profile in profiles for note in profile.notes]
    made = Comparison(
        profiles=tuple(profiles),
        circuits=circuits,
        regimes=by_name,
        settings=setting_of,
        claims=(),
        notes=tuple(notes),
        align=align,
        by=by,
    )
    about_regimes = [each for each in CLAIMS.every() if each.needs == "runs"]
    return replace(made, claims=tuple(each(made.evidence) for each in about_regimes))


GATHERED["runs"] = lambda runs: compare(runs).evidence


def _places(profiles: Sequence[RunProfile], align: str) -> dict[str, dict[float, int]]:
    """At which checkpoint each run is looked at, by position or by step."""
    if align == "phase":
        return {p.name: p.clock.nearest(p.run.steps) for p in profiles if p.clock}
    shared = lineup.common_steps([profile.run.steps for profile in profiles]) if profiles else ()
    if profiles and not shared:
        raise InputError("no step was saved by all of these runs; give align='phase'.")
    return {profile.name: {float(step): step for step in shared} for profile in profiles}
