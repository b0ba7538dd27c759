"""Gradient symmetricity: whether the two operands move the logits in the same direction."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.arguments import LARGEST_SEED, whole
from grokinterp.circuits.subject import Subject, need_residual_stream, subject_of
from grokinterp.errors import InputError
from grokinterp.models import answer_position
from grokinterp.models.adapter import HookedModel
from grokinterp.models.model_locks import alone_with
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.exponents import UNDEFINED
from grokinterp.tasks.modular import ModularTask

BLOCK_TRIPLES = 128  # the two-token forward scores every pair of the operands it is given
LARGEST_SHUFFLE = 4_000_000  # triples; a list of more takes seconds to shuffle


@dataclass(frozen=True)
class GradientSymmetricity:
    """Cosines between dQ_abc/dE_a and dQ_abc/dE_b, one a triple, and their mean.

    `value` is None where no sampled triple has two gradients; `reason` says so, and also how many
    triples had to be left out.
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
    """
    n_samples = whole("n_samples", n_samples, least=1, such_as="100")
    seed = whole("seed", seed, least=-LARGEST_SEED, most=LARGEST_SEED, such_as="42")
    snapshot, _ = subject_of(x, step=step, frequencies=(), task=task, train_mask=train_mask)
    need_residual_stream(snapshot)
    triples = sampled_triples(snapshot.modular_task, n_samples=n_samples, seed=seed)
    gradients = _gradients_of(snapshot)
    cosines = torch.cat([_cosines(gradients(block)) for block in triples.split(BLOCK_TRIPLES)])
    known = cosines[~cosines.isnan()]
    left_out = len(cosines) - len(known)
    reason = None
    if left_out:
        reason = f"{left_out} of {len(cosines)} triples left out: a gradient is 0 or not finite"
    return GradientSymmetricity(
        value=float(known.mean()) if len(known) else None,
        std=float(known.std(unbiased=False)) if len(known) else None,
        n_samples=len(triples),
        n_left_out=left_out,
        seed=seed,
        reason=reason,
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
    tokens = torch.arange(task.p)
    if group is not None:
        tokens = tokens[group.of_token != UNDEFINED]
    n = len(tokens)
    generator = random.Random(seed)
    if n**3 <= LARGEST_SHUFFLE:
        order = list(range(n**3))
        generator.shuffle(order)
        drawn = order[:n_samples]
    else:
        drawn = generator.sample(range(n**3), min(n_samples, n**3))
    index = torch.tensor(drawn)
    return tokens[torch.stack([index // n**2, index // n % n, index % n], dim=1)]


Gradients = Callable[[Int[Tensor, "n 3"]], Float[Tensor, "n 2 d_model"]]


def _gradients_of(snapshot: Snapshot) -> Gradients:
    """The function from triples to the gradients of their logits, by the quickest way there is."""
    architecture = snapshot.transformer
    n_tokens = snapshot.modular_task.tokens.shape[1]
    if architecture is not None and answer_position.applies_to(architecture, n_tokens):
        return lambda triples: _plain_gradients(snapshot, triples)
    model = snapshot.hooked()
    if "hook_embed" not in model.hook_dict:
        raise InputError(
            f"{type(model).__name__} has no 'hook_embed' (model.hook_dict lists all hooks); "
            "gradient symmetricity is about the embeddings there."
        )
    return lambda triples: hooked_gradients(model, snapshot.modular_task, triples)


def _plain_gradients(
    snapshot: Snapshot, triples: Int[Tensor, "n 3"]
) -> Float[Tensor, "n 2 d_model"]:
    """In float64, through the answer-position forward.

    Each operand of each triple is given a token of its own, so that the gradient with respect to
    the table of embeddings keeps positions and triples apart.
    """
    assert snapshot.transformer is not None
    weights = {name: weight.double() for name, weight in snapshot.weights.items()}
    table, n = weights["embed.W_E"], len(triples)
    operands = table[triples[:, :2].flatten()].requires_grad_()
    tokens = torch.arange(2 * n).view(n, 2)
    if snapshot.modular_task.equals_token:
        tokens = torch.nn.functional.pad(tokens, (0, 1), value=2 * n)
    with torch.enable_grad():
        logits = answer_position.answer_logits(
            weights | {"embed.W_E": torch.cat([operands, table[snapshot.modular_task.p :]])},
            tokens,
            act_fn=snapshot.transformer.act_fn,
            attention_rate=snapshot.transformer.attention_rate,
        )
        total = logits[torch.arange(n), triples[:, 2]].sum()
        (found,) = torch.autograd.grad(total, operands)
    return found.view(n, 2, -1)


def hooked_gradients(
    model: HookedModel, task: ModularTask, triples: Int[Tensor, "n 3"]
) -> Float[Tensor, "n 2 d_model"]:
    """Through any hooked model, in its own precision: `hook_embed` is made the variable."""
    n = len(triples)
    device = next(iter(model.parameters())).device
    tokens = task.tokens[triples[:, 0] * task.p + triples[:, 1]].to(device)
    leaves: list[Tensor] = []

    def make_variable(value: Tensor, hook: object) -> Tensor:
        leaves.append(value.detach().clone().requires_grad_())
        return leaves[0]

    with torch.enable_grad():
        with alone_with(model):
            logits = model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", make_variable)])
        total = logits[torch.arange(n), -1, triples[:, 2].to(device)].sum()
        total = total + 0.0 * leaves[0].sum()  # a model that ignores its operands has gradient 0
        (found,) = torch.autograd.grad(total, leaves[0])
    return found[:, :2].cpu().double()


def _cosines(gradients: Float[Tensor, "n 2 d_model"]) -> Float[Tensor, " n"]:
    """Nan where a gradient has length 0 or is not finite."""
    first, second = gradients.unbind(1)
    return (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
