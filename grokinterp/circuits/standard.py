"""The standard interventions: every part of a circuit that the field ablates, on one model."""

import re
from collections.abc import Sequence

from grokinterp.circuits.components import (
    attention,
    attention_skip,
    channels,
    heads,
    mlp,
    mlp_skip,
    neurons,
    patterns,
)
from grokinterp.circuits.interventions import Intervention
from grokinterp.circuits.neuron_logit import neuron_logit_directions
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters
from grokinterp.circuits.subspaces import directions, embedding, fourier
from grokinterp.errors import InputError
from grokinterp.fourier.acceptance import Keys
from grokinterp.fourier.answers import checked_frequencies, usable_group
from grokinterp.models.last_block import LOGITS
from grokinterp.runs.resolve import check_snapshot
from grokinterp.runs.snapshot import Snapshot


def standard_interventions(
    snapshot: Snapshot, frequencies: Sequence[int], *, mode: str = "mean"
) -> list[Intervention]:
    """Heads, attention, MLP and skips of every layer; and, with key frequencies, what they name.

    Of an MLP or a CNN, its hidden layers and the channels of its convolutions.
    Those are the embedding's other frequencies, the clusters of neurons, Fourier components of
    neurons and logits, and the directions that the neuron-logit map reads. What the model does not
    have (directions of dead neurons, say) is left out. For a run, give `run.snapshot(step)`.
    """
    return standard_and_undefined(snapshot, frequencies, mode=mode)[0]


def standard_and_undefined(
    snapshot: Snapshot, frequencies: Sequence[int], *, mode: str = "mean"
) -> tuple[list[Intervention], tuple[str, ...]]:
    """The standard interventions, and why some of them do not exist on this model."""
    check_snapshot(snapshot)
    undefined: list[str] = []
    group = usable_group(snapshot)
    if group is not None and not isinstance(frequencies, Keys):
        frequencies = checked_frequencies(frequencies, group)
    circuit = _circuit(snapshot, tuple(frequencies), mode, undefined)
    return [*_parts(snapshot, mode, undefined), *circuit], tuple(undefined)


def _parts(snapshot: Snapshot, mode: str, undefined: list[str]) -> list[Intervention]:
    found: list[Intervention] = []
    for layer in range(snapshot.n_layers):
        block = f"blocks.{layer}."
        parallel = _parallel(snapshot, block)
        if parallel:
            undefined.append(f"no skips of layer {layer}: its MLP is beside its attention")
        if f"{block}attn.W_Q" in snapshot.weights:
            n_heads = len(snapshot.weights[f"{block}attn.W_Q"])
            found += [heads(layer, head, mode=mode) for head in range(n_heads)]
            found += [patterns(layer, mode="mean"), attention(layer, mode=mode)]
            found += [] if parallel else [attention_skip(layer, mode=mode)]
        if f"{block}mlp.W_out" in snapshot.weights:
            found += [mlp(layer, mode=mode)]
            found += [] if parallel else [mlp_skip(layer, mode=mode)]
    if snapshot.kind != "transformer":
        convs = [x for name, x in snapshot.weights.items() if re.fullmatch(r"conv\.\d+\.W", name)]
        for layer, weight in enumerate(convs):
            found += [channels(layer, channel, mode=mode) for channel in range(len(weight))]
        for layer in range(snapshot.n_layers):
            width = snapshot.weights[f"blocks.{layer}.mlp.W_in"].shape[1]
            found += [neurons(layer, range(width), mode=mode, name=f"hidden layer {layer}")]
    return found


def _parallel(snapshot: Snapshot, block: str) -> bool:
    """Whether the MLP reads what attention reads, so that neither has a stream around it alone."""
    return (
        snapshot.transformer is None
        and f"{block}mlp.W_out" in snapshot.weights
        and f"{block}hook_resid_mid" not in snapshot.hooked().hook_dict
    )


def _circuit(
    snapshot: Snapshot, frequencies: tuple[int, ...], mode: str, undefined: list[str]
) -> list[Intervention]:
    """What only a model with key frequencies has; reasons for what it has not go to `undefined`."""
    if not frequencies:
        return []
    task, neuron_hook = snapshot.modular_task, f"blocks.{snapshot.n_layers - 1}.mlp.hook_post"
    found = [embedding(task, frequencies, hook_name=embedding_hook(snapshot))]
    if neuron_hook.replace("hook_post", "W_in") in snapshot.weights:
        found += cluster_interventions(snapshot, frequencies, mode)
        found += [
            fourier(neuron_hook, task, frequencies, keep=True),
            fourier(neuron_hook, task, frequencies, keep=True, terms="operands"),
            fourier(neuron_hook, task, frequencies),
        ]
        try:
            found += direction_interventions(snapshot, frequencies)
        except InputError as error:
            undefined.append(f"no directions u_k, v_k are ablated: {error}")
    found += [fourier(LOGITS, task, [k]) for k in frequencies]
    return [
        *found,
        fourier(LOGITS, task, frequencies),
        fourier(LOGITS, task, frequencies, keep=True),
    ]


def embedding_hook(snapshot: Snapshot) -> str:
    """Where the operands' embeddings are seen; in an MLP with two-hot input, their sum."""
    return "hook_embed" if "embed.W_E" in snapshot.weights else "blocks.0.mlp.hook_pre"


def cluster_interventions(
    snapshot: Snapshot, frequencies: tuple[int, ...], mode: str
) -> list[Intervention]:
    """Every cluster of the last layer's neurons, and the leftover, -1."""
    clusters = neuron_clusters(snapshot, frequencies=frequencies)
    return [
        neurons(
            clusters.layer,
            clusters.members(k).tolist(),
            mode=mode,
            name="leftover neurons" if k == LEFTOVER else f"neurons of k = {k}",
        ).called(kind=_kind(k, frequencies, mode))
        for k, size in clusters.sizes.items()
        if size
    ]


def _kind(k: int, frequencies: tuple[int, ...], mode: str) -> str:
    if k == LEFTOVER:
        return f"leftover neurons ({mode})"
    return f"neurons of {'a key' if k in frequencies else 'another'} frequency ({mode})"


def direction_interventions(snapshot: Snapshot, frequencies: tuple[int, ...]) -> list[Intervention]:
    """The span of the directions u_k, v_k that the neuron-logit map reads: dropped, and alone.

    With zeros for what is taken out, so that dropping it compares with a zeroed MLP.
    """
    basis = neuron_logit_directions(snapshot, frequencies=frequencies).basis
    hook = f"blocks.{snapshot.n_layers - 1}.mlp.hook_post"
    return [
        directions(hook, basis, keep=keep, mode="zero", name="u_k, v_k") for keep in (True, False)
    ]
