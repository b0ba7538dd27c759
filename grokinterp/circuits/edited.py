"""What is a model with an intervention in it, seen over its whole task? A snapshot too."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from grokinterp.circuits.interventions import HookPair, checked_hooks
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.forwards import hooked_forward


class Edited(Snapshot):
    """A snapshot of the same model with hooks in place; its weights are what they were.

    An intervention may look at all inputs at once (their mean, another's activation), so the model
    runs on the whole table, never in blocks. Each look at further activations is another forward.
    """

    def __init__(self, whole: Snapshot, hooks: Iterable[HookPair]) -> None:
        vars(self).update(vars(whole))
        self.architecture = None  # its weights alone do not say what it computes
        self._hooks = checked_hooks(hooks, whole)
        self._activations = {}
        self._memo = {}

    def _run(
        self, rows: slice | Tensor, names: tuple[str, ...]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        self.gather(*names)
        return self.all_logits[rows], {name: self._activations[name][rows] for name in names}

    @torch.no_grad()
    def _whole(self, names: tuple[str, ...] = ()) -> tuple[Tensor, Mapping[str, Tensor]]:
        return hooked_forward(self.hooked(), self.task.model_inputs, names, self._hooks)
