"""What a report says of one run, measured once: its curves, phases, frequencies, circuit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pandas as pd

from grokinterp.circuits.faithfulness import Faithfulness, faithfulness
from grokinterp.encodings.geometry.inputs import evenly
from grokinterp.encodings.geometry.trajectories import (
    TrajectoryEmbedding,
    trajectory_embedding,
)
from grokinterp.errors import InputError
from grokinterp.fourier.acceptance import Keys
from grokinterp.fourier.key_frequencies import KeyFrequencies, frequency_shares, key_frequencies
from grokinterp.progress.detection import detect_phases
from grokinterp.progress.phases import Phases
from grokinterp.progress.table import progress_measures
from grokinterp.runs.run import Run
from grokinterp.tasks.modular import ModularTask
from grokinterp.viz.neurons import chosen_neurons

T = TypeVar("T")
IMAGES = 14  # of all pairs at one step, of a model with four heads and as many neurons drawn
BYTES = 10e6  # for images before they are compressed, two bytes a number
FEWEST, MOST = 12, 30  # steps that images are drawn of


@dataclass(frozen=True)
class About:
    """A run, its name in the report, and what was measured of all its checkpoints.

    `steps` are those that images are drawn of, `milestones` the few for what takes long. What is
    None has its reason beside it.
    """

    run: Run
    name: str
    measures: pd.DataFrame = field(repr=False)
    phases: Phases = field(repr=False)
    keys: KeyFrequencies
    shares: pd.DataFrame | None = field(repr=False)  # of every frequency at every checkpoint
    neurons: tuple[int, ...]
    steps: tuple[int, ...]
    milestones: tuple[int, ...]
    trajectory: TrajectoryEmbedding | None = field(repr=False)  # of the same steps
    no_trajectory: str | None
    faithfulness: Faithfulness | None
    no_circuit: str | None

    @property
    def frequencies(self) -> Keys:
        """The key frequencies; () with the reason where there are none."""
        return Keys(self.keys, reason=self.keys.reason, notes=self.keys.notes)

    def need_circuit(self) -> None:
        """Refuse to draw a circuit that nobody claims."""
        if not self.keys:
            raise InputError(f"{self.keys.reason}.")


def look_at(run: Run, name: str, *, n_runs: int = 1, progress: bool = False) -> About:
    """Measure what the report needs of a run before anything is drawn."""
    measures = progress_measures(run, progress=progress)
    phases = detect_phases(run, measures=measures)
    last = run.snapshot()
    keys = key_frequencies(last)
    steps = tuple(evenly(run.steps, _most_steps(run, n_runs)))
    found, no_circuit = None, keys.reason
    if keys:
        found, no_circuit = _or_reason(
            lambda: faithfulness(last, frequencies=tuple(keys), placebos=0)
        )
    neurons, _ = _or_reason(lambda: chosen_neurons(last, tuple(keys)))
    trajectory, no_trajectory = _or_reason(
        lambda: trajectory_embedding({name: run}, steps=steps, dimensions=2)
    )
    return About(
        run=run,
        name=name,
        measures=measures,
        phases=phases,
        keys=keys,
        shares=None if keys.frequencies is None else frequency_shares(run),
        neurons=tuple(neurons or ()),
        steps=steps,
        milestones=milestones(run.steps, phases),
        trajectory=trajectory,
        no_trajectory=no_trajectory,
        faithfulness=found,
        no_circuit=no_circuit,
    )


def milestones(steps: tuple[int, ...], phases: Phases) -> tuple[int, ...]:
    """The checkpoint nearest to the end of memorization (of learning train), and the last one."""
    ends = {phase.name: phase.end for phase in phases.phases}
    date = ends.get("memorization", phases.t_train)
    near = [] if date is None else [min(steps, key=lambda own: abs(own - date))]
    return tuple(sorted({*near, steps[-1]}))


def _or_reason(measure: Callable[[], T]) -> tuple[T | None, str | None]:
    """What is measured and None, or None and the reason why it is not defined."""
    try:
        return measure(), None
    except InputError as error:
        return None, str(error)


def _most_steps(run: Run, n_runs: int) -> int:
    if not isinstance(run.task, ModularTask):
        return MOST
    fitting = BYTES / n_runs / (IMAGES * 2 * run.task.n_inputs)
    return int(min(MOST, max(FEWEST, fitting)))
