"""x @ W + b through the fastest public operator.

On CPUs where MKL falls back to AVX2 (AMD), a 1x1 convolution over rows-as-pixels is the same
product through oneDNN at about twice the rate, forward and backward: `tests/benchmarks/step.py`
measures it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

MIN_ROWS = 256  # below this the overhead of the convolution outweighs its rate


def affine(
    x: Float[Tensor, "rows d_in"],
    weight: Float[Tensor, "d_in d_out"],
    bias: Float[Tensor, " d_out"],
) -> Float[Tensor, "rows d_out"]:
    """`x @ weight + bias`, differentiable.

    >>> affine(torch.ones(1, 2), torch.eye(2), torch.tensor([0.0, 1.0])).tolist()
    [[1.0, 2.0]]
    """
    if not (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and len(x) >= MIN_ROWS
        and torch.backends.mkldnn.is_available()
    ):
        return torch.addmm(bias, x, weight)
    pixels = x[None, :, None, :].permute(0, 3, 1, 2)  # [1, d_in, rows, 1], channels last: no copy
    convolved = torch.nn.functional.conv2d(pixels, weight.T[:, :, None, None], bias)
    return convolved.permute(0, 2, 3, 1).reshape(len(x), -1)
