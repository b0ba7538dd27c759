"""Intervention: hook pairs with a name, and the placebos that its effect is compared with.

An intervention is a sequence of `(hook_name, function)` pairs, for this package's `ablate` or for
`model.run_with_hooks` of one's own:

    model.run_with_hooks(task.tokens, fwd_hooks=hooks.heads(0, 2) + hooks.mlp_skip(0))

`grokinterp.circuits.hooks` makes them. Means, permutations and Fourier components are over
the inputs of the batch, so run them on the whole table.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.runs.snapshot import Snapshot

HookPair = tuple[str, Callable[[Tensor, object], Tensor]]


@dataclass(frozen=True)
class Setting:
    """What placebos are drawn for: model, key frequencies, how many, and from which seed."""

    snapshot: Snapshot
    frequencies: tuple[int, ...]
    n: int
    seed: int

    def generator(self) -> torch.Generator:
        """A fresh random stream; equal settings draw equal controls."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Intervention(Sequence[HookPair]):
    """Hook pairs with a name, and how to draw placebos: the same done to another part of its size.

    `kind` groups interventions of different models ("drop one key frequency of the logits"),
    `no_placebo` says why there is none. Interventions compose with `+`.
    """

    name: str
    kind: str
    hooks: tuple[HookPair, ...] = field(repr=False)
    draw: Callable[[Setting], list["Intervention"]] | None = field(default=None, repr=False)
    no_placebo: str | None = "a whole component has no other part of its size"
    keeps: bool = False  # it keeps only a part: its claim is a small loss, not a large one
    harmonic: bool = False  # a placebo at 2k or 4k of a key frequency
    shared: tuple[object, ...] | None = None  # equal for interventions with the same placebos

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        return self.hooks[place]

    def __len__(self) -> int:
        return len(self.hooks)

    def __iter__(self) -> Iterator[HookPair]:
        return iter(self.hooks)

    def __add__(self, other: "Intervention | Sequence[HookPair]") -> "Intervention":
        """Both; of a placebo's two parts, one without placebos of its own stays as it is."""
        other = other if isinstance(other, Intervention) else intervention(other)

        def draw(setting: Setting) -> list[Intervention]:
            mine = self.draw(setting) if self.draw else [self] * setting.n
            others = other.draw(setting) if other.draw else [other] * setting.n
            pairs = zip(mine, others, strict=False)
            return [one + two for one, two in pairs]

        both = self.draw or other.draw
        return Intervention(
            name=f"{self.name} + {other.name}",
            kind=f"{self.kind} + {other.kind}",
            hooks=self.hooks + other.hooks,
            draw=draw if both else None,
            no_placebo=None if both else self.no_placebo,
            keeps=self.keeps and other.keeps,
            harmonic=self.harmonic or other.harmonic,
        )

    def called(self, name: str, kind: str | None = None) -> "Intervention":
        """The same under another name."""
        return replace(self, name=name, kind=kind or self.kind)


def intervention(pairs: Iterable[Any], name: str = "custom") -> Intervention:
    """Hook pairs of one's own as an intervention, without placebos."""
    if not isinstance(pairs, Iterable):
        raise InputError(f"{pairs!r} is not a list of (hook_name, function) pairs.")
    pairs = tuple(pairs)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[1])):
            raise InputError(
                f"{pair!r} is not a (hook_name, function) pair; an intervention is a list of them, "
                "such as [('blocks.0.hook_mlp_out', lambda tensor, hook: 0 * tensor)]."
            )
    return Intervention(name, "custom", pairs, no_placebo="hooks of one's own")


def listed(
    interventions: Iterable[Intervention | Sequence[HookPair]] | Intervention,
) -> list[Intervention]:
    """What was given as interventions, each one an `Intervention`."""
    if isinstance(interventions, Intervention):
        return [interventions]
    if not isinstance(interventions, Iterable) or isinstance(interventions, str):
        raise InputError(
            f"interventions={interventions!r} is not a list; give such as [hooks.mlp(0)]."
        )
    found = [i if isinstance(i, Intervention) else intervention(i) for i in interventions]
    if not found:
        raise InputError("no interventions were given; leave them out for the standard ones.")
    return found
