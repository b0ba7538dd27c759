"""Models in training: canonical weights, their gradients, their optimisers and their metrics.

A single run has a `Learner`, whose gradients are those of one model; runs that are trained together
have an `EnsembleLearner`, which computes them for all members at once. Both keep their weights
under a leading axis of members, in memory that the optimisers update in place.
"""

import itertools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.models import answer_position, mlp
from grokinterp.models.architecture import Architecture, Weights, initial_weights, is_bias
from grokinterp.models.cnn import CNNArchitecture, CNNGradients
from grokinterp.models.cross_entropy import cross_entropies, right_answers
from grokinterp.models.kinds import QuickForward
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.stacked import stack, stacked_gradients, stacked_logits
from grokinterp.models.transformer_lens_adapter import build_model, functional_logits
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED, Metrics, evaluate, logged_unmirrored
from grokinterp.tasks.splits import mask_of
from grokinterp.updates.optimizers import Batches, build_optimizer, learning_rate

EVALUATED_ROWS = 4096  # at once: intermediate results stay in the cache
RATES = operator.attrgetter("lr", "betas", "weight_decay", "warmup")  # the same in one optimiser
VECTOR = 64  # numbers; at least as many as any processor's vectors hold, unrolled


class AnyLearner(ABC):
    """The weights of one or more members, and what every update and every log needs of them."""

    def __init__(self, recipes: Sequence[Recipe], device: str) -> None:
        first = recipes[0]
        self._architecture = first.architecture()
        self.tasks = [recipe.build_task() for recipe in recipes]
        self.train_indices = [recipe.train_indices() for recipe in recipes]
        rows = [each.to(device) for each in self.train_indices]
        self._inputs = self.tasks[0].model_inputs.to(device)
        self._labels = torch.stack([task.labels for task in self.tasks]).to(device)
        self._masks = torch.stack([mask_of(each, self.tasks[0].n_inputs) for each in rows])
        self._unmirrored = list(map(logged_unmirrored, self.tasks, self._masks))
        self._batches = list(map(Batches, recipes, rows))
        initial = stack(
            [
                initial_weights(
                    self._architecture, seed=each.seed, rule=each.init, init_scale=each.init_scale
                )
                for each in recipes
            ]
        )
        names = [name for name in initial if is_trained(name, first.biases)]
        self._stacked: Weights = {
            name: (weight if name in names or not is_bias(name) else 0 * weight).to(device)
            for name, weight in initial.items()
        }
        self.trained: Weights = {name: self._stacked[name] for name in names}
        self._optimizers = [
            _Optimizer(list(members), recipes, self.trained)
            for _, members in itertools.groupby(range(len(recipes)), lambda i: RATES(recipes[i]))
        ]

    @abstractmethod
    def _gradients(self, step: int) -> Mapping[str, Tensor]:
        """Of every trained weight, stacked, on the rows of the update after a step."""

    @abstractmethod
    def evaluate(self) -> list[Metrics]:
        """The metrics of every member on its whole table."""

    def update(self, step: int) -> None:
        """The update that leads every member from a step to the next."""
        gradients = self._gradients(step)
        for optimizer in self._optimizers:
            optimizer.update(step, gradients)

    def member(self, member: int) -> Weights:
        """The weights of a member."""
        return {name: weight[member] for name, weight in self._stacked.items()}

    def state(self, member: int) -> dict[str, Tensor]:
        """What a member's resume.safetensors holds: its weights and its optimiser's moments."""
        state = {f"weights/{name}": weight for name, weight in self.member(member).items()}
        for optimizer in self._optimizers:
            if member in optimizer.members:
                state |= optimizer.state(member)
        return state

    def load_states(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Go on from what `state` gave of every member."""
        for name, weight in self._stacked.items():
            weight.copy_(torch.stack([state[f"weights/{name}"] for state in states]))
        for optimizer in self._optimizers:
            optimizer.load(states)


class Learner(AnyLearner):
    """A single model: its weights under canonical names, of which some are trained.

    A transformer's answer-position forward is used where it applies, otherwise the hooked forward
    of TransformerLens: the same numbers either way. An MLP and a CNN have explicit gradients.
    """

    def __init__(self, recipe: Recipe, device: str) -> None:
        super().__init__([recipe], device)
        self.weights: Weights = {name: weight.detach() for name, weight in self.member(0).items()}
        self.trained = {name: self.weights[name].requires_grad_() for name in self.trained}
        self._hooked = None
        if QuickForward(self._architecture, self.weights)(self._inputs[:1]) is None:
            assert isinstance(self._architecture, Architecture)
            model = build_model(self._architecture, self.member(0), device=device)
            self._hooked = functional_logits(model)
        self._lattices: tuple[Tensor, CNNGradients] | None = None  # rows, and what depends on them

    def _gradients(self, step: int) -> Weights:
        self.backward(self._batches[0].rows(step))
        leaves = self.trained.items()
        return {name: leaf.grad[None] for name, leaf in leaves if leaf.grad is not None}

    def backward(self, rows: Int[Tensor, " n"]) -> None:
        """Put the gradient of the mean cross-entropy over some rows into every trained weight."""
        inputs, labels = self._inputs[rows], self._labels[0, rows]
        gradients: Weights = {}
        if isinstance(self._architecture, MLPArchitecture):
            gradients = mlp.gradients(self.weights, inputs, labels, architecture=self._architecture)
        elif isinstance(self._architecture, CNNArchitecture):
            if self._lattices is None or self._lattices[0] is not rows:  # full batches: the same
                self._lattices = rows, CNNGradients(inputs, architecture=self._architecture)
            gradients = self._lattices[1](self.weights, labels)
        elif self._hooked is None:
            gradients = answer_position.gradients(
                self.weights,
                inputs,
                labels,
                act_fn=self._architecture.act_fn,
                attention_rate=self._architecture.attention_rate,
            )
        for name, weight in self.trained.items():
            # torch's fused optimisers read a gradient as it lies in memory, whatever its strides.
            weight.grad = gradients[name].contiguous() if gradients else None
        if not gradients:
            cross_entropies(self._forward()(inputs), labels).mean().backward()

    def evaluate(self) -> list[Metrics]:
        """The metrics on the whole table, whose logits are computed so many rows at a time."""
        with torch.no_grad():
            blocks = map(self._forward(), self._inputs.split(EVALUATED_ROWS))
            labels, mask, unmirrored = self._labels[0], self._masks[0], self._unmirrored[0]
            return [evaluate(blocks, labels, mask, unmirrored)]

    def _forward(self) -> Callable[[Tensor], Tensor]:
        """The forward of the weights as they are now; differentiable."""
        if self._hooked is not None:
            return partial(self._hooked, self.weights)
        return QuickForward(self._architecture, self.weights)  # type: ignore[return-value]


def is_trained(name: str, biases: str) -> bool:
    """Whether a weight is trained, by the `biases` of a recipe.

    A key bias never is: it adds the same to every score of a query, so that its gradient is 0, and
    what is computed of it is rounding, which Adam would turn into steps.
    """
    if name.endswith("attn.b_K"):
        return False
    return not is_bias(name) or biases == "all" or (biases == "mlp" and ".mlp." in name)


class EnsembleLearner(AnyLearner):
    """The members of an ensemble, their logits and gradients computed together."""

    def __init__(self, recipes: Sequence[Recipe], device: str) -> None:
        super().__init__(recipes, device)
        self._batch: tuple[list[Tensor], Tensor, Tensor] | None = None  # rows, inputs, labels

    def _gradients(self, step: int) -> Weights:
        rows = [batches.rows(step) for batches in self._batches]
        if self._batch is None or any(map(operator.is_not, rows, self._batch[0])):
            stacked = torch.stack(rows)  # kept while the rows are the same, as in full batches
            self._batch = rows, self._inputs[stacked], self._labels.gather(1, stacked)
        return stacked_gradients(self._architecture, self._stacked, *self._batch[1:])

    def evaluate(self) -> list[Metrics]:
        """The metrics of every member on its whole table."""
        inputs = self._inputs.expand(len(self._labels), -1, -1)
        with torch.no_grad():
            logits = stacked_logits(self._architecture, self._stacked, inputs)
        return evaluate_members(logits, self._labels, self._masks, self._unmirrored)


class _Optimizer:
    """The optimiser of neighbouring members that have the same rates.

    Adam, AdamW and SGD act on every number alone, so they act on stacked weights as on those of
    each member. Blocks are updated in place: a weight of all members at once where each fills whole
    vectors, otherwise each member's by itself. torch's kernels round the numbers left over after
    the last whole vector differently, so these have to be the same as in a single run.
    """

    def __init__(
        self, members: list[int], recipes: Sequence[Recipe], weights: Mapping[str, Tensor]
    ) -> None:
        self.members, self._recipe = members, recipes[members[0]]
        self._blocks: list[tuple[str, slice]] = []
        for name, weight in weights.items():
            if weight[0].numel() % VECTOR == 0:
                self._blocks.append((name, slice(members[0], members[-1] + 1)))
            else:
                self._blocks += [(name, slice(member, member + 1)) for member in members]
        self._parameters = [weights[name][block] for name, block in self._blocks]
        self._optimizer = build_optimizer(self._recipe, self._parameters)

    def update(self, step: int, gradients: Mapping[str, Tensor]) -> None:
        """One update, from the gradients of all members."""
        for parameter, (name, block) in zip(self._parameters, self._blocks, strict=True):
            parameter.grad = gradients[name][block]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._recipe, step)
        self._optimizer.step()

    def state(self, member: int) -> dict[str, Tensor]:
        """The moments of a member, by weight and kind."""
        state = {}
        for index, values in self._optimizer.state_dict()["state"].items():
            name, block = self._blocks[index]
            if block.start <= member < block.stop:
                for key, value in values.items():
                    if isinstance(value, Tensor):
                        one = value[member - block.start] if value.ndim else value
                        state[f"optimizer/{name}/{key}"] = one
        return state

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of all members; what they have of other weights is left out."""
        moments: dict[int, dict[str, Tensor]] = {}
        for index, (name, block) in enumerate(self._blocks):
            for key, value in states[block.start].items():
                if key.startswith(f"optimizer/{name}/"):
                    every = [state[key] for state in states[block]]
                    moment = torch.stack(every) if value.ndim else value
                    moments.setdefault(index, {})[key.rpartition("/")[2]] = moment
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})


def evaluate_members(
    logits: Float[Tensor, "members n classes"],
    labels: Int[Tensor, "members n"],
    train_masks: Bool[Tensor, "members n"],
    unmirrored: Sequence[Tensor | None] = (),
) -> list[Metrics]:
    """What `evaluate` says of each member, in one go; all have equally many training rows.

    The rows are taken out before they are summed, as `evaluate` does: zeros among them would be
    summed in another order. `unmirrored` selects the rows of these columns, for each member its
    own, since members differ in how many they have; None for a member without the columns.
    """
    losses = cross_entropies(logits.flatten(0, 1), labels.flatten()).view(labels.shape)
    right = right_answers(logits, labels).to(losses.dtype)
    chosen = [x[rows] for x in (losses, right) for rows in (train_masks, ~train_masks)]
    columns = [x.view(len(labels), len(x) // len(labels)).mean(dim=1) for x in chosen]
    found = [
        dict(zip(COLUMNS, values, strict=True)) for values in torch.stack(columns, dim=1).tolist()
    ]
    for member, rows in enumerate(unmirrored):
        if rows is not None:
            means = torch.stack([x[member][rows].mean() for x in (losses, right)])
            found[member] |= zip(UNMIRRORED, means.tolist(), strict=True)
    return found
