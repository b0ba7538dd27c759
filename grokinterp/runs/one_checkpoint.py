"""What is a snapshot, or a model, where a run is asked for? A run of one checkpoint.

So whatever is told of checkpoints over training can be told of a single model too.
"""

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.models.architecture import Weights
from grokinterp.models.module import GivenModule
from grokinterp.models.user_models import HookedModel
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.manifest import Manifest, current_versions
from grokinterp.runs.metrics import columns_of, evaluate, logged_unmirrored
from grokinterp.runs.run import Run

NAME = "model"  # of what has no folder


class OneCheckpoint(Run):
    """A run of one checkpoint, which is a snapshot. Nothing of it is on disk.

    Its step is that of the snapshot; of one that has none it is 0, a position, and dates nothing.
    """

    def __init__(self, seen: Snapshot) -> None:
        super().__init__(NAME, _Seen(seen))
        self._seen = seen

    def model(self, step: int = -1) -> HookedModel:
        """The model itself."""
        self._saved(step)
        return self._seen.hooked()

    def snapshot(self, step: int = -1) -> Snapshot:
        """The snapshot itself."""
        self._saved(step)
        return self._seen

    def __repr__(self) -> str:
        return f"Run of {self._seen!r}"


class _Seen:
    """The parts of such a run."""

    def __init__(self, seen: Snapshot) -> None:
        self._seen = seen
        step = 0 if seen.step is None else seen.step
        architecture = seen.architecture
        if architecture is None:  # its weights alone do not say what it computes
            model = seen.hooked()
            if not isinstance(model, torch.nn.Module):
                raise InputError(f"{seen!r} is of no module; give a run, or a model with task=.")
            architecture = GivenModule.of_module(model)
        split = None
        if seen.train_mask is not None:
            n_train = int(seen.train_mask.sum())
            split = {"n_train": n_train, "n_test": seen.task.n_inputs - n_train}
        self.manifest = Manifest(
            seen.task, architecture, None, split, [step], finished=True,
            versions=current_versions(), steps_known=seen.step is not None,
        )  # fmt: skip

    def weights(self, step: int) -> Weights:
        """Its weights, and running statistics where it has them."""
        return dict(self._seen.state)

    def train_indices(self) -> Int[Tensor, " n_train"] | None:
        """The rows of its training set; None where nobody said which they are."""
        mask = self._seen.train_mask
        return None if mask is None else mask.nonzero().flatten()

    def metrics(self) -> pd.DataFrame:
        """Losses and accuracies of the one checkpoint."""
        seen, mask = self._seen, self._seen.train_mask
        unmirrored = logged_unmirrored(seen.task, mask)
        row = evaluate(seen.all_logits, seen.task.targets, mask, unmirrored)
        columns = columns_of(seen.task, split_known=mask is not None)
        return pd.DataFrame([{"step": self.manifest.steps[0], **row}], columns=["step", *columns])

    def verify(self) -> None:
        """Nothing lies on disk."""
