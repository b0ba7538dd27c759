"""Which parts of a model are taken out when nobody says which?"""

import re
from collections.abc import Iterator, Sequence

from grokinterp.base.errors import InputError
from grokinterp.circuits import hooks
from grokinterp.circuits.interventions import Intervention
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters, neuron_logit_directions
from grokinterp.fourier._key_frequencies import Keys
from grokinterp.fourier.answers import checked_frequencies, usable_group
from grokinterp.fourier.spectra import TABLES
from grokinterp.models.blocks import LOGITS
from grokinterp.models.hooked_module import HookedModule
from grokinterp.runs._snapshot import Snapshot


def standard_interventions(
    snapshot: Snapshot, frequencies: Sequence[int], *, mode: str = "mean"
) -> list[Intervention]:
    """Heads, attention, MLP and skips of every layer; and, with key frequencies, what they name.

    The latter are the embedding's other frequencies, the clusters of neurons, Fourier components of
    neurons and logits, and the directions that the neuron-logit map reads. Of an MLP or a CNN, its
    hidden layers and the channels of its convolutions. What the model does not have (directions of
    dead neurons, say) is left out. `circuits.standard_interventions` takes a run (its last
    checkpoint), a path, or a model with `task` too; `frequencies` are the key ones unless given.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> [one.name for one in gi.circuits.standard_interventions(run)][-2:]
    ['drop k = 1, 8, 14 at the logits', 'keep only k = 1, 8, 14 at the logits']
    >>> [one.name for one in gi.circuits.standard_interventions(run, (), mode="zero")][-2:]
    ['MLP 0 (zero)', 'MLP skip 0 (zero)']
    """
    every = standard_of(snapshot, frequencies, mode)
    return [one for one in every if isinstance(one, Intervention)]


def standard_of(
    snapshot: Snapshot, frequencies: Sequence[int], mode: str
) -> Iterator[Intervention | str]:
    """The standard interventions, and why some of them do not exist on this model."""
    group = usable_group(snapshot)
    if group is not None and not isinstance(frequencies, Keys):
        frequencies = checked_frequencies(frequencies, group)
    weights = snapshot.weights
    for layer in range(snapshot.n_layers):
        block = f"blocks.{layer}."
        has_mlp = f"{block}mlp.W_out" in weights
        # Where the MLP reads what attention reads, neither has a stream around it alone.
        parallel = (
            snapshot.transformer is None
            and has_mlp
            and f"{block}hook_resid_mid" not in snapshot.hooked().hook_dict
        )
        if parallel:
            yield f"no skips of layer {layer}: its MLP is beside its attention"
        if f"{block}attn.W_Q" in weights:
            for head in range(len(weights[f"{block}attn.W_Q"])):
                yield hooks.heads(layer, head, mode=mode)
            yield hooks.patterns(layer, mode="mean")
            yield hooks.attention(layer, mode=mode)
            if not parallel:
                yield hooks.attention_skip(layer, mode=mode)
        if has_mlp:
            yield hooks.mlp(layer, mode=mode)
            if not parallel:
                yield hooks.mlp_skip(layer, mode=mode)
    if not snapshot.positions:
        named = snapshot.named_weights.items()
        convs = [x for name, x in named if re.fullmatch(r"conv\.\d+\.W", name)]
        for layer, weight in enumerate(convs):
            yield from (hooks.channels(layer, channel, mode=mode) for channel in range(len(weight)))
        for layer in range(snapshot.n_layers):
            width = weights[f"blocks.{layer}.mlp.W_in"].shape[1]
            yield hooks.neurons(layer, range(width), mode=mode, name=f"hidden layer {layer}")
        if isinstance(model := snapshot.hooked(), HookedModule):
            layers = model.hidden_layers(snapshot.task.model_inputs[:4])
            for name, width in layers.items():
                yield hooks.neurons(name, range(width), mode=mode, name=f"hidden layer {name}")
            if not layers:
                yield "no hidden layers: no sub-module gives one output [n_inputs, neurons]"
    if frequencies:
        yield from _of_frequencies(snapshot, tuple(frequencies), mode)


def _of_frequencies(
    snapshot: Snapshot, keys: tuple[int, ...], mode: str
) -> Iterator[Intervention | str]:
    """What only a model with key frequencies has."""
    task, hook = snapshot.modular_task, f"blocks.{snapshot.n_layers - 1}.mlp.hook_post"
    if snapshot.n_layers:
        yield hooks.embedding(task, keys, hook_name=embedding_hook(snapshot))
    if hook.replace("hook_post", "W_in") in snapshot.weights:
        clusters = neuron_clusters(snapshot, frequencies=keys)
        kinds = dict.fromkeys(keys, "neurons of a key frequency") | {LEFTOVER: "leftover neurons"}
        for k, size in clusters.sizes.items():
            if size:
                name = kinds[k] if k == LEFTOVER else f"neurons of k = {k}"
                members = clusters.members(k).tolist()
                cluster = hooks.neurons(clusters.layer, members, mode=mode, name=name)
                kind = kinds.get(k, "neurons of another frequency")
                yield cluster.called(kind=f"{kind} ({mode})")
        yield hooks.fourier(hook, task, keys, keep=True)
        yield hooks.fourier(hook, task, keys, keep=True, terms="operands")
        yield hooks.fourier(hook, task, keys)
        try:
            # Zeros for what is taken out, so that dropping it compares with a zeroed MLP.
            basis = neuron_logit_directions(snapshot, frequencies=keys).basis
            for keep in (True, False):
                yield hooks.directions(hook, basis, keep=keep, mode="zero", name="u_k, v_k")
        except InputError as error:
            yield f"no directions u_k, v_k are ablated: {error}"
    yield from (hooks.fourier(LOGITS, task, [k]) for k in keys)
    yield hooks.fourier(LOGITS, task, keys)
    yield hooks.fourier(LOGITS, task, keys, keep=True)


def embedding_hook(snapshot: Snapshot) -> str:
    """Where the operands' embeddings are seen; in an MLP with two-hot input, their sum."""
    embedded = any(name in snapshot.named_weights for name in TABLES)
    return "hook_embed" if embedded else "blocks.0.mlp.hook_pre"
