"""Other sizes of a model's weights, to check a compressibility against.

Gini coefficient, effective rank, and bytes when rounded and compressed by a program that knows
nothing of the model.
"""

import bz2
import lzma
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import finite, number, tensors, whole, word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits.ablation import Score, score
from grokinterp.encodings.bases import as_matrix
from grokinterp.encodings.pruning import weight_names
from grokinterp.fourier.basis import gini
from grokinterp.geometry.ranks_of_matrices import effective_rank
from grokinterp.models.architecture import Weights
from grokinterp.reading._load import Subject, snapshot_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.task import Task

METHODS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": partial(zlib.compress, level=9),
    "bz2": bz2.compress,
    "lzma": lzma.compress,
}
FEWEST_BITS, MOST_BITS = 2, 16
SCALE_BYTES = 4  # the step of each tensor, a float32


def quantize(weights: Mapping[str, Tensor], *, bits: int) -> tuple[Weights, dict[str, float]]:
    """Integer codes of every entry, and the step of every tensor: w is about code * step.

    step = max |w| / (2^(bits - 1) - 1), the same levels on both sides of 0, which stays exactly 0;
    int8 codes to 8 bits, int16 to 16. InputError for other bits and for weights that are infinite
    or NaN.

    >>> codes, steps = quantize({"W": torch.tensor([-2.0, 0.9, 1.1])}, bits=2)
    >>> codes["W"].tolist(), steps["W"]
    ([-1, 0, 1], 2.0)
    """
    bits = whole("bits", bits, least=FEWEST_BITS, most=MOST_BITS, such_as="8")
    largest = 2 ** (bits - 1) - 1
    kind = torch.int8 if bits <= 8 else torch.int16
    codes, steps = {}, {}
    for name, weight in tensors("weights", weights).items():
        finite(f"entries of {name!r}", weight, give="give finite ones")
        steps[name] = float(weight.double().abs().max()) / largest
        codes[name] = (weight.double() / (steps[name] or 1)).round().to(kind)
    return codes, steps


def compressed_bytes(weights: Mapping[str, Tensor], *, bits: int, method: str = "bz2") -> int:
    """Bytes of the quantised weights, compressed: all codes one after another, one step per tensor.

    `method` is "zlib", "bz2" or "lzma" of the standard library. It is an upper bound of what the
    rounded weights need, and depends on the program; see `quantized_size` for what rounding costs.

    >>> import grokinterp as gi, torch
    >>> zeros = {"W": torch.zeros(64, 64)}
    >>> gi.encodings.compressed_bytes(zeros, bits=8, method="zlib")
    30
    >>> noise = {"W": torch.randn(64, 64, generator=torch.Generator().manual_seed(0))}
    >>> gi.encodings.compressed_bytes(noise, bits=8, method="zlib") > 3000
    True
    """
    word("method", method, METHODS)
    codes, _ = quantize(weights, bits=bits)
    content = b"".join(code.contiguous().numpy().tobytes() for code in codes.values())
    return len(METHODS[method](content)) + SCALE_BYTES * len(codes)


@dataclass(frozen=True, kw_only=True)
class QuantizedSize(Result):
    """Bytes of a model with all its parameters at `bits`, compressed, and what that costs.

    `searched`: the bits are the fewest that keep `keep` of the accuracy. Accuracy is on `rows`:
    test, or all inputs without a split. An upper bound of a description length: another code, a
    better program or retraining may do with less.

    >>> import grokinterp as gi
    >>> found = gi.encodings.quantized_size(gi.load("mod31-small"), bits=4)
    >>> found.raw_bytes, round(found.ratio), abs(found.accuracy_loss) < 0.01
    (67196, 9, True)
    >>> found.table()[["what", "acc_test"]].round(2)
              what  acc_test
    0    the model      0.99
    1  4 bits, bz2      1.00
    """

    bits: int
    searched: bool
    method: str
    compressed_bytes: int
    raw_bytes: int
    rows: str
    keep: float
    whole: Score = field(repr=False)  # the model as it is
    quantized: Score = field(repr=False)
    step: int | None

    @property
    def ratio(self) -> float:
        """Raw bytes over compressed ones."""
        return self.raw_bytes / self.compressed_bytes

    @property
    def accuracy_loss(self) -> float:
        """Accuracy of the model less that of the quantised one, on `rows`; may be negative."""
        accuracy = f"acc_{self.rows}"
        return float(getattr(self.whole, accuracy) - getattr(self.quantized, accuracy))

    def table(self) -> pd.DataFrame:
        """The model as it is and quantised: bits, bytes, losses and accuracies."""
        model = {"what": "the model", "bytes": self.raw_bytes, **vars(self.whole)}
        small = {"what": f"{self.bits} bits, {self.method}", "bytes": self.compressed_bytes}
        frame = pd.DataFrame([model, small | vars(self.quantized)])
        frame.attrs = {"rows": self.rows, "keep": self.keep, "step": self.step}
        return frame


def quantized_size(
    x: Subject,
    *,
    step: int = -1,
    bits: int | None = None,
    method: str = "bz2",
    keep: float = 0.95,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> QuantizedSize:
    """Quantise all parameters uniformly, compress, and evaluate the quantised model.

    Without `bits`, the fewest from 2 to 16 that keep `keep` of the accuracy (test, or all inputs
    without a split). InputError where 16 do not.

    >>> import grokinterp as gi
    >>> found = gi.encodings.quantized_size(gi.load("mod31-small"))
    >>> found.bits, found.searched, found.method, found.rows
    (4, True, 'bz2', 'test')
    """
    keep = number("keep", keep, most=1, such_as="0.95")
    word("method", method, METHODS)
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    model = score(snapshot, snapshot.logits)
    rows = "all" if math.isnan(model.acc_test) else "test"
    wanted = keep * getattr(model, f"acc_{rows}")
    for candidate in range(FEWEST_BITS, MOST_BITS + 1) if bits is None else [bits]:
        codes, steps = quantize(snapshot.weights, bits=candidate)
        rounded = {
            name: (code.double() * steps[name]).to(snapshot.weights[name].dtype)
            for name, code in codes.items()
        }
        quantized = score(snapshot, snapshot.logits_with(rounded))
        if bits is not None or getattr(quantized, f"acc_{rows}") >= wanted:
            return QuantizedSize(
                bits=candidate,
                searched=bits is None,
                method=method,
                compressed_bytes=compressed_bytes(snapshot.weights, bits=candidate, method=method),
                raw_bytes=sum(w.numel() * w.element_size() for w in snapshot.weights.values()),
                rows=rows,
                keep=keep,
                whole=model,
                quantized=quantized,
                step=snapshot.step,
            )
    raise InputError(f"{MOST_BITS} bits do not keep {keep} of the accuracy; give a smaller keep.")


@dataclass(frozen=True, kw_only=True)
class Sizes(Result):
    """Gini coefficient and effective rank of every weight tensor, and of all together.

    Weights are matrices and kernels, without biases. Where a tensor is all zero there is neither,
    and its row says so; in the mean its rank counts as 0.

    >>> import grokinterp as gi
    >>> found = gi.encodings.sizes(gi.load("mod31-small"))
    >>> round(found.gini, 2), round(found.mean_effective_rank, 1), found.n_weights
    (0.43, 8.9, 16448)
    >>> found.table()[["name", "rows", "columns", "effective_rank"]].round(1).head(3)
                    name  rows  columns  effective_rank
    0          embed.W_E    32       32            12.6
    1    pos_embed.W_pos     3       32             2.1
    2  blocks.0.attn.W_Q    32       32             1.4
    """

    rows: tuple[dict[str, object], ...] = field(repr=False)
    gini: float
    mean_effective_rank: float
    n_weights: int
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row per tensor: entries, shape as a matrix, Gini of |w|, effective rank."""
        frame = pd.DataFrame(list(self.rows))
        names = ("gini", "mean_effective_rank", "step")
        frame.attrs = {name: getattr(self, name) for name in names}
        return frame


def sizes(
    x: Subject,
    *,
    step: int = -1,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Sizes:
    """How unequal and of what rank the weights of a model are, tensor by tensor and together.

    Cross-checks of compressibility that need no evaluation; neither looks at what is computed.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for step in (0, 10000):
    ...     found = gi.encodings.sizes(run, step=step)
    ...     print(step, round(found.gini, 2), round(found.mean_effective_rank, 1))
    0 0.42 24.2
    10000 0.43 8.9
    """
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    weights = {name: snapshot.weights[name] for name in weight_names(snapshot.weights)}
    if not weights:
        raise InputError("the model has no matrices; give one with parameters.")
    entries = {name: weight.double().abs().flatten() for name, weight in weights.items()}
    every = torch.cat(list(entries.values()))
    if not every.any():
        raise InputError("weights that are all zero have no Gini coefficient; leave them out.")
    rows, ranks = [], []
    for name, weight in weights.items():
        matrix, zero = as_matrix(name, weight), not weight.any()
        ranks.append(0.0 if zero else effective_rank(matrix))
        rows.append(
            {
                "name": name,
                "n_weights": weight.numel(),
                "rows": matrix.shape[0],
                "columns": matrix.shape[1],
                "gini": gini(entries[name]),
                "effective_rank": math.nan if zero else ranks[-1],
                "note": "all zero" if zero else "",
            }
        )
    return Sizes(
        rows=tuple(rows),
        gini=gini(every),
        mean_effective_rank=sum(ranks) / len(ranks),
        n_weights=len(every),
        step=snapshot.step,
    )


def sizes_of(snapshot: Snapshot) -> dict[str, float]:
    """Gini coefficient of all |weights| and mean effective rank of the matrices, as columns."""
    found = sizes(snapshot)
    return {"gini_weights": found.gini, "effective_rank": found.mean_effective_rank}
