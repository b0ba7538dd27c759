"""Matrix products with many rows, through the fastest public operator.

On CPUs where MKL falls back to AVX2 (AMD), a 1x1 convolution over rows-as-pixels is the same
product through oneDNN at about twice the rate, and so is its gradient by the kernel:
`grokinterp bench` measures both.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_weight

MIN_ROWS = 256  # below this the overhead of the convolution outweighs its rate


def affine(
    x: Float[Tensor, "rows d_in"],
    weight: Float[Tensor, "d_in d_out"],
    bias: Float[Tensor, " d_out"] | None = None,
) -> Float[Tensor, "rows d_out"]:
    """`x @ weight + bias`, differentiable.

    >>> affine(torch.ones(1, 2), torch.eye(2), torch.tensor([0.0, 1.0])).tolist()
    [[1.0, 2.0]]
    """
    if not _convolves(x):
        return x @ weight if bias is None else torch.addmm(bias, x, weight)
    convolved = torch.nn.functional.conv2d(_pixels(x), weight.T[:, :, None, None], bias)
    return convolved.permute(0, 2, 3, 1).reshape(len(x), -1)


def product_over_rows(
    x: Float[Tensor, "rows d_in"], upstream: Float[Tensor, "rows d_out"]
) -> Float[Tensor, "d_in d_out"]:
    """`x.T @ upstream`: the gradient of `affine` by its weight.

    >>> product_over_rows(torch.ones(3, 2), torch.ones(3, 1)).tolist()
    [[3.0], [3.0]]
    """
    if not _convolves(x):
        return x.T @ upstream
    if len(x) % 2:  # an odd number of rows is four times slower: one is done by itself
        return product_over_rows(x[1:], upstream[1:]).addr_(x[0], upstream[0])
    if x.shape[1] > upstream.shape[1]:  # the narrow side as the input is up to a third faster
        return product_over_rows(upstream, x).T
    shape = (upstream.shape[1], x.shape[1], 1, 1)
    kernels = conv2d_weight(_pixels(x), shape, _pixels(upstream))
    return kernels[:, :, 0, 0].T


def _convolves(x: Float[Tensor, "rows d"]) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and len(x) >= MIN_ROWS
        and torch.backends.mkldnn.is_available()
    )


def _pixels(x: Float[Tensor, "rows d"]) -> Float[Tensor, "1 d rows 1"]:
    """Rows as the pixels of one image, channels last: no copy."""
    return x[None, :, None, :].permute(0, 3, 1, 2)
