"""The shape of a one-stream transformer, and its weights under canonical names.

Canonical names and shapes are those of HookedTransformer's properties, whatever TransformerLens
is installed: `embed.W_E` [d_vocab, d_model], `blocks.0.attn.W_Q` [n_heads, d_model, d_head], ...
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from grokinterp.errors import InputError

Weights = dict[str, Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a transformer without LayerNorm, in TransformerLens' words."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    d_vocab_out: int
    n_ctx: int
    act_fn: str = "relu"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Architecture":
        """The architecture stored by `dataclasses.asdict`."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        heads, d_model, d_head = self.n_heads, self.d_model, self.d_head
        shapes: dict[str, tuple[int, ...]] = {
            "embed.W_E": (self.d_vocab, d_model),
            "pos_embed.W_pos": (self.n_ctx, d_model),
        }
        for layer in range(self.n_layers):
            attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
            shapes |= {f"{attn}.W_{x}": (heads, d_model, d_head) for x in "QKV"}
            shapes |= {f"{attn}.b_{x}": (heads, d_head) for x in "QKV"}
            shapes |= {f"{attn}.W_O": (heads, d_head, d_model), f"{attn}.b_O": (d_model,)}
            shapes |= {f"{mlp}.W_in": (d_model, self.d_mlp), f"{mlp}.b_in": (self.d_mlp,)}
            shapes |= {f"{mlp}.W_out": (self.d_mlp, d_model), f"{mlp}.b_out": (d_model,)}
        shapes |= {"unembed.W_U": (d_model, self.d_vocab_out), "unembed.b_U": (self.d_vocab_out,)}
        return shapes

    def check(self, weights: Mapping[str, Tensor]) -> None:
        """Refuse weights whose names or shapes are not this architecture's."""
        shapes = self.parameter_shapes()
        if unknown := sorted(set(weights) - set(shapes)):
            raise InputError(f"weight {unknown[0]!r} does not belong to {self}.")
        for name, shape in shapes.items():
            if name not in weights:
                raise InputError(f"weight {name!r} of shape {shape} is missing.")
            if tuple(weights[name].shape) != shape:
                raise InputError(
                    f"weight {name!r} has shape {tuple(weights[name].shape)}, expected {shape}."
                )


def is_bias(name: str) -> bool:
    """Whether a canonical parameter name is a bias.

    >>> is_bias("blocks.0.mlp.b_in"), is_bias("embed.W_E")
    (True, False)
    """
    return name.rpartition(".")[2].startswith("b_")
