"""`gi.explain`: every registered claim, with a verdict on these runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import Any, get_args

import pandas as pd
from jaxtyping import Bool
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import listed, truth
from grokinterp.base.errors import InputError, nearest, one_line, shown
from grokinterp.base.result import Result, card, text_table
from grokinterp.claims.control_runs import NAMED, Runs, RunsByName, runs_in
from grokinterp.claims.evidence import GATHERED
from grokinterp.claims.registry import (
    CLAIMS,
    Claim,
    Finding,
    RegisteredClaim,
    Verdict,
)
from grokinterp.claims.run_evidence import ControlEvidence, ControlRun, RunEvidence
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

SLOW = "--slow"  # what a slow claim needs; in Python, slow=True
KNOWN = "a run of which this is known"
REGIMES = "runs of both regimes, grokked and steady, three seeds each"
OVERVIEW = ("id", "verdict", "statement", "needs")


@dataclass(frozen=True, kw_only=True)
class Claims(Result):
    """Every claim with its verdict on these runs, by id; `notes` say how many chance would support.

    `by_run` has the claims that are decided on one run, of each run by itself, where there are
    several; `left_out` says of what was given as a control why it is none.

    >>> import grokinterp as gi
    >>> found = gi.explain(gi.load("mod31-small"), claims=["A2", "A3"])
    >>> found["A2"].verdict, round(found["A2"].numbers["norm_ratio"], 2)
    ('supported', 0.87)
    >>> found["A3"].verdict, found["A3"].threshold.at, round(found.by_chance, 2)
    ('contradicted', 0.8, 0.7)
    """

    runs: tuple[str, ...]
    claims: tuple[Claim, ...] = field(repr=False)
    by_run: Mapping[str, tuple[Claim, ...]] = field(default_factory=dict, repr=False)
    left_out: tuple[str, ...] = field(default=(), repr=False)

    def __getitem__(self, name: str) -> Claim:
        for each in self.claims:
            if each.name == name:
                return each
        known = [each.name for each in self.claims]
        raise InputError(f"claim {shown(name)} was not decided here; {nearest(str(name), known)}")

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict of each claim by its id."""
        return {each.name: each.verdict for each in self.claims}

    @property
    def by_chance(self) -> float:
        """How many of the decided claims chance alone would support, of those where that is known.

        The sum of their `chance`: what is to be expected of numbers that have nothing to do with
        the claims.
        """
        return sum(each.chance for each in self._with_chance())

    def _with_chance(self) -> list[Any]:
        return [x for x in self.claims if x.verdict != "undetermined" and x.chance is not None]

    def table(self) -> pd.DataFrame:
        """One row per claim: verdict, reason, the number that decides, and what would change it.

        The number supports the claim on the `side` of `threshold` ("above" or "below"); claims that
        no single number decides have none.
        """
        rows = []
        for each in self.claims:
            edge = each.threshold
            rows.append(
                {
                    "id": each.name,
                    "verdict": each.verdict,
                    "firm": each.firm,
                    "statement": each.statement,
                    "reason": each.reason,
                    "needs": each.needs,
                    "number": None if edge is None else edge.number,
                    "value": math.nan if edge is None else each.numbers.get(edge.number, math.nan),
                    "side": None if edge is None else edge.side,
                    "threshold": math.nan if edge is None else edge.at,
                    "chance": math.nan if each.chance is None else each.chance,
                    "seeds": ", ".join(f"{name}: {n}" for name, n in each.seeds.items()),
                    "would_change": each.would_change,
                    "source": each.source,
                }
            )
        return pd.DataFrame(rows)

    def of_each_run(self) -> pd.DataFrame:
        """One row per run, one column per claim that is decided on one run: the verdicts."""
        rows = [
            {"run": name, **{claim.name: claim.verdict for claim in claims}}
            for name, claims in self.by_run.items()
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `grokinterp explain --json` prints them."""
        unprinted = ("name", "notes")

        def plain(claim: Claim) -> dict[str, Any]:
            return {key: x for key, x in claim.to_dict().items() if key not in unprinted}

        return {
            "runs": list(self.runs),
            "claims": [plain(each) for each in self.claims],
            "by_run": {name: [plain(x) for x in those] for name, those in self.by_run.items()},
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }

    def _title(self) -> str:
        return f"Claims on {', '.join(self.runs[:4])}{' ...' * (len(self.runs) > 4)}"

    def _lines(self) -> list[str]:
        counts = {word: list(self.verdicts.values()).count(word) for word in get_args(Verdict)}
        return [", ".join(f"{n} {word}" for word, n in counts.items())]

    def _short_table(self) -> pd.DataFrame:
        return self.table()[list(OVERVIEW)]

    def _repr_html_(self) -> str:
        every = self._short_table()
        return card(self._title(), self._lines(), every, notes=self.notes, most=len(every))

    def __str__(self) -> str:
        """The verdicts at a glance, then each claim with its numbers, as a shell is shown them."""
        parts = [[self._title(), *(f"  {line}" for line in self._lines())]]
        parts += [text_table(self._short_table(), most=len(self.claims))]
        for each in self.claims:
            if each.needs in (SLOW, REGIMES):  # which the table says
                continue
            told = [f"{each.name} {each.verdict.upper()}: {each.statement}", f"  {each.reason}"]
            if each.doubt:
                told.append(f"  {each.doubt}")
            if each.would_change != each.needs:
                told.append(f"  would change it: {each.would_change}")
            parts.append(told)
        if self.notes:
            parts.append(["to be read with it", *(f"  - {note}" for note in self.notes)])
        return "\n\n".join("\n".join(lines) for lines in parts)


def explain(
    runs: Runs,
    controls: Runs | None = None,
    *,
    claims: Sequence[str] | None = None,
    slow: bool = False,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Claims:
    """Why so late? A verdict on every published claim, from these runs and their controls.

    `runs` are one run or several of one setting (seeds), `controls` a folder of runs, such as the
    one that `grokinterp controls` fills, or a list or dict of them. Each registered claim is
    "supported", "contradicted" or "undetermined" by the rule that it names, with the numbers, what
    it needs and what would change it. What one run tells is firm from one run; of several, each is
    decided by itself, and the verdict is theirs where those that decide agree. A claim that needs a
    control is "undetermined" without it, and names it; where seeds matter it takes three. A run
    is a control if its recipe says so: the explained recipe with a change in how it is trained;
    others are in `left_out`.

    `claims` are ids, such as ["A1", "E2"], without which all are decided; `slow=True` decides those
    that take more than 20 seconds a run, too. Claims about the two regimes (those of
    `gi.compare`) need runs of both, and are slow.

    Thresholds are this package's own, and stand in each rule. A verdict is about these runs: it is
    no more general than they are. Many claims are looked at, so that some would be supported by
    chance alone: `by_chance` says how many.

    InputError for what is no run, for one run twice, for a claim that is not known, and for a
    folder without runs.

    >>> import grokinterp as gi
    >>> found = gi.explain(gi.load("mod31-small"), claims=["A1", "A2", "D1"])
    >>> found.verdicts
    {'A1': 'undetermined', 'A2': 'supported', 'D1': 'contradicted'}
    >>> found["A1"].needs
    'the control no_decay'
    """
    given = runs_in(runs, task=task, train_mask=train_mask)
    beside = RunsByName() if controls is None else runs_in(controls)
    asked = _asked(claims)
    slow = truth("slow", slow)
    at: dict[str, str] = {}
    for name, run in given.items():
        if run.recipe and (other := at.setdefault(str(run.path.resolve()), name)) != name:
            raise InputError(
                f"{other} and {name} are one run, which would count as two; give each once."
            )
    evidence = {name: RunEvidence(run, name, progress=progress) for name, run in given.items()}
    return explained(
        evidence, beside, asked, slow=slow, progress=progress,
        notes=(*given.notes, *beside.notes),
    )  # fmt: skip


def explain_known(run: Run, *, name: str, **given: Any) -> Claims:
    """All claims on one run of which some analyses are known, by their names in `RunEvidence`."""
    return explained({name: RunEvidence(run, name, given=given)}, {}, _asked(None))


def explained(
    evidence: Mapping[str, RunEvidence],
    beside: Mapping[str, Run],
    claims: Sequence[RegisteredClaim],
    *,
    slow: bool = False,
    progress: bool = False,
    notes: Sequence[str] = (),
) -> Claims:
    """The verdicts on runs of which more or less may be known already."""
    each_run: dict[str, list[Claim]] = {name: [] for name in evidence}
    several, left_out = _controls(evidence, beside)
    steady = [
        RunEvidence(x.run, x.name, progress=progress)
        for x in several.controls
        if x.name not in evidence and x.phases.label == "steady"
    ]
    evidence = {name: replace(one, steady=steady) for name, one in evidence.items()}
    regimes = _Regimes([one.run for one in evidence.values()])
    found = []
    for claim in tqdm(claims, "explain", unit="claim", disable=None if progress else True):
        if claim.needs not in ("run", "controls") and len(evidence) < 2:
            found.append(_of_regimes(claim, regimes))
        elif claim.slow and not slow:
            why = "it takes more than 20 seconds a run, and is left out unless it is asked for"
            found.append(_undetermined(claim, why, SLOW))
        elif claim.needs == "run":
            its = [_decided(claim, one) for one in evidence.values()]
            for name, verdict in zip(each_run, its, strict=True):
                each_run[name].append(verdict)
            found.append(its[0] if len(its) == 1 else claim.found(_joined(its)))
        elif claim.needs == "controls":
            found.append(_decided(claim, several))
        else:
            found.append(_of_regimes(claim, regimes))
    made = Claims(
        runs=tuple(evidence),
        claims=tuple(found),
        by_run={n: tuple(x) for n, x in each_run.items()} if len(evidence) > 1 else {},
        left_out=tuple(left_out),
    )
    told = [*notes, *_settings(evidence), *_notes(made, several, len(beside), left_out)]
    return replace(made, notes=tuple(told))


def _asked(names: Sequence[str] | None) -> list[RegisteredClaim]:
    """All claims in the order of their names, or those that are asked for."""
    every = sorted(CLAIMS.every(), key=lambda claim: claim.name)
    if names is None:
        return every
    wanted = listed("claims", names, such_as="['A1', 'E2']")
    if not wanted:
        raise InputError("claims=[] asks for none; leave it out for all.")
    return [CLAIMS.find(name) for name in dict.fromkeys(wanted)]


def _decided(claim: RegisteredClaim, evidence: Any) -> Claim:
    """A verdict; what cannot be measured of a run leaves a claim undetermined, and says why."""
    try:
        return claim(evidence)
    except InputError as error:
        return _undetermined(claim, str(error).rstrip("."), KNOWN)


def _undetermined(claim: RegisteredClaim, why: str, needs: str) -> Claim:
    return claim.found(Finding("undetermined", why, {}, {}, needs, needs))


@dataclass(frozen=True)
class _Regimes:
    """The runs of a claim about several, and its evidence, which is gathered once."""

    runs: Sequence[Run]

    @cached_property
    def evidence(self) -> Any:
        """By regime, as the room that compares runs gathers it."""
        return GATHERED["runs"](self.runs)


def _of_regimes(claim: RegisteredClaim, regimes: _Regimes) -> Claim:
    if len(regimes.runs) < 2:
        return _undetermined(claim, "it is about two regimes, and there is 1 run", REGIMES)
    try:
        return claim(regimes.evidence)
    except InputError as error:
        return _undetermined(claim, str(error).rstrip("."), REGIMES)


def _joined(verdicts: Sequence[Claim]) -> Finding:
    """What the claims of several runs say together: their verdict where those that decide agree."""
    decided = [each for each in verdicts if each.verdict != "undetermined"]
    counts = {word: sum(x.verdict == word for x in verdicts) for word in get_args(Verdict)}
    told = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    of = decided or verdicts
    numbers: dict[str, float] = {
        name: median(known)
        for name in dict.fromkeys(name for each in of for name in each.numbers)
        if (known := [x for each in of if (x := each.numbers.get(name, math.nan)) == x])
    }
    numbers |= {f"runs_{word}": n for word, n in counts.items()}
    agree = {each.verdict for each in decided}
    reason = f"of {len(verdicts)} runs: {told} (medians of numbers); the first: {of[0].reason}"
    seeds = {"runs": len(verdicts)}
    if len(agree) != 1:
        needs = "runs that agree" if agree else of[0].needs
        change = needs if agree else of[0].would_change
        return Finding("undetermined", reason, numbers, seeds, change, needs, of[0].threshold)
    chances = [each.chance for each in decided if each.chance is not None]
    chance = math.prod(chances) if len(chances) == len(decided) else None
    first = decided[0]
    return Finding(first.verdict, reason, numbers, seeds, first.would_change, "",
                   first.threshold, chance)  # fmt: skip


def _controls(
    evidence: Mapping[str, RunEvidence], beside: Mapping[str, Run]
) -> tuple[ControlEvidence, list[str]]:
    """The explained runs and those beside them, by what differs from the first explained recipe."""
    left_out: list[str] = []
    own = {name: one.run for name, one in evidence.items()}
    base: Recipe | None = next((run.recipe for run in own.values() if run.recipe), None)
    given = [*own.items()]
    seen = {str(run.path.resolve()) for run in own.values()}
    for name, run in beside.items():
        if (path := str(run.path.resolve())) not in seen or run.recipe is None:
            # Names of folders tell runs apart in one folder alone.
            given.append((f"{name} (control)" if name in own else name, run))
        seen.add(path)
    made = []
    for name, run in given:
        if run.recipe is None or base is None:
            if name not in own:
                whose = "it has" if run.recipe is None else "what is explained has"
                left_out.append(f"{name}: {whose} no recipe, which would say what differs")
            continue
        control = ControlRun(name, run, run.recipe.changes_from(base))
        try:
            _ = control.phases
        except InputError as error:
            left_out.append(f"{name}: {one_line(str(error), most=120)}")
            continue
        if name in own or control.related:
            made.append(control)
        else:
            keys = ", ".join([*control.changes][:NAMED])
            more = f" and {n} more" if (n := len(control.changes) - NAMED) > 0 else ""
            left_out.append(f"{name}: it differs in what is learned or by what ({keys}{more})")
    return ControlEvidence(tuple(evidence.values()), tuple(made)), left_out


def _settings(evidence: Mapping[str, RunEvidence]) -> list[str]:
    """Whether the runs are of one setting, as runs that are decided together should be."""
    recipes = [one.run.recipe for one in evidence.values() if one.run.recipe is not None]
    if len(evidence) < 2:
        return []
    if len(recipes) < len(evidence):
        return ["not all runs have a recipe: whether they are of one setting is not known"]
    keys = {key: None for recipe in recipes[1:] for key in recipe.changes_from(recipes[0])}
    return [f"the runs are of several settings: they differ in {', '.join(keys)}"] if keys else []


def _notes(
    found: Claims, several: ControlEvidence, n_beside: int, left_out: Sequence[str]
) -> list[str]:
    """How much chance alone would support, and which runs were no controls."""
    notes = []
    if known := found._with_chance():
        supported = sum(each.verdict == "supported" for each in known)
        notes.append(
            f"{len(known)} decided claims have a chance level: {supported} of them are supported, "
            f"and {found.by_chance:.1f} would be by chance alone"
        )
    none = [x.name for x in found.claims if x.verdict != "undetermined" and x.chance is None]
    if none:
        notes.append(f"no chance level is known for {', '.join(none)}")
    if n_beside:
        used = len(several.controls) - sum(x.name in found.runs for x in several.controls)
        notes.append(f"{used} of {n_beside} runs beside are controls of these")
    if left_out:
        more = f" and {len(left_out) - 2} more" if len(left_out) > 2 else ""
        notes.append(f"no control: {'; '.join(left_out[:2])}{more}")
    return notes
