"""Clock or pizza: three measures of the two algorithms that can add on a circle.

Every task with an answer group is addition of exponents: with x the exponent of a, and y the
exponent of b or, for subtraction, minus it, the answer has the exponent x + y mod n. The distance
d = x - y mod n is what the answer does not depend on. On a circle of frequency k (w = 2 pi k / n)
the two algorithms (Zhong et al. 2023, arXiv 2306.17844) write, up to a factor,

    clock:  cos(w (x + y - z))                          z the exponent of the class c
    pizza:  |cos(w d / 2)| cos(w (x + y - z))

Both factors are functions on the group: d + n instead of d turns w d / 2 by k pi, which changes the
sign of its cosine at most, for odd and for even n. Over z alone, waves of different frequencies are
orthogonal whatever stands before them, so each frequency is fitted on its own and the parts of the
variance add up.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, whole
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits.interventions import hooked_answers
from grokinterp.fourier._key_frequencies import need_key_frequencies, subject_of
from grokinterp.fourier.answers import AnswerSpectrum, group_of
from grokinterp.fourier.basis import n_frequencies
from grokinterp.models.user_models import HookedModel
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot, need_residual_stream
from grokinterp.tasks.answer_group import UNDEFINED, AnswerGroup
from grokinterp.tasks.modular import ModularTask

BLOCK_TRIPLES = 128  # the two-token forward scores every pair of the operands it is given
LARGEST_SHUFFLE = 4_000_000  # triples; a list of more takes seconds to shuffle


@dataclass(frozen=True, kw_only=True)
class GradientSymmetricity(Result):
    """Cosines between dQ_abc/dE_a and dQ_abc/dE_b, one per triple, and their mean.

    `value` is None where no sampled triple has two gradients; `reason` counts those left out.

    >>> import grokinterp as gi
    >>> found = gi.circuits.gradient_symmetricity(gi.load("mod31-small"))
    >>> round(found.value, 3), round(found.standard_error, 3)
    (-0.145, 0.044)
    >>> found.table().round(2).head(2)
        a   b   c  cosine
    0  26  24  26    0.33
    1  21   8  20   -0.28
    """

    value: float | None
    std: float | None  # over the triples (population)
    n_samples: int
    n_left_out: int  # a gradient of length 0, or one that is not finite, has no direction
    seed: int
    reason: str | None
    step: int | None
    triples: Int[Tensor, "n_samples 3"] = field(repr=False, compare=False)
    cosines: Float[Tensor, " n_samples"] = field(repr=False, compare=False)  # nan where left out

    @property
    def standard_error(self) -> float | None:
        """How far another sample of as many triples typically moves the mean."""
        return None if self.std is None else self.std / (self.n_samples - self.n_left_out) ** 0.5

    def table(self) -> pd.DataFrame:
        """One row per triple: a, b, c and the cosine."""
        frame = pd.DataFrame(self.triples.numpy(), columns=["a", "b", "c"])
        frame["cosine"] = self.cosines.numpy()
        frame.attrs |= {"seed": self.seed, "step": self.step, "reason": self.reason}
        return frame


def gradient_symmetricity(
    x: Subject,
    *,
    n_samples: int = 100,
    seed: int = 42,
    step: int = -1,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> GradientSymmetricity:
    r"""How alike the gradients of a logit are with respect to the two operands' embeddings.

    The mean, over sampled triples, of cos(dQ_abc / dE_a, dQ_abc / dE_b): Q_abc is the logit of
    class c on the input (a, b), E_a and E_b are the embeddings at the two operand positions (two
    variables, also where a = b). Between -1 and 1, no unit. Zhong et al. 2023
    (arXiv 2306.17844), who sample 100 triples: all (a, b, c) in lexicographic order,
    `random.Random(42).shuffle`, the first 100. Tokens without an exponent (0 under
    multiplication) are not sampled; beyond 4 million triples `random.Random(seed).sample` draws.

    A model that adds its two embeddings before anything else (pizza) has 1; multiplying them
    (clock) gives cosines of all sizes, so that a high value rules the clock out. It says this only
    of operations that are symmetric in a and b, and a low value alone shows no clock: a model that
    treats its operands differently for any reason has one. InputError without `hook_embed`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = [gi.circuits.gradient_symmetricity(run, step=step) for step in (0, 10000)]
    >>> [round(one.value, 2) for one in found]
    [1.0, -0.15]
    """
    n_samples = whole("n_samples", n_samples, least=1, such_as="100")
    seed = whole("seed", seed, least=-LARGEST_SEED, most=LARGEST_SEED, such_as="42")
    snapshot, _ = subject_of(x, step, (), task, train_mask)
    need_residual_stream(snapshot)
    triples = sampled_triples(snapshot.modular_task, n_samples=n_samples, seed=seed)
    blocks = triples.split(BLOCK_TRIPLES)
    cosines = torch.cat([_cosines(_gradients(snapshot, block)) for block in blocks])
    known = cosines[~cosines.isnan()]
    left_out = len(cosines) - len(known)
    reason = f"{left_out} of {len(cosines)} triples left out: a gradient is 0 or not finite"
    return GradientSymmetricity(
        value=float(known.mean()) if len(known) else None,
        std=float(known.std(unbiased=False)) if len(known) else None,
        n_samples=len(triples),
        n_left_out=left_out,
        seed=seed,
        reason=reason if left_out else None,
        step=snapshot.step,
        triples=triples,
        cosines=cosines,
    )


def sampled_triples(task: ModularTask, *, n_samples: int, seed: int) -> Int[Tensor, "n 3"]:
    """Random (a, b, c) without repetition, in the order of the published sample.

    >>> sampled_triples(ModularTask("add", p=59), n_samples=2, seed=42).tolist()
    [[29, 1, 57], [49, 36, 24]]
    """
    group = task.answer_group
    tokens = torch.arange(task.p) if group is None else group.tokens.sort().values
    n = len(tokens)  # in a group also the operands that have an exponent
    generator = random.Random(seed)
    if n**3 <= LARGEST_SHUFFLE:
        order = list(range(n**3))
        generator.shuffle(order)
        drawn = order[:n_samples]
    else:
        drawn = generator.sample(range(n**3), min(n_samples, n**3))
    found = tokens[torch.stack(torch.unravel_index(torch.tensor(drawn), (n, n, n)), dim=1)]
    return found[task.row_of[found[:, 0], found[:, 1]] != UNDEFINED]


def _gradients(snapshot: Snapshot, triples: Int[Tensor, "n 3"]) -> Float[Tensor, "n 2 d_model"]:
    """Of the triples' logits with respect to both embeddings, in float64 where it can be."""
    plain, task = snapshot.transformer, snapshot.modular_task
    if plain is None:
        return hooked_gradients(snapshot.hooked(), task, triples)
    # Each operand of each triple is given a token of its own, so that the gradient with respect to
    # the table of embeddings keeps positions and triples apart.
    weights = {name: weight.double() for name, weight in snapshot.weights.items()}
    table, n, reads = weights["embed.W_E"], len(triples), task.reads
    operands = table[reads.operand_rows[triples[:, :2].flatten()]].requires_grad_()
    others = table[list(reads.token_ids)]
    words = tuple(range(2 * n, 2 * n + len(others)))
    each = replace(reads, operand_ids=tuple(range(2 * n)), token_ids=words)
    tokens = each.tokens(torch.arange(2 * n).view(n, 2))
    with torch.enable_grad():
        weights["embed.W_E"] = torch.cat([operands, others])
        logits = task.of_answers(plain.forward(weights, tokens))
        total = logits[torch.arange(n), triples[:, 2]].sum()
        (found,) = torch.autograd.grad(total, operands)
    return found.view(n, 2, -1)


def hooked_gradients(
    model: HookedModel, task: ModularTask, triples: Int[Tensor, "n 3"]
) -> Float[Tensor, "n 2 d_model"]:
    """Through any hooked model, in its own precision: `hook_embed` is made the variable."""
    if "hook_embed" not in model.hook_dict:
        missing = f"{type(model).__name__} has no 'hook_embed' (model.hook_dict lists all hooks)"
        raise InputError(f"{missing}; gradient symmetricity is about the embeddings there.")
    tokens = task.reads.tokens(triples[:, :2])
    leaves: list[Tensor] = []

    def make_variable(value: Tensor, hook: object) -> Tensor:
        leaves.append(value.detach().clone().requires_grad_())
        return leaves[0]

    with torch.enable_grad():
        logits = task.of_answers(hooked_answers(model, tokens, [("hook_embed", make_variable)]))
        total = logits[torch.arange(len(triples)), triples[:, 2]].sum()
        total = total + 0.0 * leaves[0].sum().cpu()  # 0 where a model ignores its operands
        (found,) = torch.autograd.grad(total, leaves[0])
    return found[:, list(task.reads.operand_places)].cpu().double()


def _cosines(gradients: Float[Tensor, "n 2 d_model"]) -> Float[Tensor, " n"]:
    """NaN where a gradient has length 0 or is not finite."""
    first, second = gradients.unbind(1)
    return (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))


@dataclass(frozen=True, kw_only=True)
class DistanceIrrelevance(Result):
    """q, the mean over distances of the spread within one over the spread over all pairs.

    `value` is None where the right answer's logit does not vary at all; `reason` says so.

    >>> import grokinterp as gi
    >>> found = gi.circuits.distance_irrelevance(gi.load("mod31-small"))
    >>> round(found.value, 3), round(found.std_all, 2)
    (0.938, 5.64)
    >>> found.table().round(2).head(3)
       distance   mean   std
    0         0  39.84  5.95
    1         1  48.26  5.32
    2         2  45.66  4.61
    """

    value: float | None
    std_all: float  # logit units
    std_within: Float[Tensor, " order"] = field(repr=False, compare=False)  # by distance
    mean_within: Float[Tensor, " order"] = field(repr=False, compare=False)
    reason: str | None
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row per distance: mean and spread of the right answer's logit."""
        frame = pd.DataFrame({"distance": range(len(self.mean_within))})
        frame["mean"], frame["std"] = self.mean_within.numpy(), self.std_within.numpy()
        frame.attrs |= {"std_all": self.std_all, "q": self.value, "step": self.step}
        return frame


def distance_irrelevance(
    x: Subject,
    *,
    step: int = -1,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> DistanceIrrelevance:
    r"""How little the distance between the operands says about the right answer's logit.

    q = (mean over d of std(L_xy over the pairs of distance d)) / std(L_xy over all pairs), with
    L_xy the logit of the right answer and population standard deviations; between 0 and 1, no
    unit. Zhong et al. 2023 (arXiv 2306.17844): 0 to 0.4 for pizzas, 0.4 to 1 for clocks.
    Distances are of exponents (the module says which); for addition d = a - b mod p.

    It asks about right answers alone and only how much the distance matters, not in which form:
    a memorising network has q near 1 as well. InputError for a task without an answer group.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = [gi.circuits.distance_irrelevance(run, step=step) for step in (0, 1000, 10000)]
    >>> [round(one.value, 2) for one in found]
    [1.0, 0.96, 0.94]
    """
    snapshot, _ = subject_of(x, step, (), task, train_mask)
    group = group_of(snapshot)
    logits = snapshot.logits.gather(1, snapshot.task.labels[:, None]).flatten()
    right = logits.double()[operand_grid(snapshot.modular_task, group)]
    y = torch.arange(group.order)
    by_distance = right[(y[:, None] + y) % group.order, y]  # [d, y]: x = y + d
    std_within = by_distance.std(dim=1, unbiased=False)
    std_all = float(right.std(unbiased=False))
    constant = std_all <= 1e-6 * float(right.abs().max())  # no more than float32 rounds
    return DistanceIrrelevance(
        value=None if constant else float(std_within.mean()) / std_all,
        std_all=std_all,
        std_within=std_within,
        mean_within=by_distance.mean(dim=1),
        reason="the right answer's logit is the same for all pairs" if constant else None,
        step=snapshot.step,
    )


@dataclass(frozen=True)
class WaveFit:
    """One frequency's share of the centred variance of the logits, by form.

    `free` is the best that any function of the distance before cos(w (x + y - z)) can do: an upper
    bound for both forms. The amplitudes are the least-squares factors, in logit units.
    """

    frequency: int
    clock: float
    pizza: float
    free: float
    clock_amplitude: float
    pizza_amplitude: float


@dataclass(frozen=True, kw_only=True)
class LogitForms(Result):
    """How much of the logits the clock's form and the pizza's form explain, per frequency.

    Shares of the variance over all (a, b, c) after taking out each input's mean over the classes
    and each class's mean over the inputs; the latter held `class_means` of the variance before.

    >>> import grokinterp as gi
    >>> found = gi.circuits.logit_forms(gi.load("mod31-small"))
    >>> round(found.clock, 3), round(found.pizza, 3), round(found.free, 3)
    (0.92, 0.723, 0.924)
    >>> found.table()[["frequency", "clock", "pizza", "free"]].round(3)
      frequency  clock  pizza   free
    0        14  0.709  0.553  0.713
    1         1  0.146  0.118  0.146
    2         8  0.065  0.052  0.065
    3       all  0.920  0.723  0.924
    """

    fits: tuple[WaveFit, ...]
    class_means: float
    step: int | None

    @property
    def clock(self) -> float:
        """Share of the variance explained by clocks of all these frequencies."""
        return sum(fit.clock for fit in self.fits)

    @property
    def pizza(self) -> float:
        """Share of the variance explained by pizzas of all these frequencies."""
        return sum(fit.pizza for fit in self.fits)

    @property
    def free(self) -> float:
        """Share explained with any function of the distance before each wave."""
        return sum(fit.free for fit in self.fits)

    def table(self) -> pd.DataFrame:
        """One row per frequency, strongest first, and a last one for all of them together."""
        fits = sorted(map(vars, self.fits), key=lambda fit: -fit["free"])
        joint = {"frequency": "all", "clock": self.clock, "pizza": self.pizza, "free": self.free}
        frame = pd.DataFrame([*fits, joint])
        frame.attrs |= {"class_means": self.class_means, "step": self.step}
        return frame


def logit_forms(
    x: Subject,
    *,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> LogitForms:
    r"""Least-squares fits of the logits by the clock's and by the pizza's form (see the module).

    With R_k(d) the sum of L cos(w_k (x + y - z)) over the pairs of distance d and all z, and
    g(d) = 1 or |cos(w_k d / 2)|, the share explained is (sum_d g R_k)^2 / (n^2/2 sum_d g^2 |L|^2).
    Source: Zhong et al. 2023 (arXiv 2306.17844), who fit one circle at a time: see
    `grokinterp.circuits.circles.isolate_circles`.

    On a whole model the forms do not tell pizza from clock: further circles at twice the frequency
    fill the gaps that |cos| leaves, and the published pizza network, with its circles together,
    has logits of the clock's form. InputError without an answer group or key frequencies.

    >>> import grokinterp as gi
    >>> found = gi.circuits.logit_forms(gi.load("mod31-small"))
    >>> found.table()[["frequency", "clock", "pizza"]].round(2)
      frequency  clock  pizza
    0        14   0.71   0.55
    1         1   0.15   0.12
    2         8   0.06   0.05
    3       all   0.92   0.72
    """
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    group = group_of(snapshot)
    need_key_frequencies(keys)
    waves, variance, class_means = _waves_by_distance(snapshot, group)
    fits = tuple(_fit(k, waves[k], variance=variance, order=group.order) for k in keys)
    return LogitForms(fits=fits, class_means=class_means, step=snapshot.step)


def pizza_envelope(k: int, order: int) -> Float[Tensor, " order"]:
    """|cos(w_k d / 2)| at every distance d."""
    return torch.cos(torch.pi * ((k * torch.arange(order)) % order).double() / order).abs()


def operand_grid(task: ModularTask, group: AnswerGroup) -> Int[Tensor, "order order"]:
    """The input with exponents x of a and y of b; InputError where an operand lacks some."""
    if None in group.operand_orders:
        raise InputError(
            f"in {task.title} an operand does not take every exponent once, so that there is no "
            "distance between the operands."
        )
    tokens = (of_side.argsort()[(of_side == UNDEFINED).sum() :] for of_side in group.of_operands)
    a, b = tokens
    return task.row_of[a][:, b]


def _fit(k: int, wave: Float[Tensor, " order"], *, variance: float, order: int) -> WaveFit:
    # Sum of squares of cos(w_k (x + y - z)) over the pairs of one distance and all z.
    squares = order * order / (1 if 2 * k == order else 2)
    found = {"free": float(wave @ wave) / squares / variance}
    envelopes = {"clock": torch.ones(order).double(), "pizza": pizza_envelope(k, order)}
    for form, envelope in envelopes.items():
        inner, norm = float(wave @ envelope), squares * float(envelope @ envelope)
        found |= {form: inner**2 / norm / variance, f"{form}_amplitude": inner / norm}
    return WaveFit(frequency=k, **found)


def _waves_by_distance(
    snapshot: Snapshot, group: AnswerGroup
) -> tuple[Float[Tensor, "n_frequencies_and_constant order"], float, float]:
    """R_k(d) of the centred logits, their variance (sum of squares), and the class means' share.

    One slice of the p-cubed table at a time, each through a real DFT over the classes:
    sum_z L cos(w (s - z)) is the real part of exp(-i w s) times the conjugate of its DFT.
    """
    n = group.order
    y = torch.arange(n)
    turns = torch.outer(y, torch.arange(n_frequencies(n) + 1)) % n
    angle = 2 * torch.pi * turns.double() / n
    means = AnswerSpectrum.of(snapshot.logits, group).mean[group.tokens]
    means = means - means.mean()
    waves = torch.zeros(n_frequencies(n) + 1, n, dtype=torch.float64)
    variance = 0.0
    for x, rows in enumerate(operand_grid(snapshot.modular_task, group)):
        block = snapshot.logits[rows].double()[:, group.tokens]
        block = block - block.mean(dim=1, keepdim=True) - means
        variance += float(block.square().sum())
        turn = torch.exp(-1j * angle[(x + y) % n])
        waves[:, (x - y) % n] += (turn * torch.fft.rfft(block, dim=1).conj()).real.T
    of_means = n * n * float(means.square().sum())
    smallest = torch.finfo(torch.float64).tiny
    return waves, max(variance, smallest), of_means / max(variance + of_means, smallest)
