"""What does a multilayer perceptron on operand pairs compute? Its shape, logits and gradients.

Without an embedding its input is two-hot: 2p entries, of which a and p + b are 1. So row a of the
first matrix is what operand a adds to every neuron, and row p + b what b adds (Manning-Coe et al.
2025, arXiv 2502.01739, section 2.2: p = 113, one layer of 512, 174,193 parameters). Where the two
one-hot vectors are summed, there are p rows, and both operands add theirs. The input is never
built: its product with the matrix is the sum of these two rows.

Weights, inputs and labels are those of one model, or with a leading axis those of several.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.keys import Key, derived, fields_from, key, keys_of
from grokinterp.models import layers
from grokinterp.models.architecture import (
    NONLINEARITIES,
    Gradients,
    Loss,
    VisitedArchitecture,
    Weights,
    check_sizes,
    register_model,
)
from grokinterp.models.interchangeable_units import Units
from grokinterp.models.layers import Visit
from grokinterp.tasks.layout import USUAL
from grokinterp.tasks.task import Task

D_MLP = 512
COMBINE = ("concat", "sum")
LATER = {"combine": "concat", "separate": False}  # not known to 0.2.0, which does as these say


@register_model("mlp")
@dataclass(frozen=True)
class MLPArchitecture(VisitedArchitecture):
    """Sizes of a multilayer perceptron that reads two operands of `p` tokens.

    `widths` are those of the hidden layers. With `d_embed` > 0 both operands go through a learned
    embedding, `embed.W_E` [p, d_embed], or with `separate` each through its own, `embed_a.W_E` and
    `embed_b.W_E`; 0 is the two-hot input. `combine` says how the operands' two vectors, learned or
    one-hot, become the first layer's input: "concat", one after the other, or "sum". `act_fn` may
    be "quadratic", x^2 (Gromov 2023, arXiv 2301.02679).

    >>> shapes = MLPArchitecture(p=113, widths=(512,), n_classes=113).parameter_shapes()
    >>> shapes["blocks.0.mlp.W_in"], shapes["unembed.W_U"]
    ((226, 512), (512, 113))
    >>> summed = MLPArchitecture(p=7, widths=(8,), n_classes=7, d_embed=3, combine="sum")
    >>> summed.parameter_shapes()["blocks.0.mlp.W_in"]
    (3, 8)
    """

    usual: ClassVar[Mapping[str, Any]] = {"equals_token": False}
    more_keys: ClassVar[tuple[Key, ...]] = (
        Key("n_layers", int, 1, "hidden layers", least=1, most=1000),
        Key("d_mlp", int, D_MLP, "neurons of a layer", least=1, most=1_000_000),
        Key("embedding", str, "two_hot", choices=("two_hot", "learned"),
            help='what it reads, or "learned": d_model numbers an operand'),
        Key("d_model", int, 128, "width of a learned embedding", least=1, most=100_000),
    )  # fmt: skip

    p: int = derived()
    widths: tuple[int, ...] = key(
        usual=(), help="hidden layers; () is n_layers of d_mlp neurons", least=1,
        replaces=("n_layers", "d_mlp"), wanted="a list of sizes from 1 on such as [256, 64]",
        read=layers.sizes_in,
    )  # fmt: skip
    n_classes: int = derived()
    d_embed: int = derived(0)
    act_fn: str = key("relu", help="nonlinearity of the neurons", choices=tuple(NONLINEARITIES))
    combine: str = key("concat", help="how the operands' vectors come together", choices=COMBINE)
    separate: bool = key(False, help="an embedding for each operand")

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.separate and not self.d_embed:
            raise InputError(
                "separate=true is for learned embeddings, and this input is two-hot; give "
                "embedding='learned', or leave it out."
            )

    @classmethod
    def of_recipe(cls, task: Task, values: Mapping[str, Any]) -> "MLPArchitecture":
        """The architecture for a task of operand pairs."""
        if task.modular is None:
            raise cls._not_for(task, "operand tokens")
        widths, n_layers, d_mlp = (values[name] for name in ("widths", "n_layers", "d_mlp"))
        if widths and (n_layers, d_mlp) != (1, D_MLP):
            hidden = f"widths={list(widths)} are the hidden layers"
            raise InputError(f"{hidden}; leave n_layers and d_mlp out.")
        return cls(
            p=task.modular.p,
            n_classes=task.n_classes,
            d_embed=values["d_model"] if values["embedding"] == "learned" else 0,
            **fields_from(keys_of(cls), {**values, "widths": widths or (d_mlp,) * n_layers}),
        )

    def to_dict(self) -> dict[str, Any]:
        """What `shape_from_dict` reads; what came after 0.2.0 only where it is used."""
        stored = super().to_dict()
        return {name: x for name, x in stored.items() if name not in LATER or x != LATER[name]}

    @property
    def n_layers(self) -> int:  # type: ignore[override]
        """Number of hidden layers."""
        return len(self.widths)

    @property
    def d_input(self) -> int:
        """Rows of the first matrix: of both operands, two-hot or embedded, or of their sum."""
        return (self.d_embed or self.p) * (2 if self.combine == "concat" else 1)

    @property
    def tables(self) -> tuple[str, ...]:
        """The embedding of each operand, by name; () for a two-hot input."""
        if not self.d_embed:
            return ()
        return ("embed_a.W_E", "embed_b.W_E") if self.separate else ("embed.W_E", "embed.W_E")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        embedding = dict.fromkeys(self.tables, (self.p, self.d_embed))
        return embedding | layers.hidden_shapes(self.d_input, self.widths, self.n_classes)

    # Its sizes in a transformer's words: it reads two positions, and has a class an answer.
    n_ctx: ClassVar[int] = 2

    @property
    def d_vocab(self) -> int:
        """Tokens of an operand."""
        return self.p

    @property
    def d_vocab_out(self) -> int:
        """Answers."""
        return self.n_classes

    def interchangeable_units(self) -> Units:
        """The neurons of every layer."""
        return layers.hidden_neurons(self.n_layers)

    def hook_names(self) -> tuple[str, ...]:
        """Names of the activations, in the order of the forward."""
        return (*(["hook_embed"] if self.d_embed else []), *layers.hidden_hooks(self.n_layers))

    def why_not(self, task: Task, *, stored: bool = False) -> str | None:
        """Why it does not fit a task, with the sizes of both.

        >>> from grokinterp.tasks import ModularTask
        >>> MLPArchitecture(p=7, widths=(8,), n_classes=7).why_not(ModularTask("add", 5, False))
        'the MLP reads 2 operands of 7 tokens and has 7 classes; add mod 5 has 2 of 5 and 5 classes'
        """
        if (pairs := task.modular) is None:
            return f"the {self.kind} reads operand tokens, the task is {task.title}"
        if pairs.layout != USUAL[False]:
            third = ' with a third, the "=" token; give equals_token=False'
            return f"the MLP reads 2 operands of {self.p} tokens, the task is {task.title}" + (
                third if pairs.layout == USUAL[True] else f' read as "{pairs.layout}"; give "a b"'
            )
        if (self.p, self.n_classes) == (pairs.p, pairs.n_classes):
            return None
        return (
            f"the MLP reads 2 operands of {self.p} tokens and has {self.n_classes} classes; "
            f"{task.title} has 2 of {pairs.p} and {pairs.n_classes} classes"
        )

    def why_not_stacked(self, inputs: Tensor) -> None:
        """Several can be computed side by side."""

    def forward(
        self,
        weights: Mapping[str, Tensor],
        inputs: Int[Tensor, "*members n 2"],
        cache: dict[str, Tensor] | None = None,
        *,
        visit: Visit | None = None,
    ) -> Float[Tensor, "*members n n_classes"]:
        """Logits of operand pairs (a, b), differentiable in the weights (canonical names).

        pre_0 = W_in[a] + W_in[p + b] + b_in, or [W_E[a], W_E[b]] W_in + b_in with an embedding; of
        the sum, W_in[a] + W_in[b] + b_in, or (W_E[a] + W_E[b]) W_in + b_in. Then post_l =
        act_fn(pre_l), pre_(l+1) = post_l W_in + b_in, logits = post_last W_U + b_U. Every
        activation goes on as `visit` returns it, under its hook name; without one, the `cache`
        keeps it. An operand of a single model that is not from 0 to p-1 is an IndexError.
        """
        visit = visit or layers.recorder(cache)
        matrix, bias, p = weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"], self.p
        if self.d_embed:
            rows = [
                layers.read_rows(weights[name], layers.through_tables(inputs[..., place], p))
                for place, name in enumerate(self.tables)
            ]
            embed = visit("hook_embed", torch.stack(rows, dim=-2))
            pre = layers.affine(self._combined(embed), matrix, bias)
        else:
            if inputs.ndim == 2:  # each part by itself, so that operands beyond p-1 are refused
                pre = matrix[:p].index_select(0, inputs[:, 0])
                second = matrix[-p:].index_select(0, inputs[:, 1])
            else:
                read = _two_hot_rows(inputs, p, self.combine)
                pre, second = (layers.read_rows(matrix, rows) for rows in read)
            pre.add_(second).add_(bias.unsqueeze(-2))
        return layers.hidden_logits(
            weights, pre, n_layers=self.n_layers, act_fn=self.act_fn, visit=visit
        )

    def _combined(
        self, embed: Float[Tensor, "*members n 2 d_embed"]
    ) -> Float[Tensor, "*members n d_input"]:
        """What the first layer reads of the two embeddings."""
        return embed.flatten(-2) if self.combine == "concat" else embed.sum(dim=-2)

    def gradients_on(
        self,
        inputs: Int[Tensor, "*members n 2"],
        labels: Int[Tensor, "*members n"],
        objective: Loss,
    ) -> Gradients:
        """Without autograd, in about half its time; exact when the cross-entropy is 1e-8."""

        @torch.no_grad()
        def gradients(weights: Mapping[str, Tensor]) -> Weights:
            cache: dict[str, Tensor] = {}
            by_logits = objective.by_logits(self.forward(weights, inputs, cache), labels)
            found, upstream = layers.hidden_gradients(
                weights, cache, by_logits, n_layers=self.n_layers, act_fn=self.act_fn
            )
            found["blocks.0.mlp.b_in"] = upstream.sum(dim=-2)
            if self.d_embed:
                embed = cache["hook_embed"]
                matrix = weights["blocks.0.mlp.W_in"]
                found["blocks.0.mlp.W_in"] = self._combined(embed).mT @ upstream
                by_input = upstream @ matrix.mT
                parts = by_input.chunk(2, dim=-1) if self.combine == "concat" else (by_input,) * 2
                for place, name in enumerate(self.tables):
                    if name not in found:
                        found[name] = torch.zeros_like(weights[name])
                    read = layers.through_tables(inputs[..., place], self.p)
                    layers.add_rows(found[name], read, parts[place])
            else:
                found["blocks.0.mlp.W_in"] = two_hot_product(
                    inputs, upstream, p=self.p, combine=self.combine
                )
            return {name: found[name] for name in weights}

        return gradients

    def squares_of_gradients(
        self,
        weights: Mapping[str, Tensor],
        inputs: Int[Tensor, "n 2"],
        cotangents: Callable[[Tensor], Tensor],
    ) -> Weights:
        """Sums of squares in float64, without a Jacobian of the weights.

        A weight W_ij is used once for an input, so d logit_c / d W_ij = x_i delta_jc, with x the
        layer's input and delta_c the derivative of logit c by its pre-activations. The sum over
        classes of squares is x_i^2 sum_c delta_jc^2, one matrix product for all inputs; the deltas
        of many inputs come from one backward per class. Only the rows that both operands read, of
        an embedding or of a matrix that reads their sum, are used twice, by a pair (a, a).
        """
        seen: dict[str, Tensor] = {}

        def visit(name: str, activation: Tensor) -> Tensor:
            seen[name] = activation.requires_grad_()
            return activation

        with torch.enable_grad():
            logits = self.forward(weights, inputs, visit=visit)
        squares = {
            name: torch.zeros_like(x, dtype=torch.float64)
            for name, x in seen.items()
            if not name.endswith("hook_post")
        }
        for cotangent in cotangents(logits.detach()):
            deltas = torch.autograd.grad(
                logits, [seen[name] for name in squares], cotangent, retain_graph=True
            )
            for (name, sums), delta in zip(squares.items(), deltas, strict=True):
                both = name == "hook_embed" and not self.separate  # read the same rows
                sums += (_by_row(delta, inputs) if both else delta).double().square()

        found = {}
        pre = [name for name in squares if name != "hook_embed"]  # of every layer, and the logits
        for layer, name in enumerate(pre[1:]):
            matrix, bias = layers.weights_after(layer, self.n_layers)
            x = seen[f"blocks.{layer}.mlp.hook_post"].detach().double()
            found[matrix], found[bias] = x.square().T @ squares[name], squares[name].sum(dim=0)
        upstream = squares[pre[0]]
        found["blocks.0.mlp.b_in"] = upstream.sum(dim=0)
        if self.d_embed:
            x = self._combined(seen["hook_embed"].detach().double())
            found["blocks.0.mlp.W_in"] = x.square().T @ upstream
            for place, name in enumerate(self.tables):
                table = found.setdefault(name, upstream.new_zeros(self.p, self.d_embed))
                table.index_add_(0, inputs[:, place], squares["hook_embed"][:, place])
        else:
            if self.combine == "sum":  # of (a, a) the input is 2, and its square 4, not 1 + 1
                upstream = upstream * (1 + (inputs[:, :1] == inputs[:, 1:]).double())
            found["blocks.0.mlp.W_in"] = two_hot_product(
                inputs, upstream, p=self.p, combine=self.combine
            )
        return found


def _by_row(delta: Float[Tensor, "n 2 d"], inputs: Int[Tensor, "n 2"]) -> Float[Tensor, "n 2 d"]:
    """By rows of the embedding: a pair (a, a) uses one, whose two parts add before squaring."""
    twice = (inputs[:, 0] == inputs[:, 1])[:, None]
    first, second = delta.unbind(dim=1)
    return torch.stack([first + second.masked_fill(~twice, 0), second.masked_fill(twice, 0)], dim=1)


def two_hot_product(
    inputs: Int[Tensor, "*members n 2"], upstream: Float[Tensor, "*members n width"],
    *, p: int, combine: str = "concat",
) -> Float[Tensor, "*members d_input width"]:  # fmt: skip
    """X^T upstream for the two-hot inputs X [n, 2p], or their sums [n, p], which are not built.

    >>> two_hot_product(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[1.0], [2.0]]), p=2).tolist()
    [[3.0], [0.0], [2.0], [1.0]]
    """
    n_rows = p * (2 if combine == "concat" else 1)
    both = upstream.new_zeros(*upstream.shape[:-2], n_rows, upstream.shape[-1])
    for rows in _two_hot_rows(inputs, p, combine):
        layers.add_rows(both, rows, upstream)
    return both


def _two_hot_rows(
    inputs: Int[Tensor, "*members n 2"], p: int, combine: str
) -> list[Int[Tensor, "*members n"]]:
    """The rows of the first matrix that are read for a, and for b."""
    first_of_b = p if combine == "concat" else 0
    return [
        layers.through_tables(inputs[..., place] + place * first_of_b, p + first_of_b)
        for place in (0, 1)
    ]
