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
from typing import Any

import torch
from torch import Tensor

from grokinterp.base.checks import tensors
from grokinterp.base.errors import InputError, names, shown
from grokinterp.base.plugins import strangers
from grokinterp.models._recognise_mlp import recognise_mlp
from grokinterp.models.architecture import LARGEST_OF, Weights, is_bias, refuse_not_finite
from grokinterp.models.foreign_names import (
    LAYOUTS,
    as_bridge,
    end_names,
    gpt_name,
    has_attention,
    other_architecture,
    torch_names,
)
from grokinterp.models.named_weights import (
    AS_HOOKED,
    FUSED,
    OF_OTHERS,
    PART_OF_THE_FORWARD,
    NamedWeights,
)
from grokinterp.models.network_in import Network, network_in
from grokinterp.models.recognised import Recognised, in_one_precision
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.models.user_models import PRECISIONS

# What shapes cannot say.
KINDS = ("act_fn", "eps", "attention_dir", "attention_rate", "norm_position")
MASKS = (torch.bool, torch.uint8, torch.int64, *PRECISIONS)

_NOT_A_WEIGHT = re.compile(
    r".*\b(attn\.bias|mask|IGNORE|causal_mask|tril|bias_mask|inv_freq|rotary_(sin|cos)|masked_bias)"
)
_NORM = re.compile(r"(blocks\.\d+\.)?ln(1|2|_final)?\.")
_NORM_KEYS = ("normalization_type", "eps", "norm_position")


@dataclass(frozen=True, kw_only=True)
class RecognisedTransformer(Recognised):
    """The layout of a transformer's state dict, and its architecture."""

    architecture: TransformerArchitecture
    unused_norms: bool = False  # gains and biases that are kept, and used by no layer
    scaled: bool = False  # the embedding is multiplied by sqrt(d_model)

    def weights(self, state: Mapping[str, Tensor], where: str) -> Weights:
        """A state dict of this layout as canonical weights."""
        layout, shape = self.layout, self.architecture
        network = network_in(state, where, prefix=self.prefix)
        with _named_if_another(state, network, where):
            if (to_canonical := LAYOUTS.get(layout)) is not None:
                state, layout = to_canonical(_under(state, self.prefix)) or {}, "hooked"
                network = network_in(state, where)
            tidied = _tidy(state, network, layout, self.unused_norms)
            found = NamedWeights(tidied, layout, shape.n_layers, where).canonical(shape)
        shapes = shape.parameter_shapes()
        zero = found["embed.W_E"].new_zeros
        found = {name: zero(shape) for name, shape in shapes.items() if is_bias(name)} | found
        shape.check(found)
        diverged = "the training diverged before it was saved: leave this checkpoint out"
        refuse_not_finite(found, where, diverged)
        if self.scaled:
            found["embed.W_E"] = found["embed.W_E"] * shape.d_model**0.5
        return {name: found[name].contiguous() for name in shapes}

    @property
    def described(self) -> str:
        """How the embedding is used, which its shape does not say."""
        times = f"multiplied by sqrt({self.architecture.d_model})" if self.scaled else "as it is"
        return f"the embedding {times}"

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
            return replace(_recognise(state, network, given, where, p), prefix=prefix)
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
    state: Mapping[str, Tensor], network: Network, given: Mapping[str, Any], where: str,
    p: int | None = None,
) -> RecognisedTransformer:  # fmt: skip
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
    named = NamedWeights(tidied, layout, n_layers, where, named_rms, p)
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
        kinds["final_norm"] = layout not in OF_OTHERS or "ln_final.w" in named.places
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
    if named.waves and (rows := len(tidied["pos_embed.weight"])) > architecture.n_ctx:
        notes += (
            f"of its waves for {rows} positions the first {architecture.n_ctx} are read (set "
            "n_ctx= if it reads more)",
        )
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
        "norm_position": layout in OF_OTHERS and norm is not None,
        "eps": architecture.normalization_type is not None,
    }
    assumed = tuple(key for key, is_open in open_questions.items() if is_open and key not in given)
    found = RecognisedTransformer(
        layout=layout, architecture=architecture, assumed=assumed, notes=notes,
        unused_norms=unused_norms,
    )  # fmt: skip
    if not of_torch:
        return found
    scaled = replace(found, scaled=True)
    plain, scaled = (
        replace(x, notes=(*notes, f"read with {x.described}")) for x in (found, scaled)
    )
    return replace(plain, others=(scaled,))


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
            f"{names(unknown or found)}; rename its weights {AS_HOOKED}."
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
    shapes = {name: tuple(state[key].shape) for key, name in every.items()}
    ends = end_names(shapes) if layout in OF_OTHERS else {}
    for key, name in every.items():
        tensor = state[key]
        if _NOT_A_WEIGHT.fullmatch(name) or not tensor.is_floating_point():
            continue
        name = (ends.get(name) or gpt_name(name) or name) if layout == "minimal_gpt" else name
        name = ends.get(name) or (name if of_torch is None else of_torch[name])
        if unused_norms and _NORM.match(name):
            continue
        if name in found:
            raise InputError(
                f"two of the weights are both {shown(name)}: {shown(key)} is one of them; keep one."
            )
        found[name] = tensor
    found = in_one_precision(found)
    return as_bridge(found) if layout in OF_OTHERS else found


def _named_beside(network: Network, layout: str) -> tuple[str, ...]:
    """Keys beside a network that are taken for its own, unless somebody said where it is.

    HookedTransformer's names say what is a part of the forward. In other layouts names are free,
    and what stands beside a network without an unembedding may be that.
    """
    if network.given:
        return ()
    if layout == "hooked":
        return tuple(key for key in network.beside if PART_OF_THE_FORWARD.fullmatch(key))
    return () if network.complete else network.beside


def _direction(state: Mapping[str, Tensor]) -> str:
    """What a stored attention mask says, if it lets later positions through.

    A causal mask says little: HookedTransformer and Zhong et al. 2023 store one that they do not
    use when attention goes both ways.
    """
    masks = [mask for key, mask in state.items() if key.endswith("attn.mask") and mask.ndim == 2]
    later = any(len(mask) > 1 and mask.dtype in MASKS and mask.triu(1).any() for mask in masks)
    return "bidirectional" if later else "causal"
