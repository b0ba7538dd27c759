"""Which weight of a layout is which of ours, and what sizes do they say?

A layout is a table of names (`foreign_names`); here are the weights of one file by those names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from einops import EinopsError
from torch import Tensor

from grokinterp.base.errors import InputError, names
from grokinterp.models.architecture import Weights, is_bias
from grokinterp.models.foreign_names import BRIDGE, PAPER, Slot, is_waves, slots
from grokinterp.models.transformer import NetworkSizes, TransformerArchitecture

OF_OTHERS = ("minimal_gpt", "torch_encoder")  # whose names are free
FUSED = ("bridge", "minimal_gpt", "torch_encoder")  # whose query rows are those of all heads
PART_OF_THE_FORWARD = re.compile(  # what a TransformerLens module, or one beside it, computes with
    r"blocks\.\d+\.(.*\.)?(ln\w*|\w*norm\w*|bn\w*|_?[Wb]_\w+|\w*gate\w*|\w*experts?|router)(\..*)?"
    r"|(un|pos_)?embed\.([Wb]_\w+|ln\w*|\w*norm\w*)(\..*)?|ln\w*(\..*)?"
    r"|(.*\.)?(\w*lora\w*|\w*adapters?|parametrizations)(\..*)?",
    re.IGNORECASE,
)
AS_HOOKED = "as HookedTransformer does (embed.W_E, blocks.0.attn.W_Q, ...)"


@dataclass(frozen=True)
class NamedWeights:
    """The weights of a file by the names of their layout, as `_tidy` gives them."""

    weights: Mapping[str, Tensor]
    layout: str
    n_layers: int
    where: str
    named_rms: bool = False  # norms are called so
    p: int | None = None  # that somebody says

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

    @cached_property
    def waves(self) -> bool:
        """Whether positions are sines and cosines, in a layout whose code is not known."""
        table = self.weights.get("pos_embed.weight")
        return self.layout in OF_OTHERS and table is not None and is_waves(table)

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
                if self.waves and name == "pos_embed.W_pos":
                    found[name] = found[name][: architecture.n_ctx]
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
        used = [x for x in extra if not hooked or PART_OF_THE_FORWARD.fullmatch(x)]
        if used:
            raise InputError(
                f"{self.where} has weights that are not in the {self.layout} layout, "
                f"{names(used)}; take them out if the network does not use them, rename them, or "
                "give the module itself: gi.snapshot(model, task)."
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
            "n_ctx": self._n_ctx(given, shapes),
        }

    def _n_ctx(self, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Positions that are read: of waves, of which there may be any number, one a word."""
        rows, spare = shapes["pos_embed.W_pos"][0], None
        if self.waves and (self.p or shapes["embed.W_E"][0] > shapes["unembed.W_U"][1]):
            spare = shapes["embed.W_E"][0] - (self.p or shapes["unembed.W_U"][1])
        used = given.get("n_ctx") if self.waves else None
        used = used or (2 + spare if spare is not None else rows)
        return used if 2 <= used <= rows else rows

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
        return InputError(f"{self.where} has no weight {name!r}; {hint}rename them {AS_HOOKED}.")

    def _not_understood(self) -> list[str]:
        return sorted(set(self.weights) - {slot.key for slot in self.places.values()})
