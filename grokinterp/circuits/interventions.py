"""Intervention: hook pairs with a name, and the placebos that its effect is compared with.

An intervention is a sequence of `(hook_name, function)` pairs, for this package's `ablate` or for
`model.run_with_hooks` of one's own:

    model.run_with_hooks(task.tokens, fwd_hooks=hooks.heads(0, 2) + hooks.mlp_skip(0))

`grokinterp.circuits.hooks` makes them. Means, permutations and Fourier components are over
the inputs of the batch, so run them on the whole table.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from grokinterp.errors import InputError, shown
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
    same: tuple[object, ...] | None = None  # equal for interventions that do the same

    def __getitem__(self, place: Any) -> Any:
        return self.hooks[place]

    def __len__(self) -> int:
        return len(self.hooks)

    def __iter__(self) -> Iterator[HookPair]:
        return iter(self.hooks)

    def __add__(self, other: "Intervention | Sequence[HookPair]") -> "Intervention":
        """Both; in a placebo each is another part, or itself where it has no placebos.

        The order does not matter where they act on different parts. Placebos of the one may touch
        the other.
        """
        other = other if isinstance(other, Intervention) else intervention(other)

        def draw(setting: Setting) -> list[Intervention]:
            mine, others = (x.draw(setting) if x.draw else [x] for x in (self, other))
            n = max(len(mine), len(others)) if mine and others else 0
            pairs = zip(range(n), cycle(mine), cycle(others), strict=False)
            return [one + two for _, one, two in pairs]

        skips = [{name for name, edit in x if _lateness((name, edit)) == 1} for x in (self, other)]
        if twice := skips[0] & skips[1]:
            raise InputError(f"the stream around {twice.pop()} is ablated twice; once is enough.")
        both = self.draw or other.draw
        return Intervention(
            name=f"{self.name} + {other.name}",
            kind=f"{self.kind} + {other.kind}",
            hooks=tuple(sorted(self.hooks + other.hooks, key=_lateness)),
            draw=draw if both else None,
            no_placebo=None if both else self.no_placebo,
            keeps=self.keeps and other.keeps,
            harmonic=self.harmonic or other.harmonic,
        )

    def called(self, name: str | None = None, kind: str | None = None) -> "Intervention":
        """The same under another name."""
        return replace(self, name=name or self.name, kind=kind or self.kind)


def _lateness(pair: HookPair) -> int:
    return getattr(pair[1], "late", 0)


def intervention(pairs: Iterable[Any], name: str = "custom") -> Intervention:
    """Hook pairs of one's own as an intervention, without placebos."""
    if not isinstance(pairs, Iterable):
        raise InputError(f"{shown(pairs)} is not a list of (hook_name, function) pairs.")
    pairs = tuple(pairs)
    for pair in pairs:
        named = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
        if not named or not callable(pair[1]):
            raise InputError(
                f"{shown(pair)} is not a (hook_name, function) pair; an intervention is a list of "
                "them, such as [('blocks.0.hook_mlp_out', lambda tensor, hook: 0 * tensor)]."
            )
    return Intervention(name, "custom", pairs, no_placebo="hooks of one's own")


def listed(interventions: Iterable[Any]) -> list[Intervention]:
    """What was given as interventions, each one an `Intervention`."""
    if isinstance(interventions, Intervention):
        return [interventions]
    if not isinstance(interventions, Iterable) or isinstance(interventions, str):
        raise InputError(
            f"interventions={shown(interventions)} is not a list; give such as [hooks.mlp(0)]."
        )
    found = [i if isinstance(i, Intervention) else intervention(i) for i in interventions]
    if not found:
        raise InputError("no interventions were given; leave them out for the standard ones.")
    return found
