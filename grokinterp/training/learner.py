"""A model in training: canonical weights as leaves, its answers and its gradients."""

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.models import answer_position, mlp
from grokinterp.models.adapter import build_model, functional_logits
from grokinterp.models.architecture import Architecture, Weights, initial_weights, is_bias
from grokinterp.models.cnn import CNNArchitecture, CNNGradients
from grokinterp.models.cross_entropy import cross_entropies, right_answers
from grokinterp.models.kinds import QuickForward
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.stacked import stack, stacked_gradients, stacked_logits
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED, Metrics, logged_unmirrored
from grokinterp.tasks.splits import mask_of
from grokinterp.updates.optimizers import Batches, build_optimizer, learning_rate

# MERGED training.ensemble_learner: Models in training side by side: stacked weights, their gradients and their optimisers.


BLOCK_ROWS = 4096  # inputs evaluated at once: intermediate results stay in the cache


class Learner:
    """Weights under canonical names, of which some are trained, on the inputs of a task.

    A transformer's answer-position forward is used where it applies, otherwise the hooked forward
    of TransformerLens: the same numbers either way. An MLP and a CNN have explicit gradients.
    """

    def __init__(
        self, recipe: Recipe, inputs: Tensor, labels: Int[Tensor, " n"], device: str
    ) -> None:
        self._architecture = architecture = recipe.architecture()
        self._inputs, self._labels = inputs.to(device), labels.to(device)
        initial = initial_weights(
            architecture, seed=recipe.seed, rule=recipe.init, init_scale=recipe.init_scale
        )
        trained = {name for name in initial if is_trained(name, recipe.biases)}
        self.weights: Weights = {
            name: (weight if name in trained or not is_bias(name) else 0 * weight).to(device)
            for name, weight in initial.items()
        }
        self.trained: Weights = {
            name: weight.requires_grad_()
            for name, weight in self.weights.items()
            if name in trained
        }
        self._hooked = None
        if QuickForward(architecture, self.weights)(self._inputs[:1]) is None:
            assert isinstance(architecture, Architecture)
            self._hooked = functional_logits(build_model(architecture, initial, device=device))
        self._lattices: tuple[Tensor, CNNGradients] | None = None  # rows, and what depends on them

    def logit_blocks(self) -> Iterator[Float[Tensor, "rows d_vocab_out"]]:
        """Logits of all inputs of the task, so many rows at a time."""
        forward = self._forward()
        return map(forward, self._inputs.split(BLOCK_ROWS))

    def backward(self, rows: Int[Tensor, " n"]) -> None:
        """Put the gradient of the mean cross-entropy over some rows into every trained weight."""
        labels = self._labels[rows]
        gradients: Weights = {}
        if isinstance(self._architecture, MLPArchitecture):
            gradients = mlp.gradients(
                self.weights, self._inputs[rows], labels, architecture=self._architecture
            )
        elif isinstance(self._architecture, CNNArchitecture):
            gradients = self._on_lattices(rows, self._architecture)(self.weights, labels)
        elif self._hooked is None:
            gradients = answer_position.gradients(
                self.weights,
                self._inputs[rows],
                labels,
                act_fn=self._architecture.act_fn,
                attention_rate=self._architecture.attention_rate,
            )
        for name, weight in self.trained.items():
            # torch's fused optimisers read a gradient as it lies in memory, whatever its strides.
            weight.grad = gradients[name].contiguous() if gradients else None
        if not gradients:
            cross_entropies(self._forward()(self._inputs[rows]), labels).mean().backward()

    def _forward(self) -> Callable[[Tensor], Tensor]:
        """The forward of the weights as they are now; differentiable."""
        if self._hooked is not None:
            return partial(self._hooked, self.weights)
        quick = QuickForward(self._architecture, self.weights)
        return lambda inputs: quick(inputs)  # type: ignore[return-value]

    def _on_lattices(self, rows: Tensor, architecture: CNNArchitecture) -> CNNGradients:
        """Kept while the rows are the same, as they are with full batches."""
        if self._lattices is None or self._lattices[0] is not rows:
            found = CNNGradients(self._inputs[rows], architecture=architecture)
            self._lattices = rows, found
        return self._lattices[1]


def is_trained(name: str, biases: str) -> bool:
    """Whether a weight is trained, by the `biases` of a recipe.

    A key bias never is: it adds the same to every score of a query, so that its gradient is 0 and
    what is computed of it rounding, which Adam would make steps of.
    """
    if name.endswith("attn.b_K"):
        return False
    return not is_bias(name) or biases == "all" or (biases == "mlp" and ".mlp." in name)


VECTOR = 64  # numbers; at least as many as any processor's vectors hold, unrolled


class EnsembleLearner:
    """The members of an ensemble: what `Learner`, `Batches` and an optimiser are to one run.

    Adam, AdamW and SGD act on every number alone, so they act on stacked weights as on those of
    each member. Members that differ in a rate or a decay have an optimiser of their own, on their
    part of the same memory.
    """

    def __init__(self, recipes: Sequence[Recipe], device: str) -> None:
        first = recipes[0]
        self._architecture = first.architecture()
        tasks = [recipe.build_task() for recipe in recipes]
        rows = [recipe.train_indices() for recipe in recipes]
        self._inputs = tasks[0].model_inputs.to(device)
        self._labels = torch.stack([task.labels for task in tasks]).to(device)
        self._masks = torch.stack([mask_of(r, tasks[0].n_inputs) for r in rows]).to(device)
        self._unmirrored = [
            None if found is None else found.nonzero().flatten()
            for found in map(logged_unmirrored, tasks, self._masks)
        ]
        self._batches = [
            Batches(recipe, r.to(device)) for recipe, r in zip(recipes, rows, strict=True)
        ]
        self._batch: tuple[list[Tensor], Tensor, Tensor] | None = None  # rows, inputs, labels
        initial = stack(
            [
                initial_weights(
                    self._architecture, seed=each.seed, rule=each.init, init_scale=each.init_scale
                )
                for each in recipes
            ]
        )
        self.trained = [name for name in initial if is_trained(name, first.biases)]
        self.weights: Weights = {
            name: (weight if name in self.trained or not is_bias(name) else 0 * weight).to(device)
            for name, weight in initial.items()
        }
        self._parts = [
            _Part(list(members), recipes, {name: self.weights[name] for name in self.trained})
            for _, members in itertools.groupby(range(len(recipes)), lambda i: _rule(recipes[i]))
        ]

    def update(self, step: int) -> None:
        """The update that leads every member from a step to the next."""
        inputs, labels = self._rows(step)
        gradients = stacked_gradients(self._architecture, self.weights, inputs, labels)
        for part in self._parts:
            part.update(step, gradients)

    def _rows(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of an update; kept while the rows are the same, as in full batches."""
        rows = [batches.rows(step) for batches in self._batches]
        if self._batch is None or any(map(operator.is_not, rows, self._batch[0])):
            stacked = torch.stack(rows)
            self._batch = rows, self._inputs[stacked], self._labels.gather(1, stacked)
        return self._batch[1:]

    def evaluate(self) -> list[Metrics]:
        """The metrics of every member on its whole table."""
        n_members = len(self._labels)
        with torch.no_grad():
            logits = stacked_logits(
                self._architecture, self.weights, self._inputs.expand(n_members, -1, -1)
            )
        return evaluate_members(logits, self._labels, self._masks, self._unmirrored)

    def member(self, member: int) -> Weights:
        """The weights of a member."""
        return {name: weight[member] for name, weight in self.weights.items()}

    def state(self, member: int) -> dict[str, Tensor]:
        """What a member's resume.safetensors holds: the same as of a single run."""
        state = {f"weights/{name}": weight for name, weight in self.member(member).items()}
        for part in self._parts:
            if member in part.members:
                state |= part.state(member)
        return state

    def load_states(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Go on from what `state` gave of every member."""
        for name, weight in self.weights.items():
            weight.copy_(torch.stack([state[f"weights/{name}"] for state in states]))
        for part in self._parts:
            part.load(states)


class _Part:
    """The optimiser of neighbouring members that have the same rates.

    It updates blocks of stacked weights, in place: those of all its members at once where they
    fill whole vectors, otherwise each member's by itself. The numbers left over behind the last
    whole vector are rounded otherwise by torch's kernels, so they have to be those of a single run.
    """

    def __init__(
        self, members: list[int], recipes: Sequence[Recipe], weights: Mapping[str, Tensor]
    ) -> None:
        self.members, self._recipe = members, recipes[members[0]]
        everyone = slice(members[0], members[-1] + 1)
        self._blocks: list[tuple[str, slice]] = []
        for name, weight in weights.items():
            if weight[0].numel() % VECTOR == 0:
                self._blocks.append((name, everyone))
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
        """The optimiser's part of a member's state, under the names of a single run's."""
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
        """Go on from the states of all members."""
        moments: dict[int, dict[str, Tensor]] = {}
        for index, (name, block) in enumerate(self._blocks):
            for key, value in states[block.start].items():
                if key.startswith(f"optimizer/{name}/"):
                    parts = [state[key] for state in states[block]]
                    moments.setdefault(index, {})[key.rpartition("/")[2]] = (
                        torch.stack(parts) if value.ndim else value
                    )
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})


def evaluate_members(
    logits: Float[Tensor, "members n classes"],
    labels: Int[Tensor, "members n"],
    train_masks: Bool[Tensor, "members n"],
    unmirrored: Sequence[Int[Tensor, " _"] | None] = (),
) -> list[Metrics]:
    """What `evaluate` says of each member, in one go; all have so many training rows.

    The rows are taken out before they are summed, as `evaluate` does: zeros among them would be
    summed in another order. `unmirrored` are the rows of these columns, for each member its own,
    since members differ in how many they have; None for a member without the columns.
    """
    losses = cross_entropies(logits.flatten(0, 1), labels.flatten()).view(labels.shape)
    right = right_answers(logits, labels).to(losses.dtype)
    chosen = [x[rows] for x in (losses, right) for rows in (train_masks, ~train_masks)]
    columns = [x.view(len(labels), len(x) // len(labels)).mean(dim=1) for x in chosen]
    found = [
        dict(zip(COLUMNS, values, strict=True)) for values in torch.stack(columns, dim=1).tolist()
    ]
    with_mirrors = [(member, rows) for member, rows in enumerate(unmirrored) if rows is not None]
    if with_mirrors:
        means = [x[member][rows].mean() for member, rows in with_mirrors for x in (losses, right)]
        values = torch.stack(means).view(-1, 2).tolist()
        for (member, _), pair in zip(with_mirrors, values, strict=True):
            found[member] |= zip(UNMIRRORED, pair, strict=True)
    return found


def _rule(recipe: Recipe) -> tuple[object, ...]:
    """What an optimiser takes from a recipe, and a learning rate."""
    return recipe.lr, recipe.betas, recipe.weight_decay, recipe.warmup
