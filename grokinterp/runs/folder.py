"""A run folder as it is read: every file against its sha256."""

from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.models.architecture import Weights
from grokinterp.runs.files import read_checked, tensors_from_bytes
from grokinterp.runs.manifest import METRICS, SPLIT, Manifest, weights_file
from grokinterp.runs.metrics import read_csv
from grokinterp.tasks.splits import are_rows


class RunFolder:
    """The folder of a run: run.json and the files it names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifest = Manifest.read(folder)

    def metrics(self) -> pd.DataFrame:
        """metrics.csv, as far as run.json says that it belongs to the run."""
        n_bytes = None if self.manifest.finished else self.manifest.metrics["bytes"]
        digest = self.manifest.sha256[METRICS]
        path = self._folder / METRICS
        try:
            return read_csv(read_checked(path, digest, n_bytes=n_bytes))
        except InputError:
            raise
        except (LookupError, OverflowError, TypeError, ValueError):
            raise InputError(f"{path} is damaged: it is no table of metrics.") from None

    def train_indices(self) -> Int[Tensor, " n_train"] | None:
        """Rows of the training set in drawing order; None when not recorded."""
        if self.manifest.split is None:
            return None
        rows = self._tensors(SPLIT).get("train_indices")
        n = self.manifest.task.n_inputs
        if rows is None or rows.dtype != torch.int64 or not are_rows(rows, n):
            raise InputError(
                f"{self._folder / SPLIT} is damaged: it has no rows from 0 to {n - 1}, each once."
            )
        return rows

    def weights(self, step: int) -> Weights:
        """The weights of a saved step under canonical names."""
        weights = self._tensors(weights_file(step))
        self.manifest.architecture.check(weights)
        if {weight.dtype for weight in weights.values()} not in ({torch.float32}, {torch.float64}):
            raise InputError(f"{self._folder / weights_file(step)} is not all of one precision.")
        return {name: weights[name] for name in self.manifest.architecture.parameter_shapes()}

    def verify(self) -> None:
        """Check every file against its sha256; the first damaged one is named in the error."""
        self.metrics()
        self.train_indices()
        for step in self.manifest.steps:
            self.weights(step)

    def _tensors(self, name: str) -> Weights:
        path = self._folder / name
        return tensors_from_bytes(read_checked(path, self.manifest.sha256[name]), path)
