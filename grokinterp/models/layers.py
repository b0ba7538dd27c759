"""What do the layers of all kinds of model compute? Products of many rows, lookups, hidden layers.

Each function takes the tensors of one model or, with a leading axis, those of several (`members`):
then it is the operation of one model, batched.

On CPUs where MKL falls back to AVX2 (AMD), a 1x1 convolution over rows-as-pixels is the same
product through oneDNN at about twice the rate, and so is its gradient by the kernel:
`grokinterp bench` measures both.

The hidden layers are those that an MLP and a CNN have in common: layer l is `blocks.l.mlp.W_in`
[d_in, width] and `blocks.l.mlp.b_in` [width]; logits are post_last @ `unembed.W_U` + `unembed.b_U`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.grad import conv2d_weight

from grokinterp.models.architecture import NONLINEARITIES
from grokinterp.models.interchangeable_units import Units, neurons_of

MIN_ROWS = 256  # below this the overhead of the convolution outweighs its rate


def affine(
    x: Float[Tensor, "*members rows d_in"],
    weight: Float[Tensor, "*members d_in d_out"],
    bias: Float[Tensor, "*members d_out"] | None = None,
) -> Float[Tensor, "*members rows d_out"]:
    """`x @ weight + bias`, differentiable.

    >>> affine(torch.ones(1, 2), torch.eye(2), torch.tensor([0.0, 1.0])).tolist()
    [[1.0, 2.0]]
    """
    if _convolves(x):
        convolved = torch.nn.functional.conv2d(_pixels(x), weight.T[:, :, None, None], bias)
        return convolved.permute(0, 2, 3, 1).reshape(len(x), -1)
    if bias is None:
        return x @ weight
    return torch.addmm(bias, x, weight) if x.ndim == 2 else torch.baddbmm(bias[:, None], x, weight)


def product_over_rows(
    x: Float[Tensor, "*members rows d_in"], upstream: Float[Tensor, "*members rows d_out"]
) -> Float[Tensor, "*members d_in d_out"]:
    """`x.mT @ upstream`: the gradient of `affine` by its weight.

    >>> product_over_rows(torch.ones(3, 2), torch.ones(3, 1)).tolist()
    [[3.0], [3.0]]
    """
    if not _convolves(x):
        return x.mT @ upstream
    if len(x) % 2:  # an odd number of rows is four times slower: one is done by itself
        return product_over_rows(x[1:], upstream[1:]).addr_(x[0], upstream[0])
    if x.shape[1] > upstream.shape[1]:  # the narrow side as the input is up to a third faster
        return product_over_rows(upstream, x).T
    shape = (upstream.shape[1], x.shape[1], 1, 1)
    kernels = conv2d_weight(_pixels(x), shape, _pixels(upstream))
    return kernels[:, :, 0, 0].T


def _convolves(x: Tensor) -> bool:
    return (
        x.ndim == 2
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and len(x) >= MIN_ROWS
        and torch.backends.mkldnn.is_available()
    )


def _pixels(x: Float[Tensor, "rows d"]) -> Float[Tensor, "1 d rows 1"]:
    """Rows as the pixels of one image, channels last: no copy."""
    return x[None, :, None, :].permute(0, 3, 1, 2)


def through_tables(rows: Int[Tensor, "*members n"], n_rows: int) -> Int[Tensor, "*members n"]:
    """Rows of each member's own table of `n_rows`, counted through the tables of all members.

    >>> through_tables(torch.tensor([[0, 2], [1, 1]]), 3).tolist()
    [[0, 2], [4, 4]]
    """
    if rows.ndim == 1:
        return rows
    return rows + torch.arange(len(rows), device=rows.device)[:, None] * n_rows


def read_rows(table: Float[Tensor, "..."], rows: Int[Tensor, "*members n"]) -> Float[Tensor, "..."]:
    """Rows of a table [*members, n_rows, ...], counted through all tables: [*members, n, ...]."""
    # index_select, not table[rows]: its backward is a scatter-add, far faster on a CPU.
    flat = table.flatten(0, rows.ndim - 1).index_select(0, rows.flatten())
    return flat.unflatten(0, rows.shape)


def add_rows(
    total: Float[Tensor, "..."], rows: Int[Tensor, "*members n"], upstream: Float[Tensor, "..."]
) -> None:
    """Add the gradient by a table, from the one by what `read_rows` read of it."""
    flat = total.view(-1, *total.shape[rows.ndim :])
    flat.index_add_(0, rows.flatten(), upstream.flatten(0, rows.ndim - 1))


# What a forward shows each activation to, under its hook name; it goes on with what is returned.
Visit = Callable[[str, Tensor], Tensor]


def recorder(cache: dict[str, Tensor] | None) -> Visit:
    """A visit that changes nothing and puts what it is shown into a cache, if there is one."""

    def visit(name: str, activation: Tensor) -> Tensor:
        if cache is not None:
            cache[name] = activation
        return activation

    return visit


def sizes_in(given: object) -> tuple[int, ...] | None:
    """Sizes from 1 on, of which one may stand alone; None for anything else."""
    sizes = tuple(given) if isinstance(given, list | tuple) else (given,)
    return sizes if all(type(size) is int and size > 0 for size in sizes) else None


def hidden_shapes(
    d_input: int, widths: Sequence[int], n_classes: int
) -> dict[str, tuple[int, ...]]:
    """Canonical name and shape of the weights of these layers, in reading order.

    >>> hidden_shapes(64, (100,), 2)["blocks.0.mlp.W_in"]
    (64, 100)
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (d_in, width) in enumerate(pairwise((d_input, *widths))):
        shapes[f"blocks.{layer}.mlp.W_in"] = (d_in, width)
        shapes[f"blocks.{layer}.mlp.b_in"] = (width,)
    return shapes | {"unembed.W_U": (widths[-1], n_classes), "unembed.b_U": (n_classes,)}


def neurons_name(layer: int | str) -> str:
    """Hook name of a layer's neurons after the nonlinearity; of a named layer, that name.

    >>> neurons_name(0), neurons_name("fc1")
    ('blocks.0.mlp.hook_post', 'fc1')
    """
    return layer if isinstance(layer, str) else f"blocks.{layer}.mlp.hook_post"


def hidden_hooks(n_layers: int) -> tuple[str, ...]:
    """Names of the activations of these layers, in the order of the forward."""
    layers = [f"blocks.{layer}.mlp.hook_{x}" for layer in range(n_layers) for x in ("pre", "post")]
    return (*layers, "unembed.hook_out")


def hidden_logits(
    weights: Mapping[str, Tensor],
    pre: Float[Tensor, "*members n width"],
    *,
    n_layers: int,
    act_fn: str,
    visit: Visit,
) -> Float[Tensor, "*members n n_classes"]:
    """Logits from the pre-activations of the first hidden layer on."""
    activation = NONLINEARITIES[act_fn]
    for layer in range(n_layers):
        block = f"blocks.{layer}.mlp"
        post = visit(f"{block}.hook_post", activation(visit(f"{block}.hook_pre", pre)))
        matrix, bias = weights_after(layer, n_layers)
        pre = affine(post, weights[matrix], weights[bias])
    return visit("unembed.hook_out", pre)


def weights_after(layer: int, n_layers: int) -> tuple[str, str]:
    """Names of the matrix and the bias that read the activations of a hidden layer.

    >>> weights_after(0, 2), weights_after(1, 2)
    (('blocks.1.mlp.W_in', 'blocks.1.mlp.b_in'), ('unembed.W_U', 'unembed.b_U'))
    """
    if layer == n_layers - 1:
        return "unembed.W_U", "unembed.b_U"
    return f"blocks.{layer + 1}.mlp.W_in", f"blocks.{layer + 1}.mlp.b_in"


def hidden_neurons(n_layers: int) -> Units:
    """The neurons of every hidden layer of a network whose layers follow each other."""
    found: Units = {}
    for layer in range(n_layers):
        found |= neurons_of(layer, weights_after(layer, n_layers)[0])
    return found


def hidden_gradients(
    weights: Mapping[str, Tensor],
    cache: Mapping[str, Tensor],
    upstream: Float[Tensor, "*members n n_classes"],
    *,
    n_layers: int,
    act_fn: str,
) -> tuple[dict[str, Tensor], Float[Tensor, "*members n width"]]:
    """Gradients from the one by the logits and the activations that `hidden_logits` visited.

    Returned are those of all weights after the first hidden layer, and that of the layer's
    pre-activations.
    """
    found = {}
    for layer in reversed(range(n_layers)):
        block = f"blocks.{layer}.mlp"
        matrix, bias = weights_after(layer, n_layers)
        found[matrix] = cache[f"{block}.hook_post"].mT @ upstream
        found[bias] = upstream.sum(dim=-2)
        upstream = before_activation(
            upstream @ weights[matrix].mT, cache[f"{block}.hook_pre"], act_fn=act_fn
        )
    return found, upstream


def mean_loss_gradient(
    logits: Float[Tensor, "*members n n_classes"], labels: Int[Tensor, "*members n"]
) -> Float[Tensor, "*members n n_classes"]:
    """Gradient of the mean cross-entropy by the logits, (softmax - one_hot(label)) / n.

    The right class has minus the sum of the others, so that nothing cancels when the loss is 1e-8.

    >>> mean_loss_gradient(torch.tensor([[30.0, 0.0]]), torch.tensor([0])).tolist()
    [[-9.3576...e-14, 9.3576...e-14]]
    """
    right = labels[..., None]
    wrong = logits.softmax(dim=-1).scatter_(-1, right, 0.0)
    return wrong.scatter_(-1, right, -wrong.sum(dim=-1, keepdim=True)).div_(labels.shape[-1])


def before_activation(
    upstream: Float[Tensor, "*shape"], pre: Float[Tensor, "*shape"], *, act_fn: str
) -> Float[Tensor, "*shape"]:
    """Gradient by the pre-activations, from the one by the activations."""
    if act_fn == "relu":
        return where_positive(upstream, pre)
    (gradient,) = torch.func.vjp(NONLINEARITIES[act_fn], pre)[1](upstream)
    return gradient


def where_positive(
    values: Float[Tensor, "*shape"],
    condition: Float[Tensor, "*shape"],
    *,
    out: Float[Tensor, "*shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    """`values` where `condition` > 0, else 0, in one pass: ten times faster than torch.where.

    >>> where_positive(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, 0.0, 0.1])).tolist()
    [0.0, 0.0, 3.0]
    """
    if out is None:
        return torch.ops.aten.threshold_backward(values, condition, 0)
    return torch.ops.aten.threshold_backward.grad_input(values, condition, 0, grad_input=out)
