"""The panels of a report: one more panel is one decorated function.

    @panel("correctness", section="output")
    def correctness(about, snapshot):
        '''What to see in it.'''
        return answers.correctness(snapshot)

Its docstring is the caption. A panel of every step, or of the milestones, moves with the report's
step; it returns a figure, or a result with `.plot()` and `.table()`, whose table is then what its
CSV holds. One that is drawn once returns a figure and its table. An InputError says why a run has
no such panel; the report repeats it there. `draw_panels` draws all, computing each step once.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError, shown
from grokinterp.base.plugins import strangers
from grokinterp.base.registry import Registry, check_function
from grokinterp.base.result import Result
from grokinterp.circuits._attention import AttentionPatterns, attention, attention_patterns
from grokinterp.circuits._figures import answers, circles, neurons
from grokinterp.circuits._figures.answers import circuitsvis_script, plot_attention
from grokinterp.circuits.ablation import ablate
from grokinterp.circuits.circuit import circuit_graph, faithfulness
from grokinterp.circuits.neurons import neuron_clusters
from grokinterp.claims._explain import explain_known
from grokinterp.encodings import _figures as pruning
from grokinterp.encodings.bases import BASES
from grokinterp.encodings.pruning_curves import pruning_curve
from grokinterp.figures._figure import Figure
from grokinterp.figures.slider import over_training
from grokinterp.fourier import _figures as spectra
from grokinterp.geometry._figures.curvature import plot_curvature
from grokinterp.geometry._figures.paths import plot_trajectories
from grokinterp.geometry._figures.plane import plot_weight_plane
from grokinterp.geometry._figures.representations import clouds_at, plot_representations
from grokinterp.geometry._figures.used_or_not import plot_routing
from grokinterp.progress._figures import curves
from grokinterp.reporting.about import About
from grokinterp.runs._snapshot import Snapshot

ONCE = "once"
EVERY_STEP = "every step"  # of `About.steps`
MILESTONES = "milestones"  # of `About.milestones`: for what takes seconds
SECTIONS = {
    "training": "Training",
    "embedding": "Embedding",
    "attention": "Attention",
    "neurons": "Neurons",
    "output": "Answers",
    "circuit": "Circuit",
    "encoding": "Encoding",
    "geometry": "Geometry",
    "claims": "Claims",
}


@dataclass(frozen=True)
class Panel:
    """Where a panel stands, when it is drawn, and how."""

    name: str
    section: str
    caption: str
    when: str
    draw: Callable[..., Any] | None = None  # (about), or (about, snapshot)


PANELS: Registry[Panel] = Registry("panel")


def panel(
    name: str, *, section: str, when: str = EVERY_STEP
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a panel, its docstring as the caption; they appear in this order.

    `section` is one of `SECTIONS`; `when` is "every step" (of `About.steps`) or "milestones", for
    what takes seconds: functions of (about, snapshot); or "once", a function of (about). InputError
    for a name that is taken, for another section or time, and for a function of other arguments.
    """
    PANELS.named(name)
    word("section", section, SECTIONS)
    word("when", when, (ONCE, EVERY_STEP, MILESTONES))

    def register(draw: Callable[..., Any]) -> Callable[..., Any]:
        check_function("panel", name, draw, ("about", "snapshot")[: 1 + (when != ONCE)])
        caption = " ".join((draw.__doc__ or "").split())
        PANELS.add(name, Panel(name, section, caption, when, draw), by=draw)
        return draw

    return register


@panel("learning", section="training", when=ONCE)
def learning(about: About) -> Any:
    """Loss on train and test inputs, phases shaded. Dotted: first crossings of thresholds."""
    if about.run.metrics.drop(columns="step").isna().all(axis=None):
        raise InputError("training logged no loss and no accuracy.")
    return about.phases.plot(), about.run.metrics


@panel("progress", section="training", when=ONCE)
def progress(about: About) -> Any:
    """Restricted loss falls when the key frequencies suffice for the answer; excluded loss rises
    when training answers need them; the weight norm falls in cleanup. Held-out: what the key
    frequencies alone answer of test pairs whose mirror is not trained on; above its placebos while
    the network itself is wrong, it is an early sign of a circuit.
    """  # noqa: D205
    losses = about.measures.filter(like="_loss")
    if losses.isna().all(axis=None):
        raise InputError("there is no loss to draw: no split and no key frequencies are known.")
    return curves.plot_progress(about.measures, phases=about.phases), about.measures


@panel("emergence", section="training", when=ONCE)
def emergence(about: About) -> Any:
    """Share of the variance of the logits along each frequency, over training."""
    if about.shares is None:
        raise InputError(f"{about.keys.reason}.")
    drawn = curves.plot_emergence(about.shares, frequencies=about.frequencies)
    return drawn, about.shares.reset_index()


@panel("logit-frequencies", section="training")
def logit_frequencies(about: About, snapshot: Snapshot) -> Any:
    """The same at one step: each frequency's share of the variance of the logits, log axis."""
    if about.shares is None:
        raise InputError(f"{about.keys.reason}.")
    step = 0 if snapshot.step is None else snapshot.step  # of a model, which has none
    own = dict(enumerate(about.shares.loc[step], start=1))
    return spectra.plot_key_frequencies(replace(about.keys, shares=own, step=snapshot.step))


@panel("embedding-spectrum", section="embedding")
def embedding_spectrum(about: About, snapshot: Snapshot) -> Any:
    """Norm of the embedding along each frequency: flat at first, sparse once a circuit has
    formed.
    """  # noqa: D205
    return spectra.embedding_bars(snapshot, about.frequencies)


@panel("embedding-circles", section="embedding")
def embedding_circles(about: About, snapshot: Snapshot) -> Any:
    """Operand tokens on the plane of each key frequency, joined in the order of the circle."""
    return circles.embedding_circles(snapshot, about.frequencies)


@panel("embedding-heat-map", section="embedding")
def embedding_heat_map(about: About, snapshot: Snapshot) -> Any:
    """Fourier components of the embedding: few rows remain when it is sparse."""
    return spectra.embedding_heat_map(snapshot)


@panel("attention-maps", section="attention")
def attention_maps(about: About, snapshot: Snapshot) -> Any:
    """Attention of each head from the answer position to operand a, for every pair (a, b)."""
    return plot_attention(attention(snapshot, frequencies=about.frequencies))


@panel("attention-on-inputs", section="attention")
def attention_on_inputs(about: About, snapshot: Snapshot) -> Any:
    """Attention of all heads on a few inputs, from every position to every one (CircuitsVis)."""
    circuitsvis_script()  # refused here, where it is not installed
    p = snapshot.modular_task.p
    pairs = dict.fromkeys([(1 % p, 2 % p), (p // 3, p // 2)])
    return attention_patterns(snapshot, inputs=list(pairs))


@panel("clusters", section="neurons")
def clusters(about: About, snapshot: Snapshot) -> Any:
    """Each neuron's leading frequency and how much of its variance that explains."""
    return neuron_clusters(snapshot, frequencies=about.frequencies).plot()


@panel("neuron-maps", section="neurons")
def neuron_maps(about: About, snapshot: Snapshot) -> Any:
    """Activations over all pairs: the neurons that vary most at the last step, one a cluster."""
    return neurons.neuron_images(snapshot, about.neurons)


@panel("neuron-fourier", section="neurons")
def neuron_fourier(about: About, snapshot: Snapshot) -> Any:
    """The same neurons in the Fourier basis of a and b: a few terms of one frequency."""
    return neurons.neuron_fourier(snapshot, about.neurons)


@panel("neuron-logit-spectrum", section="neurons")
def neuron_logit_spectrum(about: About, snapshot: Snapshot) -> Any:
    """Norm along each frequency of what neurons add to the logits (W_out W_U)."""
    return spectra.neuron_logit_bars(snapshot, about.frequencies)


@panel("correctness", section="output")
def correctness(about: About, snapshot: Snapshot) -> Any:
    """Which pairs are answered rightly: test pairs turn green."""
    return answers.correctness(snapshot)


@panel("logits", section="output")
def logits(about: About, snapshot: Snapshot) -> Any:
    """The logit of one class on every pair, blank where none is; of a + b, diagonals are sums."""
    return answers.logit_images(snapshot, (0,))


@panel("graph", section="circuit", when=MILESTONES)
def graph(about: About, snapshot: Snapshot) -> Any:
    """From embedding frequencies over heads and neuron clusters to logit frequencies; each link is
    measured by cutting it.
    """  # noqa: D205
    return circuit_graph(snapshot, frequencies=about.frequencies)


@panel("ablations", section="circuit", when=MILESTONES)
def ablations(about: About, snapshot: Snapshot) -> Any:
    """What the loss becomes without a part, over the loss of the whole model; dots are 3 placebos,
    as much of the same kind chosen at random, which is few for a verdict.
    """  # noqa: D205
    return ablate(snapshot, frequencies=about.frequencies, placebos=3)


@panel("circuit-alone", section="circuit", when=MILESTONES)
def circuit_alone(about: About, snapshot: Snapshot) -> Any:
    """The claimed circuit alone, the model without it, and the circuit less each part."""
    if about.faithfulness and snapshot.step == about.faithfulness.step:
        return about.faithfulness
    return faithfulness(snapshot, frequencies=about.frequencies, placebos=0)


@panel("pruning-curves", section="encoding", when=MILESTONES)
def pruning_curves(about: About, snapshot: Snapshot) -> Any:
    """Accuracy on test inputs as more and more of the model is set to zero, in three bases."""
    found = {}
    for basis in BASES:
        with contextlib.suppress(InputError):  # a basis that this kind of model does not have
            found[basis] = pruning_curve(snapshot, basis=basis, test_only=True)
    return pruning.plot_pruning_curves(found)


@panel("trajectory", section="encoding")
def trajectory(about: About, snapshot: Snapshot) -> Any:
    """The predictions of the checkpoints as points, by their geodesic distances in the Fisher-Rao
    metric; the ring is this step.
    """  # noqa: D205
    found = about.trajectory
    if found is None:
        raise InputError(about.no_trajectory or "no trajectory.")
    return _ringed(plot_trajectories(found), *found.coordinates[found.steps.index(snapshot.step)])


def _ringed(drawn: Figure, x: Any, y: Any) -> Figure:
    """The same with a ring around a point."""
    return drawn.add_scatter(
        x=[float(x)],
        y=[float(y)],
        mode="markers",
        name="this step",
        marker={"symbol": "circle-open", "size": 16, "line": {"width": 2}},
        hoverinfo="skip",
        meta={"marks": True},
    )


@panel("representations", section="geometry", when=ONCE)
def shapes(about: About) -> Any:
    """From clouds to circles: how much of what the embedding, the unembedding and the mean
    activation of each answer (over unseen inputs) look like is the symmetry of the task; the share
    of the last checkpoint's key frequencies; the longest loop. Dotted: what chance passes in 5 %,
    by 19 draws. That there is a circle does not say that the network uses it.
    """  # noqa: D205
    found = about.geometry.representations.known()
    return plot_representations(found), found.table()


@panel("clouds", section="geometry")
def clouds(about: About, snapshot: Snapshot) -> Any:
    """The same clouds at this step, each in the plane of the key frequency that has most of it; its
    share is in brackets. Colours go once around the circle; every panel has its own scale.
    """  # noqa: D205
    step = 0 if snapshot.step is None else snapshot.step
    return clouds_at(about.geometry.representations.known(), step)


@panel("routing", section="geometry", when=ONCE)
def known_or_used(about: About) -> Any:
    """Known but not used: how often a linear decoder reads the answer to unseen inputs after each
    layer, and how often the network gives it. That a decoder reads it does not say that the network
    could.
    """  # noqa: D205
    found = about.geometry.routing.known()
    return plot_routing(found), found.table()


@panel("curvature", section="geometry", when=ONCE)
def sharpness(about: About) -> Any:
    """How sharply the loss curves near memorization_step, the ends of phases and at the last
    checkpoint, and below it how much noise the weights bear. Of at most 256 inputs, for curvature
    trained ones, 10 Lanczos steps, 4 probes and 4 draws: `gi.geometry.curvature` takes more. Raw
    curvature falls as the network becomes certain; compare that at one loss.
    """  # noqa: D205
    found, noise = about.geometry.curvature.known(), about.geometry.noise_radius.found
    return plot_curvature(found, noise=noise, phases=about.phases), found.table()


@panel("weight-plane", section="geometry")
def weight_path(about: About, snapshot: Snapshot) -> Any:
    """The path of the weights in the plane in which they vary most; the ring is this step. Large
    shares alone show nothing: random walks have them too.
    """  # noqa: D205
    found = about.geometry.plane.known()
    return _ringed(plot_weight_plane(found), *found.coordinates[found.steps.index(snapshot.step)])


@panel("verdicts", section="claims", when=ONCE)
def verdicts(about: About) -> Any:
    """Every published claim on this run: the number that decides against its threshold, in decades.
    Claims that take controls, runs of both regimes, or over 20 seconds are undetermined here, and
    say what they need; `gi.explain` takes it.
    """  # noqa: D205
    given = {"phases": about.phases, "measures": about.measures}
    given |= about.geometry.of_all(about.run)
    found = explain_known(about.run, name=about.name, **given)
    return found.plot(), found.table()


@dataclass(frozen=True)
class Drawn:
    """A panel: a figure, or patterns by step for CircuitsVis; or the reason why there is neither.

    `table` is the data behind it, where the figure does not hold all of them.
    """

    panel: Panel
    figure: Figure | None = field(default=None, repr=False)
    patterns: dict[int, AttentionPatterns] = field(default_factory=dict, repr=False)
    table: pd.DataFrame | None = field(default=None, repr=False)
    steps: tuple[int, ...] = ()  # that it is drawn of, where these are few
    only: int | None = None  # the step that it is a picture of, where there is no other
    reason: str | None = None  # also why it is missing at some steps


def draw_panels(about: About, *, progress: bool = False) -> list[Drawn]:
    """All panels of one run, in their order."""
    panels = {panel.name: panel for panel in PANELS.every()}
    found: dict[str, dict[int, Any]] = {name: {} for name in panels}
    reasons: dict[str, str] = {}

    def draw(when: str, step: int, *given: Snapshot) -> None:
        for name, panel in panels.items():
            if panel.when == when and panel.draw:
                try:
                    with strangers(f"panel={name!r}", panel.draw):
                        found[name][step] = _checked(panel, panel.draw(about, *given))
                except InputError as error:
                    reasons[name] = str(error)

    draw(ONCE, about.run.steps[-1])
    steps = sorted({*about.steps, *about.milestones})
    for step in tqdm(steps, desc="draw", unit="step", disable=None if progress else True):
        snapshot = about.run.snapshot(step)
        snapshot.compute()
        if step in about.steps:
            draw(EVERY_STEP, step, snapshot)
        if step in about.milestones:
            draw(MILESTONES, step, snapshot)
    return [
        replace(
            _drawn(panel, found[name]) if found[name] else Drawn(panel),
            steps=tuple(found[name]) if panel.when == MILESTONES else (),
            only=next(iter(found[name])) if panel.when != ONCE and len(found[name]) == 1 else None,
            reason=reasons.get(name),
        )
        for name, panel in panels.items()
    ]


def _checked(panel: Panel, found: Any) -> Any:
    """What a panel may be drawn of: a figure, a figure and its table, or a result."""
    pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], pd.DataFrame)
    if isinstance(found[0] if pair else found, Figure | Result):
        return found
    raise InputError(
        f"panel={panel.name!r} gives {shown(found)}; return a figure, (figure, table) or a result."
    )


def _drawn(panel: Panel, found: dict[int, Any]) -> Drawn:
    first = next(iter(found.values()))
    if isinstance(first, AttentionPatterns):
        return Drawn(panel, patterns=found, table=_joined({s: x.table() for s, x in found.items()}))
    if isinstance(first, Figure):
        return Drawn(panel, over_training(found))
    if isinstance(first, tuple) and panel.when == ONCE:
        return Drawn(panel, figure=first[0], table=first[1])
    pairs = {s: x if isinstance(x, tuple) else (x.plot(), x.table()) for s, x in found.items()}
    figure = over_training({step: each for step, (each, _) in pairs.items()})
    return Drawn(panel, figure, table=_joined({step: table for step, (_, table) in pairs.items()}))


def _joined(tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all steps, one under the other, the step first."""
    joined = pd.concat([x.assign(step=step) for step, x in tables.items()], ignore_index=True)
    return joined[["step", *joined.columns.drop("step")]]
