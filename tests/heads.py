"""Weights built by hand whose heads have a known attention readout."""

import math

import torch

from grokinterp.models.architecture import Weights
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.tasks import ModularTask

D_HEAD = 8


def heads_weights(
    task: ModularTask,
    heads: list[dict[int, float]],
    *,
    offset: float = 0.0,
    equals: float = -40.0,
    phase: float = 0.4,
    rate: float = 1.0,
) -> tuple[TransformerArchitecture, Weights]:
    """Head j scores token t with the sum over k of amplitude_jk cos(w_k e(t) - phase).

    `offset` is what position 0 gets besides, `equals` the score of "=" (-40: none of the
    attention). At most two frequencies in all; the MLP is random.
    """
    frequencies = sorted({k for head in heads for k in head})
    p, group = task.p, task.answer_group
    architecture = TransformerArchitecture(
        n_layers=1, n_heads=len(heads), d_model=D_HEAD, d_head=D_HEAD, d_mlp=8,
        d_vocab=p + 1, d_vocab_out=p, n_ctx=3, attention_rate=rate,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in architecture.parameter_shapes().items()
    }
    embed, position = (torch.zeros_like(weights[x]) for x in ("embed.W_E", "pos_embed.W_pos"))
    queries = torch.zeros(len(heads), D_HEAD, dtype=torch.float64)
    for i, k in enumerate(frequencies):
        angle = 2 * torch.pi * k * torch.arange(group.order, dtype=torch.float64) / group.order
        embed[group.tokens, 2 * i] = angle.cos()
        embed[group.tokens, 2 * i + 1] = angle.sin()
        for j, head in enumerate(heads):
            queries[j, 2 * i] = head.get(k, 0.0) * math.cos(phase)
            queries[j, 2 * i + 1] = head.get(k, 0.0) * math.sin(phase)
    embed[p, 4], position[0, 5] = 1.0, 1.0
    queries[:, 4], queries[:, 5] = equals, offset
    attn = "blocks.0.attn."
    weights |= {"embed.W_E": embed, "pos_embed.W_pos": position}
    weights[f"{attn}W_K"] = torch.eye(D_HEAD, dtype=torch.float64).expand(len(heads), -1, -1)
    weights[f"{attn}W_Q"] = torch.zeros_like(weights[f"{attn}W_Q"])
    weights[f"{attn}W_Q"][:, 4] = queries * math.sqrt(D_HEAD)
    weights[f"{attn}b_Q"] = torch.zeros_like(weights[f"{attn}b_Q"])
    return architecture, weights
