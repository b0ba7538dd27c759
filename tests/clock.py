"""Weights built by hand that add mod p with known frequencies.

Embeddings are cos and sin of w_k a; attention is uniform and copies both operands; neuron (k, j) is
ReLU(cos(w_k a - phi_j) + cos(w_k b - phi_j)) with phases phi_j spread evenly, and is read out with
cos and sin of 2 phi_j. Up to harmonics (which are other frequencies) the logits are

    sum_k amplitude * |cos(w_k (a - b) / 2)| * cos(w_k (a + b - c)).
"""

import math

import torch

from grokinterp.models.architecture import Weights
from grokinterp.models.transformer import TransformerArchitecture

PHASES = 64


def clock_weights(p: int, frequencies: tuple[int, ...], amplitude: float) -> Weights:
    n = len(frequencies)
    architecture = clock_architecture(p, n)
    weights = {name: torch.zeros(shape) for name, shape in architecture.parameter_shapes().items()}
    angle = 2 * torch.pi * torch.outer(torch.arange(p), torch.tensor(frequencies)) / p
    waves = torch.cat([angle.cos(), angle.sin()], dim=1)  # [p, 2n]
    phi = 2 * torch.pi * torch.arange(PHASES) / PHASES
    weights["embed.W_E"][:p, : 2 * n] = waves
    weights["blocks.0.attn.W_V"][0] = 3 * torch.eye(4 * n)
    weights["blocks.0.attn.W_O"][0] = torch.eye(4 * n)
    for i in range(n):
        neurons = slice(i * PHASES, (i + 1) * PHASES)
        weights["blocks.0.mlp.W_in"][i, neurons] = phi.cos()
        weights["blocks.0.mlp.W_in"][n + i, neurons] = phi.sin()
        weights["blocks.0.mlp.W_out"][neurons, 2 * n + i] = (2 * phi).cos()
        weights["blocks.0.mlp.W_out"][neurons, 3 * n + i] = (2 * phi).sin()
    weights["unembed.W_U"][2 * n :] = waves.T * (amplitude * 3 * math.pi / (2 * PHASES))
    return weights


def clock_architecture(p: int, n_frequencies: int) -> TransformerArchitecture:
    return TransformerArchitecture(
        n_layers=1,
        n_heads=1,
        d_model=4 * n_frequencies,
        d_head=4 * n_frequencies,
        d_mlp=PHASES * n_frequencies,
        d_vocab=p + 1,
        d_vocab_out=p,
        n_ctx=3,
    )


def mean_envelope(p: int) -> float:
    """Average of |cos(pi j / p)| over j mod p, for odd p: 1 / (p sin(pi / 2p))."""
    return 1 / (p * math.sin(math.pi / (2 * p)))
