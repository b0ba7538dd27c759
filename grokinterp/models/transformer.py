"""A transformer in TransformerLens' words: its sizes, its weights, its forward, and what it fits.

It fits a task when it has as many tokens as the inputs are made of, as many positions as they are
long, and as many classes as there are answers, or one more for each further token:

a b =      p + 1 tokens, 3 positions, p classes or p + 1 (the papers' "=" class: 114 at p = 113)
a b        p tokens, 2 positions, p classes
a op b =   p + 2 tokens, 4 positions, p classes or p + 2

A network with more of any of these was trained on other inputs, and answers these with numbers
that look like results; so more are taken only where somebody gave layout and ids. That sizes fit is
no proof: no size says which token is which.

One layer without norms is computed where its answer is read alone (`answer_position`), any other
block by block (`blocks`): the numbers of TransformerLens' own forward either way.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor

from grokinterp.base.checks import number
from grokinterp.base.errors import InputError
from grokinterp.base.keys import Key, derived, fields_from, key, keys_of
from grokinterp.models import answer_position, blocks, transformer_lens_adapter
from grokinterp.models.architecture import (
    ACTIVATIONS,
    NORMS,
    Answers,
    BaseArchitecture,
    Gradients,
    Loss,
    check_sizes,
    register_model,
)
from grokinterp.models.interchangeable_units import Units, heads_of, neurons_of
from grokinterp.models.layers import Visit, recorder
from grokinterp.models.user_models import HookedModel, configuration
from grokinterp.tasks.layout import USUAL, Layout
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task

LATER_FIELDS = ("attn_only", "norm_position", "final_norm")  # than 0.2.0


@register_model("transformer")
@dataclass(frozen=True)
class TransformerArchitecture(BaseArchitecture):
    """Sizes and kinds of a transformer's parts, in TransformerLens' words.

    `normalization_type` stands before attention, MLP and unembedding; with `norm_position="post"`
    after attention and MLP with the stream around them, as in torch.nn.TransformerEncoderLayer, and
    before the unembedding only with `final_norm`. `attn_only` leaves out every MLP: `d_mlp` is 0.
    What each computes: `grokinterp.models.blocks`.

    `attention_rate` r replaces every attention pattern A by r A + (1 - r): 1 is attention, 0 gives
    every position the weight 1 (Zhong et al. 2023, arXiv 2306.17844, section 4).

    Of its initial weights: normal matrices, zero biases, LayerNorm gains of 1. `rule="gpt2"`: std
    0.8/sqrt(d_model) for every matrix (TransformerLens 3's "gpt2" mode). `rule="paper"`: std
    1/sqrt(d_model), the unembedding 1/sqrt(d_vocab_out) (released code of Nanda et al. 2023; W_out
    too uses d_model although its fan-in is d_mlp).

    >>> import grokinterp as gi
    >>> architecture = gi.Recipe(p=113, layout="a op b =").architecture()
    >>> architecture.d_vocab, architecture.n_ctx, architecture.d_vocab_out
    (115, 4, 113)
    >>> architecture.parameter_shapes()["blocks.0.attn.W_Q"]
    (4, 128, 32)
    >>> architecture.why_not(gi.ModularTask("add", p=113))
    'the model has 115 tokens, 4 positions and 113 classes; add mod 113 read as [a, b, =] has 114
    tokens, 3 positions and 113 or 114 classes'
    """

    positions: ClassVar[bool] = True
    init_rules: ClassVar[tuple[str, ...]] = ("gpt2", "paper")
    usual_biases: ClassVar[str] = "none"
    more_keys: ClassVar[tuple[Key, ...]] = (
        Key(
            "equals_class", bool, False,
            help='"=" (every word that is no operand) is an output class, and of the softmax',
        ),
        Key(
            "normalization_type", str, "none", choices=tuple(kind or "none" for kind in NORMS),
            help="norms before attention, MLP and unembedding", synonyms=("normalization",),
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
    normalization_type: str | None = derived(None)
    eps: float = derived(1e-5)  # of the norms
    attention_dir: str = derived("causal")
    attention_rate: float = derived(1.0)
    attn_only: bool = key(False, help="attention alone, without an MLP")
    norm_position: str = derived("pre")
    final_norm: bool = derived(True)

    def __post_init__(self) -> None:
        if self.attn_only:  # whatever is given: two of them are equal, and have no neurons
            object.__setattr__(self, "d_mlp", 0)
            object.__setattr__(self, "act_fn", "relu")
        check_sizes(self, absent=("d_mlp",) if self.attn_only else ())
        number("attention_rate", self.attention_rate, least=0, most=1, such_as="0.5")
        if not 0 < self.eps < 1:
            raise InputError(f"eps={self.eps} is not between 0 and 1; give such as 1e-5.")

    @classmethod
    def of_recipe(cls, task: Task, values: Mapping[str, Any]) -> "TransformerArchitecture":
        """The architecture for a task of operand tokens."""
        if (tokens := task.modular) is None:
            raise cls._not_for(task, "operand tokens")
        answers, with_words = tokens.reads.class_counts
        if values["equals_class"] and answers == with_words:
            without = 'without "=" among the inputs there is no "=" class'
            raise InputError(f"equals_class=true needs equals_token=true: {without}.")
        return cls(
            d_vocab=tokens.d_vocab,
            d_vocab_out=with_words if values["equals_class"] else answers,
            n_ctx=len(tokens.reads.words),
            normalization_type={"none": None}.get(kind := values["normalization_type"], kind),
            **fields_from(keys_of(cls), values),
        )

    @classmethod
    def of_model(cls, model: HookedModel) -> "TransformerArchitecture | None":
        """That of a plain model, or None for one that none of these describes.

        Plain, as far as its configuration and hook points say: learned positions, norms of a known
        kind or none, causal or bidirectional softmax attention over separate heads with the usual
        1/sqrt(d_head), a two-matrix MLP with a known activation or none, and no hooks.
        """
        if isinstance(known := configuration(model), cls):
            return None if any(x.fwd_hooks for x in model.hook_dict.values()) else known
        sizes = transformer_lens_adapter.plain_sizes(model)
        return None if sizes is None else cls(**sizes)

    @property
    def transformer(self) -> "TransformerArchitecture":
        """Itself."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """What `shape_from_dict` reads, as 0.2.0 does where it knows such an architecture.

        Without its kind where it is no other's, and without later fields at their defaults.
        """
        given, plain = self.fields_given(), type(self) is TransformerArchitecture
        usual = {x.name: x.default for x in fields(self) if x.name in LATER_FIELDS}
        given = {name: x for name, x in given.items() if usual.get(name, ...) != x}
        return ({} if plain else {"kind": self.registered_kind("model")}) | given

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        heads, d_model, d_head = self.n_heads, self.d_model, self.d_head
        shapes: dict[str, tuple[int, ...]] = {
            "embed.W_E": (self.d_vocab, d_model),
            "pos_embed.W_pos": (self.n_ctx, d_model),
        }
        gains = {"LN": "wb", "RMS": "w"}.get(self.normalization_type or "", "")
        norm = dict.fromkeys(gains, (d_model,))
        for layer in range(self.n_layers):
            attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
            shapes |= {f"blocks.{layer}.ln1.{x}": shape for x, shape in norm.items()}
            shapes |= {f"{attn}.W_{x}": (heads, d_model, d_head) for x in "QKV"}
            shapes |= {f"{attn}.b_{x}": (heads, d_head) for x in "QKV"}
            shapes |= {f"{attn}.W_O": (heads, d_head, d_model), f"{attn}.b_O": (d_model,)}
            if self.attn_only:
                continue
            shapes |= {f"blocks.{layer}.ln2.{x}": shape for x, shape in norm.items()}
            shapes |= {f"{mlp}.W_in": (d_model, self.d_mlp), f"{mlp}.b_in": (self.d_mlp,)}
            shapes |= {f"{mlp}.W_out": (self.d_mlp, d_model), f"{mlp}.b_out": (d_model,)}
        if self.final_norm:
            shapes |= {f"ln_final.{x}": shape for x, shape in norm.items()}
        shapes |= {"unembed.W_U": (d_model, self.d_vocab_out), "unembed.b_U": (self.d_vocab_out,)}
        return shapes

    def _std(self, rule: str, name: str, shape: tuple[int, ...]) -> float:
        if rule == "gpt2":
            return 0.8 / self.d_model**0.5
        d_in = self.d_vocab_out if name == "unembed.W_U" else self.d_model
        return float(d_in**-0.5)

    @property
    def linear_readout(self) -> bool:  # type: ignore[override]
        """Whether logits are linear in what the last block adds to the stream."""
        return self.normalization_type is None or (
            self.norm_position == "pre" and not self.final_norm
        )

    @property
    def norm_name(self) -> str:
        """What papers call its norms."""
        return "RMSNorm" if str(self.normalization_type).startswith("RMS") else "LayerNorm"

    @property
    def in_transformer_lens(self) -> bool:
        """Whether TransformerLens' own model classes can be it: norms before each part, or none."""
        return self.normalization_type is None or (self.norm_position == "pre" and self.final_norm)

    @property
    def at_answer_alone(self) -> bool:
        """Whether the answer position is all that it takes: one layer, and no norms."""
        return self.n_layers == 1 and self.normalization_type is None

    def interchangeable_units(self) -> Units:
        """Heads and neurons of every layer."""
        found: Units = {}
        for layer in range(self.n_layers):
            found |= heads_of(layer)
            if not self.attn_only:
                found |= neurons_of(layer, f"blocks.{layer}.mlp.W_out")
        return found

    def hook_names(self) -> tuple[str, ...]:
        """Names of the activations, in the order of the forward."""
        return blocks.hook_names(self)

    def forward(
        self,
        weights: Mapping[str, Tensor],
        inputs: Tensor,
        cache: dict[str, Tensor] | None = None,
        *,
        visit: Visit | None = None,
    ) -> Tensor:
        """Logits at the last position, [n, d_vocab_out], differentiable in the weights.

        With `visit`, which is shown every activation and says how it goes on, all positions are
        computed: logits [n, n_tokens, d_vocab_out], as a HookedTransformer has them.
        """
        if visit is not None:
            return blocks.logits(weights, self, inputs, visit)
        return self.answers(weights)(inputs, cache)

    def answers(self, weights: Mapping[str, Tensor]) -> Answers:
        """The forward of fixed weights; what all inputs share is computed once."""
        if self.at_answer_alone:
            return answer_position.AnswerForward(
                weights, act_fn=self.act_fn, attention_rate=self.attention_rate
            )

        def answer(
            inputs: Tensor, cache: dict[str, Tensor] | None = None, *, keep_pre: bool = True
        ) -> Tensor:
            found: dict[str, Tensor] | None = None if cache is None else {}
            logits = blocks.logits(weights, self, inputs, recorder(found), n_queries=1)
            if cache is not None and found is not None:
                cache |= {name: blocks.at_last(x, name) for name, x in found.items()}
            return logits[:, -1]

        return answer

    def own_activations(self, inputs: Tensor) -> Collection[str]:
        """Those at the answer position, and of several layers all."""
        if self.at_answer_alone:
            return answer_position.seen(attn_only=self.attn_only)
        return self.hook_names()

    def before_last_block(
        self, weights: Mapping[str, Tensor], inputs: Tensor
    ) -> Float[Tensor, "n n_tokens d_model"]:
        """The stream that the last block reads, at all positions."""
        return blocks.before_last_block(weights, self, inputs, recorder(None))

    def hooked(self, weights: Mapping[str, Tensor], *, device: str = "cpu") -> HookedModel:
        """A HookedTransformer (TransformerLens 3) or TransformerBridge (4) with these weights.

        An attention rate below 1 is a permanent hook on every layer's attention pattern. What
        TransformerLens has no class for is a HookedNetwork under the same hook names.
        """
        self.check(weights)
        if not self.in_transformer_lens:
            from grokinterp.models.hooked import HookedNetwork

            return HookedNetwork(self, weights).to(device).eval()
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
        if self.at_answer_alone:
            return lambda weights: answer_position.gradients(
                weights, inputs, labels, objective,
                act_fn=self.act_fn, attention_rate=self.attention_rate,
            )  # fmt: skip
        return super().gradients_on(inputs, labels, objective)

    def why_not_stacked(self, inputs: Tensor) -> str | None:
        """Why several cannot be computed side by side."""
        if self.at_answer_alone:
            return None
        several = self.n_layers > 1
        which = f"of {self.n_layers} layers" if several else f"with {self.norm_name}"
        return f"transformers {which} are not batched, only of one layer without norms"

    def why_not(self, task: Task, *, stored: bool = False) -> str | None:
        """Why it does not fit a task; a stored one may have more of everything than its task."""
        if (tokens := task.modular) is None:
            return f"the {self.kind} reads operand tokens, the task is {task.title}"
        sizes = NetworkSizes.of(self)
        if stored and sizes.hold(NetworkSizes.least_for(tokens)):
            return None
        return _misfit(sizes, tokens, "the model")


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
    if sizes[:2] == least[:2] and sizes.d_vocab_out in reads.class_counts:
        return None
    if task.sizes_may_be_larger and sizes.hold(least):
        return None
    at_least = "at least " if task.sizes_may_be_larger else ""
    return (
        f"{what} has {sizes}; {task.title} read as [{', '.join(reads.words)}] has {at_least}"
        f"{least.d_vocab} tokens, {least.n_ctx} positions and "
        f"{' or '.join(map(str, dict.fromkeys(reads.class_counts)))} classes"
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
    if layout is not None and p is None and not ids:
        more = len(Layout.of(layout, 2).others)
        p = sizes.d_vocab - more if sizes.d_vocab - more >= 2 else None
    if layout is None and equals_token is not None:
        layout = USUAL[equals_token]
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
