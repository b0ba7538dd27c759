"""What does a stack of transformer blocks compute, as it is and with activations changed?

A forward is a row of stages, each an activation by its hook name and how it follows from earlier
ones: embeddings, then attention and MLP of every block, then the unembedding. With x the stream
and norm(x) = x where there is none:

pre    x + attention(norm(x)), then x + mlp(norm(x)); the unembedding reads norm(x)
post   norm(x + attention(x)), then norm(x + mlp(x)): torch.nn.TransformerEncoderLayer's default

LN     (x - mean) / scale * w + b, scale = sqrt(mean((x - mean)^2) + eps) over d_model
RMS    x / scale * w, scale = sqrt(mean(x^2) + eps)
LNPre, RMSPre   the same without w and b, which are folded into what follows

With norms of position "post", `hook_resid_mid` and `hook_resid_post` are the stream after its norm.
Shapes are TransformerLens': [n, position, ...], patterns and scores [n, n_heads, query, key].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.architecture import ACTIVATIONS, attention_softmax
from grokinterp.models.hooked_module import LOGITS
from grokinterp.models.layers import Visit, affine, recorder

Found = dict[str, Tensor]  # activations that later ones follow from, by name
Stages = dict[str, Callable[[Mapping[str, Tensor]], Tensor]]  # in the order of the forward

OF_QUERIES = ("hook_pattern", "hook_attn_scores")  # names of what has an axis of query positions


def is_hook(name: str) -> bool:
    """Whether a stage is one of TransformerLens' hook points, and no number in between."""
    return name.rpartition(".")[2].startswith("hook_")


def embedding(w: Mapping[str, Tensor], tokens: Int[Tensor, "n n_tokens"]) -> Stages:
    """From tokens to the stream that the first block reads; positions count from the first."""
    n, n_tokens = tokens.shape
    return {
        "hook_embed": lambda _: _rows(w["embed.W_E"], tokens),
        "hook_pos_embed": lambda _: w["pos_embed.W_pos"][:n_tokens].expand(n, -1, -1),
        stream_into(0): lambda f: f["hook_embed"] + f["hook_pos_embed"],
    }


def stream_into(layer: int) -> str:
    """Name of the stream that a block reads."""
    return f"blocks.{layer}.hook_resid_pre"


def block(w: Mapping[str, Tensor], a: Any, layer: int, *, n_queries: int | None = None) -> Stages:
    """From the stream that a block reads to the one that it leaves; `a` is the architecture.

    With `n_queries`, the stream goes on at the last so many positions alone.
    """
    at, read = f"blocks.{layer}.", stream_into(layer)
    middle, end = f"{at}hook_resid_mid", f"{at}hook_resid_post"
    if a.attn_only:
        return _part(w, a, f"{at}ln1", read, f"{at}hook_attn_out", end,
                     lambda x: _attention(w, a, at, x, n_queries))  # fmt: skip
    return {
        **_part(w, a, f"{at}ln1", read, f"{at}hook_attn_out", middle,
                lambda x: _attention(w, a, at, x, n_queries)),
        **_part(w, a, f"{at}ln2", middle, f"{at}hook_mlp_out", end,
                lambda x: _mlp(w, a, at, x)),
    }  # fmt: skip


def unembedding(w: Mapping[str, Tensor], a: Any) -> Stages:
    """From the stream that the last block leaves to the logits."""
    read = f"blocks.{a.n_layers - 1}.hook_resid_post"
    normed = _norm(w, a, "ln_final", lambda f: f[read]) if a.final_norm else {}
    x = "ln_final" if normed else read
    return {**normed, LOGITS: lambda f: _affine(f[x], w["unembed.W_U"], w["unembed.b_U"])}


def hook_names(a: Any) -> tuple[str, ...]:
    """Names of all activations of an architecture, in the order of the forward."""
    layers = range(a.n_layers)
    names = chain(
        embedding({}, torch.zeros(1, 1, dtype=torch.int64)),
        *([stream_into(layer), *block({}, a, layer)] for layer in layers),
        unembedding({}, a),
    )
    return tuple(dict.fromkeys(name for name in names if is_hook(name)))


def before_last_block(
    w: Mapping[str, Tensor], a: Any, tokens: Int[Tensor, "n n_tokens"], visit: Visit
) -> Float[Tensor, "n n_tokens d_model"]:
    """The stream that the last block reads."""
    x = _run(embedding(w, tokens), {}, visit)[stream_into(0)]
    for layer in range(a.n_layers - 1):
        found = _run(block(w, a, layer), {stream_into(layer): x}, visit)
        x = visit(stream_into(layer + 1), found[f"blocks.{layer}.hook_resid_post"])
    return x


def logits(
    w: Mapping[str, Tensor],
    a: Any,
    tokens: Int[Tensor, "n n_tokens"],
    visit: Visit,
    *,
    n_queries: int | None = None,
) -> Float[Tensor, "n positions d_vocab_out"]:
    """Logits at all positions, or at the last `n_queries`, where alone the last block then is.

    Every activation goes on as `visit` returns it. Differentiable in the weights `w` (canonical
    names).
    """
    last = a.n_layers - 1
    found = {stream_into(last): before_last_block(w, a, tokens, visit)}
    stages = {**block(w, a, last, n_queries=n_queries), **unembedding(w, a)}
    return _run(stages, found, visit)[LOGITS]


def at_last(activation: Tensor, name: str = "") -> Tensor:
    """An activation at the answer position, the last; of patterns and scores the last query."""
    return activation[:, :, -1] if name.endswith(OF_QUERIES) else activation[:, -1]


def _run(stages: Stages, found: Found, visit: Visit) -> Found:
    for name, compute in stages.items():
        activation = compute(found)
        found[name] = visit(name, activation) if is_hook(name) else activation
    return found


def _part(
    w: Mapping[str, Tensor],
    a: Any,
    norm: str,
    read: str,
    out: str,
    written: str,
    inner: Callable[[str], Stages],
) -> Stages:
    """Attention or MLP (`inner` of what it reads) with its norm and the stream around it."""

    def added(f: Mapping[str, Tensor]) -> Tensor:
        return f[read][:, -f[out].shape[1] :] + f[out]

    if a.norm_position == "post":
        return {**inner(read), **_norm(w, a, norm, added), written: lambda f: f[norm]}
    return {**_norm(w, a, norm, lambda f: f[read]), **inner(norm), written: added}


def _norm(
    w: Mapping[str, Tensor], a: Any, name: str, read: Callable[[Mapping[str, Tensor]], Tensor]
) -> Stages:
    kind, centred, scale = a.normalization_type, f"{name}.centred", f"{name}.hook_scale"
    if kind is None:
        return {name: read}

    def gained(f: Mapping[str, Tensor]) -> Tensor:
        x = f[f"{name}.hook_normalized"]
        if kind in ("LNPre", "RMSPre"):
            return x
        return x * w[f"{name}.w"] + w[f"{name}.b"] if kind == "LN" else x * w[f"{name}.w"]

    def without_mean(f: Mapping[str, Tensor]) -> Tensor:
        x = read(f)
        return x - x.mean(dim=-1, keepdim=True) if kind in ("LN", "LNPre") else x

    return {
        centred: without_mean,
        scale: lambda f: (f[centred].square().mean(dim=-1, keepdim=True) + a.eps).sqrt(),
        f"{name}.hook_normalized": lambda f: f[centred] / f[scale],
        name: gained,
    }


def normed(w: Mapping[str, Tensor], a: Any, name: str, x: Tensor) -> Tensor:
    """What a norm, such as "blocks.0.ln1", makes of vectors [..., d_model]."""
    return _run(_norm(w, a, name, lambda _: x), {}, recorder(None))[name]


def _attention(w: Mapping[str, Tensor], a: Any, at: str, x: str, n_queries: int | None) -> Stages:
    at = f"{at}attn."
    q, k, v, scores, pattern, z = (
        f"{at}hook_{name}" for name in ("q", "k", "v", "attn_scores", "pattern", "z")
    )

    def heads(x: Tensor, which: str) -> Float[Tensor, "n positions n_heads d_head"]:
        matrix = w[f"{at}W_{which}"].transpose(0, 1).flatten(1)
        found = _affine(x, matrix, w[f"{at}b_{which}"].flatten())
        return found.unflatten(2, (a.n_heads, a.d_head))

    def scored(f: Mapping[str, Tensor]) -> Float[Tensor, "n n_heads query key"]:
        # With few positions, a product and a sum are faster than a batch of tiny matrices.
        found = (f[q][:, :, None] * f[k][:, None]).sum(dim=-1).movedim(-1, 1) / a.d_head**0.5
        n_from, n_to = found.shape[-2:]
        if a.attention_dir == "bidirectional" or n_from == 1:
            return found
        later = torch.ones(n_from, n_to, dtype=torch.bool, device=found.device)
        return found.masked_fill(later.triu(1 + n_to - n_from), -torch.inf)

    def mixed(f: Mapping[str, Tensor]) -> Float[Tensor, "n query n_heads d_head"]:
        shares = f[pattern].movedim(1, -1)[..., None].unbind(2)  # of every key position
        values = f[v][:, None].unbind(2)
        found = shares[0] * values[0]
        for share, value in zip(shares[1:], values[1:], strict=True):
            found = found.addcmul(share, value)
        return found

    def blended(f: Mapping[str, Tensor]) -> Float[Tensor, "n n_heads query key"]:
        found = attention_softmax(f[scores], dim=-1)
        rate = a.attention_rate
        return found if rate == 1 else rate * found + (1 - rate)

    return {
        q: lambda f: heads(f[x] if n_queries is None else f[x][:, -n_queries:], "Q"),
        k: lambda f: heads(f[x], "K"),
        v: lambda f: heads(f[x], "V"),
        scores: scored,
        pattern: blended,
        z: mixed,
        at.replace("attn.", "hook_attn_out"): lambda f: _affine(
            f[z].flatten(2), w[f"{at}W_O"].flatten(0, 1), w[f"{at}b_O"]
        ),
    }


def _mlp(w: Mapping[str, Tensor], a: Any, at: str, x: str) -> Stages:
    mlp, activation = f"{at}mlp.", ACTIVATIONS[a.act_fn]
    pre, post = f"{mlp}hook_pre", f"{mlp}hook_post"
    return {
        pre: lambda f: _affine(f[x], w[f"{mlp}W_in"], w[f"{mlp}b_in"]),
        post: lambda f: activation(f[pre]),
        f"{at}hook_mlp_out": lambda f: _affine(f[post], w[f"{mlp}W_out"], w[f"{mlp}b_out"]),
    }


def _rows(table: Tensor, tokens: Int[Tensor, "n n_tokens"]) -> Float[Tensor, "n n_tokens d_model"]:
    # index_select, whose backward is far faster on a CPU than that of table[tokens].
    return table.index_select(0, tokens.flatten()).unflatten(0, tokens.shape)


def _affine(
    x: Float[Tensor, "n positions d_in"], matrix: Tensor, bias: Tensor
) -> Float[Tensor, "n positions d_out"]:
    """The affine layer at every position, as one product of many rows."""
    return affine(x.flatten(0, 1), matrix, bias).unflatten(0, x.shape[:2])


@dataclass(frozen=True)
class Edit:
    """A function of an activation, callable as a TransformerLens hook: `edit(tensor, hook)`.

    It treats every position by itself, so that it means the same on all positions and on the answer
    position alone. One that `reads_only` returns what it is given: nothing changes after it.
    A `late` one writes to the stream that follows a hook point: it comes after the others there.
    """

    change: Callable[[Tensor], Tensor]
    reads_only: bool = False
    late: int = 0

    def __call__(self, tensor: Tensor, hook: object = None) -> Tensor:
        """The changed activation; the one given is left as it is."""
        return self.change(tensor)


class LastBlock:
    """The stages of one model on fixed inputs, with the activations of its own forward kept.

    An ablation changes one activation and asks for the logits. Everything before it is as it was,
    and after the last attention only the answer position is read: so the stages up to the change
    are computed once, and shared by every ablation that starts after them.

    Activations have TransformerLens' shapes with the answer as the only query position: [n, 1, ...]
    or, for attention patterns, [n, n_heads, 1, n_ctx]; what attention reads from (embeddings, keys,
    values) has all positions. For a model of several layers the stages start at the input of its
    last block, `resid_pre`; with one layer they start at the embedding.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        architecture: Any,
        tokens: Int[Tensor, "n n_ctx"],
        *,
        resid_pre: Float[Tensor, "n n_ctx d_model"] | None = None,
    ) -> None:
        last = architecture.n_layers - 1
        if resid_pre is None:
            before = embedding(weights, tokens)
        else:
            before = {stream_into(last): lambda _: resid_pre}
        self._stages: Stages = {
            **before,
            **block(weights, architecture, last, n_queries=1),
            **unembedding(weights, architecture),
        }
        self._names = list(self._stages)
        self._own: dict[str, Tensor] = {}
        for name, compute in self._stages.items():
            self._own[name] = compute(self._own)

    def has(self, name: str) -> bool:
        """Whether a hook name is one of the stages."""
        return name in self._stages and is_hook(name)

    def logits(self, hooks: Sequence[tuple[str, Edit]] = ()) -> Float[Tensor, "n d_vocab_out"]:
        """Logits at the answer position with these edits made, in the order of the forward.

        Only what lies after the first edit is computed again.
        """
        changing = [self._names.index(name) for name, edit in hooks if not edit.reads_only]
        first = min(changing, default=len(self._names))
        found = dict(self._own)
        for place, (name, compute) in enumerate(self._stages.items()):
            if place > first:
                found[name] = compute(found)
            for hooked, edit in hooks:
                if hooked == self._names[place]:
                    found[name] = edit(found[name])
        return found[LOGITS][:, -1]
