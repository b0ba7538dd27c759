"""From a cloud to a circle: the shape of what a network has for each operand and each answer.

Clouds are those of `clouds`, the measures those of `symmetrised_grams`, `ranks_of_matrices`,
`frequency_planes` and `persistent_loops`, the dates those of `transition_steps`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, listed, whole
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits.circles import plane_coordinates
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.fourier.basis import n_frequencies
from grokinterp.geometry.clouds import (
    CLOUDS,
    FEWEST,
    Cloud,
    answer_hook,
    checked_clouds,
    clouds_of,
    rows_of_answers,
)
from grokinterp.geometry.frequency_planes import frequencies_of, phase_rqi
from grokinterp.geometry.persistent_loops import persistence, upper_quantile
from grokinterp.geometry.ranks_of_matrices import effective_ranks
from grokinterp.geometry.symmetrised_grams import (
    centred_gram,
    checked_table,
    is_cyclic,
    orbits_of,
    permuted_symmetries,
    symmetry_of,
)
from grokinterp.geometry.transition_steps import (
    FIT,
    Transition,
    first_above,
    fit_transitions,
    held_above,
    transition_of,
)
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.phases import Phase, phases_of_metrics
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

RELIABLE = 0.5  # of answers; below, other inputs would arrange them otherwise
COLUMNS = (
    "step", "cloud", "symmetry", "symmetry_null95", "participation_ratio", "rank_me", "key_share",
    "circularity", "probe_r2", "probe_r2_placebo", "between_share", "between_chance",
    "reliability", "h1", "h1_null95", "h1_p", "h1_second", "h1_sum", "phase_rqi", "n_points",
)  # fmt: skip
OF_ANSWERS = ("between_share", "between_chance", "reliability")
OF_FREQUENCIES = (
    "step", "cloud", "frequency", "key", "share", "circularity", "probe_r2", "phase_rqi",
)  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """A cloud in the plane of a frequency (None: of its first two principal components).

    Axes are C_k / |C_k| and the part of S_k at right angles to it: row x of a perfect circle is
    r (cos w_k x, sin w_k x). `elements` are the points' places in the order of the group.
    """

    step: int
    cloud: str
    frequency: int | None
    points: Float[Tensor, "n 2"] = field(repr=False)
    elements: Int[Tensor, " n"] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Representations(Result):
    """Shapes of clouds at every checkpoint, when they changed, and when the fit did.

    `transitions` are those of each cloud's symmetry, then of test accuracy and test loss, to be
    read beside `memorization_step` and `grok_step`; `h1_from` has, for every cloud, the first of
    two checkpoints in a row whose longest loop is above its null (None: there is none).
    `key_frequencies` are those that key_share, circularity, probe_r2 and phase_rqi are about.

    >>> import grokinterp as gi
    >>> found = gi.geometry.representations("mod31-small", step=[0, 10_000], n_null=19)
    >>> found.table()[["step", "cloud", "symmetry", "symmetry_null95", "n_points"]].round(2)
        step        cloud  symmetry  symmetry_null95  n_points
    0      0    embedding      0.05             0.06        31
    1      0  unembedding      0.03             0.06        31
    2      0      answers      0.07             0.10        24
    3  10000    embedding      0.89             0.06        31
    4  10000  unembedding      0.97             0.05        31
    5  10000      answers      0.89             0.12        24
    >>> found.notes[2]
    '7 answers have no input of these rows'
    """

    steps: tuple[int, ...]
    clouds: tuple[str, ...]
    key_frequencies: tuple[int, ...]
    measured: tuple[dict[str, object], ...] = field(repr=False)
    by_frequency: tuple[dict[str, object], ...] = field(repr=False)
    planes: tuple[Plane, ...] = field(repr=False)
    transitions: tuple[Transition, ...]
    memorization_step: float | None
    grok_step: float | None
    phases: tuple[Phase, ...] | None = field(repr=False)
    rows: str
    n_null: int
    seed: int

    def table(self) -> pd.DataFrame:
        """One row per checkpoint and cloud; NaN where a measure does not apply."""
        return pd.DataFrame(list(self.measured), columns=list(COLUMNS))

    def frequencies(self) -> pd.DataFrame:
        """One row per checkpoint, cloud and frequency; phase_rqi is of key frequencies alone."""
        return pd.DataFrame(list(self.by_frequency), columns=list(OF_FREQUENCIES))

    def transition(self, cloud: str) -> Transition | None:
        """That of a cloud, of "test_accuracy" or of "test_loss"; None for another name."""
        return next((each for each in self.transitions if each.cloud == cloud), None)

    @property
    def h1_from(self) -> dict[str, int | None]:
        """The first of two checkpoints in a row with a loop above its null, by cloud.

        Checkpoints that lie close are alike, so that a null which is passed by chance is passed
        twice: `h1_held_from` is harder to reach.
        """
        return {name: first_above(*curve) for name, curve in self._loops().items()}

    @property
    def h1_held_from(self) -> dict[str, int | None]:
        """The first checkpoint, of two at least, from which a loop stays above its null."""
        return {name: held_above(*curve) for name, curve in self._loops().items()}

    def _loops(self) -> dict[str, tuple[list[int], list[float], list[float]]]:
        """Steps, longest loops and nulls of every cloud."""
        return {
            str(cloud): (rows["step"].tolist(), rows["h1"].tolist(), rows["h1_null95"].tolist())
            for cloud, rows in self.table().groupby("cloud", sort=False)
        }

    def _lines(self) -> list[str]:
        dated = sorted(
            (each.step, each.cloud) for each in self.transitions if each.step is not None
        )
        if not dated:
            return []
        return ["transitions: " + ", ".join(f"{cloud} {step}" for step, cloud in dated)]

    def _short_table(self) -> pd.DataFrame:
        """The last checkpoint's, without what is missing."""
        table = self.table()
        last = table[table["step"] == self.steps[-1]]
        return last.dropna(axis=1, how="all") if len(last) else last


def representations(
    x: Subject,
    step: int | Sequence[int] | str = "all",
    *,
    of: str | Sequence[str] = CLOUDS,
    at: str | None = None,
    rows: str = "unmirrored",
    group: Int[Tensor, "n n"] | None = None,
    frequencies: Sequence[int] | None = None,
    n_null: int = 39,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Representations:
    r"""Do clouds of points turn into circles, and do they before the network generalises?

    At every checkpoint of `step`, for the clouds that `of` names:

    embedding        what operand tokens are read as; of an MLP on one-hot operands its W_in. Two
                     clouds, embedding_a and embedding_b, where the operands differ
    unembedding      what answer classes are read with, the columns of W_U
    answers          mean activation, over `rows`, of the inputs with each answer, at the hook `at`:
                     what the unembedding reads (before a final norm) unless given

    `rows` are the "unmirrored" test inputs, all "test" inputs, "train" or "all": means over inputs
    that are trained on average memorised answers, and look ordered too early.

    symmetry         `group_symmetry` under the task's cyclic group, points in the order of
                     exponents, or under `group`, a multiplication table [n, n] whose elements are
                     the points; symmetry_null95 is passed by 5 % of random orders of the points
    participation_ratio, rank_me
                     `participation_ratio`, and exp of the entropy of the normalised singular values
                     (Garrido et al. 2023, arXiv 2210.02885), of the centred cloud
    key_share        share of the centred cloud's power in the key frequencies
    circularity      s_2 / s_1 of (C_k, S_k), C_k = sum_x cos(w_k x) X_x and S_k of sin: 1 for a
                     circle, and nearly 1 for random points, so read it with the share
    probe_r2         held-out R^2 of a ridge probe of cos, sin w_k x, over ten folds of the points;
                     probe_r2_placebo is the mean over all other frequencies
    phase_rqi        share of i + j = l + m whose phases add up too; chance is 4 / n
    between_share    sum of squares between answers over all of it; chance (n - 1) / (n_rows - 1)
    reliability      cosine of the centred Grams (as in symmetry) of answers that are means over
                     either half of their inputs; where it is low, it is these inputs that arrange
                     the answers, and other inputs would do it otherwise
    h1, h1_second, h1_sum
                     the longest loop, the second, and all, in RMS radii (`persistence`, with
                     h1_null95 and h1_p); NaN without ripser

    Circularity and phase_rqi are means over the key frequencies weighted with their shares,
    probe_r2 a plain mean. Key frequencies are those of the run's last checkpoint, which is
    hindsight at all others, or `frequencies`. `n_null` orders and Gaussian clouds are drawn with
    `seed`; below 19 there is no 95 %. `.frequencies()` has every frequency by itself.

    The transition of a cloud is the first checkpoint from which its symmetry (its between_share,
    where there is no symmetry) stays above the middle between its value at memorisation and its
    maximum. What a task has no group for is NaN, and `notes` say why. Means over few inputs are
    noisy, so that the order of answers is seen late or never: `reliability` tells.

    Symmetry is Kornblith et al.'s CKA (2019, arXiv 1905.00414) with the cloud's own average,
    phase_rqi is after Liu et al. 2022 (arXiv 2205.10343), loops over training are in Tang et al.
    2026 (arXiv 2605.06352); definitions, nulls and dates are this package's own. A circle does not
    say that the network uses it, and a date says nothing of its cause.

    >>> import grokinterp as gi
    >>> wanted = ["embedding", "unembedding"]
    >>> found = gi.geometry.representations("mod31-small", [0, 300, 10_000], of=wanted, n_null=0)
    >>> for name in wanted:
    ...     rows = found.table().query("cloud == @name")
    ...     print(name, rows[["symmetry", "key_share", "probe_r2"]].round(2).to_numpy().tolist())
    embedding [[0.05, 0.24, -0.86], [0.53, 0.59, 0.11], [0.89, 0.9, 0.96]]
    unembedding [[0.03, 0.21, -1.1], [0.7, 0.55, 0.64], [0.97, 0.97, 0.98]]
    """
    run = run_of(x, task=task, train_mask=train_mask)
    n_null = whole("n_null", n_null, least=0, such_as="39")
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    if group is not None:
        group = checked_table(group)
    ordered = group is None or is_cyclic(group)
    keys, notes = _keys(run, frequencies, group)
    wanted, chosen = checked_clouds(of), rows_of_answers(run, rows)
    steps = rising_steps(run, step)
    seen = _Seen(group, ordered, keys, n_null, seed)
    for each in progress_bar(steps, "represent", progress):
        snapshot = run.snapshot(each)
        for cloud in clouds_of(snapshot, wanted, at=at, rows=chosen, by_group=group is None):
            seen.add(each, cloud)
    if "answers" in seen.names:
        notes.insert(0, f"answers are means at {answer_hook(snapshot, at)}, {chosen.note}")
    dates, more = _dates(run, seen)
    return Representations(
        steps=tuple(steps), clouds=tuple(seen.names), key_frequencies=keys,
        measured=tuple(seen.rows), by_frequency=tuple(seen.by_frequency),
        planes=tuple(seen.planes), rows=rows, n_null=n_null, seed=seed,
        notes=(*notes, *seen.notes(), *more), **dates,  # type: ignore[arg-type]
    )  # fmt: skip


def _keys(
    run: Run, frequencies: Sequence[int] | None, group: Tensor | None
) -> tuple[tuple[int, ...], list[str]]:
    """The frequencies that are looked at, and what is to be said of them."""
    if group is None:
        _, keys = subject_of(run, frequencies=frequencies)
        if not keys:
            return (), [f"no frequency is looked at by itself: {keys.reason}"]
        if frequencies is not None:
            return tuple(keys), []
        hindsight = "the last checkpoint" + ", in hindsight at all others" * (len(run.steps) > 1)
        named = ", ".join(map(str, keys))
        return tuple(keys), [f"key frequencies {named} are those of {hindsight}", *keys.notes]
    if frequencies is None:
        return (), ["no frequency is looked at by itself: with group= they are not looked for"]
    if not is_cyclic(group):
        raise InputError(
            "frequencies are those of a cyclic group, and group= is another, or in another order; "
            "leave frequencies out."
        )
    most = n_frequencies(len(group))
    given = listed("frequencies", frequencies, such_as="[1, 5]")
    each = {whole("frequency", k, least=1, most=most, such_as="1") for k in given}
    return tuple(sorted(each)), []


class _Seen:
    """What is measured of the clouds, one after the other."""

    def __init__(
        self, group: Tensor | None, ordered: bool, keys: tuple[int, ...], n_null: int, seed: int
    ) -> None:
        self.group, self.ordered, self.keys = group, ordered, keys
        self.n_null, self.seed = n_null, seed
        self.names: list[str] = []  # of clouds that have points
        self.rows: list[dict[str, object]] = []
        self.by_frequency: list[dict[str, object]] = []
        self.planes: list[Plane] = []
        self.shapeless: set[str] = set()  # clouds that have no symmetry at any step
        self.missing: dict[str, str] = {}  # clouds, and why they are
        self.said: dict[str, list[int]] = {}  # notes, and the steps that they are about

    def add(self, step: int, cloud: Cloud) -> None:
        """Measure a cloud of a checkpoint; what cannot be measured is left out, with a note."""
        row: dict[str, object] = dict.fromkeys(COLUMNS, math.nan)
        row |= {"step": step, "cloud": cloud.name, "n_points": len(cloud.points)}
        self.rows.append(row)
        if cloud.missing:
            self.missing[cloud.name] = cloud.missing
            return self._note(step, f"there is no cloud {cloud.name}: {cloud.missing}")
        if cloud.name not in self.names:
            self.names.append(cloud.name)
        row |= {name: getattr(cloud, name) for name in OF_ANSWERS}
        points = cloud.points - cloud.points.mean(dim=0)
        if cloud.unordered or len(points) < FEWEST:
            self.shapeless.add(cloud.name)
        if len(points) < FEWEST:
            what = f"{cloud.name} has {len(points)} points, fewer than {FEWEST}: it has no shape"
            return self._note(step, what)
        if cloud.equal:
            return self._note(step, f"all points of {cloud.name} are equal: they have no shape")
        ranks = effective_ranks(points)
        row |= {"participation_ratio": ranks["participation"], "rank_me": ranks["entropy_rank"]}
        ordered = self.ordered if self.group is not None else not cloud.unordered
        if self.group is None and not ordered:
            self._note(step, f"{cloud.name} has no group that moves its points: {cloud.unordered}")
        else:
            orbits = orbits_of(self.group, cloud.order)
            self._symmetry(row, points, orbits[cloud.elements][:, cloud.elements])
        if len(points) < cloud.order:
            self._note(
                step, f"{cloud.order - len(points)} {cloud.name} have no input of these rows"
            )
        if cloud.reliability < RELIABLE:
            self._note(
                step, f"{cloud.name} lie where they do by which inputs there are more than by what "
                f"they are (reliability below {RELIABLE:g}): their symmetry is a lower bound",
            )  # fmt: skip
        if self.keys and ordered and len(points) == cloud.order:
            self._frequencies(row, points)
            self._planes(row, cloud, {k: plane_coordinates(points, k) for k in self.keys})
        else:
            axes = torch.linalg.svd(points, full_matrices=False).Vh[:2].T
            self._planes(row, cloud, {None: points @ axes})
        self._loops(row, points)
        return None

    def _symmetry(self, row: dict[str, object], points: Tensor, orbits: Tensor) -> None:
        gram = centred_gram(points)
        row["symmetry"] = symmetry_of(gram, orbits)
        if self.n_null:
            null = permuted_symmetries(gram, orbits, n_null=self.n_null, seed=self.seed)
            row["symmetry_null95"] = upper_quantile(null)

    def _planes(
        self, row: dict[str, object], cloud: Cloud, found: Mapping[int | None, Tensor]
    ) -> None:
        step = int(row["step"])  # type: ignore[call-overload]
        self.planes += [
            Plane(step, cloud.name, k, points.float(), cloud.elements)
            for k, points in found.items()
        ]

    def _frequencies(self, row: dict[str, object], points: Tensor) -> None:
        found = frequencies_of(points, seed=self.seed)
        phases = {k: phase_rqi(points, k) for k in self.keys}
        for i, (share, circularity, probe) in enumerate(
            zip(*(x.tolist() for x in vars(found).values()), strict=True), start=1
        ):
            self.by_frequency.append({
                "step": row["step"], "cloud": row["cloud"], "frequency": i, "key": i in self.keys,
                "share": share, "circularity": circularity, "probe_r2": probe,
                "phase_rqi": phases.get(i, math.nan),
            })  # fmt: skip
        key = torch.zeros(len(found.share), dtype=torch.bool)
        key[torch.tensor(self.keys) - 1] = True
        share = found.share[key]
        row |= {
            "key_share": float(share.sum()),
            "circularity": _weighted(found.circularity[key], share),
            "probe_r2": float(found.probe_r2[key].mean()),
            "probe_r2_placebo": float(found.probe_r2[~key].mean()),
            "phase_rqi": _weighted(torch.tensor(list(phases.values())).to(share), share),
        }

    def _loops(self, row: dict[str, object], points: Tensor) -> None:
        try:
            found = persistence(points, n_null=self.n_null, seed=self.seed)
        except InputError as error:
            return self._note(None, f"h1 is not measured: {str(error).rstrip('.')}")
        row |= {"h1": found.longest, "h1_null95": found.null95, "h1_p": found.p}
        row |= {"h1_second": found.second, "h1_sum": found.total}
        for note in found.notes:
            self._note(None, f"{row['cloud']}: {note}")
        return None

    def _note(self, step: int | None, note: str) -> None:
        steps = self.said.setdefault(note, [])
        if step is not None:
            steps.append(step)

    def notes(self) -> list[str]:
        """What is to be said of the clouds, each once, and what chance alone would pass."""
        n_steps = len({row["step"] for row in self.rows})
        found = []
        for note, at in self.said.items():
            more = f" and {len(at) - 1} more" * (len(at) > 1)
            found.append(f"{note} (step {at[0]}{more})" if 0 < len(at) < n_steps else note)
        for name in ("symmetry", "h1"):
            n = sum(math.isfinite(row[f"{name}_null95"]) for row in self.rows)  # type: ignore[arg-type]
            if n > 1:
                found.append(
                    f"of {n} rows chance alone puts about {0.05 * n:.2g} above {name}_null95; "
                    "neighbouring checkpoints are alike"
                )
        return found


def _weighted(values: Tensor, share: Tensor) -> float:
    """The mean of what is not NaN."""
    known = ~values.isnan()
    total = share[known].sum()
    return float((values * share)[known].sum() / total) if total > 0 else math.nan


def _dates(run: Run, seen: _Seen) -> tuple[dict[str, object], list[str]]:
    """Transitions, beside the dates of the run's curves, and notes on them."""
    frame, notes = pd.DataFrame(seen.rows, columns=list(COLUMNS)), list[str]()
    clouds = frame["cloud"].drop_duplicates().tolist()
    phases, undated = None, ""
    if not run.steps_known:
        undated = "nobody knows the steps of these checkpoints"
    else:
        try:
            phases = phases_of_metrics(run)
        except InputError as error:
            undated = str(error).rstrip(".")
    if phases is None:
        transitions = [Transition(cloud=name, reason=undated) for name in (*clouds, *FIT)]
        none = dict.fromkeys(("memorization_step", "grok_step", "phases"))
        return {"transitions": tuple(transitions), **none}, notes
    after = phases.memorization_step
    transitions = []
    for name in clouds:
        rows = frame[frame["cloud"] == name]
        if name not in seen.names:
            transitions.append(Transition(cloud=name, reason=seen.missing[name]))
            continue
        column = "between_share" if name in seen.shapeless else "symmetry"
        transitions.append(
            transition_of(name, rows["step"].tolist(), rows[column].tolist(), after=after)
        )
        if column == "between_share" and transitions[-1].step is not None:
            notes.append(f"the transition of {name} is that of its between_share")
    fit, how = fit_transitions(run, sorted(frame["step"].unique().tolist()), after)
    if how:
        notes.append(f"test_accuracy and test_loss are {how}")
    dates = {"memorization_step": after, "grok_step": phases.grok_step}
    return {"transitions": (*transitions, *fit), "phases": phases.phases, **dates}, notes


@measure("representations", scope="run", default=False, prefix="representations_")
def _representations(run: Run) -> Columns:
    """When the clouds of operands and answers came into the group's shape, by their symmetry."""
    found = representations(run, n_null=0)
    if all(each.step is None for each in found.transitions):
        raise InputError(f"no transition is dated: {found.transitions[0].reason}.")
    return {
        f"{each.cloud}_step": math.nan if each.step is None else float(each.step)
        for each in found.transitions
    }
