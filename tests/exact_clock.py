"""A hooked model that is the clock itself: it multiplies its two embeddings as complex numbers.

Token x is r_x exp(i w_k x) for every frequency k, and the logit of c on (a, b) is

    sum_k r_a r_b cos(w_k (a + b - c)),

or with a - b, where it conjugates the second embedding first.
"""

from types import SimpleNamespace

import torch
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint


class ExactClock(HookedRootModule):
    def __init__(
        self, p: int, frequencies: tuple[int, ...], radii: Tensor, *, subtract: bool = False
    ) -> None:
        super().__init__()
        self.subtract = subtract
        self.cfg = SimpleNamespace(
            n_layers=1, n_heads=1, d_vocab=p + 1, d_vocab_out=p, n_ctx=3,
            normalization_type=None, positional_embedding_type="none",
        )  # fmt: skip
        self.waves = waves(p, frequencies)
        self.embed = torch.nn.Module()
        table = torch.cat([radii[:, None] * self.waves, torch.zeros(1, len(frequencies))])
        self.embed.W_E = torch.nn.Parameter(torch.view_as_real(table).flatten(1))
        self.hook_embed = HookPoint()
        self.setup()

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.hook_embed(self.embed.W_E[tokens])
        a, b = torch.view_as_complex(embedded.unflatten(-1, (-1, 2)))[:, :2].unbind(1)
        logits = ((a * (b.conj() if self.subtract else b)) @ self.waves.conj().T).real
        return logits[:, None].expand(-1, tokens.shape[1], -1)


def waves(p: int, frequencies: tuple[int, ...]) -> Tensor:
    """exp(i w_k x), [p, |K|]."""
    angle = 2 * torch.pi * torch.outer(torch.arange(p), torch.tensor(frequencies)).double() / p
    return torch.polar(torch.ones_like(angle), angle)


def random_radii(p: int) -> Tensor:
    return 2 + torch.rand(p, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
