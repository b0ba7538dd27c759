"""Several models of one shape, computed side by side: which kinds can be, their logits, gradients.

Stacked weights have a leading axis of members. On a CPU a step with many rows is all arithmetic,
which a batch does not make faster: there the members are computed one after the other, by the
functions of a single model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models import answer_position, kinds, mlp
from grokinterp.models.answer_position import BLOCK, TABLES_READ, within_block
from grokinterp.models.architecture import ACTIVATIONS, Architecture, Weights
from grokinterp.models.kinds import Shape
from grokinterp.models.layers import MIN_ROWS, before_activation, behind
from grokinterp.models.member_axis import (
    Lookup,
    affine,
    affine_gradients,
    flat,
    mean_loss_gradients,
    product,
    softmax_over_places,
)
from grokinterp.models.mlp import MLPArchitecture

# MERGED models.stacked_mlp: The forward of several multilayer perceptrons at once, and its gradients.
#
# Weights have a leading axis of members: `blocks.0.mlp.W_in` [members, 2p, width]. So have inputs and
# labels, whose rows may differ from member to member. The numbers are those of `mlp_forward`.
# MERGED models.stacked_transformer: The answer-position forward of several one-layer transformers at once, and its gradients.
#
# Weights have a leading axis of members: `blocks.0.attn.W_Q` [members, n_heads, d_model, d_head].
# So have inputs and labels, whose rows may differ from member to member. Operation by operation this
# is `answer_position` and `answer_gradients`, so that a member gets the numbers of its single run, if
# possible to the last bit; change them together. Nothing depends on the device.


FIRST = "blocks.0.mlp.W_in", "blocks.0.mlp.b_in"


def mlp_logits(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n 2"],
    *,
    architecture: MLPArchitecture,
) -> Float[Tensor, "members n n_classes"]:
    """Logits of operand pairs (a, b)."""
    return _forward(weights, inputs, architecture)[-1]


@torch.no_grad()
def mlp_gradients(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n 2"],
    labels: Int[Tensor, "members n"],
    *,
    architecture: MLPArchitecture,
) -> Weights:
    """Gradient of each member's mean cross-entropy by its own weights, without autograd."""
    embedded, *layers, logits = _forward(weights, inputs, architecture)
    found: Weights = {}
    upstream = mean_loss_gradients(logits, labels)
    for layer in reversed(range(architecture.n_layers)):
        pre, post = layers[2 * layer : 2 * layer + 2]
        matrix, bias = behind(layer, architecture.n_layers)
        found[matrix], found[bias] = affine_gradients(post, upstream)
        upstream = before_activation(
            product(upstream, weights[matrix].mT), pre, act_fn=architecture.act_fn
        )
    matrix, bias = FIRST
    if architecture.d_embed:
        found[matrix], found[bias] = affine_gradients(embedded, upstream)
        rows = product(upstream, weights[matrix].mT).unflatten(2, (2, architecture.d_embed))
        found["embed.W_E"] = torch.zeros_like(weights["embed.W_E"])
        lookup = _embedding(weights, inputs, architecture.p)
        lookup.add_gradient(found["embed.W_E"], rows.flatten(1, 2))
    else:
        found[bias] = upstream.sum(dim=1)
        found[matrix] = torch.zeros_like(weights[matrix])
        for lookup in _two_hot(weights[matrix], inputs, architecture.p):
            lookup.add_gradient(found[matrix], upstream)
    return {name: found[name] for name in weights}


def _forward(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n 2"],
    architecture: MLPArchitecture,
) -> list[Tensor]:
    """What the first layer reads where that is embedded, pre and post of every layer, logits."""
    matrix, bias = (weights[name] for name in FIRST)
    if architecture.d_embed:
        rows = _embedding(weights, inputs, architecture.p).read()
        embedded = rows.view(*inputs.shape[:2], 2 * architecture.d_embed)
        pre = affine(embedded, matrix, bias)
    else:
        embedded = inputs
        first, second = _two_hot(matrix, inputs, architecture.p)
        pre = first.read().add_(second.read()).add_(bias[:, None])
    found = [embedded]
    for layer in range(architecture.n_layers):
        post = ACTIVATIONS[architecture.act_fn](pre)
        found += [pre, post]
        pre = affine(post, *(weights[name] for name in behind(layer, architecture.n_layers)))
    return [*found, pre]


def _embedding(weights: Mapping[str, Tensor], inputs: Int[Tensor, "members n 2"], p: int) -> Lookup:
    return Lookup(weights["embed.W_E"], flat(inputs.flatten(1), p))


def _two_hot(
    matrix: Float[Tensor, "members two_p width"], inputs: Int[Tensor, "members n 2"], p: int
) -> list[Lookup]:
    """What each operand adds to every neuron."""
    return [Lookup(matrix, flat(inputs[..., i] + i * p, 2 * p)) for i in (0, 1)]


def transformer_logits(
    weights: Mapping[str, Tensor], tokens: Int[Tensor, "members n n_ctx"], *, act_fn: str
) -> Float[Tensor, "members n d_vocab_out"]:
    """Logits at the last position of `[a, b, "="]` (one third token for all) or `[a, b]`."""
    w = within_block(weights)
    return _answers(_tables(w, tokens), w, tokens.shape[1], act_fn).logits


def transformer_gradients(
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "members n n_ctx"],
    labels: Int[Tensor, "members n"],
    *,
    act_fn: str,
) -> Weights:
    """Gradient of each member's mean cross-entropy by its own weights; contiguous."""
    leaves = {name: weights[name].detach().requires_grad_() for name in TABLES_READ}
    with torch.enable_grad():
        tables = _tables(within_block({**weights, **leaves}), tokens)
    with torch.no_grad():
        found, of_tables = _row_gradients(tables, within_block(weights), labels, act_fn)
    torch.autograd.backward([lookup.table for lookup in tables.all()], of_tables)
    for name, leaf in leaves.items():
        gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        found[name.removeprefix(BLOCK)] = gradient
    return {name: found[name.removeprefix(BLOCK)].contiguous() for name in weights}


@dataclass(frozen=True)
class _Tables:
    """All that attention at the answer position reads, a lookup a key position."""

    scores: list[Lookup]  # [members, rows, n_heads]
    values: list[Lookup]  # [members, rows, n_heads, d_head]
    resid_pre: Lookup  # [members, rows, d_model]

    def all(self) -> list[Lookup]:
        return [*self.scores, *self.values, self.resid_pre]


def _tables(w: Mapping[str, Tensor], tokens: Int[Tensor, "members n n_ctx"]) -> _Tables:
    embed, position = w["embed.W_E"], w["pos_embed.W_pos"]
    d_vocab = embed.shape[1]
    _, n_heads, d_model, d_head = w["attn.W_Q"].shape
    a, b = (flat(tokens[..., operand], d_vocab) for operand in (0, 1))

    def heads(
        x: Float[Tensor, "members rows d_model"], which: str
    ) -> Float[Tensor, "members rows n_heads d_head"]:
        """Queries, keys or values of all heads, as one matrix product a member."""
        matrix = w[f"attn.W_{which}"].transpose(1, 2).reshape(-1, d_model, n_heads * d_head)
        found = affine(x, matrix, w[f"attn.b_{which}"].flatten(1))
        return found.unflatten(2, (n_heads, d_head))

    first, second = embed + position[:, 0, None], embed + position[:, 1, None]
    key_a, key_b = heads(first, "K"), heads(second, "K")
    values = [Lookup(heads(first, "V"), a), Lookup(heads(second, "V"), b)]
    scale = d_head**-0.5
    if tokens.shape[2] == 3:
        last = embed.index_select(1, tokens[0, 0, 2:]) + position[:, 2, None]
        query = heads(last, "Q") * scale
        scores = [
            Lookup((key_a * query).sum(-1), a),
            Lookup((key_b * query).sum(-1), b),
            Lookup((heads(last, "K") * query).sum(-1)),
        ]
        values.append(Lookup(heads(last, "V")))
        return _Tables(scores, values, Lookup(last))
    query = heads(second, "Q") * scale
    # A member at a time: a batch over members and heads would be laid out, and rounded, otherwise.
    every_pair = torch.stack(
        [
            torch.einsum("bhd,ahd->abh", each_query, each_key).flatten(0, 1)
            for each_query, each_key in zip(query, key_a, strict=True)
        ]
    )
    pairs = flat(tokens[..., 0] * d_vocab + tokens[..., 1], d_vocab**2)
    scores = [Lookup(every_pair, pairs), Lookup((key_b * query).sum(-1), b)]
    return _Tables(scores, values, Lookup(second, b))


@dataclass(frozen=True)
class _Answers:
    """What the forward leaves for the gradients."""

    pattern: Float[Tensor, "members n_ctx n n_heads"]
    z: Float[Tensor, "members n n_heads d_head"]
    resid_mid: Float[Tensor, "members n d_model"]
    pre: Float[Tensor, "members n d_mlp"]
    post: Float[Tensor, "members n d_mlp"]
    resid_post: Float[Tensor, "members n d_model"]
    logits: Float[Tensor, "members n d_vocab_out"]


def _answers(tables: _Tables, w: Mapping[str, Tensor], n: int, act_fn: str) -> _Answers:
    scores = torch.stack([lookup.read().expand(-1, n, -1) for lookup in tables.scores], dim=1)
    pattern = softmax_over_places(scores)
    z = pattern[:, 0, ..., None] * tables.values[0].read()
    for place, lookup in enumerate(tables.values[1:], start=1):
        z = z.addcmul(pattern[:, place, ..., None], lookup.read())
    attn_out = affine(z.flatten(2), w["attn.W_O"].flatten(1, 2), w["attn.b_O"])
    resid_mid = tables.resid_pre.read() + attn_out
    pre = affine(resid_mid, w["mlp.W_in"], w["mlp.b_in"])
    post = ACTIVATIONS[act_fn](pre)
    resid_post = resid_mid + affine(post, w["mlp.W_out"], w["mlp.b_out"])
    logits = affine(resid_post, w["unembed.W_U"], w["unembed.b_U"])
    return _Answers(pattern, z, resid_mid, pre, post, resid_post, logits)


def _row_gradients(
    tables: _Tables, w: Mapping[str, Tensor], labels: Int[Tensor, "members n"], act_fn: str
) -> tuple[Weights, list[Tensor]]:
    """Gradients of the weights behind the tables (names within the block), and of the tables."""
    seen = _answers(tables, w, labels.shape[1], act_fn)
    found: Weights = {}
    by_logits = mean_loss_gradients(seen.logits, labels)
    found["unembed.W_U"], found["unembed.b_U"] = affine_gradients(seen.resid_post, by_logits)
    resid = product(by_logits, w["unembed.W_U"].mT)
    found["mlp.W_out"], found["mlp.b_out"] = affine_gradients(seen.post, resid)
    pre = before_activation(product(resid, w["mlp.W_out"].mT), seen.pre, act_fn=act_fn)
    found["mlp.W_in"], found["mlp.b_in"] = affine_gradients(seen.resid_mid, pre)
    resid = product(pre, w["mlp.W_in"].mT).add_(resid)
    matrix, found["attn.b_O"] = affine_gradients(seen.z.flatten(2), resid)
    found["attn.W_O"] = matrix.view_as(w["attn.W_O"])
    by_z = product(resid, w["attn.W_O"].flatten(1, 2).mT).view_as(seen.z)

    by_pattern = torch.stack([(by_z * lookup.read()).sum(dim=3) for lookup in tables.values], dim=1)
    by_values = [by_z * at_key[..., None] for at_key in seen.pattern.unbind(dim=1)]
    kept = (by_pattern * seen.pattern).sum(dim=1, keepdim=True)
    by_scores = seen.pattern * (by_pattern - kept)
    parts = (*by_scores.unbind(dim=1), *by_values, resid)
    of_tables = [lookup.table.new_zeros(lookup.table.shape) for lookup in tables.all()]
    for total, lookup, part in zip(of_tables, tables.all(), parts, strict=True):
        lookup.add_gradient(total, part)
    return found, of_tables


# Numbers of one layer's activations that are computed at once: 4 MB on a CPU, where more would
# fall out of its cache, and 1 GB elsewhere.
BLOCK_SIZE = {"cpu": 2**20}
BLOCK_SIZE_ELSEWHERE = 2**28


def why_not_stacked(architecture: Shape, n_tokens: int) -> str | None:
    """Why models of this shape, on inputs of `n_tokens`, cannot be computed side by side, or None.

    >>> why_not_stacked(MLPArchitecture(p=7, widths=(8,), n_classes=7), 2)
    """
    if isinstance(architecture, MLPArchitecture):
        return None
    if not isinstance(architecture, Architecture):
        return f"models of kind {architecture.kind} are not batched"
    if architecture.n_layers > 1:
        return f"transformers of {architecture.n_layers} layers are not batched, only of one"
    if architecture.normalization_type is not None:
        return "transformers with LayerNorm are not batched"
    if architecture.attention_rate != 1 or not answer_position.applies_to(architecture, n_tokens):
        return f"{architecture} is not batched"
    return None


def stack(members: Sequence[Mapping[str, Tensor]]) -> Weights:
    """The weights of several models under a leading axis of members.

    >>> stack([{"W": torch.zeros(2)}, {"W": torch.ones(2)}])["W"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


def unstack(weights: Mapping[str, Tensor]) -> list[Weights]:
    """The weights of each model of a stack: the same memory."""
    n_members = len(next(iter(weights.values())))
    return [{name: weight[i] for name, weight in weights.items()} for i in range(n_members)]


def stacked_logits(
    architecture: Shape, weights: Mapping[str, Tensor], inputs: Int[Tensor, "members n tokens"]
) -> Float[Tensor, "members n n_classes"]:
    """Answer logits of every member on its inputs."""
    if _singly(inputs):
        each = [
            kinds.QuickForward(architecture, w)(rows)
            for w, rows in zip(unstack(weights), inputs, strict=True)
        ]
        return torch.stack([logits for logits in each if logits is not None])
    function = _functions(architecture)[0]
    return torch.cat(
        [function(w, inputs[block]) for block, w in _blocks(architecture, weights, inputs)]
    )


def stacked_gradients(
    architecture: Shape,
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n tokens"],
    labels: Int[Tensor, "members n"],
) -> Weights:
    """Gradient of each member's mean cross-entropy by its own weights; contiguous."""
    _, function, single = _functions(architecture)
    if _singly(inputs):
        return stack([single(*each) for each in zip(unstack(weights), inputs, labels, strict=True)])
    found = [
        function(w, inputs[block], labels[block])
        for block, w in _blocks(architecture, weights, inputs)
    ]
    if len(found) == 1:
        return found[0]
    return {name: torch.cat([part[name] for part in found]) for name in weights}


def _functions(
    architecture: Shape,
) -> tuple[Callable[..., Tensor], Callable[..., Weights], Callable[..., Weights]]:
    """Logits and gradients of a stack, gradients of a single model."""
    if isinstance(architecture, MLPArchitecture):
        return (
            partial(mlp_logits, architecture=architecture),
            partial(mlp_gradients, architecture=architecture),
            partial(mlp.gradients, architecture=architecture),
        )
    assert isinstance(architecture, Architecture)
    act_fn = architecture.act_fn
    return (
        partial(transformer_logits, act_fn=act_fn),
        partial(transformer_gradients, act_fn=act_fn),
        partial(answer_position.gradients, act_fn=act_fn),
    )


def _singly(inputs: Int[Tensor, "members n tokens"]) -> bool:
    return inputs.device.type == "cpu" and inputs.shape[1] >= MIN_ROWS


def _blocks(
    architecture: Shape, weights: Mapping[str, Tensor], inputs: Int[Tensor, "members n tokens"]
) -> Iterator[tuple[slice, Mapping[str, Tensor]]]:
    """Members that are computed at once, and their weights."""
    n_members, n_rows = inputs.shape[:2]
    widths = architecture.widths if isinstance(architecture, MLPArchitecture) else ()
    widest = max(widths or (getattr(architecture, "d_mlp", 1),))
    most = BLOCK_SIZE.get(inputs.device.type, BLOCK_SIZE_ELSEWHERE)
    size = max(1, most // (n_rows * widest))
    for first in range(0, n_members, size):
        block = slice(first, first + size)
        yield block, {name: weight[block] for name, weight in weights.items()}
