"""Does the recipe of a run give the run again here? Its first steps, trained once more.

Another processor, library or number of threads rounds differently, and training amplifies every
rounding, without bound: late in training such differences say nothing. So only the first steps are
trained again, and how far training amplifies rounding is measured: a third training starts from
weights that are one unit in the last place off.
"""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import whole
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.models.architecture import Weights
from grokinterp.reading._load import RunOrPath, run_of
from grokinterp.recipe.keys import MOST_THREADS
from grokinterp.runs.metrics import Metrics
from grokinterp.runs.run import Run, nearest_step
from grokinterp.training.loop import Session, using_threads

USUAL_STEPS, MOST_USUAL = 100, 500  # where the steps compared end, unless they are given
SEVERAL_ROUNDINGS = 10.0  # every update rounds, the control is disturbed once
FLOOR = 1e-6  # rounding of float32 numbers after a few operations

Trained = tuple[dict[int, Weights], dict[int, Metrics]]  # at checkpoints, at logged steps
Differences = dict[int, float]  # by step


@dataclass(frozen=True, kw_only=True)
class Verification(Result):
    """What came of training the first steps of a run again.

    weights, metrics    by step, the largest relative difference: of a weight tensor (its norm),
                        and of a loss or accuracy. Of every checkpoint and every logged row up to
                        `steps`; 0 is the same bits
    first               the first step at which either differs; None if the bits are the same
    rounding            by step of weights and of metrics, what the smallest difference at the
                        start grows to; measured only where something differs
    differs             what is different here from where the run was trained, as far as is known
    known               whether run.json says on which machine the run was trained

    It does not show anything about the steps after `steps`.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> with tempfile.TemporaryDirectory() as out:
    ...     run = gi.train(gi.Recipe(p=5, model="mlp", widths=[8], steps=20), out)
    ...     found = gi.verify(run)
    >>> found.holds, found.same_bits, found.within_rounding
    (True, True, True)
    >>> found.table().round(3)
       step  weights  metrics
    0     0      0.0      0.0
    1    10      NaN      0.0
    2    20      0.0      0.0
    """

    steps: int
    weights: Mapping[int, float]
    metrics: Mapping[int, float]
    first: int | None
    rounding: tuple[Mapping[int, float], Mapping[int, float]] | None
    differs: tuple[str, ...]
    known: bool

    def _title(self) -> str:
        compared = f"{len(self.weights)} checkpoints and {len(self.metrics)} logged steps compared"
        return f"first {self.steps} updates trained again, {compared}"

    def _lines(self) -> list[str]:
        differs = [*self.differs, *([] if self.known else ["run.json does not say which machine"])]
        lines = [f"- {line}" for line in differs]
        if self.same_bits:
            return ["same bits", *lines]
        verdict = "within rounding, which the above may explain"
        if not self.within_rounding:
            verdict = "more than rounding: the recipe, or what computes it, is another than it was"
        elif not self.holds:
            verdict = "within rounding, but by all that is recorded the machine is the same"
        off = [step for step, x in self.metrics.items() if x]
        logged = f", the first is {off[0]}" if off else ""
        return [
            *lines,
            verdict,
            f"{len(off)} of {len(self.metrics)} logged steps differ{logged}",
            f"differs from step {self.first} on; the largest relative differences, and for",
            "comparison of a training that starts one unit in the last place off:",
        ]

    def _short_table(self) -> pd.DataFrame:
        """At checkpoints, or at all steps where there are none; nothing where bits are the same."""
        if self.same_bits:
            return pd.DataFrame()
        controls = self.rounding or ({}, {})
        columns = {"weights": self.weights, "weights (off by one)": controls[0]}
        columns |= {"metrics": self.metrics, "metrics (off by one)": controls[1]}
        frame = pd.DataFrame({"step": sorted(self.weights or self.metrics)})
        return frame.assign(**{name: frame["step"].map(x) for name, x in columns.items()})

    @property
    def same_bits(self) -> bool:
        """Whether every bit that was compared is the same."""
        return self.first is None

    @property
    def within_rounding(self) -> bool:
        """Whether every difference is at most 10 times what one rounding at the start grows to.

        Or at most 1e-6, where that is more. A change of the recipe that acts only where rounding
        has already grown large cannot be told from rounding.
        """
        return self.rounding is None or all(
            x <= max(FLOOR, SEVERAL_ROUNDINGS * max(control[s] for s in control if s <= step))
            for found, control in zip((self.weights, self.metrics), self.rounding, strict=True)
            for step, x in found.items()
        )

    @property
    def holds(self) -> bool:
        """The same bits, or within rounding on what is, or may be, another machine."""
        return self.same_bits or (self.within_rounding and bool(self.differs or not self.known))

    def table(self) -> pd.DataFrame:
        """One row per step: both differences, and what rounding grows to."""
        columns = {"weights": self.weights, "metrics": self.metrics}
        if self.rounding is not None:
            columns |= {f"{of}_rounding": x for of, x in zip(columns, self.rounding, strict=True)}
        return pd.DataFrame(columns).sort_index().rename_axis("step").reset_index()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them; a difference without bound is null."""
        plain = super().to_dict()
        if self.rounding is not None:
            plain["rounding"] = dict(zip(("weights", "metrics"), plain["rounding"], strict=True))
        derived = ("same_bits", "within_rounding", "holds")
        return plain | {name: getattr(self, name) for name in derived}


def verify(x: RunOrPath, *, steps: int | None = None, progress: bool = False) -> Verification:
    """Train the first `steps` updates of a run (or a path) again, and compare bit by bit.

    As many threads are used as the run was trained with, where that is recorded. Without `steps`,
    training goes up to the checkpoint nearest to step 100, or to step 100 where none is among the
    first 500. Where bits differ, the steps are trained once more, from weights that are one unit in
    the last place off. The run is only read. InputError for a run without a recipe, which another
    loop trained.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> with tempfile.TemporaryDirectory() as out:
    ...     run = gi.train(gi.Recipe(p=5, model="mlp", widths=[8], steps=20), out)
    ...     print(gi.verify(run, steps=10))
    first 10 updates trained again, 1 checkpoints and 2 logged steps compared
      same bits
    >>> gi.verify("mod31-small", steps=10).holds  # the same bits here, or within rounding
    True
    """
    run = run_of(x)
    if run.recipe is None:
        raise InputError(
            f"{run.path} has no recipe: another loop trained it, which cannot be repeated here."
        )
    if steps is None:
        near = [step for step in run.steps if 0 < step <= MOST_USUAL]
        steps = nearest_step(near, USUAL_STEPS) if near else USUAL_STEPS
    last = min(whole("steps", steps, least=0, such_as="100"), int(run.metrics["step"].max()))
    compared = [step for step in (*run.steps, *run.metrics["step"].tolist()) if step > 0]
    if compared and last < min(compared):  # nothing that is trained
        raise InputError(
            f"nothing but the start of {run.path} was saved or logged by step {last}; give at "
            f"least steps={min(compared)}."
        )
    weights = {step: run.weights(step) for step in run.steps if step <= last}
    logged: Any = run.metrics[run.metrics["step"] <= last].set_index("step").to_dict("index")
    again = _train(run, last, progress=progress)
    found = _compare((weights, logged), again)
    first = min((step for values in found for step, x in values.items() if x), default=None)
    rounding = None
    if first is not None:
        rounding = _compare(again, _train(run, last, disturbed=True, progress=progress))
    return Verification(
        steps=last,
        weights=found[0],
        metrics=found[1],
        first=first,
        rounding=rounding,
        differs=tuple(  # as many threads were used as are recorded
            text for text in run.manifest.differs(before=last) if not text.startswith("threads ")
        ),
        known=run.manifest.environment is not None,
    )


def _train(run: Run, last: int, *, disturbed: bool = False, progress: bool) -> Trained:
    """The checkpoints and metrics of the first updates; of weights one unit off, if disturbed."""
    assert run.recipe is not None
    environments = dict(run.manifest.environments())
    on_cpu = environments[0].get("device") == "cpu"
    recipe = run.recipe.replace(device="cpu") if on_cpu else run.recipe
    weights: dict[int, Weights] = {}
    metrics: dict[int, Metrics] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        using_threads(recipe.threads),
        tqdm(total=last, desc="verify", unit="step", disable=None if progress else True) as bar,
    ):
        _set_threads(environments[0])
        session = Session([(recipe, Path(folder) / "run")], resume=False)
        if disturbed:  # every number by a unit in the last place, up or down by chance
            generator = torch.Generator().manual_seed(0)
            for weight in session.learner.trained.values():
                signs = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
                weight.data *= 1 + signs.to(weight.device) * torch.finfo(weight.dtype).eps
        while True:
            step = session.step
            if step in session.saves:
                found = session.learner.member(0)
                weights[step] = {name: weight.cpu().clone() for name, weight in found.items()}
            if session.logged(step):
                (metrics[step],) = session.learner.evaluate()
            if step >= last:
                return weights, metrics
            _set_threads(environments.get(step, {}))
            session.update()
            bar.update()


def _set_threads(environment: Mapping[str, Any]) -> None:
    number = environment.get("threads")
    if type(number) is int and 0 < number <= MOST_THREADS:
        torch.set_num_threads(number)


def _compare(there: Trained, here: Trained) -> tuple[Differences, Differences]:
    """The largest relative differences, by step, of the checkpoints and of the logged rows of both.

    Metrics are compared in the columns of both: a run of 0.2.0 has fewer of them.
    """
    return _largest(there[0], here[0], _norms), _largest(there[1], here[1], _numbers)


def _largest(there: Any, here: Any, difference: Callable[[Any, Any], float]) -> Differences:
    return {
        step: max(
            difference(x, here[step][name]) for name, x in there[step].items() if name in here[step]
        )
        for step in sorted(there.keys() & here.keys())
    }


def _norms(there: Tensor, here: Tensor) -> float:
    """|here - there| / |there| (Frobenius norms); 0 for the same bits."""
    if torch.allclose(there, here, rtol=0, atol=0, equal_nan=True):
        return 0.0  # also of a run that diverged, to NaN
    off, size = (float(x.double().norm()) for x in (here.double() - there.double(), there))
    return off / size if size and math.isfinite(off) else math.inf


def _numbers(there: float, here: float) -> float:
    """The relative difference; NaN is the same as NaN."""
    if there == here or (math.isnan(there) and math.isnan(here)):
        return 0.0
    off = abs(here - there) / max(abs(here), abs(there))
    return off if math.isfinite(off) else math.inf
