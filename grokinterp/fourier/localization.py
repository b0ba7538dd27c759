"""How localised neurons are in frequency: inverse participation ratios (IPR) of their weights.

A neuron's input weights are a function of the operand token, its output weights one of the answer
class, whose IPR is 1 over the number of Fourier coefficients it spreads over, the constant among
them. Which are counted is the convention; one wave of random phase on many points has

real        the orthonormal cos/sin basis                              0.75 on average, 0.5 to 1
complex     the full complex DFT: k and n - k count apart              0.5
one_sided   the power of each frequency, cos and sin merged            1
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import word
from grokinterp.base.result import Result
from grokinterp.fourier.basis import spectrum, transform
from grokinterp.fourier.spectra import (
    answer_order,
    input_weights,
    operand_orders,
    output_weights,
)
from grokinterp.reading._load import Subject, snapshot_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.task import Task

POWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "real": lambda x: transform(x).square(),
    "complex": lambda x: torch.fft.fft(x.double(), dim=0).abs().square(),
    "one_sided": spectrum,
}


@dataclass(frozen=True, kw_only=True)
class NeuronIPR(Result):
    """IPRs of the input weights of the first hidden layer and the output weights of the last.

    `input_blocks` has a row for operand a and one for b; `input` is their mean, the value that
    comes nearest to published numbers; `input_stacked` is over both blocks' coefficients together.
    NaN where a neuron's weights are all 0: such neurons take no part in the means, `n_undefined`
    counts them.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.fourier.neuron_ipr(run)
    >>> {name: round(mean, 2) for name, mean in found.means.items()}
    {'ipr_input': 0.54, 'ipr_input_stacked': 0.27, 'ipr_output': 0.61}
    >>> sorted(found.table()["dominant_output"].unique().tolist())
    [1, 8, 14]
    >>> found.n_undefined
    {'ipr_input': 0, 'ipr_output': 0}
    """

    input_blocks: Float[Tensor, "2 first_width"] = field(repr=False)
    input_stacked: Float[Tensor, " first_width"] = field(repr=False)
    output: Float[Tensor, " last_width"] = field(repr=False)
    dominant_input: Int[Tensor, " first_width"] = field(repr=False)
    dominant_output: Int[Tensor, " last_width"] = field(repr=False)
    convention: str
    path: str
    layers: tuple[int, int]  # whose input and whose output weights
    step: int | None

    @property
    def input(self) -> Float[Tensor, " first_width"]:
        """The mean of the two operands' IPRs of every neuron."""
        return self.input_blocks.mean(dim=0)

    @property
    def means(self) -> dict[str, float]:
        """Means over the neurons where they are defined, NaN if there is none."""
        names = ("input", "input_stacked", "output")
        return {f"ipr_{name}": float(getattr(self, name).nanmean()) for name in names}

    @property
    def n_undefined(self) -> dict[str, int]:
        """Neurons without an IPR: of one operand's weights at least, and of the output weights."""
        return {f"ipr_{x}": int(getattr(self, x).isnan().sum()) for x in ("input", "output")}

    def table(self) -> pd.DataFrame:
        """One row per neuron; of several layers the first has input, the last output columns only.

        A dominant frequency is that of the most power, 0 for the constant (or weights all 0).
        """
        first, last = self.layers
        inputs = {
            "layer": first,
            "neuron": range(len(self.input)),
            "ipr_input_a": self.input_blocks[0].numpy(),
            "ipr_input_b": self.input_blocks[1].numpy(),
            "ipr_input": self.input.numpy(),
            "ipr_input_stacked": self.input_stacked.numpy(),
            "dominant_input": pd.array(self.dominant_input.tolist(), dtype="Int64"),
        }
        outputs = {
            "layer": last,
            "neuron": range(len(self.output)),
            "ipr_output": self.output.numpy(),
            "dominant_output": pd.array(self.dominant_output.tolist(), dtype="Int64"),
        }
        both = ["layer", "neuron"]
        frame = pd.DataFrame(inputs).merge(pd.DataFrame(outputs), on=both, how="outer")
        for name in ("convention", "path", "step", "means", "n_undefined"):
            frame.attrs[name] = getattr(self, name)
        return frame


def ipr(
    x: Float[Tensor, "*blocks n neurons"], *, convention: str = "real"
) -> Float[Tensor, " neurons"]:
    """Inverse participation ratio of every column among its Fourier coefficients (float64).

    IPR_k = sum_nu |X_nu,k|^4 / (sum_nu |X_nu,k|^2)^2 over all nu, the constant included, in one of
    three conventions (see the module); Manning-Coe et al. 2025 (arXiv 2502.01739), eqs. 4 and 7.
    Between 1 / (number of coefficients) and 1; no unit; the scale of x does not matter. NaN for a
    column of zeros. Of blocks [b, n, neurons], each transformed along its own n tokens, it is among
    the coefficients of all (D = 2P of eq. 4): half of that of one for two of equal spectrum. It
    says how few coefficients hold a neuron, not that they are those the network needs, nor that
    neurons agree on them.

    >>> wave = torch.cos(2 * torch.pi * 2 * torch.arange(7.0) / 7)[:, None]
    >>> [round(float(ipr(wave, convention=name)), 4) for name in ("real", "complex", "one_sided")]
    [1.0, 0.5, 1.0]
    """
    powers = POWERS[word("convention", convention, POWERS)]
    power = torch.cat([powers(block) for block in (x if x.ndim == 3 else x[None])])
    return (power / power.sum(dim=0)).square().sum(dim=0)


def neuron_ipr(
    x: Subject,
    *,
    step: int = -1,
    convention: str = "real",
    path: str | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> NeuronIPR:
    """The IPRs of a model's neurons, tokens and classes in the order of the task's group.

    `convention` is that of `ipr`, `path` that of `input_weights`: for a transformer "attention", by
    which neurons read operands at "=", unless "direct" is given. 0 is left out for multiplication.
    InputError for a task without operand tokens and a model without an MLP.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for step in (0, 10_000):
    ...     print(step, round(gi.fourier.neuron_ipr(run, step=step).means["ipr_output"], 2))
    0 0.09
    10000 0.61
    """
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    path = _path(snapshot, path)
    inputs = _in_order(snapshot, path)
    outputs = output_weights(snapshot.named_weights, snapshot.modular_task.p)[
        answer_order(snapshot)
    ]
    return NeuronIPR(
        input_blocks=torch.stack([ipr(block, convention=convention) for block in inputs]),
        input_stacked=ipr(inputs, convention=convention),
        output=ipr(outputs, convention=convention),
        dominant_input=_input_power(inputs).argmax(dim=0),
        dominant_output=spectrum(outputs).argmax(dim=0),
        convention=convention,
        path=path,
        layers=(0, snapshot.n_layers - 1),
        step=snapshot.step,
    )


def fourier_heat_map(
    x: Subject,
    *,
    step: int = -1,
    side: str = "input",
    path: str | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> pd.DataFrame:
    """Share of each neuron's power in every frequency: a row per frequency, a column per neuron.

    Row 0 is the constant; cos and sin, and the two operands, are merged; a column sums to 1, or is
    NaN where the weights are all 0 (`.attrs["n_undefined"]`). Columns are sorted by dominant
    frequency, equal ones by its share, largest first; undefined ones are last. `path` is for the
    input side.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> shares = gi.fourier.fourier_heat_map(run)
    >>> shares.shape, shares.iloc[:, 0].idxmax(), shares.iloc[:, -1].idxmax()
    ((16, 160), 1, 14)
    >>> shares.loc[[0, 1, 8, 14]].iloc[:, [0, 80, 159]].round(2)
    neuron      122   53    10
    frequency
    0          0.00  0.00  0.04
    1          0.99  0.01  0.25
    8          0.00  0.70  0.10
    14         0.00  0.04  0.28
    """
    word("side", side, ("input", "output"))
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    path = _path(snapshot, path)
    if side == "input":
        power = _input_power(_in_order(snapshot, path))
    else:
        outputs = output_weights(snapshot.named_weights, snapshot.modular_task.p)
        power = spectrum(outputs[answer_order(snapshot)])
    shares = power / power.sum(dim=0)
    undefined = shares.isnan().any(dim=0).tolist()
    dominant, height = power.argmax(dim=0).tolist(), shares.amax(dim=0).tolist()
    columns = sorted(range(len(dominant)), key=lambda i: (undefined[i], dominant[i], -height[i]))
    frame = pd.DataFrame(shares[:, columns].numpy(), columns=pd.Index(columns, name="neuron"))
    frame.index.name = "frequency"
    frame.attrs = {"side": side, "path": path, "step": snapshot.step, "n_undefined": sum(undefined)}
    return frame


def _in_order(snapshot: Snapshot, path: str) -> Float[Tensor, "2 n neurons"]:
    """The input weights of both operands, each in the order of its map into the task's group."""
    blocks = input_weights(snapshot.named_weights, snapshot.modular_task.p, path=path)
    orders = operand_orders(snapshot)
    return torch.stack([block[order] for block, order in zip(blocks, orders, strict=True)])


def _input_power(inputs: Float[Tensor, "2 n neurons"]) -> Float[Tensor, "frequencies neurons"]:
    return spectrum(inputs[0]) + spectrum(inputs[1])


def _path(snapshot: Snapshot, path: str | None) -> str:
    return path or ("attention" if "blocks.0.attn.W_V" in snapshot.named_weights else "direct")
