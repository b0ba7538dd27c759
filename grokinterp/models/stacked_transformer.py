"""The answer-position forward of several one-layer transformers at once, and its gradients.

Weights have a leading axis of members: `blocks.0.attn.W_Q` [members, n_heads, d_model, d_head].
So have inputs and labels, whose rows may differ from member to member. Operation by operation this
is `answer_position` and `answer_gradients`, so that a member gets the numbers of its single run, if
possible to the last bit; change them together. Nothing depends on the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.answer_gradients import TABLES_READ
from grokinterp.models.answer_position import BLOCK, within_block
from grokinterp.models.architecture import ACTIVATIONS, Weights
from grokinterp.models.hidden import before_activation
from grokinterp.models.member_axis import (
    Lookup,
    affine,
    affine_gradients,
    flat,
    mean_loss_gradients,
    product,
    softmax_over_places,
)


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
