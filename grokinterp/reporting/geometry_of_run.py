"""What a report measures of a run's shapes, within seconds: clouds, routing, curvature, path."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from grokinterp.base.errors import InputError
from grokinterp.geometry._representations import Representations, representations
from grokinterp.geometry.known_but_not_used import Routing, routing
from grokinterp.geometry.loss_curvature import Curvature, curvature
from grokinterp.geometry.noise_in_weights import NoiseRadius, noise_radius
from grokinterp.geometry.plane_of_paths import WeightPlane, weight_plane
from grokinterp.progress.phases import Phases
from grokinterp.runs.run import Run, nearest_step

T = TypeVar("T")
N_NULL = 19  # draws of a null: the fewest that have a 95 % quantile
N_SAMPLES, N_LANCZOS, N_PROBES, N_DRAWS = 256, 10, 4, 4  # of curvature: 3 s a step at p = 113
MOST_WEIGHTS = 1_000_000  # for curvature and noise: their time grows with it


@dataclass(frozen=True)
class Sought(Generic[T]):
    """A result, or why there is none."""

    found: T | None = field(default=None, repr=False)
    reason: str = "it was not looked for."

    @classmethod
    def by(cls, measure: Callable[..., T], *given: Any, **options: Any) -> "Sought[T]":
        """What is measured, or the reason why it is not defined."""
        try:
            return cls(measure(*given, **options), "")
        except InputError as error:
            return cls(None, str(error))

    def known(self) -> T:
        """The result; InputError with the reason where there is none."""
        if self.found is None:
            raise InputError(self.reason)
        return self.found


@dataclass(frozen=True)
class Geometry:
    """Shapes over training: each of them, or why a run has none.

    Representations, routing and the plane are of the steps that images are drawn of, curvature and
    noise of the few around the ends of phases.
    """

    representations: Sought[Representations]
    routing: Sought[Routing]
    curvature: Sought[Curvature]
    noise_radius: Sought[NoiseRadius]
    plane: Sought[WeightPlane]

    def of_all(self, run: Run) -> dict[str, object]:
        """What covers every checkpoint, so that claims need not measure it again, by name."""
        named = {"representations": self.representations.found, "routing": self.routing.found}
        return {name: x for name, x in named.items() if x is not None and x.steps == run.steps}


def geometry_of(
    run: Run, name: str, *, steps: tuple[int, ...], phases: Phases, progress: bool = False
) -> Geometry:
    """Look at a run's shapes at some of its checkpoints."""
    few = list(turning_points(run.steps, phases))
    sampled = {"n_samples": N_SAMPLES, "progress": progress}
    chosen = {"step": list(steps), "progress": progress}
    return Geometry(
        representations=Sought.by(_shapes, run, n_null=N_NULL, **chosen),
        routing=Sought.by(routing, run, **chosen),
        curvature=Sought.by(_curvature, run, few, **sampled),
        noise_radius=Sought.by(_noise_radius, run, few, **sampled),
        plane=Sought.by(weight_plane, {name: run}, **chosen),
    )


def turning_points(steps: tuple[int, ...], phases: Phases) -> tuple[int, ...]:
    """The checkpoints nearest to memorization_step and the ends of phases, and the last one."""
    dates = [phases.memorization_step, *(phase.end for phase in phases.phases or ())]
    near = {nearest_step(steps, date) for date in dates if date is not None}
    return tuple(sorted({*near, steps[-1]}))


def _shapes(run: Run, **options: Any) -> Representations:
    """Representations at steps, where the last checkpoint has a cloud to look at."""
    last = representations(run, run.steps[-1], n_null=0)
    if not last.planes:
        why = [note for note in last.notes if "no cloud" in note or "no shape" in note]
        raise InputError(f"no cloud has a shape to look at: {'; '.join(why)}.")
    return representations(run, **options)


def _noise_radius(run: Run, steps: list[int], **options: Any) -> NoiseRadius:
    _check_size(run, "noise_radius")
    return noise_radius(run, steps, n_draws=N_DRAWS, **options)


def _curvature(run: Run, steps: list[int], **options: Any) -> Curvature:
    _check_size(run, "curvature")
    return curvature(run, steps, n_lanczos=N_LANCZOS, n_probes=N_PROBES, **options)


def _check_size(run: Run, name: str) -> None:
    n = sum(weight.numel() for weight in run.weights(run.steps[-1]).values())
    if n > MOST_WEIGHTS:
        raise InputError(
            f"the model has {n:,} weights, which take long; gi.geometry.{name} takes the time."
        )
