"""What an intervention is, what stands in for what it takes out, and how a model runs with it.

An intervention is a sequence of `(hook_name, function)` pairs with a name, for `ablate` or for
TransformerLens' own `run_with_hooks`; `grokinterp.circuits.hooks` makes them.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.checks import listed
from grokinterp.base.errors import InputError, shown
from grokinterp.models.blocks import Edit, LastBlock, at_last
from grokinterp.models.hooked_module import at_answer
from grokinterp.models.kinds import has_positions
from grokinterp.models.user_models import HookedModel, alone_with
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.forwards import BLOCK_ROWS, device_of, refuse_no_rows

MODES = ("zero", "mean", "resample")

HookPair = tuple[str, Callable[[Tensor, object], Tensor]]


def around(
    read: str, written: str, change: Callable[[Tensor, Tensor], Tensor], *, late: int = 0
) -> tuple[HookPair, ...]:
    """Hooks of one block: `change(x, y)` of x, read at one point, replaces y at a later one."""
    kept = threading.local()  # forwards in several threads do not mix

    def keep(x: Tensor) -> Tensor:
        kept.x = x
        return x

    def replaced(y: Tensor) -> Tensor:
        x = kept.x[:, -y.shape[1] :]  # at the positions of the later activation
        del kept.x
        return change(x, y)

    return (read, Edit(keep, reads_only=True)), (written, Edit(replaced, late=late))


def reference(x: Tensor, mode: str, seed: int = 0) -> Tensor:
    """What stands in for an ablated activation [n_inputs, ...].

    zero: zeros. mean: the average over the inputs. resample: the activation of another input, the
    next in a seeded random order, which keeps the distribution and breaks the relation.

    >>> reference(torch.tensor([1.0, 3.0]), "mean").tolist()
    [2.0, 2.0]
    """
    if mode == "zero":
        return torch.zeros_like(x)
    if mode == "mean":
        return x.mean(dim=0, keepdim=True, dtype=torch.float64).to(x.dtype).expand_as(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order.roll(-1)[order.argsort()].to(x.device)]


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

    >>> import grokinterp as gi
    >>> from grokinterp.circuits import hooks
    >>> both = hooks.heads(0, 1) + hooks.mlp(0)
    >>> both.name, [name for name, _ in both]
    ('head 0.1 (mean) + MLP 0 (mean)', ['blocks.0.attn.hook_z', 'blocks.0.hook_mlp_out'])
    >>> both.called("head 0.1 and the MLP").name
    'head 0.1 and the MLP'
    """

    name: str
    kind: str
    hooks: tuple[HookPair, ...] = field(repr=False)
    draw: "Draw | None" = field(default=None, repr=False)
    no_placebo: str | None = "a whole component has no other part of its size"
    keeps: bool = False  # it keeps only a part: its claim is a small loss, not a large one
    harmonic: bool = False  # a placebo at 2k or 4k of a key frequency
    same: tuple[object, ...] | None = None  # equal for interventions that do the same

    def __getitem__(self, place: Any) -> Any:
        return self.hooks[place]

    def __len__(self) -> int:
        return len(self.hooks)

    def __add__(self, other: "Intervention | Sequence[HookPair]") -> "Intervention":
        """Both; in a placebo each is another part, or itself where it has no placebos.

        The order matters only where they act on the same part. Placebos of one may touch the other.
        """
        other = other if isinstance(other, Intervention) else intervention(other)

        def draw(setting: Setting) -> list[Intervention]:
            mine, others = (x.draw(setting) if x.draw else [x] for x in (self, other))
            n = max(len(mine), len(others)) if mine and others else 0
            pairs = zip(range(n), cycle(mine), cycle(others), strict=False)
            return [one + two for _, one, two in pairs]

        skips = [{pair[0] for pair in x if _lateness(pair) == 1} for x in (self, other)]
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


Draw = Callable[[Setting], list[Intervention]]  # of placebos


def _lateness(pair: HookPair) -> int:
    return getattr(pair[1], "late", 0)


def intervention(pairs: Iterable[Any], name: str = "custom") -> Intervention:
    """Hook pairs of one's own as an intervention, without placebos.

    >>> import grokinterp as gi
    >>> double = [("blocks.0.hook_mlp_out", lambda out, hook: 2 * out)]
    >>> own = gi.hooks.intervention(double, name="MLP counted twice")
    >>> run = gi.load("mod31-small")
    >>> gi.ablate(run, [own]).table()[["ablation", "acc_all", "no_placebo"]].round(2)
                ablation  acc_all          no_placebo
    0  MLP counted twice      1.0  hooks of one's own
    """
    pairs = tuple(listed("pairs", pairs, such_as="[('blocks.0.hook_mlp_out', function)]"))
    for pair in pairs:
        named = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
        if not named or not callable(pair[1]):
            raise InputError(
                f"{shown(pair)} is not a (hook_name, function) pair; an intervention is a list of "
                "them, such as [('blocks.0.hook_mlp_out', lambda tensor, hook: 0 * tensor)]."
            )
    return Intervention(name, "custom", pairs, no_placebo="hooks of one's own")


def as_interventions(interventions: Iterable[Any]) -> list[Intervention]:
    """What was given as interventions, or as lists of hook pairs, each as an `Intervention`."""
    if isinstance(interventions, Intervention):
        return [interventions]
    given = listed("interventions", interventions, such_as="[hooks.mlp(0)]")
    found = [one if isinstance(one, Intervention) else intervention(one) for one in given]
    if not found:
        raise InputError("no interventions were given; leave them out for the standard ones.")
    return found


@torch.no_grad()
def replay(snapshot: Snapshot, hooks: Iterable[HookPair]) -> Float[Tensor, "n_inputs p"]:
    """Logits of the answer classes over the whole table with these hooks in place.

    Edits of this package in the last block of a plain transformer start from the kept activations;
    everything else goes through `run_with_hooks`. The model is left as it was, whatever is raised.
    """
    pairs = tuple(hooks)
    block = _last_block(snapshot)
    own = [(name, edit) for name, edit in pairs if isinstance(edit, Edit)]
    if block is not None and len(own) == len(pairs) and all(block.has(name) for name, _ in own):
        logits = block.logits(own)
    else:
        checked = checked_hooks(pairs, snapshot)
        logits = hooked_answers(snapshot.hooked(), snapshot.task.model_inputs, checked)
    return snapshot.task.of_answers(logits)


def _last_block(snapshot: Snapshot) -> LastBlock | None:
    """The restartable last block of a plain transformer."""
    architecture = snapshot.transformer
    if architecture is None:
        return None

    def build() -> LastBlock:
        w, inputs, resid_pre = snapshot.weights, snapshot.task.model_inputs, None
        if architecture.n_layers > 1:
            split = inputs.split(BLOCK_ROWS)
            resid_pre = torch.cat([architecture.before_last_block(w, x) for x in split])
        return LastBlock(w, architecture, inputs, resid_pre=resid_pre)

    return snapshot.memo("last_block", build)


def checked_hooks(
    hooks: Iterable[HookPair], snapshot: Snapshot
) -> list[tuple[str, Callable[..., object]]]:
    """Hooks as they go into a model: what they give is refused where it cannot stand there."""
    return [(name, _checked(name, f, snapshot.task.n_inputs)) for name, f in hooks]


def _checked(name: str, function: Callable[..., object], n: int) -> Callable[..., object]:
    """A hook, refused where it gives something that cannot stand in its place.

    An edit of this package compares the inputs: it is refused where they are not the first axis.
    """

    def edited(given: Tensor, hook: object) -> object:
        refuse_no_rows(name, given, n)
        return function(given, hook=hook)

    def checked(given: Tensor, hook: object) -> object:
        found = function(given, hook=hook)
        if found is None or (
            isinstance(found, Tensor) and (found.shape, found.dtype) == (given.shape, given.dtype)
        ):
            return found
        raise InputError(
            f"the hook at {name!r} returns {shown(found)}; give a tensor of shape "
            f"{tuple(given.shape)} and {given.dtype}, or None to leave it as it is."
        )

    return edited if isinstance(function, Edit) else checked


def hooked_answers(
    model: HookedModel, inputs: Tensor, hooks: Sequence[tuple[str, Callable[..., object]]]
) -> Float[Tensor, "n n_classes"]:
    """Logits of any hooked model at the answer position, with these hooks in place."""
    if missing := [name for name, _ in hooks if name not in model.hook_dict]:
        known = "model.hook_dict lists all"
        raise InputError(f"the model has no hook point {missing[0]!r} ({known}).")
    with alone_with(model):
        logits = model.run_with_hooks(inputs.to(device_of(model)), fwd_hooks=hooks)
    return (at_last(logits) if has_positions(model) else at_answer(logits, logits)).cpu()
