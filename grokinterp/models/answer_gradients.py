"""Gradients of a one-layer transformer's loss, written out where there is a row per input.

What has a row per token (keys, values, scores: `attention_tables`) is cheap and left to autograd;
what has a row per input is nearly all of the arithmetic, and is done in as few passes as there are
operators for.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.affine import affine, product_over_rows
from grokinterp.models.answer_position import (
    BLOCK,
    AttentionTables,
    answer_from_tables,
    attention_tables,
    last_token,
)
from grokinterp.models.architecture import Weights, attention_softmax
from grokinterp.models.hidden import before_activation, mean_loss_gradient, where_positive

BLOCK_ROWS = 4096  # of activations at once: more would not fit beside each other in memory
TABLES_READ = (
    "embed.W_E",
    "pos_embed.W_pos",
    *(f"{BLOCK}attn.{x}_{y}" for x in "Wb" for y in "QKV"),
)


def gradients(
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "n n_ctx"],
    labels: Int[Tensor, " n"],
    *,
    act_fn: str = "relu",
    attention_rate: float = 1.0,
) -> Weights:
    """Gradient of the mean cross-entropy over these rows by every weight.

    The same as autograd's through `answer_logits`. It stays exact when the loss is 1e-8, and has
    the precision of the weights.
    """
    leaves = {name: weights[name].detach().requires_grad_() for name in TABLES_READ}
    with torch.enable_grad():
        tables = attention_tables({**weights, **leaves}, last_token(tokens))
    lookups = (*tables.scores, *tables.values, tables.resid_pre)
    found: Weights = {}
    of_tables = [torch.zeros_like(lookup.table) for lookup in lookups]
    with torch.no_grad():
        for first in range(0, len(labels), BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            _add_rows(
                found, of_tables, tables, weights, tokens[rows], labels[rows],
                act_fn=act_fn, attention_rate=attention_rate, share=1 / len(labels),
            )  # fmt: skip
    torch.autograd.backward([lookup.table for lookup in lookups], of_tables)
    for name, leaf in leaves.items():
        found[name] = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
    return {name: found[name] for name in weights}


def _add_rows(
    found: Weights,
    of_tables: list[Tensor],
    tables: AttentionTables,
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "n n_ctx"],
    labels: Int[Tensor, " n"],
    *,
    act_fn: str,
    attention_rate: float,
    share: float,
) -> None:
    """Add some rows' part to the gradients by weights and by the tables that these rows read."""
    cache: dict[str, Tensor] = {}
    logits = answer_from_tables(
        tables, weights, tokens, act_fn=act_fn, attention_rate=attention_rate, cache=cache,
        keep_pre=False,
    )  # fmt: skip

    def add(name: str, part: Tensor) -> None:
        found[name] = found[name].add_(part) if name in found else part

    def through(layer: str, x: Tensor, upstream: Float[Tensor, "n d_out"]) -> Float[Tensor, "n d"]:
        """Gradient by the input x of an affine layer; those of its matrix and bias are added."""
        path, which = layer.rsplit(".", 1)
        matrix = weights[f"{path}.W_{which}"]
        add(f"{path}.W_{which}", product_over_rows(x, upstream).reshape(matrix.shape))
        add(f"{path}.b_{which}", upstream.sum(dim=0))
        return affine(upstream, matrix.flatten(0, -2).T)

    by_logits = mean_loss_gradient(logits, labels).mul_(len(labels) * share)
    resid = through("unembed.U", cache[f"{BLOCK}hook_resid_post"], by_logits)
    post = through(f"{BLOCK}mlp.out", cache[f"{BLOCK}mlp.hook_post"], resid)
    if act_fn == "relu":  # an activation is positive where its pre-activation is
        pre = where_positive(post, cache[f"{BLOCK}mlp.hook_post"], out=post)
    else:
        pre = before_activation(post, cache[f"{BLOCK}mlp.hook_pre"], act_fn=act_fn)
    resid = through(f"{BLOCK}mlp.in", cache[f"{BLOCK}hook_resid_mid"], pre).add_(resid)
    z = cache[f"{BLOCK}attn.hook_z"]
    by_z = through(f"{BLOCK}attn.O", z.flatten(1), resid).view_as(z)

    rows = tables.rows(tokens)
    pattern = cache[f"{BLOCK}attn.hook_pattern"].unbind(dim=2)
    by_pattern = torch.stack([(by_z * lookup.read(rows)).sum(dim=2) for lookup in tables.values])
    by_values = [by_z * at_key[:, :, None] for at_key in pattern]
    softmax = attention_softmax(cache[f"{BLOCK}attn.hook_attn_scores"].permute(2, 0, 1), dim=0)
    by_softmax = by_pattern * attention_rate
    by_scores = softmax * (by_softmax - (by_softmax * softmax).sum(dim=0))
    lookups = (*tables.scores, *tables.values, tables.resid_pre)
    for total, lookup, part in zip(
        of_tables, lookups, (*by_scores, *by_values, resid), strict=True
    ):
        lookup.add_gradient(total, rows, part)
