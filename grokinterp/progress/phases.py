"""What phase detection finds: the label of a run, its threshold crossings and its phases."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from grokinterp.arguments import number
from grokinterp.notebook import card
from grokinterp.progress.labels import Label, Margin
from grokinterp.progress.logged_steps import Step

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Thresholds:
    """Crossings that define `memorization_step` and `grok_step`; losses where no accuracy is.

    They hold for smoothed curves, and have to be held: see `Phases`.
    """

    train_acc: float = 0.99
    test_acc: float = 0.95
    train_loss: float = 1e-2
    test_loss: float = 1e-2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = 1 if name.endswith("_acc") else None
            usual = str(getattr(type(self), name))
            found = number(f"threshold {name}", value, most=most, such_as=usual)
            object.__setattr__(self, name, found)


@dataclass(frozen=True)
class Phase:
    """A phase with its bends in steps; None where the data cannot say.

    `end_interval` holds the logged steps that are as good an end as `end`, for all that 1 % noise
    on the losses, the scatter of the rows and the choice of logged steps can tell: the end found on
    a log with twice or five times as many rows lies in it (how often: `find_boundaries`). It is no
    confidence interval over seeds.
    """

    name: str
    start: Step | None
    end: Step | None
    end_interval: tuple[Step, Step] | None


@dataclass(frozen=True)
class Phases:
    """The label of a run, its threshold crossings and its phases, with the reasons for each.

    `memorization_step` and `grok_step` are the first logged steps from which a threshold is held
    (for 5 rows or 1 % of the log more, or to its end), of train and of all test pairs, on smoothed
    curves; `grok_step_unmirrored` is the same of the test pairs whose mirror is not trained on: of
    a run that has them at checkpoints alone, the first step at which it is certain. `t_train` and
    `t_test`, which the label rests on, are the first steps within 5 % of the run's own maximum
    accuracy (Definition 1 of Manning-Coe et al. 2025; with losses only, below the thresholds),
    however low that maximum is; `t_test` is of unmirrored test pairs where they are known. What
    came about before the log begins is None. A step is a float only where the log's own steps are
    fractions.

    The ends of `phases` are bends of the loss curves and differ from all of these; each carries an
    interval of steps that are as good (`Phase`). A boundary dates a change in a
    curve. It does not prove that a circuit exists: where measures were at hand, `reasons` says
    whether the excluded loss confirms one. `margin` is how many logged rows the label is away from
    another one.
    """

    label: Label
    memorization_step: Step | None
    grok_step: Step | None
    phases: tuple[Phase, ...]
    key_frequencies: tuple[int, ...] | None
    reasons: tuple[str, ...]
    margin: Margin
    t_train: Step | None = None
    t_test: Step | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    grok_step_unmirrored: Step | None = None

    def _repr_html_(self) -> str:
        lines = [
            f"{name} {'not reached or not known' if step is None else step}"
            for name, step in (
                ("memorization_step", self.memorization_step),
                ("grok_step", self.grok_step),
                ("grok_step_unmirrored", self.grok_step_unmirrored),
            )
        ]
        if self.key_frequencies is not None:
            lines.append(f"key frequencies {', '.join(map(str, self.key_frequencies)) or 'none'}")
        return card(f"Phases: {self.label}", lines, self.table(), notes=self.reasons)

    def table(self) -> pd.DataFrame:
        """One row per phase."""
        frame = pd.DataFrame(
            [asdict(phase) for phase in self.phases],
            columns=["name", "start", "end", "end_interval"],
        )
        whole = not any(isinstance(x, float) for row in self.phases for x in (row.start, row.end))
        return frame.astype(dict.fromkeys(("start", "end"), "Int64" if whole else "Float64"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `grokinterp phases --json` prints them."""
        keys = self.key_frequencies
        return {
            "label": self.label,
            "memorization_step": self.memorization_step,
            "grok_step": self.grok_step,
            "grok_step_unmirrored": self.grok_step_unmirrored,
            "phases": [
                {**asdict(phase), "end_interval": phase.end_interval and [*phase.end_interval]}
                for phase in self.phases
            ],
            "key_frequencies": None if keys is None else list(keys),
            "reasons": list(self.reasons),
            "margin": asdict(self.margin),
            "t_train": self.t_train,
            "t_test": self.t_test,
            "thresholds": asdict(self.thresholds),
        }

    def plot(self) -> "go.Figure":
        """Learning curves with the phases shaded."""
        from grokinterp.viz import plot_phases

        return plot_phases(self)
