"""Compressibility of a model over its training, a row per checkpoint."""

from collections.abc import Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.circuits.subject import check_run, steps_of
from grokinterp.encodings.pruning import weight_names
from grokinterp.encodings.pruning_curves import KEEP, pruning_curve
from grokinterp.encodings.pruning_scores import MAGNITUDE, Scores
from grokinterp.encodings.sizes import gini_of, mean_effective_rank
from grokinterp.runs.run import Run

LEARNT = 0.9  # of a run's best test accuracy: before it, c is that of chance


def learnt_steps(run: Run) -> list[int]:
    """The checkpoints whose test accuracy is at least 0.9 of the best that the run logged."""
    accuracy = run.metrics.drop_duplicates("step", keep="last").set_index("step").test_acc
    return [step for step in run.steps if accuracy.get(step, 0) >= LEARNT * accuracy.max()]


def compressibility(
    run: Run,
    *,
    steps: Sequence[int] | str = "all",
    scope: str = "layer",
    scores: Scores = MAGNITUDE,
    basis: str = "weights",
    fractions: Sequence[float] | Float[Tensor, " m"] | None = None,
    biases: bool = False,
    keep: float = KEEP,
    test_only: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Compressibility over training: a row per checkpoint of a run, `steps` or all.

    c, c_low and c_high (`c_interval`), area and prunable of `pruning_curve`; losses and accuracies
    of the unpruned model, NaN without a split (c is then of all inputs: `.attrs["rows"]`) and on
    train with `test_only`, which evaluates the test inputs alone and gives the same c; the Gini
    coefficient of all |weights| and the mean effective rank of the matrices
    (`grokinterp.encodings.sizes`). The curve's settings stand in `.attrs`. Before a model has
    learnt, c is that of chance (near 1 with many classes) and prunable is noise.
    """
    check_run(run)
    table = []
    curve = None
    for step in tqdm(
        steps_of(run, steps), desc="prune", unit="checkpoint", disable=None if progress else True
    ):
        snapshot = run.snapshot(step)
        curve = pruning_curve(
            snapshot, scope=scope, scores=scores, basis=basis, fractions=fractions, biases=biases,
            keep=keep, test_only=test_only,
        )  # fmt: skip
        weights = {name: snapshot.weights[name] for name in weight_names(snapshot.weights)}
        low, high = curve.c_interval
        table.append(
            {
                "step": snapshot.step,
                "c": curve.c,
                "c_low": low,
                "c_high": high,
                "area": curve.area,
                "prunable": curve.prunable,
                "train_loss": curve.unpruned.loss_train,
                "test_loss": curve.unpruned.loss_test,
                "train_acc": curve.unpruned.acc_train,
                "test_acc": curve.unpruned.acc_test,
                "gini_weights": gini_of(weights),
                "effective_rank": mean_effective_rank(weights),
            }
        )
    assert curve is not None  # steps_of refuses no steps
    frame = pd.DataFrame(table)
    frame.attrs |= {key: value for key, value in curve.settings.items() if key != "step"}
    return frame
