"""Published claims, each registered with the rule that decides it on evidence from runs.

    @claim(
        "steady_compress_better", statement="steady models compress better", source="section 5",
        rule="supported if the median of c is larger in steady runs, else contradicted",
        falsifiers=["a steady run with a smaller c"],
    )
    def steady_compress_better(evidence):
        grokked, steady = evidence.medians("c")
        return Finding("supported" if steady > grokked else "contradicted", "...", ...)

`CLAIMS.find("steady_compress_better")(evidence)` is then a `Claim`, with the verdict in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

import pandas as pd

from grokinterp.base.checks import listed, text, whole, word
from grokinterp.base.errors import InputError, shown
from grokinterp.base.plugins import strangers
from grokinterp.base.registry import Registry, check_function
from grokinterp.base.result import Result
from grokinterp.claims.evidence import FEWEST

Verdict = Literal["supported", "contradicted", "undetermined"]
UNDECIDED: Verdict = "undetermined"
NEEDS = ("run", "runs", "controls")


@dataclass(frozen=True)
class Threshold:
    """The number of a finding that decides, and the value above or below which it supports.

    >>> import grokinterp as gi
    >>> gi.claims.Threshold("acceleration", 3.0, "below")
    Threshold(number='acceleration', at=3.0, side='below')
    """

    number: str
    at: float
    side: Literal["above", "below"]

    def decides(self, verdict: Verdict, value: float) -> bool:
        """Whether a value is not on the other side of it than the verdict."""
        beyond = value - self.at if self.side == "above" else self.at - value
        return not (beyond < 0 if verdict == "supported" else beyond > 0 and verdict != UNDECIDED)


class Undetermined(Exception):  # noqa: N818  no fault of anybody's
    """Raised by a rule that cannot decide: why not, and what it would need."""

    def __init__(
        self,
        reason: str,
        *,
        needs: str = "",
        numbers: Mapping[str, float] | None = None,
        seeds: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(reason)
        self.finding = Finding("undetermined", reason, numbers or {}, seeds or {}, needs, needs)


class Finding(NamedTuple):
    """What a rule makes of its evidence; `Claim` has the same fields.

    >>> import grokinterp as gi
    >>> numbers, seeds = {"c": 2.1}, {"grokked": 1}
    >>> found = gi.claims.Finding("undetermined", "one seed", numbers, seeds, "two more seeds")
    >>> found.verdict, found.numbers, found.would_change
    ('undetermined', {'c': 2.1}, 'two more seeds')
    """

    verdict: Verdict
    reason: str
    numbers: Mapping[str, float]
    seeds: Mapping[str, int]
    would_change: str = ""  # of a supported claim, its falsifiers stand here
    needs: str = ""  # what an undetermined one lacks, where that is not more of the same
    threshold: Threshold | None = None
    chance: float | None = None  # that the rule supports numbers that have nothing to do with it


@dataclass(frozen=True, kw_only=True)
class Claim(Result):
    """What was claimed, the rule that decides, and what it says of these runs.

    `seeds` counts the different seeds per regime that the verdict rests on, `numbers` are all that
    the rule looked at, `would_change` says what would turn the verdict, `falsifiers` what would
    turn one of "supported". `needs` is what it is decided on (one run, several runs, or controls),
    or what is missing: "the control no_decay", "--slow". `threshold` names the number that decides,
    and where; None where no single one does, or another did. `chance` is the probability that the
    rule finds numbers supporting that have nothing to do with the claim; None where nobody knows
    how such numbers would be distributed. A verdict is `firm` if as many seeds agree on it as
    `firm_from` says: one, of what the run itself decides.

    >>> import grokinterp as gi
    >>> from types import SimpleNamespace as Profile
    >>> grokked = [Profile(seed=i, values={"c": 2.0 + i / 10}) for i in range(3)]
    >>> steady = [Profile(seed=i, values={"c": 3.0 + i / 10}) for i in range(3)]
    >>> evidence = gi.claims.Evidence(grokked, steady, settings={})
    >>> found = gi.claims.CLAIMS.find("grokked_less_efficient")(evidence)
    >>> found.verdict, found.seeds
    ('supported', {'grokked': 3, 'steady': 3})
    >>> print(found.reason)
    c is 3.1 in steady and 2.1 in grokked runs (medians), p = 0.05
    >>> found.table()
                        number    value
    0                c_grokked  2.10000
    1                 c_steady  3.10000
    2  ratio_steady_to_grokked  1.47619
    3             cliffs_delta  1.00000
    4           p_steady_above  0.05000
    5           p_steady_below  1.00000
    """

    name: str
    statement: str
    source: str
    verdict: Verdict
    reason: str
    numbers: Mapping[str, float] = field(repr=False)
    seeds: Mapping[str, int]
    rule: str = field(repr=False)
    would_change: str = field(repr=False)
    needs: str = "runs"
    falsifiers: tuple[str, ...] = field(default=(), repr=False)
    threshold: Threshold | None = field(default=None, repr=False)
    chance: float | None = field(default=None, repr=False)
    firm_from: int = field(default=1, repr=False)

    @property
    def agreeing(self) -> int:
        """How many runs have this verdict, of those that are decided one by one."""
        return int(self.numbers.get(f"runs_{self.verdict}", 1))

    @property
    def firm(self) -> bool:
        """Whether it is decided, by as many seeds as the claim takes."""
        return self.verdict != UNDECIDED and self.agreeing >= self.firm_from

    @property
    def doubt(self) -> str:
        """What a verdict lacks to be firm; empty for one that is, and for none."""
        if self.firm or self.verdict == UNDECIDED:
            return ""
        return f"not firm: {self.agreeing} of the {self.firm_from} seeds that it takes"

    def to_dict(self) -> dict[str, Any]:
        """Every field in plain values, and `firm`; `id` is the name."""
        return {"id": self.name, **super().to_dict(), "firm": self.firm}

    def table(self) -> pd.DataFrame:
        """One row per number that the rule looked at."""
        return pd.DataFrame(self.numbers.items(), columns=["number", "value"])

    def _title(self) -> str:
        doubt = f" ({self.doubt})" if self.doubt else ""
        return f"{self.verdict.capitalize()}{doubt}: {self.statement}"

    def _lines(self) -> list[str]:
        return [self.reason, f"would change it: {self.would_change}", f"rule: {self.rule}"]


@dataclass(frozen=True)
class RegisteredClaim:
    """A published claim; called on evidence, it is decided."""

    name: str
    statement: str
    source: str
    rule: str
    needs: str
    falsifiers: tuple[str, ...]
    firm_from: int = field(repr=False)
    slow: bool = field(repr=False)
    decide: Callable[[Any], Finding] = field(repr=False)

    def __call__(self, evidence: Any) -> Claim:
        """The verdict on this evidence, with all that it rests on."""
        try:
            with strangers(f"claim={self.name!r}", self.decide):
                finding = self.decide(evidence)
        except Undetermined as why:
            finding = why.finding
        return self.found(finding)

    def found(self, finding: Finding) -> Claim:
        """The claim with what its rule finds."""
        hidden = ("decide", "slow")
        about = {key: value for key, value in vars(self).items() if key not in hidden}
        if not isinstance(finding, Finding) or finding.verdict not in get_args(Verdict):
            raise InputError(
                f"claim={self.name!r} finds {shown(finding)}; return a gi.claims.Finding with a "
                f"verdict of {', '.join(get_args(Verdict))}."
            )
        if wrong := _wrong(finding):
            raise InputError(f"claim={self.name!r} finds {wrong} in its gi.claims.Finding.")
        found = finding._asdict()
        edge = finding.threshold
        if edge is not None and edge.number in finding.numbers:
            value = finding.numbers[edge.number]
            found["threshold"] = edge if edge.decides(finding.verdict, value) else None
        found["needs"] = found["needs"] or self.needs
        if found["verdict"] == "supported" and self.falsifiers:
            found["would_change"] = " or ".join(self.falsifiers)
        return Claim(**{**about, **found})


def _wrong(found: Finding) -> str:
    """The first field of a finding that is of another kind, and what is expected; "" for none."""
    edge, chance = found.threshold, found.chance
    texts = {name: getattr(found, name) for name in ("reason", "would_change", "needs")}
    tables = {name: getattr(found, name) for name in ("numbers", "seeds")}
    for name, given in texts.items():
        if not isinstance(given, str):
            return f"{name}={shown(given)}; give a text"
    for name, given in tables.items():
        if not isinstance(given, Mapping) or not all(isinstance(x, Real) for x in given.values()):
            return f"{name}={shown(given)}; give a dict of names and numbers"
    if edge is not None and not isinstance(edge, Threshold):
        return f"threshold={shown(edge)}; give a gi.claims.Threshold, or None"
    if chance is not None and not (isinstance(chance, Real) and 0 <= chance <= 1):
        return f"chance={shown(chance)}; give a probability, or None"
    return ""


CLAIMS: Registry[RegisteredClaim] = Registry("claim")


def claim(
    name: str,
    *,
    statement: str,
    source: str,
    rule: str,
    needs: str = "runs",
    falsifiers: Sequence[str] = (),
    firm_from: int = 1,
    slow: bool = False,
) -> Callable[[Callable[[Any], Finding]], RegisteredClaim]:
    """Register a function of evidence as the rule that decides a published claim.

    `rule` says in words when the function finds the claim supported and when contradicted,
    `falsifiers` what would turn a supported one, `needs` what it is decided on: "run" (a
    `RunEvidence`; of several runs each is decided by itself), "controls" (a `ControlEvidence`) or
    "runs" (the `Evidence` of both regimes, as `gi.compare` gives it). A rule that takes more than
    20 seconds for a run is `slow`: `gi.explain` decides it where it is asked to. Its verdict is
    called firm from `firm_from` runs on that agree. A name that is taken is refused, unless the
    same function is registered again, as in a notebook.

    >>> import grokinterp as gi
    >>> @gi.claims.claim(
    ...     "steady_are_small", statement="steady models have small weights", source="an example",
    ...     rule="supported if the median norm is smaller in steady runs, else contradicted",
    ... )
    ... def steady_are_small(evidence):
    ...     grokked, steady = evidence.medians("weight_norm")
    ...     verdict = "supported" if steady < grokked else "contradicted"
    ...     numbers = {"grokked": grokked, "steady": steady}
    ...     return gi.claims.Finding(verdict, "by medians", numbers, evidence.seeds("weight_norm"))
    >>> steady_are_small.name, gi.claims.CLAIMS["steady_are_small"].needs
    ('steady_are_small', 'runs')
    >>> del gi.claims.CLAIMS["steady_are_small"]
    """
    CLAIMS.named(name)
    needs = word("needs", needs, NEEDS)
    for key, given in (("statement", statement), ("source", source), ("rule", rule)):
        text(key, given, such_as="'steady models have small weights'", empty=False)
    firm_from = whole("firm_from", firm_from, least=1, such_as="3")
    against = tuple(listed("falsifiers", falsifiers, such_as="['a run without it']"))

    def register(decide: Callable[[Any], Finding]) -> RegisteredClaim:
        check_function("claim", name, decide, ("evidence",))
        made = RegisteredClaim(
            name, statement, source, rule, needs, against, firm_from, slow, decide
        )
        return CLAIMS.add(name, made, by=decide)

    return register


def side(supports: bool, contradicts: bool) -> Verdict:
    """The verdict of a rule of two sides; a number between them decides nothing."""
    return "supported" if supports else "contradicted" if contradicts else UNDECIDED


def decided(
    reason: str,
    numbers: Mapping[str, float],
    seeds: Mapping[str, int],
    *,
    supported: bool,
    contradicted: bool,
    would_support: str,
    would_decide: str,
) -> Finding:
    """What a rule finds; undetermined where neither holds, or a regime has too few seeds.

    `would_support` turns a contradicted verdict, `would_decide` an undetermined one.
    """
    if short := [(regime, n) for regime, n in seeds.items() if n < FEWEST]:
        have = ", ".join(f"{regime} seeds: {n}" for regime, n in short)
        missing = " and ".join(f"{FEWEST - n} {regime}" for regime, n in short)
        why = f"{reason}; {have}, and a verdict takes {FEWEST}"
        return Finding("undetermined", why, numbers, seeds, f"more seeds: at least {missing}")
    if supported:
        return Finding("supported", reason, numbers, seeds)
    if contradicted:
        return Finding("contradicted", reason, numbers, seeds, would_support)
    return Finding("undetermined", reason, numbers, seeds, would_decide)
