"""The shape of a multilayer perceptron on operand pairs, and the names of its weights.

Without an embedding its input is two-hot: 2p entries, of which a and p + b are 1. So row a of the
first matrix is what operand a adds to every neuron, and row p + b what b adds (Manning-Coe et al.
2025, arXiv 2502.01739, section 2.2: p = 113, one layer of 512, 174,193 parameters).
"""

from dataclasses import dataclass
from typing import ClassVar

from grokinterp.models.architecture import (
    BaseArchitecture,
    check_choice,
    check_size,
    check_sizes,
)
from grokinterp.models.hidden import hidden_hooks, hidden_shapes


@dataclass(frozen=True)
class MLPArchitecture(BaseArchitecture):
    """Sizes of a multilayer perceptron that reads two operands of `p` tokens.

    `widths` are those of the hidden layers. With `d_embed` > 0 both operands go through one learned
    embedding `embed.W_E` and the two vectors are put one behind the other; 0 is the two-hot input.

    >>> shapes = MLPArchitecture(p=113, widths=(512,), n_classes=113).parameter_shapes()
    >>> shapes["blocks.0.mlp.W_in"], shapes["unembed.W_U"]
    ((226, 512), (512, 113))
    """

    kind: ClassVar[str] = "mlp"

    p: int
    widths: tuple[int, ...]
    n_classes: int
    d_embed: int = 0
    act_fn: str = "relu"

    def __post_init__(self) -> None:
        check_size("p", self.p)
        check_sizes("widths", self.widths)
        check_size("n_classes", self.n_classes)
        check_size("d_embed", self.d_embed, smallest=0)
        check_choice("act_fn", self.act_fn)

    @property
    def n_layers(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)

    @property
    def d_input(self) -> int:
        """Rows of the first matrix: both operands, two-hot or embedded."""
        return 2 * (self.d_embed or self.p)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        embedding = {"embed.W_E": (self.p, self.d_embed)} if self.d_embed else {}
        return embedding | hidden_shapes(self.d_input, self.widths, self.n_classes)

    def hook_names(self) -> tuple[str, ...]:
        """Names of the activations, in the order of the forward."""
        return (*(["hook_embed"] if self.d_embed else []), *hidden_hooks(self.n_layers))
