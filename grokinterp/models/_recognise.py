"""Whose weights are these? Layout and architecture of a state dict, from its names and shapes.

hooked         HookedTransformer: canonical names and shapes
bridge         TransformerBridge of TransformerLens 4
paper          Nanda et al. 2023, Zhong et al. 2023: the same names, transposed, W_O as one matrix
minimal_gpt    the usual small GPT: token embedding, fused query-key-value matrix, two-layer MLP
torch_encoder  nn.TransformerEncoder, nn.TransformerEncoderLayer, or nn.MultiheadAttention alone
perceptron     no attention: a multilayer perceptron on operand pairs (`_recognise_mlp`)

Any of them may be without an MLP. What names and shapes cannot say (the activation function; the
head count of a fused matrix) is in `assumed`, at a default, unless it was given. Norms are taken to
stand before attention, MLP and unembedding, as in all but torch's encoder, which has them after
attention and MLP unless somebody says otherwise; what has no weights (LNPre, RMSPre) is there only
where it was given. What is none of these is refused by the name of its architecture, as far as that
shows (`foreign_names.other_architecture`).
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from einops import EinopsError
from torch import Tensor

from grokinterp.base.checks import tensors
from grokinterp.base.errors import InputError, names, shown
from grokinterp.base.plugins import strangers
from grokinterp.models._recognise_mlp import recognise_mlp
from grokinterp.models.architecture import LARGEST_OF, Weights, is_bias, refuse_not_finite
from grokinterp.models.foreign_names import (
    BRIDGE,
    LAYOUTS,
    PAPER,
    Slot,
    as_bridge,
    gpt_name,
    has_attention,
    other_architecture,
    slots,
    torch_names,
)
from grokinterp.models.network_in import Network, network_in
from grokinterp.models.recognised import Recognised, in_one_precision
from grokinterp.models.transformer import NetworkSizes, TransformerArchitecture
from grokinterp.models.user_models import PRECISIONS

FUSED = ("bridge", "minimal_gpt", "torch_encoder")  # whose query rows are those of all heads
# What shapes cannot say.
KINDS = ("act_fn", "eps", "attention_dir", "attention_rate", "norm_position")
MASKS = (torch.bool, torch.uint8, torch.int64, *PRECISIONS)

_NOT_A_WEIGHT = re.compile(
    r".*\b(attn\.bias|mask|IGNORE|causal_mask|tril|bias_mask|inv_freq|rotary_(sin|cos)|masked_bias)"
)
_NORM = re.compile(r"(blocks\.\d+\.)?ln(1|2|_final)?\.")
_NORM_KEYS = ("normalization_type", "eps", "norm_position")
_PART_OF_THE_FORWARD = re.compile(  # what a TransformerLens module, or one beside it, computes with
    r"blocks\.\d+\.(.*\.)?(ln\w*|\w*norm\w*|bn\w*|_?[Wb]_\w+|\w*gate\w*|\w*experts?|router)(\..*)?"
    r"|(un|pos_)?embed\.([Wb]_\w+|ln\w*|\w*norm\w*)(\..*)?|ln\w*(\..*)?"
    r"|(.*\.)?(\w*lora\w*|\w*adapters?|parametrizations)(\..*)?",
    re.IGNORECASE,
)
_AS_HOOKED = "as HookedTransformer does (embed.W_E, blocks.0.attn.W_Q, ...)"


@dataclass(frozen=True, kw_only=True)
class RecognisedTransformer(Recognised):
    """The layout of a transformer's state dict, and its architecture."""

    architecture: TransformerArchitecture
    unused_norms: bool = False  # gains and biases that are kept, and used by no layer

    def weights(self, state: Mapping[str, Tensor], where: str) -> Weights:
        """A state dict of this layout as canonical weights."""
        layout, shape = self.layout, self.architecture
        network = network_in(state, where, prefix=self.prefix)
        with _named_if_another(state, network, where):
            if (to_canonical := LAYOUTS.get(layout)) is not None:
                state, layout = to_canonical(_under(state, self.prefix)) or {}, "hooked"
                network = network_in(state, where)
            tidied = _tidy(state, network, layout, self.unused_norms)
            found = _Named(tidied, layout, shape.n_layers, where).canonical(shape)
        shapes = shape.parameter_shapes()
        zero = found["embed.W_E"].new_zeros
        found = {name: zero(shape) for name, shape in shapes.items() if is_bias(name)} | found
        shape.check(found)
        diverged = "the training diverged before it was saved: leave this checkpoint out"
        refuse_not_finite(found, where, diverged)
        return {name: found[name].contiguous() for name in shapes}

    def usual(self, key: str, known: Mapping[str, Any]) -> tuple[Any, str]:
        """What is assumed where nothing answers an open question, and a reason beyond custom.

        Blended attention between two tokens, or attention whose rate is given, is that of Zhong et
        al. 2023 (arXiv 2306.17844), whose code masks nothing, whatever mask its files hold.
        """
        shape = self.architecture
        rate = known.get("attention_rate", shape.attention_rate)
        rate_said = self.layout == "paper" and "attention_rate" not in self.assumed
        if key == "attention_dir" and shape.n_ctx == 2 and (rate_said or rate != 1):
            return "bidirectional", "as the code for such blended attention of two tokens has it"
        return getattr(shape, key), ""

    def possible(self, key: str, value: object) -> bool:
        """Whether a number of heads divides the width of all of them."""
        width = self.architecture.n_heads * self.architecture.d_head
        return key != "n_heads" or (type(value) is int and width % value == 0)

    def held(self, rows: int) -> int:
        """Queries, keys, values, neurons and residual streams; of two tokens also their scores."""
        shape = self.architecture
        wide = 6 * shape.n_heads * shape.d_head + 4 * shape.d_mlp + 8 * shape.d_model
        return rows * wide + (shape.n_heads * shape.d_vocab**2 if shape.n_ctx == 2 else 0)

    @property
    def parts(self) -> str:
        """Heads and neurons."""
        return f"{self.architecture.n_heads} heads and {self.architecture.d_mlp} neurons"

    def replace(self, **changes: Any) -> "RecognisedTransformer":
        """The same with other values for what was assumed of the architecture."""
        if heads := changes.get("n_heads"):
            changes["d_head"] = self.architecture.n_heads * self.architecture.d_head // heads
        return replace(self, architecture=replace(self.architecture, **changes))


def recognise(
    state: Mapping[str, Tensor],
    given: Mapping[str, Any],
    where: str,
    *,
    prefix: str | None = None,
    p: int | None = None,
) -> Recognised:
    """Layout and architecture of a state dict.

    `given` are sizes and kinds that somebody says it has (fields of `TransformerArchitecture`):
    what shapes cannot say is taken from there, and what they can say must agree; `p` is the modulus
    that somebody says, where shapes allow for two.
    `normalization_type` "none" says that the LayerNorms that are kept are not used. `prefix` is
    what the names of the network begin with, where there are several (`network_in`).
    """
    try:
        network = network_in(state, where, prefix=prefix)
        if (found := recognise_mlp(state, network, given, where, p=p)) is not None:
            return replace(found, prefix=prefix)
        with _named_if_another(state, network, where):
            return replace(_recognise(state, network, given, where), prefix=prefix)
    except InputError:
        LAYOUTS.every()  # those of plug-ins too
        for layout, to_canonical in LAYOUTS.items():
            with strangers(f"layout={layout!r}", to_canonical):
                canonical = to_canonical(_under(state, prefix))
            if canonical is not None:
                canonical = tensors(f"what layout={layout!r} returns", canonical)
                recognised = _recognise(canonical, network_in(canonical, where), given, where)
                return replace(recognised, layout=layout, prefix=prefix)
        raise


def _under(state: Mapping[str, Tensor], prefix: str | None) -> Mapping[str, Tensor]:
    """The weights under a prefix that was given, without it."""
    if not prefix:
        return state
    begin = f"{prefix.removesuffix('.')}."
    return {key.removeprefix(begin): x for key, x in state.items() if key.startswith(begin)}


def _recognise(
    state: Mapping[str, Tensor], network: Network, given: Mapping[str, Any], where: str
) -> RecognisedTransformer:
    unused_norms = str(given.get("normalization_type", "")).lower() == "none"
    given = {key: x for key, x in given.items() if not (unused_norms and key in _NORM_KEYS)}
    layout = _layout_of(state, network, where)
    tidied = _tidy(state, network, layout, unused_norms)
    layers = {int(key.split(".")[1]) for key in tidied if re.match(r"blocks\.\d+\.", key)}
    n_layers = len(layers)
    if n_layers > (most := LARGEST_OF["n_layers"]):
        raise InputError(f"{where} has {n_layers} layers; a network of at most {most} is read.")
    if not layers or layers != set(range(n_layers)):
        raise InputError(
            f"{where}: its layers are {sorted(layers)[:6]}, not 0, 1, ... without a gap."
        )
    named_rms = any("rms" in name.lower() for name in network.names.values())
    named = _Named(tidied, layout, n_layers, where, named_rms)
    kinds = {key: given[key] for key in KINDS if key in given}
    kinds["act_fn"] = given.get("act_fn") or ("gelu" if layout == "minimal_gpt" else "relu")
    masks = {key: state[key] for key in network.names}
    of_torch = layout == "torch_encoder"
    usual_direction = "bidirectional" if of_torch else _direction(masks)
    kinds["attention_dir"] = given.get("attention_dir") or usual_direction
    norms = named.possible_norms()
    norm = kinds["normalization_type"] = given.get("normalization_type", norms[0])
    if norm not in norms:
        raise _contradiction("normalization_type", norm, norms[0] or "none", where)
    if norm is not None:
        kinds.setdefault("norm_position", "post" if of_torch else "pre")
        kinds["final_norm"] = not of_torch or "ln_final.w" in named.places
    notes = network.notes
    if named.attn_only:
        notes += ("no layer has an MLP: attention alone",)
    if of_torch:
        notes += ("torch's attention, read at the last position, with the stream added around it",)
    if beside := sorted({*network.beside} - {*_named_beside(network, layout)}):
        notes += (f"read without {names(beside)}, which stands beside the network",)
    if norm == "LN" and len(norms) > 1 and "normalization_type" not in given:
        notes += (
            "norms have gains alone: taken to be LayerNorms, which RMSNorms are not (set "
            "normalization_type=RMS if they are)",
        )
    architecture = TransformerArchitecture.from_dict({**named.sizes(given), **kinds})
    if extra := named.left_over(architecture):
        notes += (f"read without {names(extra)}, which a HookedTransformer does not have",)
    for key, value in given.items():
        found = getattr(architecture, key)
        if key not in KINDS and value != found:
            raise _contradiction(key, value, found, where)
    several = n_layers > 1  # of one layer it changes nothing
    open_questions = {
        "act_fn": not architecture.attn_only,
        "n_heads": layout in FUSED and not of_torch and "d_head" not in given,
        "attention_rate": architecture.n_ctx == 2 and layout == "paper",  # as Zhong et al. vary it
        "attention_dir": several and (of_torch or architecture.attention_dir == "causal"),
        "norm_position": of_torch and norm is not None,
        "eps": architecture.normalization_type is not None,
    }
    assumed = tuple(key for key, is_open in open_questions.items() if is_open and key not in given)
    return RecognisedTransformer(
        layout=layout, architecture=architecture, assumed=assumed, notes=notes,
        unused_norms=unused_norms,
    )  # fmt: skip


def _contradiction(key: str, given: object, found: object, where: str) -> InputError:
    return InputError(
        f"{key}={given} contradicts the weights of {where}, which have {key}={found}; correct it "
        "or leave it out."
    )


@contextlib.contextmanager
def _named_if_another(state: Mapping[str, Tensor], network: Network, where: str) -> Iterator[None]:
    """Of weights of another architecture, say that and nothing else."""
    try:
        yield
    except InputError:
        plain = {
            name: state[key]
            for key, name in network.names.items()
            if not _NOT_A_WEIGHT.fullmatch(name)
        }
        if (name := other_architecture(plain)) is None:
            raise
        raise InputError(
            f"{where} holds {name}, an architecture that cannot be read from weights; what can are "
            "transformers with positions of their own, with or without MLPs, and MLPs on operand "
            "pairs; gi.snapshot(model, task) takes any module."
        ) from None


def _layout_of(state: Mapping[str, Tensor], network: Network, where: str) -> str:
    found = network.names
    known = set(found.values())
    if "embed.W_E" in known and "blocks.0.attn.W_O" in known:
        output = next(state[key] for key, name in found.items() if name == "blocks.0.attn.W_O")
        return "paper" if output.ndim == 2 else "hooked"
    if "blocks.0.attn.q.weight" in known:
        return "bridge"
    if torch_names(known) is not None:
        return "torch_encoder"
    if {"blocks.0.attn.qkv.weight", "blocks.0.attn.q.weight"} & set(map(gpt_name, known)):
        return "minimal_gpt"
    if has_attention(known):
        unknown = [key for key, name in found.items() if gpt_name(name) is None]
        raise InputError(
            f"{where} holds a transformer under names that are not known here, "
            f"{names(unknown or found)}; rename its weights {_AS_HOOKED}."
        )
    raise InputError(
        f"{where} holds tensors of no network that is known here, {names(found)}; give a state "
        "dict, such as torch.save(model.state_dict(), path) writes."
    )


def _tidy(
    state: Mapping[str, Tensor], network: Network, layout: str, unused_norms: bool
) -> dict[str, Tensor]:
    """The weights without wrappers and buffers.

    Those of a GPT or of torch's encoder are under the bridge's names, q, k, v apart.
    """
    found: dict[str, Tensor] = {}
    every = {**network.names, **{key: key for key in _named_beside(network, layout)}}
    of_torch = torch_names(every.values()) if layout == "torch_encoder" else None
    for key, name in every.items():
        tensor = state[key]
        if _NOT_A_WEIGHT.fullmatch(name) or not tensor.is_floating_point():
            continue
        name = (gpt_name(name) or name) if layout == "minimal_gpt" else name
        name = name if of_torch is None else of_torch[name]
        if unused_norms and _NORM.match(name):
            continue
        if name in found:
            raise InputError(
                f"two of the weights are both {shown(name)}: {shown(key)} is one of them; keep one."
            )
        found[name] = tensor
    found = in_one_precision(found)
    return as_bridge(found) if layout in ("minimal_gpt", "torch_encoder") else found


def _named_beside(network: Network, layout: str) -> tuple[str, ...]:
    """Keys beside a network that are taken for its own, unless somebody said where it is.

    HookedTransformer's names say what is a part of the forward. In other layouts names are free,
    and what stands beside a network without an unembedding may be that.
    """
    if network.given:
        return ()
    if layout == "hooked":
        return tuple(key for key in network.beside if _PART_OF_THE_FORWARD.fullmatch(key))
    return () if network.complete else network.beside


@dataclass(frozen=True)
class _Named:
    """The weights of a file by the names of their layout, as `_tidy` gives them."""

    weights: Mapping[str, Tensor]
    layout: str
    n_layers: int
    where: str
    named_rms: bool = False  # norms are called so

    @cached_property
    def places(self) -> dict[str, Slot]:
        """Canonical names of the weights that are there, and where."""
        if self.layout == "hooked":
            return {key: Slot(key, "... -> ...") for key in self.weights}
        known = slots(PAPER if self.layout == "paper" else BRIDGE, self.n_layers)
        return {name: slot for name, slot in known.items() if slot.key in self.weights}

    @cached_property
    def attn_only(self) -> bool:
        """Whether there is no MLP in any layer, and nothing that could be one."""
        names = [*self.places, *self._not_understood()]
        return not any(".mlp." in x for x in names) and not any(
            x.startswith("blocks.") for x in self._not_understood()
        )

    def possible_norms(self) -> tuple[str | None, ...]:
        """The kinds of norm that these weights may be of, the usual one first."""
        if "blocks.0.ln1.w" not in self.places:
            return (None, "LNPre", "RMSPre")
        if "blocks.0.ln1.b" in self.places:
            return ("LN",)
        if self.layout in ("hooked", "bridge"):  # whose LayerNorms always have biases
            return ("RMS",)
        return ("RMS", "LN") if self.named_rms else ("LN", "RMS")

    def canonical(self, architecture: TransformerArchitecture) -> Weights:
        """The weights under canonical names and in canonical shapes."""
        extra, n_heads = self.left_over(architecture), architecture.n_heads
        found = {}
        for name, slot in self.places.items():
            if name in extra:
                continue
            try:
                found[name] = slot.canonical(self.weights[slot.key], n_heads)
            except EinopsError:
                raise InputError(
                    f"{self.where}: weight {slot.key!r} has shape "
                    f"{tuple(self.weights[slot.key].shape)}, which does not fit "
                    f"{slot.pattern.partition(' -> ')[0]!r} with {n_heads} heads."
                ) from None
        for name in architecture.parameter_shapes():
            if name not in found and not is_bias(name):
                raise self._without(name)
        return found

    def left_over(self, architecture: TransformerArchitecture) -> list[str]:
        """Weights that a HookedTransformer's dict has besides its own, such as those of a probe.

        Refused: what is named as a part of the forward is, and anything in other layouts, where
        names are free.
        """
        hooked = self.layout == "hooked"
        own = sorted(set(self.weights) - set(architecture.parameter_shapes()))
        extra = own if hooked else self._not_understood()
        used = [x for x in extra if not hooked or _PART_OF_THE_FORWARD.fullmatch(x)]
        if used:
            raise InputError(
                f"{self.where} has weights that are not in the {self.layout} layout, "
                f"{names(used)}; take them out if the network does not use them, or rename them."
            )
        return extra

    def sizes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The sizes, each read off one weight; `Recognised.weights` compares all the others."""
        n_heads, shapes = self._n_heads(given), {}
        for name, ndim in (
            ("embed.W_E", 2), ("pos_embed.W_pos", 2), ("blocks.0.attn.W_Q", 3),
            ("blocks.0.mlp.W_in", 2), ("unembed.W_U", 2),
        ):  # fmt: skip
            if ".mlp." in name and self.attn_only:
                continue
            if (slot := self.places.get(name)) is None:
                raise self._without(name)
            weight = self._of_axes(slot.key, 2 if self.layout in FUSED else ndim)
            shapes[name] = slot.canonical(weight, n_heads).shape
        return {
            "n_layers": self.n_layers,
            "n_heads": n_heads,
            "d_model": shapes["embed.W_E"][1],
            "d_head": shapes["blocks.0.attn.W_Q"][2],
            "d_mlp": 0 if self.attn_only else shapes["blocks.0.mlp.W_in"][1],
            "attn_only": self.attn_only,
            "d_vocab": shapes["embed.W_E"][0],
            "d_vocab_out": shapes["unembed.W_U"][1],
            "n_ctx": shapes["pos_embed.W_pos"][0],
        }

    def _n_heads(self, given: Mapping[str, Any]) -> int:
        if self.layout not in FUSED:
            return len(self._of_axes("blocks.0.attn.W_Q", 3))
        rows = len(self._of_axes("blocks.0.attn.q.weight", 2))
        if self.layout == "torch_encoder" and not {"n_heads", "d_head"} & given.keys():
            fitting = [n for n in range(1, rows + 1) if rows % n == 0]
            few = ", ".join(map(str, fitting[:12]))
            raise InputError(
                f"{self.where} has torch's attention, whose weights do not show how many heads "
                f"there are; give n_heads= ({few} divide its {rows} query rows)"
                f"{self._of_unusual_inputs()}."
            )
        usual = 4 if rows % 4 == 0 else 1
        heads = given.get("n_heads") or rows // (given.get("d_head") or rows // usual)
        if type(heads) is not int or heads < 1 or rows % heads:
            what = f"the {rows} query rows of {self.where}"
            raise InputError(f"n_heads={heads!r} does not divide {what}.")
        return heads

    def _of_unusual_inputs(self) -> str:
        """What else has to be given, where its sizes are those of no usual layout of inputs."""
        keys = ("embed.weight", "pos_embed.weight", "unembed.weight")
        sizes = NetworkSizes(*(len(self._of_axes(key, 2)) for key in keys))
        if sizes.inputs is not None:
            return ""
        return f', and for its {sizes} p= and what it reads, such as layout="a op b ="'

    def _of_axes(self, key: str, ndim: int) -> Tensor:
        found = self.weights.get(key)
        if found is None or found.ndim != ndim or 0 in found.shape:
            there = "missing" if found is None else tuple(found.shape)
            raise InputError(f"{self.where}: weight {key!r} is {there}, expected {ndim} axes.")
        return found

    def _without(self, name: str) -> InputError:
        own = self._not_understood()
        hint = f"of its own, {names(own)} are not understood: " if own else ""
        return InputError(f"{self.where} has no weight {name!r}; {hint}rename them {_AS_HOOKED}.")

    def _not_understood(self) -> list[str]:
        return sorted(set(self.weights) - {slot.key for slot in self.places.values()})


def _direction(state: Mapping[str, Tensor]) -> str:
    """What a stored attention mask says, if it lets later positions through.

    A causal mask says little: HookedTransformer and Zhong et al. 2023 store one that they do not
    use when attention goes both ways.
    """
    masks = [mask for key, mask in state.items() if key.endswith("attn.mask") and mask.ndim == 2]
    later = any(len(mask) > 1 and mask.dtype in MASKS and mask.triu(1).any() for mask in masks)
    return "bidirectional" if later else "causal"
