"""Everything that writes to the residual stream at the answer position, up to the logits.

The logits are a sum over writers of `activations @ to_logits`: a token, a position, the heads' z,
the neurons, the biases.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.runs.snapshot import Snapshot


@dataclass(frozen=True)
class Writer:
    """One linear piece of the logits: `activations @ to_logits`, its columns sorted into parts."""

    parts: tuple[str, ...]
    activations: Float[Tensor, "n_inputs m"]
    to_logits: Float[Tensor, "m p"]  # float64
    membership: Float[Tensor, "m n_parts"]  # 1 where a column belongs to a part


def needed_activations(snapshot: Snapshot) -> tuple[str, ...]:
    """The activations that `writers` asks for, so that one forward can give them all."""
    names = [] if snapshot.linear_readout else ["ln_final.hook_scale"]
    for layer in range(snapshot.n_layers):
        names.append(f"blocks.{layer}.attn.hook_z")
        if f"blocks.{layer}.mlp.W_out" in snapshot.weights:
            names.append(f"blocks.{layer}.mlp.hook_post")
    return tuple(names)


def writers(snapshot: Snapshot, clusters: Mapping[int, Int[Tensor, " n"]]) -> Iterator[Writer]:
    """All writers of a model, in the order in which it computes them."""
    w = snapshot.weights
    if clusters and f"blocks.{snapshot.n_layers - 1}.mlp.W_out" not in w:
        raise InputError("the last layer has no MLP to split by clusters.")
    final = _Final(snapshot)
    rows = w["embed.W_E"][snapshot.modular_task.tokens[:, -1]]
    d_model = rows.shape[1]
    yield final.writer(
        ("embedding",), rows, torch.eye(d_model), torch.zeros(d_model, dtype=torch.int64)
    )
    if "pos_embed.W_pos" in w:
        yield final.bias(
            "position", w["pos_embed.W_pos"][snapshot.modular_task.tokens.shape[1] - 1]
        )
    for layer in range(snapshot.n_layers):
        block = f"blocks.{layer}"
        prefix = f"layer {layer} " if snapshot.n_layers > 1 else ""
        z = snapshot.activation(f"{block}.attn.hook_z")
        n_heads, d_head = z.shape[1:]
        yield final.writer(
            tuple(f"{prefix}head {head}" for head in range(n_heads)),
            z.flatten(1),
            w[f"{block}.attn.W_O"].flatten(0, 1),
            torch.arange(n_heads).repeat_interleave(d_head),
        )
        if f"{block}.attn.b_O" in w:
            yield final.bias(f"{prefix}attention bias", w[f"{block}.attn.b_O"])
        if f"{block}.mlp.W_out" in w:
            w_out = w[f"{block}.mlp.W_out"]
            own = clusters if layer == snapshot.n_layers - 1 else {}
            parts, part_of = _split(f"{prefix}MLP", own, len(w_out))
            post = snapshot.activation(f"{block}.mlp.hook_post")
            yield final.writer(parts, post, w_out, part_of)
        if f"{block}.mlp.b_out" in w:
            yield final.bias(f"{prefix}MLP bias", w[f"{block}.mlp.b_out"])
    yield from final.own_biases()


class _Final:
    """What stands between the residual stream and the logits: a frozen LayerNorm, `W_U`."""

    def __init__(self, snapshot: Snapshot) -> None:
        w, p = snapshot.weights, snapshot.task.n_classes
        self.n_inputs = snapshot.task.n_inputs
        self.unembed = w["unembed.W_U"][:, :p].double()
        self.biases = {}  # what is added after the residual stream, as logits
        self.gain, self.scale = None, torch.ones(1)
        if not snapshot.linear_readout:
            self.gain = w["ln_final.w"].double()
            self.scale = snapshot.activation("ln_final.hook_scale").double()
            self.biases["LayerNorm bias"] = w["ln_final.b"].double() @ self.unembed
        if "unembed.b_U" in w:
            self.biases["unembedding bias"] = w["unembed.b_U"][:p].double()

    def writer(
        self,
        parts: tuple[str, ...],
        activations: Float[Tensor, "n_inputs m"],
        to_residual: Float[Tensor, "m d_model"],
        part_of: Int[Tensor, " m"],
    ) -> Writer:
        """A writer of `activations @ to_residual`, its columns sorted into parts."""
        rows = to_residual.double()
        if self.gain is not None:
            rows = (rows - rows.mean(dim=1, keepdim=True)) * self.gain
            activations = activations.double() / self.scale
        membership = torch.nn.functional.one_hot(part_of, len(parts)).double()
        return Writer(parts, activations, rows @ self.unembed, membership)

    def bias(self, name: str, vector: Float[Tensor, " d_model"]) -> Writer:
        """A writer of one vector, the same on every input."""
        one = torch.zeros(1, dtype=torch.int64)
        return self.writer((name,), torch.ones(self.n_inputs, 1), vector[None], one)

    def own_biases(self) -> Iterator[Writer]:
        """Writers of what is added after the residual stream."""
        one = torch.ones(1, 1, dtype=torch.float64)
        for name, logits in self.biases.items():
            yield Writer((name,), one.expand(self.n_inputs, 1), logits[None], one)


def _split(
    name: str, clusters: Mapping[int, Int[Tensor, " n"]], d_mlp: int
) -> tuple[tuple[str, ...], Int[Tensor, " d_mlp"]]:
    """The parts of an MLP, and the part of every neuron."""
    labels = sorted(set(clusters) - {-1})
    part_of = torch.full((d_mlp,), len(labels))
    for part, label in enumerate(labels):
        neurons = torch.as_tensor(clusters[label])
        if len(neurons) and not 0 <= int(neurons.min()) <= int(neurons.max()) < d_mlp:
            raise InputError(f"cluster {label} has a neuron outside 0 to {d_mlp - 1}.")
        if bool((part_of[neurons] != len(labels)).any()) or len(neurons.unique()) < len(neurons):
            raise InputError(f"cluster {label} has a neuron twice, or one of another cluster.")
        part_of[neurons] = part
    if not labels:
        return (name,), part_of
    return (*(f"{name} cluster {label}" for label in labels), f"{name}, no cluster"), part_of
