"""What one run tells of itself, and what the controls beside it tell: the evidence of claims.

Nothing is computed before a rule asks for it, and nothing twice. A rule that is given what cannot
answer it raises `Undetermined`, with the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.claims.held_norms import OF_THE_NORM, NormLandscape, norm_landscape
from grokinterp.claims.registry import Undetermined
from grokinterp.encodings.ranks_over_training import Ranks, ranks
from grokinterp.geometry._representations import Representations, representations
from grokinterp.geometry.known_but_not_used import Routing, routing
from grokinterp.geometry.learning_coefficient import LearningCoefficient, local_learning_coefficient
from grokinterp.geometry.loss_curvature import Curvature, curvature
from grokinterp.geometry.loss_surface import loss_surface
from grokinterp.geometry.noise_in_weights import NoiseRadius, noise_radius
from grokinterp.geometry.tangent_kernel import TangentKernel, kernel
from grokinterp.geometry.weight_path import Drift, drift
from grokinterp.geometry.what_to_decode import usual_hooks
from grokinterp.progress._abruptness import Abruptness, abruptness
from grokinterp.progress._descents import Descents, descents
from grokinterp.progress._detect_phases import detect_phases
from grokinterp.progress._phase_shares import PhaseShares, phase_shares
from grokinterp.progress.curves import Curve
from grokinterp.progress.measures import progress_measures
from grokinterp.progress.phases import Phases, phases_of_metrics
from grokinterp.recipe.keys import CHANCE
from grokinterp.runs.run import Run
from grokinterp.training.decay_balance import Balance, balance

# Keys of how a network is trained, beside those of the update: not of what is trained on what.
OF_TRAINING = (
    "objective", "margin", "output_scale", "batch_size", "reshuffle", "init", "init_scale",
)  # fmt: skip
RADIUS = 0.3  # of the norm of the weights
OF_DATA = ("train_fraction", "n_train", "label_noise", "start", "start_step")


@dataclass(frozen=True)
class RunEvidence:
    """One run, and each analysis of it that a claim may rest on, done when first asked for.

    `steady` are runs beside it that learned steadily, with which it may be compared.

    >>> import grokinterp as gi
    >>> evidence = gi.claims.RunEvidence(gi.load("mod31-small"))
    >>> evidence.delay, round(evidence.norm(260), 1), evidence.phases.label
    ((260, 3530), 26.8, 'grokked')
    """

    run: Run
    name: str = ""
    progress: bool = False
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what is known already
    steady: Sequence["RunEvidence"] = field(default=(), repr=False)

    @cached_property
    def measures(self) -> pd.DataFrame:
        """The table of `gi.progress_measures`."""
        known: pd.DataFrame | None = self.given.get("measures")
        return progress_measures(self.run, progress=self.progress) if known is None else known

    @cached_property
    def phases(self) -> Phases:
        """Label, dates and phases, with the measures."""
        known: Phases | None = self.given.get("phases")
        found = known or detect_phases(self.run, measures=self.measures)
        assert isinstance(found, Phases)  # a run has the phases of one run
        return found

    @cached_property
    def balance(self) -> Balance:
        """Norms between checkpoints, beside what weight decay alone would do."""
        return balance(self.run, gradients=False, progress=self.progress)

    @cached_property
    def shares(self) -> PhaseShares:
        """The shares of the phases in what changes."""
        return phase_shares(self.run, measures=self.measures)

    @cached_property
    def ranks(self) -> Ranks:
        """Effective ranks of the matrices."""
        return ranks(self.run, progress=self.progress)

    @cached_property
    def descents(self) -> Descents:
        """What falls and rises twice."""
        found = descents(self.run, measures=self.measures)
        assert isinstance(found, Descents)  # a run has those of one run
        return found

    @cached_property
    def abruptness(self) -> Abruptness:
        """Rises of accuracy, probabilities and margins."""
        return abruptness(self.run, progress=self.progress)

    @cached_property
    def kernel(self) -> TangentKernel:
        """The tangent kernel over training, which takes long."""
        return kernel(self.run, progress=self.progress)

    @cached_property
    def drift(self) -> Drift:
        """The path of the weights."""
        return drift(self.run, progress=self.progress)

    @cached_property
    def representations(self) -> Representations:
        """Clouds of operands and answers at every checkpoint, without null distributions."""
        known: Representations | None = self.given.get("representations")
        return known or representations(self.run, n_null=0, progress=self.progress)

    @cached_property
    def routing(self) -> Routing:
        """How well the answer can be read of what the unembedding reads, at every checkpoint."""
        known: Routing | None = self.given.get("routing")
        hooks, _ = usual_hooks(self.run.snapshot())
        return known or routing(self.run, hooks=hooks[-1:] or None, progress=self.progress)

    @cached_property
    def ends(self) -> tuple[int, int]:
        """The checkpoint of the memorising and that of the generalising solution.

        The last one in the phase of memorisation (the first after memorization_step, where no phase
        is dated), and the last one of all. Of a steady run, which does both at once, the first and
        the last that have learned.
        """
        if self.phases.label == "steady" and self.phases.memorization_step is not None:
            learned = self.checkpoints(self.phases.memorization_step, self.run.steps[-1])
            if len(learned) > 1:
                return learned[0], learned[-1]
        start, grokked = self.delay
        phases = self.phases.phases or ()
        end = next((x.end for x in phases if x.name == "memorization"), None)
        inside = self.checkpoints(start, end) if end is not None else []
        first = inside[-1] if inside else min(self.checkpoints(start, grokked), default=None)
        last = self.run.steps[-1]
        if first is None or last < grokked or last <= first:
            raise Undetermined(
                "no checkpoint lies between memorising and grokking, or none after it",
                needs="checkpoints of the memorising and of the generalising network",
            )
        return first, last

    @cached_property
    def curvature(self) -> Curvature:
        """How the loss curves at `ends`."""
        return curvature(self.run, self.ends, progress=self.progress)

    @cached_property
    def noise_radius(self) -> NoiseRadius:
        """How much noise the weights bear at `ends`."""
        return noise_radius(self.run, self.ends, progress=self.progress)

    @cached_property
    def learning_coefficient(self) -> LearningCoefficient:
        """What random motion around the weights costs at `ends`, held by one spring at both.

        The spring keeps noise within `RADIUS` of the norm of the memorising weights. Steps are a
        quarter as long where they run away otherwise.
        """
        weights = loss_surface(self.run, step=self.ends[0]).theta
        gamma = len(weights) / (RADIUS**2 * float(weights @ weights))

        def sampled(slower: int) -> LearningCoefficient:
            return local_learning_coefficient(
                self.run, self.ends, gamma=gamma, epsilon=0.05 / gamma / slower,
                n_draws=200 * slower, halve=False, progress=self.progress,
            )  # fmt: skip

        found = sampled(1)
        if all(basin.stability < 1 for basin in found.basins):
            return found
        return sampled(4)  # with shorter steps, as long a time

    @property
    def weight_decay(self) -> float | None:
        """The weight decay of the recipe; None without a recipe."""
        return None if self.run.recipe is None else float(self.run.recipe.weight_decay)

    @cached_property
    def delay(self) -> tuple[float, float]:
        """The steps at which the run memorised and grokked; `Undetermined` if it did not."""
        label = self.phases.label
        start, end = self.phases.memorization_step, self.phases.grok_step
        if label != "grokked":
            known = "" if label != "undetermined" else f" ({self.phases.reasons[0]})"
            why = f"the claim is about runs that grok, and this one is labelled {label}{known}"
            raise Undetermined(why, needs="a run that grokked")
        if start is None or end is None or end <= start:
            why = "nobody knows when this run memorised and when it grokked"
            raise Undetermined(
                why, needs="a run whose steps are known and logged from the start on"
            )
        return start, end

    def norm(self, step: float) -> float:
        """The norm of all trained weights at a step, between checkpoints on straight lines."""
        return float(np.interp(step, self.balance.steps, self.balance.norms[:, 0].numpy()))

    def curve(self, measure: str) -> Curve | None:
        """A column of the measures where it is known; None where it is not."""
        known = self.measures.reindex(columns=["step", measure]).dropna().to_numpy(float)
        return Curve(*known.T) if len(known) else None

    def checkpoints(self, first: float, last: float) -> list[int]:
        """The checkpoints from one step to another, both among them."""
        return [step for step in self.run.steps if first <= step <= last]


@dataclass(frozen=True)
class ControlRun:
    """A run beside the one that is explained, and the recipe keys in which they differ."""

    name: str
    run: Run
    changes: Mapping[str, Any]

    @cached_property
    def phases(self) -> Phases:
        """What its metrics tell."""
        return phases_of_metrics(self.run)

    @property
    def t99(self) -> float | None:
        """The step at which it had memorised."""
        return self.phases.memorization_step

    @property
    def t95(self) -> float | None:
        """The step at which it generalised; None for never."""
        return self.phases.grok_step

    @property
    def delay(self) -> float | None:
        """Steps from one to the other, at least one log row; None without both."""
        if self.t99 is None or self.t95 is None:
            return None
        return max(self.t95 - self.t99, float(self.run.metrics["step"].diff().median()))

    @property
    def seed(self) -> tuple[Any, ...]:
        """What tells its chance from that of others."""
        recipe = self.run.recipe
        return tuple(getattr(recipe, key, None) for key in CHANCE)

    def only(self, *keys: str) -> bool:
        """Whether it differs in no other keys than these."""
        return set(self.changes) <= set(keys)

    @property
    def same_lesson(self) -> bool:
        """Whether the same network learns the same inputs, however it is trained."""
        assert self.run.recipe is not None
        return self.only(*self.run.recipe.update_keys(), *OF_TRAINING, *OF_THE_NORM)

    @property
    def related(self) -> bool:
        """Whether the same network learns the same inputs, or more or fewer of them, or noise."""
        recipe = self.run.recipe
        assert recipe is not None
        random = ("operation",) if self.changes.get("operation") == "random" else ()
        return self.only(*recipe.update_keys(), *OF_TRAINING, *OF_THE_NORM, *OF_DATA, *random)


@dataclass(frozen=True)
class ControlEvidence:
    """The runs that are explained, and all that were trained with or without a change.

    `controls` holds the explained runs too, with no change, since a control is compared with them.
    """

    runs: Sequence[RunEvidence]
    controls: Sequence[ControlRun]

    def where(self, belongs: Callable[[ControlRun], bool]) -> list[ControlRun]:
        """The runs that belong to a control."""
        return [each for each in self.controls if belongs(each)]

    @cached_property
    def landscape(self) -> NormLandscape | None:
        """What held norms come to, beside the free runs; None without a held norm."""
        held = self.where(lambda run: "constraint" in run.changes and run.only(*OF_THE_NORM))
        free = self.where(lambda run: not run.changes)
        return norm_landscape({run.name: run.run for run in (*held, *free)}) if held else None
