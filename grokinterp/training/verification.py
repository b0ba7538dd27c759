"""Whether a run's recipe gives the run again here: its first steps, trained once more.

Another processor, library or number of threads rounds otherwise, and training makes more of every
rounding, without bound: late in training such differences say nothing. So only the first steps are
trained again, and how much training makes of rounding is measured: a third training starts from
weights that are one unit in the last place off.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.errors import InputError, named, whole_number
from grokinterp.base.result import Result
from grokinterp.models.architecture import Weights
from grokinterp.recipe.keys import AT_MOST
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.metrics import Metrics
from grokinterp.runs.run import Run, nearest_step
from grokinterp.training.loop import Session, using_threads

USUAL_STEPS = 100  # the checkpoint nearest to this is gone to, unless steps are given
MOST_USUAL = 500
SEVERAL_ROUNDINGS = 10.0  # every update rounds, the control is disturbed once
THREADS = "threads "  # how a difference in them begins
FLOOR = 1e-6  # of float32 numbers that went through a few operations

Trained = tuple[dict[int, Weights], dict[int, Metrics]]  # at checkpoints, at logged steps
Differences = dict[int, float]  # by step


@dataclass(frozen=True, kw_only=True)
class Verification(Result):
    """What came of training the first steps of a run again.

    weights, metrics    by step, the largest relative difference: of a weight tensor (its norm),
                        and of a loss or accuracy. Of every checkpoint and every logged row up to
                        `steps`; 0 is the same bits
    first               the first step of either that differs; None if the bits are the same
    rounding            by step of weights and of metrics, what the smallest difference at the
                        start comes to, if it was measured: where something differs
    differs             what is another here than where the run was trained, as far as is known
    known               whether run.json says on which machine the run was trained

    The steps after `steps` were not looked at.
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
        return [
            *lines,
            verdict,
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
        """Whether all differs by at most 10 times what one rounding of the start comes to by then.

        Or by 1e-6, where that is more. A change of the recipe that acts only where rounding has
        already grown large is not told from it.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them; a difference without bound is null."""
        plain = replace(self, weights=_plain(self.weights), metrics=_plain(self.metrics))
        derived = {name: getattr(self, name) for name in ("same_bits", "within_rounding", "holds")}
        control = dict(zip(("weights", "metrics"), map(_plain, self.rounding or ()), strict=False))
        return {**asdict(plain), "rounding": control or None, **derived}


def verify(run: Run, *, steps: int | None = None, progress: bool = False) -> Verification:
    """Train the first `steps` updates of a run again, from its recipe, and compare bit by bit.

    As many threads are used as the run was trained with, where that is recorded. Without `steps`,
    up to the checkpoint nearest to step 100, or to step 100 where none is among the first 500.
    Where bits differ, they are trained once more, from weights that are one unit in the last place
    off. The run is only read. InputError for a run without a recipe, which another loop trained.
    """
    if not isinstance(run, Run):
        raise InputError(f"{named(run)} is no run; give gi.load(path).")
    if run.recipe is None:
        raise InputError(
            f"{run.path} has no recipe: another loop trained it, which cannot be repeated here."
        )
    last = min(_usual(run) if steps is None else _checked(steps), int(run.metrics["step"].max()))
    _check_compared(run, last)
    rows = run.metrics[run.metrics["step"] <= last].set_index("step")
    weights = {step: run.weights(step) for step in run.steps if step <= last}
    logged = {
        int(str(step)): {str(column): float(value) for column, value in row.items()}
        for step, row in rows.iterrows()
    }
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
        differs=_differs(run, last),
        known=run.manifest.environment is not None,
    )


def _differs(run: Run, last: int) -> tuple[str, ...]:
    """What is another here, but for the threads: as many were used as are recorded."""
    return tuple(text for text in run.manifest.differs(before=last) if not text.startswith(THREADS))


def _train(run: Run, last: int, *, disturbed: bool = False, progress: bool) -> Trained:
    """The checkpoints and metrics of the first updates; of weights one unit off, if disturbed."""
    assert run.recipe is not None
    recipe: Recipe = run.recipe
    environments = dict(run.manifest.environments())
    if environments[0].get("device") == "cpu":
        recipe = recipe.replace(device="cpu")
    weights: dict[int, Weights] = {}
    metrics: dict[int, Metrics] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        using_threads(recipe.threads),
        tqdm(total=last, desc="verify", unit="step", disable=None if progress else True) as bar,
    ):
        _set_threads(environments[0])
        session = Session(recipe, Path(folder) / "run", resume=False)
        if disturbed:
            _disturb(session.learner.trained)
        while True:
            step = session.step
            if step in session.saves:
                weights[step] = {
                    n: w.detach().cpu().clone() for n, w in session.learner.weights.items()
                }
            if session.logged(step):
                metrics[step] = session.evaluate()
            if step >= last:
                return weights, metrics
            _set_threads(environments.get(step, {}))
            session.update()
            bar.update()


def _disturb(weights: Weights) -> None:
    """Move every number by a unit in the last place, up or down by chance."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights.values():
            signs = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
            weight.mul_(1 + signs.to(weight.device) * torch.finfo(weight.dtype).eps)


def _usual(run: Run) -> int:
    near = [step for step in run.steps if 0 < step <= MOST_USUAL]
    return nearest_step(near, USUAL_STEPS) if near else USUAL_STEPS


def _checked(steps: object) -> int:
    number = whole_number(steps)
    if number is None or number < 0:
        raise InputError(f"steps={steps!r} is not a number of updates; give such as 100.")
    return number


def _check_compared(run: Run, last: int) -> None:
    """Refuse so few steps that nothing trained would be compared."""
    compared = [step for step in (*run.steps, *run.metrics["step"].tolist()) if step > 0]
    if compared and last < min(compared):
        raise InputError(
            f"nothing but the start of {run.path} was saved or logged by step {last}; give at "
            f"least steps={min(compared)}."
        )


def _set_threads(environment: Mapping[str, Any]) -> None:
    number = environment.get("threads")
    if type(number) is int and 0 < number <= AT_MOST["threads"]:
        torch.set_num_threads(number)


def _compare(there: Trained, here: Trained) -> tuple[Differences, Differences]:
    """The largest relative difference of every checkpoint and of every logged step of both.

    Of metrics in the columns of both: a run of 0.2.0 has fewer of them.
    """
    weights = {
        step: max(_norms(weight, here[0][step][name]) for name, weight in there[0][step].items())
        for step in there[0].keys() & here[0].keys()
    }
    metrics = {
        step: max(
            _numbers(logged[column], here[1][step][column])
            for column in logged.keys() & here[1][step].keys()
        )
        for step, logged in there[1].items()
        if step in here[1]
    }
    return dict(sorted(weights.items())), dict(sorted(metrics.items()))


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


def _plain(values: Mapping[int, float]) -> dict[int, Any]:
    return {step: x if math.isfinite(x) else None for step, x in values.items()}
