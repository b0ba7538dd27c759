"""Do these weights belong to this module? Of a network whose user gave the code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grokinterp.base.errors import InputError, names, one_line
from grokinterp.models.architecture import Weights, refuse_not_finite
from grokinterp.models.hooked_module import weights_in
from grokinterp.models.module import GivenModule, copy_of
from grokinterp.models.network_in import WRAPPERS
from grokinterp.models.recognised import Recognised, in_one_precision


@dataclass(frozen=True, kw_only=True)
class RecognisedModule(Recognised):
    """A module, into which every checkpoint is loaded strictly."""

    architecture: GivenModule

    def weights(self, state: Mapping[str, Tensor], where: str) -> Weights:
        """The parameters and buffers of the module with this state dict in it."""
        own = self.architecture.template
        module = copy_of(own)
        given = _as_in(state, own.state_dict(), self.prefix, where)
        kinds = {name: x for name, x in given.items() if x.is_floating_point()}
        given = {**given, **in_one_precision(kinds)}
        if any(x.dtype == torch.double for x in given.values()):
            module.double()
        try:
            module.load_state_dict(given, strict=True)
        except (RuntimeError, ValueError) as error:
            told = one_line(str(error).partition("\n")[2] or str(error), most=160)
            raise InputError(
                f"{where} cannot be loaded into the {self.architecture.name} ({told}); give the "
                "module that it was saved of."
            ) from None
        for name, buffer in own.state_dict().items():
            if not buffer.is_floating_point() and not torch.equal(buffer, given[name].to(buffer)):
                raise InputError(
                    f"{where}: {name!r} is another than in the {self.architecture.name}, and a run "
                    "keeps no whole numbers; have the module made with it."
                )
        found = {name: x.detach().clone() for name, x in weights_in(module).items()}
        diverged = "the training diverged before it was saved: leave this checkpoint out"
        refuse_not_finite(found, where, diverged)
        return found

    def replace(self, **changes: Any) -> "RecognisedModule":
        """Itself: nothing of a module is assumed."""
        return self

    def held(self, rows: int) -> int:
        """Not known before it has run; as many as its largest weight is wide, twenty times."""
        widest = max((max(x, default=1) for x in self.architecture.shapes.values()), default=1)
        return 20 * rows * widest

    @property
    def parts(self) -> str:
        """What it is made of."""
        return f"a {self.architecture.name}"


def recognise_module(
    module: torch.nn.Module, architecture: GivenModule, *, prefix: str | None, how: str
) -> RecognisedModule:
    """A module that somebody gave, as the network of all checkpoints."""
    return RecognisedModule(
        layout="module",
        architecture=architecture.with_module(module),
        assumed=(),
        notes=(f"its weights are loaded into {how}",),
        prefix=prefix,
    )


def _as_in(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str | None, where: str
) -> dict[str, Tensor]:
    """The weights of a state dict under a module's names, without what wrappers put before them."""
    begin = f"{prefix.removesuffix('.')}." if prefix else ""
    given = {key.removeprefix(begin): x for key, x in state.items() if key.startswith(begin)}
    if given.keys() != own.keys():
        bare = {WRAPPERS.sub("", key): x for key, x in given.items()}
        if bare.keys() >= own.keys() and len(bare) == len(given):
            given = bare
    missing, extra = own.keys() - given.keys(), given.keys() - own.keys()
    for keys, what in ((missing, "lacks"), (extra, "has besides the module's")):
        if keys:
            raise InputError(
                f"{where} {what} {names(sorted(keys))}; give the module that it was saved of, or "
                "prefix= where its names begin with more."
            )
    return given
