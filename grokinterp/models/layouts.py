"""Names and shapes under which others keep the weights of such a transformer.

A layout is a table: canonical name, foreign key, and the einops pattern that takes the foreign
tensor to the canonical one (read from right to left, it takes it back). `{}` is the layer; v is the
vocabulary, m d_model, h heads, d d_head, f d_mlp, c the context.

BRIDGE   TransformerBridge of TransformerLens 4 (torch.nn.Linear keeps its matrices transposed)
PAPER    released code of Nanda et al. 2023 (arXiv 2301.05217), and of Zhong et al. 2023 (arXiv
         2306.17844): HookedTransformer's names with other shapes
"""

from collections.abc import Mapping
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from grokinterp.models.architecture import Weights

Table = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Slot:
    """Where a layout keeps one canonical weight, and the way there and back."""

    key: str
    pattern: str

    def canonical(self, foreign: Tensor, n_heads: int) -> Tensor:
        """The foreign tensor in canonical shape."""
        return rearrange(foreign, self.pattern, **self._heads(n_heads))

    def foreign(self, canonical: Tensor) -> Tensor:
        """The canonical tensor in the foreign shape."""
        left, _, right = self.pattern.partition(" -> ")
        return rearrange(canonical, f"{right} -> {left}")

    def _heads(self, n_heads: int) -> dict[str, int]:
        return {"h": n_heads} if "(h d)" in self.pattern else {}


_ATTENTION, _MLP = "blocks.{}.attn", "blocks.{}.mlp"

BRIDGE: Table = (
    ("embed.W_E", "embed.weight", "v m -> v m"),
    ("pos_embed.W_pos", "pos_embed.weight", "c m -> c m"),
    ("blocks.{}.ln1.w", "blocks.{}.ln1.weight", "m -> m"),
    ("blocks.{}.ln1.b", "blocks.{}.ln1.bias", "m -> m"),
    *((f"{_ATTENTION}.W_{x}", f"{_ATTENTION}.{x.lower()}.weight", "(h d) m -> h m d")
      for x in "QKV"),
    *((f"{_ATTENTION}.b_{x}", f"{_ATTENTION}.{x.lower()}.bias", "(h d) -> h d") for x in "QKV"),
    (f"{_ATTENTION}.W_O", f"{_ATTENTION}.o.weight", "m (h d) -> h d m"),
    (f"{_ATTENTION}.b_O", f"{_ATTENTION}.o.bias", "m -> m"),
    ("blocks.{}.ln2.w", "blocks.{}.ln2.weight", "m -> m"),
    ("blocks.{}.ln2.b", "blocks.{}.ln2.bias", "m -> m"),
    (f"{_MLP}.W_in", f"{_MLP}.in.weight", "f m -> m f"),
    (f"{_MLP}.b_in", f"{_MLP}.in.bias", "f -> f"),
    (f"{_MLP}.W_out", f"{_MLP}.out.weight", "m f -> f m"),
    (f"{_MLP}.b_out", f"{_MLP}.out.bias", "m -> m"),
    ("ln_final.w", "ln_final.weight", "m -> m"),
    ("ln_final.b", "ln_final.bias", "m -> m"),
    ("unembed.W_U", "unembed.weight", "v m -> m v"),
    ("unembed.b_U", "unembed.bias", "v -> v"),
)  # fmt: skip

PAPER: Table = (
    ("embed.W_E", "embed.W_E", "m v -> v m"),
    ("pos_embed.W_pos", "pos_embed.W_pos", "c m -> c m"),
    *((f"{_ATTENTION}.W_{x}", f"{_ATTENTION}.W_{x}", "h d m -> h m d") for x in "QKV"),
    (f"{_ATTENTION}.W_O", f"{_ATTENTION}.W_O", "m (h d) -> h d m"),
    (f"{_MLP}.W_in", f"{_MLP}.W_in", "f m -> m f"),
    (f"{_MLP}.b_in", f"{_MLP}.b_in", "f -> f"),
    (f"{_MLP}.W_out", f"{_MLP}.W_out", "m f -> f m"),
    (f"{_MLP}.b_out", f"{_MLP}.b_out", "m -> m"),
    ("unembed.W_U", "unembed.W_U", "m v -> m v"),
)


def slots(table: Table, n_layers: int) -> dict[str, Slot]:
    """Where each canonical weight of a model with so many layers is kept.

    >>> slots(PAPER, 1)["blocks.0.attn.W_O"]
    Slot(key='blocks.0.attn.W_O', pattern='m (h d) -> h d m')
    """
    return {
        name.format(layer): Slot(key.format(layer), pattern)
        for name, key, pattern in table
        for layer in (range(n_layers) if "{}" in name else (0,))
    }


def to_foreign(weights: Mapping[str, Tensor], table: Table, n_layers: int) -> Weights:
    """Canonical weights under a layout's keys and shapes; others are left out."""
    return {
        slot.key: slot.foreign(weights[name]).contiguous()
        for name, slot in slots(table, n_layers).items()
        if name in weights
    }
