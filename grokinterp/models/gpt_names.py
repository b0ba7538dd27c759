"""The names that small GPTs give their weights, brought to those of TransformerBridge.

Token and position embedding, LayerNorms, attention (one fused query-key-value matrix or three), a
two-layer MLP, unembedding: as in nanoGPT, minGPT, GPT-2 and most training loops of one's own.
"""

import re

from torch import Tensor

from grokinterp.errors import InputError

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
