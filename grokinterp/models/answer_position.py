"""The answer-position forward: all that a one-layer model computes where its answer is read.

Only the last position is read, and each earlier position sees one of d_vocab tokens. So keys and
values are tables with a row per token, attention is a softmax over two or three numbers, and the
MLP runs on one position instead of three. The numbers are those of HookedTransformer, under its
hook names, restricted to the last position.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.affine import affine
from grokinterp.models.architecture import ACTIVATIONS, Architecture


def applies_to(architecture: Architecture, n_tokens: int) -> bool:
    """Whether `answer_logits` can stand in for the hooked forward on inputs of `n_tokens`."""
    return (
        architecture.n_layers == 1
        and architecture.normalization_type is None
        and n_tokens in (2, 3)
        and n_tokens <= architecture.n_ctx
    )


def answer_logits(
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "n n_ctx"],
    *,
    act_fn: str = "relu",
    attention_rate: float = 1.0,
    cache: dict[str, Tensor] | None = None,
) -> Float[Tensor, "n d_vocab_out"]:
    """Logits at the last position of `[a, b, "="]` (the third token is one constant) or `[a, b]`.

    Differentiable with respect to `weights` (canonical names). With a `cache`, the intermediate
    activations are put into it under their TransformerLens hook names, at the last position:
    patterns as [n, n_heads, n_ctx], all others as [n, ...].
    """
    a, b = tokens[:, 0], tokens[:, 1]
    blocks = "blocks.0."
    w = {name.removeprefix(blocks): weight for name, weight in weights.items()}
    embed, position = w["embed.W_E"], w["pos_embed.W_pos"]
    n_heads, d_model, d_head = w["attn.W_Q"].shape

    def heads(x: Float[Tensor, "rows d_model"], which: str) -> Float[Tensor, "rows n_heads d_head"]:
        """Queries, keys or values of all heads, as one matrix product."""
        matrix = w[f"attn.W_{which}"].transpose(0, 1).reshape(d_model, n_heads * d_head)
        return affine(x, matrix, w[f"attn.b_{which}"].flatten()).view(-1, n_heads, d_head)

    first, second = embed + position[0], embed + position[1]
    key_a, key_b = heads(first, "K"), heads(second, "K")
    value_a, value_b = heads(first, "V"), heads(second, "V")
    if tokens.shape[1] == 3:
        last = embed[tokens[0, 2]][None] + position[2]
        query = heads(last, "Q")
        scores = [
            (key_a * query).sum(-1).index_select(0, a),
            (key_b * query).sum(-1).index_select(0, b),
            (heads(last, "K") * query).sum(-1).expand(len(a), -1),
        ]
        resid_pre = last.expand(len(a), -1)
    else:
        query = heads(second, "Q")
        every_pair = torch.einsum("bhd,ahd->abh", query, key_a).flatten(0, 1)
        scores = [
            every_pair.index_select(0, a * len(embed) + b),
            (key_b * query).sum(-1).index_select(0, b),
        ]
        resid_pre = second.index_select(0, b)

    attn_scores = torch.stack(scores, dim=2) / d_head**0.5
    pattern = attn_scores.softmax(dim=2)
    if attention_rate != 1:
        pattern = attention_rate * pattern + (1 - attention_rate)
    # index_select, not value_a[a]: its backward is a scatter-add, several times faster on a CPU.
    z = pattern[:, :, 0, None] * value_a.index_select(0, a)
    z = z + pattern[:, :, 1, None] * value_b.index_select(0, b)
    if tokens.shape[1] == 3:
        z = z + pattern[:, :, 2, None] * heads(last, "V")
    attn_out = affine(z.flatten(1), w["attn.W_O"].flatten(0, 1), w["attn.b_O"])
    resid_mid = resid_pre + attn_out
    pre = affine(resid_mid, w["mlp.W_in"], w["mlp.b_in"])
    post = ACTIVATIONS[act_fn](pre)
    mlp_out = affine(post, w["mlp.W_out"], w["mlp.b_out"])
    resid_post = resid_mid + mlp_out
    if cache is not None:
        cache |= {
            f"{blocks}hook_resid_pre": resid_pre,
            f"{blocks}attn.hook_attn_scores": attn_scores,
            f"{blocks}attn.hook_pattern": pattern,
            f"{blocks}attn.hook_z": z,
            f"{blocks}hook_attn_out": attn_out,
            f"{blocks}hook_resid_mid": resid_mid,
            f"{blocks}mlp.hook_pre": pre,
            f"{blocks}mlp.hook_post": post,
            f"{blocks}hook_mlp_out": mlp_out,
            f"{blocks}hook_resid_post": resid_post,
        }
    return affine(resid_post, w["unembed.W_U"], w["unembed.b_U"])
