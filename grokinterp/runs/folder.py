"""A run folder as it is read: every file against its sha256."""

from pathlib import Path

import pandas as pd
from jaxtyping import Int
from torch import Tensor

from grokinterp.models.architecture import Weights
from grokinterp.runs.files import read_checked, tensors_from_bytes
from grokinterp.runs.manifest import METRICS, SPLIT, Manifest, weights_file
from grokinterp.runs.metrics import read_csv


class RunFolder:
    """The folder of a run: run.json and the files it names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifest = Manifest.read(folder)

    def metrics(self) -> pd.DataFrame:
        """metrics.csv, as far as run.json says that it belongs to the run."""
        n_bytes = None if self.manifest.finished else self.manifest.metrics["bytes"]
        digest = self.manifest.sha256[METRICS]
        return read_csv(read_checked(self._folder / METRICS, digest, n_bytes=n_bytes))

    def train_indices(self) -> Int[Tensor, " n_train"] | None:
        """Rows of the training set in drawing order; None when not recorded."""
        return None if self.manifest.split is None else self._tensors(SPLIT)["train_indices"]

    def weights(self, step: int) -> Weights:
        """The weights of a saved step under canonical names."""
        weights = self._tensors(weights_file(step))
        self.manifest.architecture.check(weights)
        return {name: weights[name] for name in self.manifest.architecture.parameter_shapes()}

    def verify(self) -> None:
        """Check every file against its sha256; the first damaged one is named in the error."""
        self.metrics()
        self.train_indices()
        for step in self.manifest.steps:
            name = weights_file(step)
            read_checked(self._folder / name, self.manifest.sha256[name])

    def _tensors(self, name: str) -> Weights:
        path = self._folder / name
        return tensors_from_bytes(read_checked(path, self.manifest.sha256[name]), path)
