"""Names and shapes under which others keep the weights of such a transformer.

A layout is a table: canonical name, foreign key, and the einops pattern that takes the foreign
tensor to the canonical one (read from right to left, it takes it back). `{}` is the layer; v is the
vocabulary, m d_model, h heads, d d_head, f d_mlp, c the context.

BRIDGE   TransformerBridge of TransformerLens 4 (torch.nn.Linear keeps its matrices transposed)
PAPER    released code of Nanda et al. 2023 (arXiv 2301.05217), and of Zhong et al. 2023 (arXiv
         2306.17844): HookedTransformer's names with other shapes
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.models.architecture import Weights

# MERGED models.gpt_names: The names that small GPTs give their weights, brought to those of TransformerBridge.
#
# Token and position embedding, LayerNorms, attention (one fused query-key-value matrix or three), a
# two-layer MLP, unembedding: as in nanoGPT, minGPT, GPT-2 and most training loops of one's own.


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


_KIND = r"(?P<kind>weight|bias|gamma|beta|w|b)"
_GPT_ATTENTION = r"(self_)?att(n|ention)"
_GPT_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"(wte|(tok|token)(_?emb\w*)?|embed\w*)\.{_KIND}", "embed"),
        (rf"(wpe|pos(ition)?(al)?_?emb\w*)(\.{_KIND})?", "pos_embed"),
        (rf"(ln|norm)_?1\.{_KIND}", "ln1"),
        (rf"(ln|norm)_?2\.{_KIND}", "ln2"),
        (rf"{_GPT_ATTENTION}\.(qkv\w*|c_attn|Wqkv|in_proj)[._]{_KIND}", "attn.qkv"),
        *(
            (rf"{_GPT_ATTENTION}\.([Ww]_?)?({x}|{word})(_proj|_lin(ear)?)?\.{_KIND}", f"attn.{x}")
            for x, word in (("q", "query"), ("k", "key"), ("v", "value"))
        ),
        (rf"{_GPT_ATTENTION}\.(proj|c_proj|out_proj|o_proj|o|out)\.{_KIND}", "attn.o"),
        (rf"(mlp|ffn?|feed_forward)\.(net\.)?(up|c_fc|fc1|fc|fc_in|in|0)\.{_KIND}", "mlp.in"),
        (rf"(mlp|ffn?|feed_forward)\.(net\.)?(down|c_proj|fc2|proj|fc_out|out|2)\.{_KIND}",
         "mlp.out"),
        (rf"(ln_?f|ln_final|final_norm|norm_?f?)\.{_KIND}", "ln_final"),
        (rf"(unembed|lm_head|head|output|out)\.{_KIND}", "unembed"),
    )
)  # fmt: skip


def gpt_name(name: str) -> str | None:
    """The bridge's name of a weight in a small GPT (its fused matrix as `attn.qkv`).

    >>> gpt_name("transformer.h.0.attn.c_attn.weight".removeprefix("transformer."))
    'blocks.0.attn.qkv.weight'
    >>> gpt_name("layers.1.self_attn.q_proj.bias")
    'blocks.1.attn.q.bias'
    """
    block = re.fullmatch(r"(blocks|h|layers)\.(\d+)\.(.+)", name)
    prefix, inner = (f"blocks.{int(block[2])}.", block[3]) if block else ("", name)
    for pattern, ours in _GPT_NAMES:
        if found := pattern.fullmatch(inner):
            kind = found["kind"] or "weight"
            return f"{prefix}{ours}.{'bias' if kind in ('bias', 'beta', 'b') else 'weight'}"
    return None


def as_bridge(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value matrices apart; every matrix [out, in] as torch.nn.Linear has it.

    `found` are weights under the names of `gpt_name`. An unembedding that is missing is tied.
    """
    split: dict[str, Tensor] = {}
    embedding, fused = found.get("embed.weight"), found.get("blocks.0.attn.qkv.weight")
    if embedding is None or embedding.ndim != 2 or (fused is not None and fused.ndim != 2):
        raise InputError("a token embedding or a query-key-value matrix is missing, or no matrix.")
    # GPT-2's Conv1D keeps [in, out]; every other code [out, in].
    transposed = fused is not None and fused.shape[1] != embedding.shape[1]
    for name, tensor in found.items():
        if (
            transposed
            and tensor.ndim == 2
            and re.fullmatch(r"blocks\.\d+\.(attn|mlp)\.\w+\.weight", name)
        ):
            tensor = tensor.T
        if name == "pos_embed.weight" and tensor.ndim == 3 and len(tensor) == 1:
            tensor = tensor[0]
        if ".attn.qkv." in name and tensor.ndim and len(tensor) % 3 == 0:
            for side, part in zip("qkv", tensor.chunk(3), strict=True):
                split[name.replace("qkv", side)] = part
        else:
            split[name] = tensor
    if "unembed.weight" not in split:
        split["unembed.weight"] = embedding
    return split
