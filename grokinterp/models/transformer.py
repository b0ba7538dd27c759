"""A transformer in TransformerLens' words: its sizes, its weights, its forward, and what it fits.

It fits a task when it has as many tokens as the inputs are made of, as many positions as they are
long, and as many classes as there are answers, or one more for each further token:

a b =      p + 1 tokens, 3 positions, p classes or p + 1 (the papers' "=" class: 114 at p = 113)
a b        p tokens, 2 positions, p classes
a op b =   p + 2 tokens, 4 positions, p classes or p + 2

A network with more of any of these was trained on other inputs, and answers these with numbers
that look like results; so more are taken only where somebody gave layout and ids. That sizes fit is
no proof: no size says which token is which.

One layer without LayerNorm is computed where its answer is read (`answer_position`), any other
through the hooked forward of TransformerLens: the same numbers either way.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from grokinterp.base.checks import number
from grokinterp.base.errors import InputError
from grokinterp.base.keys import Key, derived, fields_from, key, keys_of
from grokinterp.models import answer_position, transformer_lens_adapter
from grokinterp.models.architecture import (
    ACTIVATIONS,
    Answers,
    BaseArchitecture,
    Gradients,
    Loss,
    check_sizes,
    register_model,
)
from grokinterp.models.user_models import HookedModel, alone_with
from grokinterp.tasks.layout import USUAL, Layout
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task


@register_model("transformer")
@dataclass(frozen=True)
class TransformerArchitecture(BaseArchitecture):
    """Sizes and kinds of a transformer's parts, in TransformerLens' words.

    `attention_rate` r replaces every attention pattern A by r A + (1 - r): 1 is attention, 0 gives
    every position the weight 1 (Zhong et al. 2023, arXiv 2306.17844, section 4).

    Of its initial weights: normal matrices, zero biases, LayerNorm gains of 1. `rule="gpt2"`: std
    0.8/sqrt(d_model) for every matrix (TransformerLens 3's "gpt2" mode). `rule="paper"`: std
    1/sqrt(d_model), the unembedding 1/sqrt(d_vocab_out) (released code of Nanda et al. 2023; W_out
    too uses d_model although its fan-in is d_mlp).
    """

    positions: ClassVar[bool] = True
    init_rules: ClassVar[tuple[str, ...]] = ("gpt2", "paper")
    usual_biases: ClassVar[str] = "none"
    more_keys: ClassVar[tuple[Key, ...]] = (
        Key(
            "equals_class", bool, False,
            help='"=" (every word that is no operand) is an output class, and of the softmax',
        ),
    )  # fmt: skip

    n_layers: int = key(usual=1, help="blocks, or hidden layers", least=1, most=1000,
                        synonyms=("num_layers",))  # fmt: skip
    n_heads: int = key(usual=4, help="attention heads of a layer", least=1, most=10_000,
                       synonyms=("num_heads",))  # fmt: skip
    d_model: int = key(usual=128, help="width of the residual stream", least=1, most=100_000)
    d_head: int = key(usual=32, help="width of a head", least=1, most=100_000)
    d_mlp: int = key(usual=512, help="neurons of a layer", least=1, most=1_000_000)
    d_vocab: int = derived()
    d_vocab_out: int = derived()
    n_ctx: int = derived()
    act_fn: str = key("relu", help="nonlinearity of the neurons", choices=tuple(ACTIVATIONS),
                      synonyms=("act_type",))  # fmt: skip
    normalization_type: str | None = derived(None)  # "LN": before attention, MLP and unembedding
    eps: float = derived(1e-5)  # of the LayerNorm
    attention_dir: str = derived("causal")
    attention_rate: float = derived(1.0)

    def __post_init__(self) -> None:
        check_sizes(self)
        number("attention_rate", self.attention_rate, least=0, most=1, such_as="0.5")
        if not 0 < self.eps < 1:
            raise InputError(f"eps={self.eps} is not between 0 and 1; give such as 1e-5.")

    @classmethod
    def of_recipe(cls, task: Task, values: Mapping[str, Any]) -> "TransformerArchitecture":
        """The architecture for a task of operand tokens."""
        if (tokens := task.modular) is None:
            raise cls._not_for(task, "operand tokens")
        others = tokens.reads.others
        if values["equals_class"] and not others:
            without = 'without "=" among the inputs there is no "=" class'
            raise InputError(f"equals_class=true needs equals_token=true: {without}.")
        return cls(
            d_vocab=tokens.d_vocab,
            d_vocab_out=tokens.reads.n_answer_classes + len(others) * values["equals_class"],
            n_ctx=len(tokens.reads.words),
            **fields_from(keys_of(cls), values),
        )

    @classmethod
    def of_model(cls, model: HookedModel) -> "TransformerArchitecture | None":
        """That of a plain model, or None for one that none of these describes.

        Plain, as far as its configuration and hook points say: learned positions, full LayerNorms
        or none, causal or bidirectional softmax attention over separate heads with the usual
        1/sqrt(d_head), a two-matrix MLP with a known activation, and no hooks.
        """
        sizes = transformer_lens_adapter.plain_sizes(model)
        return None if sizes is None else cls(**sizes)

    @property
    def transformer(self) -> "TransformerArchitecture":
        """Itself."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """What `shape_from_dict` reads: without its kind, as ever, where it is no other's."""
        own = {"kind": self.registered_kind("model")}
        return ({} if type(self) is TransformerArchitecture else own) | self.fields_given()

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        heads, d_model, d_head = self.n_heads, self.d_model, self.d_head
        shapes: dict[str, tuple[int, ...]] = {
            "embed.W_E": (self.d_vocab, d_model),
            "pos_embed.W_pos": (self.n_ctx, d_model),
        }
        layer_norm = {"w": (d_model,), "b": (d_model,)} if self.normalization_type else {}
        for layer in range(self.n_layers):
            attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
            shapes |= {f"blocks.{layer}.ln1.{x}": shape for x, shape in layer_norm.items()}
            shapes |= {f"{attn}.W_{x}": (heads, d_model, d_head) for x in "QKV"}
            shapes |= {f"{attn}.b_{x}": (heads, d_head) for x in "QKV"}
            shapes |= {f"{attn}.W_O": (heads, d_head, d_model), f"{attn}.b_O": (d_model,)}
            shapes |= {f"blocks.{layer}.ln2.{x}": shape for x, shape in layer_norm.items()}
            shapes |= {f"{mlp}.W_in": (d_model, self.d_mlp), f"{mlp}.b_in": (self.d_mlp,)}
            shapes |= {f"{mlp}.W_out": (self.d_mlp, d_model), f"{mlp}.b_out": (d_model,)}
        shapes |= {f"ln_final.{x}": shape for x, shape in layer_norm.items()}
        shapes |= {"unembed.W_U": (d_model, self.d_vocab_out), "unembed.b_U": (self.d_vocab_out,)}
        return shapes

    def _std(self, rule: str, name: str, shape: tuple[int, ...]) -> float:
        if rule == "gpt2":
            return 0.8 / self.d_model**0.5
        d_in = self.d_vocab_out if name == "unembed.W_U" else self.d_model
        return float(d_in**-0.5)

    def forward(
        self,
        weights: Mapping[str, Tensor],
        inputs: Tensor,
        cache: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Logits at the last position, [n, d_vocab_out], differentiable in the weights."""
        return self.answers(weights)(inputs, cache)

    def answers(self, weights: Mapping[str, Tensor]) -> Answers:
        """The forward of fixed weights; what all inputs share is computed once."""
        flat = answer_position.AnswerForward(
            weights, act_fn=self.act_fn, attention_rate=self.attention_rate
        )

        def answer(
            inputs: Tensor, cache: dict[str, Tensor] | None = None, *, keep_pre: bool = True
        ) -> Tensor:
            if self.why_not_functional(inputs) is None:
                return flat(inputs, cache, keep_pre=keep_pre)
            first = next(iter(weights.values()))
            return _through_hooks(self, str(first.device), first.dtype)(weights, inputs)

        return answer

    def own_activations(self, inputs: Tensor) -> Collection[str] | None:
        """Those at the answer position, where that alone is computed."""
        return answer_position.SEEN if self.why_not_functional(inputs) is None else None

    def why_not_functional(self, inputs: Tensor) -> str | None:
        """Why not the answer position alone: that takes one layer, and no LayerNorm."""
        if self.n_layers > 1:
            return f"transformers of {self.n_layers} layers"
        if self.normalization_type is not None:
            return "transformers with LayerNorm"
        return None if answer_position.reads(inputs) else f"inputs of {inputs.shape[-1]} tokens"

    def hooked(self, weights: Mapping[str, Tensor], *, device: str = "cpu") -> HookedModel:
        """A HookedTransformer (TransformerLens 3) or TransformerBridge (4) with these weights.

        An attention rate below 1 is a permanent hook on every layer's attention pattern.
        """
        self.check(weights)
        sizes = self.fields_given()
        rate = sizes.pop("attention_rate")
        model = transformer_lens_adapter.build_model(sizes, weights, device=device)
        if rate != 1:
            for layer in range(self.n_layers):
                # Permanent: it belongs to the model, and reset_hooks() must not take it away.
                name = f"blocks.{layer}.attn.hook_pattern"
                model.add_perma_hook(name, lambda pattern, hook: rate * pattern + (1 - rate))
        return model

    def gradients_on(self, inputs: Tensor, labels: Tensor, objective: Loss) -> Gradients:
        """Written out for the answer position (`answer_position.gradients`), else by autograd."""
        if self.why_not_functional(inputs) is None:
            return lambda weights: answer_position.gradients(
                weights, inputs, labels, objective,
                act_fn=self.act_fn, attention_rate=self.attention_rate,
            )  # fmt: skip
        return super().gradients_on(inputs, labels, objective)

    def why_not_stacked(self, inputs: Tensor) -> str | None:
        """Why several cannot be computed side by side."""
        reason = self.why_not_functional(inputs)
        return reason and f"{reason} are not batched, only of one layer without LayerNorm"

    def why_not(self, task: Task, *, stored: bool = False) -> str | None:
        """Why it does not fit a task; a stored one may have more of everything than its task."""
        if (tokens := task.modular) is None:
            return f"the {self.kind} reads operand tokens, the task is {task.title}"
        sizes = NetworkSizes.of(self)
        if stored and sizes.hold(NetworkSizes.least_for(tokens)):
            return None
        return _misfit(sizes, tokens, "the model")


@lru_cache(maxsize=8)
def _through_hooks(
    architecture: TransformerArchitecture, device: str, dtype: torch.dtype
) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    """The hooked forward as a function of weights, through a model that is built for it once."""
    shapes = architecture.parameter_shapes().items()
    zeros = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes}
    model = architecture.hooked(zeros, device=device)
    logits = transformer_lens_adapter.functional_logits(model)

    def alone(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        with alone_with(model):
            return logits(weights, inputs)

    return alone


class NetworkSizes(NamedTuple):
    """How many tokens, positions and classes a transformer has."""

    d_vocab: int
    n_ctx: int
    d_vocab_out: int

    @classmethod
    def of(cls, architecture: Any) -> "NetworkSizes":
        """Those of an architecture, or of a configuration."""
        return cls(architecture.d_vocab, architecture.n_ctx, architecture.d_vocab_out)

    @classmethod
    def least_for(cls, task: ModularTask) -> "NetworkSizes":
        """What a task needs."""
        return cls(task.d_vocab, len(task.reads.words), task.reads.n_answer_classes)

    def hold(self, least: "NetworkSizes") -> bool:
        """Whether none is smaller."""
        return all(size >= enough for size, enough in zip(self, least, strict=True))

    def __str__(self) -> str:
        return f"{self.d_vocab} tokens, {self.n_ctx} positions and {self.d_vocab_out} classes"

    @property
    def inputs(self) -> tuple[int, str] | None:
        """The p and the layout of which these are the sizes, where one of the usual two fits.

        >>> NetworkSizes(114, 3, 113).inputs, NetworkSizes(9, 4, 7).inputs
        ((113, 'a b ='), None)
        """
        equals = self.n_ctx == 3
        p = self.d_vocab - equals
        fits = self.n_ctx in (2, 3) and p >= 2 and self.d_vocab_out in (p, p + equals)
        return (p, USUAL[equals]) if fits else None

    @property
    def guess(self) -> str:
        """What such inputs may have been, where they are of no usual layout."""
        p = self.d_vocab_out
        if self.n_ctx in (2, 3) and p > 2 and self.d_vocab in (2 * p, 2 * p + 1):
            return f"operands with tokens of their own (b from {p} on) are not supported"
        return 'give what it reads, such as layout="a op b =", p, and ids where they are unusual'


def refuse_misfit(task: ModularTask, sizes: NetworkSizes, *, what: str = "the model") -> None:
    """InputError, naming both sizes, where a transformer of these sizes does not fit the task.

    `what` is what the network is called in the message, such as the name of its file.

    >>> refuse_misfit(ModularTask("add", 113), NetworkSizes(114, 3, 114))
    >>> refuse_misfit(ModularTask("add", 101), NetworkSizes(114, 3, 113))
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: the model has 114 tokens, 3 positions and 113 classes;
    add mod 101 read as [a, b, =] has 102 tokens, 3 positions and 101 or 102 classes; give the task
    it was trained on: p=113.
    """
    reason = _misfit(sizes, task, what)
    if reason is None:
        return
    if sizes.hold(NetworkSizes.least_for(task)) and task.layout not in USUAL.values():
        raise InputError(
            f"{reason}; where the model has more, give the ids too, such as token_ids="
            f"{dict(task.reads.id_of)}."
        )
    if sizes.inputs is None:
        raise InputError(f"{reason}; {sizes.guess}.")
    p, layout = sizes.inputs
    changed = [f"p={p}"] if p != task.p else []
    if layout != task.layout:
        usual = task.layout in USUAL.values()
        changed.append(f"equals_token={layout == USUAL[True]}" if usual else f'layout="{layout}"')
    raise InputError(f"{reason}; give the task it was trained on: {', '.join(changed)}.")


def _misfit(sizes: NetworkSizes, task: ModularTask, what: str) -> str | None:
    least, reads = NetworkSizes.least_for(task), task.reads
    more = len(reads.others)
    classes = {least.d_vocab_out, least.d_vocab_out + more}
    if sizes[:2] == least[:2] and sizes.d_vocab_out in classes:
        return None
    if task.sizes_may_be_larger and sizes.hold(least):
        return None
    at_least = "at least " if task.sizes_may_be_larger else ""
    return (
        f"{what} has {sizes}; {task.title} read as [{', '.join(reads.words)}] has {at_least}"
        f"{least.d_vocab} tokens, {least.n_ctx} positions and "
        f"{' or '.join(map(str, sorted(classes)))} classes"
    )


def fitting_task(
    sizes: NetworkSizes,
    *,
    operation: str = "add",
    p: int | None = None,
    equals_token: bool | None = None,
    seed: int = 0,
    layout: str | None = None,
    ids: Mapping[str, Any] | None = None,
    what: str = "the model",
) -> ModularTask:
    """The task of a transformer of these sizes, or InputError where they fit none.

    `p`, `layout` (or `equals_token`) and `ids` are what somebody says; what nobody says follows
    from the sizes.

    >>> fitting_task(NetworkSizes(59, 2, 59))
    ModularTask(operation='add', p=59, equals_token=False, seed=0)
    >>> fitting_task(NetworkSizes(61, 4, 59), layout="a op b =").p
    59
    """
    ids = {key: x for key, x in (ids or {}).items() if x is not None}
    if layout is None and equals_token is not None:
        layout = USUAL[equals_token]
    if layout is not None and p is None and not ids:
        more = len(Layout.of(layout, 2).others)
        p = sizes.d_vocab - more if sizes.d_vocab - more >= 2 else None
    found_p, found = sizes.inputs or (p, USUAL[sizes.n_ctx > 2])
    p = found_p if p is None else p
    if p is None:
        raise InputError(
            f"{what} has {sizes}, which fit no p: [a, b, =] has p + 1 tokens, 3 positions and p or "
            f"p + 1 classes, [a, b] has p tokens, 2 positions and p classes; {sizes.guess}."
        )
    task = ModularTask(operation, p, seed=seed, layout=found if layout is None else layout, **ids)
    refuse_misfit(task, sizes, what=what)
    return task
