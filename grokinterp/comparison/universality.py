"""What is the same in every seed, and what differs? When each learned, and by which circuit.

Networks of one setting that differ in their seeds alone find the same kind of circuit or not
(universality): Chughtai et al. 2023 (arXiv 2302.03025) ask it of frequencies, Zhong et al. 2023
(arXiv 2306.17844) of clock and pizza.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.circuits._algorithm import algorithm
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters
from grokinterp.comparison.lineup import METRICS, RunProfile
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.runs.run import Run


@dataclass(frozen=True)
class FoundCircuit:
    """The circuit of a run's last checkpoint, as far as it has one; None for what is not known.

    `clusters` are how many neurons each key frequency has; `clustered` is their share of all.
    """

    key_frequencies: tuple[int, ...] | None = None
    clusters: Mapping[int, int] = field(default_factory=dict)
    clustered: float | None = None
    algorithm: str | None = None
    gradient_symmetricity: float | None = None
    distance_irrelevance: float | None = None
    notes: tuple[str, ...] = ()


def circuit_of(run: Run) -> FoundCircuit:
    """The circuit of a run's last checkpoint; what its model or task does not have is noted."""
    snapshot, keys = subject_of(run)
    if snapshot.task.modular is None:
        return FoundCircuit()
    if snapshot.task.answer_group is None or keys.undecided:
        return FoundCircuit(notes=(f"no key frequencies: {keys.reason}",))
    if not keys:
        return FoundCircuit(key_frequencies=(), notes=(f"no key frequencies: {keys.reason}",))
    notes: list[str] = []
    clusters: dict[int, int] = {}
    clustered = verdict = symmetricity = irrelevance = None
    try:
        sizes = neuron_clusters(snapshot, frequencies=keys).sizes
        clusters = {k: n for k, n in sizes.items() if k in keys}
        clustered = 1 - sizes.get(LEFTOVER, 0) / max(sum(sizes.values()), 1)
    except InputError as error:
        notes.append(f"no clusters of neurons: {error}")
    try:
        found = algorithm(snapshot, frequencies=keys)
        verdict = found.verdict
        if found.gradient_symmetricity is not None:
            symmetricity = found.gradient_symmetricity.value
        if found.distance_irrelevance is not None:
            irrelevance = found.distance_irrelevance.value
    except InputError as error:
        notes.append(f"neither clock nor pizza is told: {error}")
    return FoundCircuit(
        tuple(keys), clusters, clustered, verdict, symmetricity, irrelevance, tuple(notes)
    )


def numbers_of(circuit: FoundCircuit, profile: RunProfile) -> dict[str, float]:
    """What of it, and of the end of any run, is a number, to be summed up over seeds."""
    run, phases, keys = profile.run, profile.phases, circuit.key_frequencies
    last = run.metrics.iloc[-1].to_dict() if len(run.metrics) else {}
    found: dict[str, float | None] = {
        **{name: last.get(name) for name in METRICS},
        "n_key_frequencies": None if keys is None else len(keys),
        "neurons_in_clusters": circuit.clustered,
        "gradient_symmetricity": circuit.gradient_symmetricity,
        "distance_irrelevance": circuit.distance_irrelevance,
        "memorization_step": None if phases is None else phases.memorization_step,
        "grok_step": None if phases is None else phases.grok_step,
    }
    return {name: float(x) for name, x in found.items() if x is not None and math.isfinite(x)}


def shared_frequencies(circuits: Mapping[str, FoundCircuit], n: int) -> pd.DataFrame:
    """One row per frequency that is key in some run: in how many, and in which.

    `by_chance` is in how many it would be if every run drew as many as it has from all `n`.
    """
    known = {name: one.key_frequencies for name, one in circuits.items() if one.key_frequencies}
    counts = Counter(k for keys in known.values() for k in keys)
    rows = [
        {
            "frequency": k,
            "runs": held,
            "of": len(known),
            "by_chance": sum(map(len, known.values())) / n,
            "neurons": sum(circuits[name].clusters.get(k, 0) for name in known),
            "in": ", ".join(name for name, keys in known.items() if k in keys),
        }
        for k, held in sorted(counts.items(), key=lambda found: (-found[1], found[0]))
    ]
    return pd.DataFrame(rows, columns=["frequency", "runs", "of", "by_chance", "neurons", "in"])


def in_words(circuits: Sequence[FoundCircuit]) -> list[str]:
    """What the circuits have in common, a line each."""
    known = [set(one.key_frequencies) for one in circuits if one.key_frequencies]
    lines = []
    if known:
        common, every = sorted(set.intersection(*known)), sorted(set.union(*known))
        told = ", ".join(map(str, common)) or "none"
        lines.append(
            f"key frequencies in all {len(known)} runs that have any: {told}; in some: "
            f"{', '.join(map(str, every))}"
        )
    verdicts = Counter(one.algorithm for one in circuits if one.algorithm)
    if verdicts:
        lines.append(f"algorithm: {', '.join(f'{n} {name}' for name, n in verdicts.items())}")
    return lines
