"""Models in training: canonical weights, their gradients, what is made of these, and metrics.

Runs that are trained together have their weights under a leading axis of members, and one forward
for all of them, or one each where that is faster (`_singly`); a single run has them as they are.
Everything else is the same for both.
"""

import copy
import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.base.errors import InputError, names, shown
from grokinterp.base.plugins import strangers
from grokinterp.models.architecture import Gradients, Weights, is_bias
from grokinterp.models.layers import MIN_ROWS
from grokinterp.reading._load import load
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.metrics import Metrics, evaluate, logged_unmirrored
from grokinterp.tasks.splits import mask_of
from grokinterp.training.dynamics import Row, Watched
from grokinterp.updates.batches import Batches, rate_share
from grokinterp.updates.changes import clipped, perpendicular
from grokinterp.updates.objectives import objective_of

EVALUATED_ROWS = 4096  # at once: intermediate results stay in the cache
# Of an optimiser's state, besides tensors: the numbers, and what a file has each of them as.
NUMBERS = {"bool": torch.bool, "int": torch.int64, "float": torch.float64}


class Learner:
    """The weights of one or more members, and what every update and every log needs of them."""

    def __init__(self, recipes: Sequence[Recipe], device: str, *, going_on: bool = False) -> None:
        """At step 0, or where they are `going_on`, about to get the states of a later one."""
        first, n = recipes[0], len(recipes)
        self._architecture, self._objective = first.architecture(), objective_of(first)
        self.tasks = [recipe.build_task() for recipe in recipes]
        self.train_indices = [recipe.train_indices() for recipe in recipes]
        rows = [each.to(device) for each in self.train_indices]
        self._inputs = self.tasks[0].model_inputs.to(device)
        self._labels = [task.targets.to(device) for task in self.tasks]
        self._masks = [mask_of(each, self.tasks[0].n_inputs) for each in rows]
        self._unmirrored = list(map(logged_unmirrored, self.tasks, self._masks))
        self._batches = list(map(Batches, recipes, rows))
        self._rows: list[Tensor] = []
        self._gradients: Gradients = lambda weights: {}
        names = self._architecture.trained(first.biases)
        initial = [random_weights(x) if going_on else initial_weights(x) for x in recipes]
        self.weights: Weights = {}  # of several, stacked; updated in place
        for name in initial[0]:
            each = [weights[name].to(device) for weights in initial]
            self.weights[name] = each[0].clone() if n == 1 else torch.stack(each)
            untrained = is_bias(name) and name not in names and first.biases != "all"
            if untrained and not first.start:
                self.weights[name].zero_()
        self.trained = {name: self.weights[name] for name in names}
        self._single = n == 1
        self._updates = [
            _Update(recipes[members[0]], self.trained, None if self._single else members)
            for members in _alike(recipes)
        ]

    def update(self, step: int, *, watch: bool = False) -> list[Row]:
        """The update that leads every member from a step to the next.

        If it is watched, a row of dynamics.csv a member.
        """
        rows = [batches.rows(step) for batches in self._batches]
        if not self._rows or any(map(operator.is_not, rows, self._rows)):
            self._rows = rows  # what depends on them is kept while they are the same
            self._gradients = self._gradients_on(rows)
        gradients = self._gradients(self.weights)
        return [row for update in self._updates for row in update(step, gradients, watch=watch)]

    def _gradients_on(self, rows: Sequence[Tensor]) -> Gradients:
        inputs = [self._inputs[each] for each in rows]
        labels = [of[each] for of, each in zip(self._labels, rows, strict=True)]
        make, objective = self._architecture.gradients_on, self._objective
        if self._single:
            return make(inputs[0], labels[0], objective)
        if not _singly(inputs[0]):
            return make(torch.stack(inputs), torch.stack(labels), objective)
        each = [make(*of_member, objective) for of_member in zip(inputs, labels, strict=True)]

        def one_by_one(weights: Mapping[str, Tensor]) -> Weights:
            found = [find(member_of(weights, i)) for i, find in enumerate(each)]
            return {name: torch.stack([of[name] for of in found]) for name in weights}

        return one_by_one

    @torch.no_grad()
    def evaluate(self) -> list[Metrics]:
        """The metrics of every member on its whole table, whose logits come in blocks of rows."""
        together = None
        if not self._single and not _singly(self._inputs):
            inputs = self._inputs.expand(len(self.tasks), *self._inputs.shape)
            together = self._architecture.forward(self.weights, inputs)
        found = []
        for i, about in enumerate(zip(self._labels, self._masks, self._unmirrored, strict=True)):
            if together is not None:
                found.append(evaluate(together[i], *about))
            else:
                answers = self._architecture.answers(self.member(i))
                found.append(evaluate(map(answers, self._inputs.split(EVALUATED_ROWS)), *about))
        return found

    def member(self, member: int) -> Weights:
        """The weights of a member."""
        return dict(self.weights) if self._single else member_of(self.weights, member)

    def state(self, member: int) -> dict[str, Tensor]:
        """What a member's resume.safetensors holds: its weights and what its updates remember."""
        state = {f"weights/{name}": weight for name, weight in self.member(member).items()}
        for update in self._updates:
            state |= update.state(member)
        return state

    def load_states(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Go on from what `state` gave of every member."""
        for member, state in enumerate(states):
            for name, weight in self.member(member).items():
                weight.copy_(state[f"weights/{name}"])
        for update in self._updates:
            update.load(states)


def random_weights(recipe: Recipe) -> Weights:
    """The weights that the seed of a recipe draws."""
    architecture = recipe.architecture()
    return architecture.initial(seed=recipe.seed, rule=recipe.init, scale=recipe.init_scale)


def initial_weights(recipe: Recipe) -> Weights:
    """The weights that a recipe starts from: random ones, or those of another run.

    InputError where that run's weights are not those of the recipe's model.
    """
    architecture = recipe.architecture()
    if not recipe.start:
        return random_weights(recipe)
    run = load(recipe.start)
    found = run.weights(recipe.start_step)
    try:
        architecture.check(found)
    except InputError as error:
        raise InputError(
            f"start={recipe.start!r} is a run of another model: {error} Give the run of a "
            f"{architecture}."
        ) from None
    return {name: found[name].float() for name in architecture.parameter_shapes()}


def member_of(weights: Mapping[str, Tensor], member: int) -> Weights:
    """The weights of one of several: the same memory."""
    return {name: weight[member] for name, weight in weights.items()}


def _singly(inputs: Tensor) -> bool:
    """Whether members go one by one: on a CPU many rows are all arithmetic, which no batch speeds.

    There the convolution of `layers.affine` is faster, too.
    """
    return inputs.device.type == "cpu" and len(inputs) >= MIN_ROWS


def _alike(recipes: Sequence[Recipe]) -> list[list[int]]:
    """Members whose updates are one: neighbours with equal keys, where each number has its own."""

    def told_apart(member: int) -> object:
        recipe = recipes[member]
        return recipe.update_keys() if recipe.elementwise else member

    return [list(same) for _, same in itertools.groupby(range(len(recipes)), told_apart)]


class _Update:
    """The optimiser, the filter and the constraint of a run, or of members whose updates are one.

    `members` are those of stacked weights; None for a single run.
    """

    def __init__(
        self, recipe: Recipe, weights: Mapping[str, Tensor], members: Sequence[int] | None
    ) -> None:
        self._recipe, self._first, self._n = recipe, (members or [0])[0], len(members or [0])
        self._place: Any = ...
        if members is not None:
            several = slice(self._first, self._first + self._n)
            self._place = several if recipe.elementwise else self._first
        self._stacked = isinstance(self._place, slice)
        self._weights = {name: weight[self._place] for name, weight in weights.items()}
        self._filter, self._constraint = map(recipe.build, ("gradient_filter", "constraint"))
        self._kind = recipe.build("optimizer")
        self._optimizer = self._built()
        self._fresh = [  # real copies: what changes in place is no longer as it was built
            {key: _copied(value) for key, value in group.items() if key != "params"}
            for group in self._optimizer.param_groups
        ]
        self._remembered = {
            "filter": self._started("gradient_filter", self._filter),
            "constraint": self._started("constraint", self._constraint),
        }
        with strangers(self._told("constraint"), self._constraint):
            first = self._constraint.initial(self._weights, self._remembered["constraint"])
        self._put_back(first)

    @torch.no_grad()
    def __call__(
        self, step: int, gradients: Mapping[str, Tensor], *, watch: bool = False
    ) -> list[Row]:
        """The update after a step, from the gradients of all members: filter, project, step, hold.

        If it is watched, a row of dynamics.csv for each of its members.
        """
        own: Any = {name: gradients[name][self._place] for name in self._weights}
        members = self._n if self._stacked else 1
        watched = Watched(self._weights, own, members=members) if watch else None
        with strangers(self._told("gradient_filter"), self._filter):
            own = self._filter.filtered(own, self._remembered["filter"])
        own = dict(self._returned("gradient_filter", own, self._weights))
        if self._recipe.orthogonal_gradients:
            own = perpendicular(own, self._weights)
        if self._recipe.clip_norm:
            own = clipped(own, self._recipe.clip_norm)
        for name, of_weight in own.items():
            # torch's fused optimisers read a gradient as it lies in memory, whatever its strides.
            self._weights[name].grad = of_weight.contiguous()
        share = rate_share(self._recipe, step)
        if share != rate_share(self._recipe, step - 1):  # else it is the optimiser's own
            for group, fresh in zip(self._optimizer.param_groups, self._fresh, strict=True):
                group["lr"] = fresh["lr"] * share
        with strangers(self._told("optimizer"), self._kind):
            self._optimizer.step()
        decoupled = self._kind.decoupled
        rows = watched.rows(self._optimizer, decoupled=decoupled) if watched else []
        with strangers(self._told("constraint"), self._constraint):
            after = self._constraint.constrained(self._weights, self._remembered["constraint"])
        self._put_back(after)
        return rows

    @torch.no_grad()
    def _put_back(self, constrained: Any) -> None:
        for name, weight in self._returned("constraint", constrained, constrained):
            if weight is not self._weights[name]:
                self._weights[name].copy_(weight)

    def _told(self, role: str) -> str:
        return f"{role}={getattr(self._recipe, role)!r}"

    def _built(self) -> torch.optim.Optimizer:
        """The optimiser, refused where it is none or has other parameters than these weights."""
        with strangers(self._told("optimizer"), self._kind):
            found = self._kind.build(self._kind.groups(self._weights))
        if not isinstance(found, torch.optim.Optimizer):
            raise InputError(
                f"{self._told('optimizer')} builds {shown(found)}; build a torch.optim.Optimizer."
            )
        had = [id(x) for group in found.param_groups for x in group["params"]]
        if not set(had) <= set(map(id, self._weights.values())):
            raise InputError(
                f"{self._told('optimizer')} has other parameters than it was given; give it those."
            )
        return found

    def _started(self, role: str, kind: Any) -> dict[str, Tensor]:
        """The state that a filter or a constraint begins with: its own tensors, by names."""
        with strangers(self._told(role), kind):
            found = kind.start(self._weights)
        if not isinstance(found, dict) or not all(isinstance(x, Tensor) for x in found.values()):
            raise InputError(
                f"{self._told(role)} starts with {shown(found)}; give a dict of tensors by names."
            )
        return {name: value.detach().clone() for name, value in found.items()}

    def _returned(self, role: str, found: Any, wanted: Any) -> Iterator[tuple[str, Tensor]]:
        """What a filter or a constraint returns for these weights; InputError for anything else."""
        for name in wanted if isinstance(found, Mapping) else [""]:
            weight = self._weights.get(name)
            value = found.get(name) if isinstance(found, Mapping) else None
            if weight is None or not isinstance(value, Tensor) or value.shape != weight.shape:
                gives = f"{shown(value)} for {name!r}" if name else shown(found)
                raise InputError(
                    f"{self._told(role)} returns {gives}; return a dict with a "
                    f"tensor of its shape for each of {names(self._weights)}."
                )
            yield name, value

    def state(self, member: int) -> dict[str, Tensor]:
        """What a member's updates remember: of weights, parameter groups, filter, constraint."""
        place = member - self._first
        if not 0 <= place < self._n:
            return {}
        found: dict[str, Tensor] = {}
        if len(self._optimizer.state.keys() - set(self._weights.values())):
            raise InputError(
                f"{self._told('optimizer')} remembers something of no weight, which a run cannot "
                "keep; let it remember in self.state[parameter]."
            )
        for name, weight in self._weights.items():
            for key, value in self._optimizer.state.get(weight, {}).items():
                if isinstance(value, Tensor) and value.ndim and self._stacked:
                    value = value[place]
                self._put(found, f"optimizer/{name}/{key}", value)
        groups = zip(self._optimizer.param_groups, self._fresh, strict=True)
        for number, (group, fresh) in enumerate(groups):
            for key, value in group.items():
                if key != "params" and not _equal(value, fresh.get(key)):
                    self._put(found, f"group/{number}/{key}", value)
        for part, tensors in self._remembered.items():
            for name, value in tensors.items():
                found[f"{part}/{name}"] = value[place] if self._stacked and value.ndim else value
        return found

    def _put(self, found: dict[str, Tensor], name: str, value: object) -> None:
        value = value.item() if isinstance(value, np.generic) else value
        kind = type(value).__name__
        if isinstance(value, Tensor):
            found[name] = value
        elif kind in NUMBERS:
            found[f"{name}={kind}"] = torch.tensor(value, dtype=NUMBERS[kind])
        elif value is not None:
            raise InputError(
                f"{self._told('optimizer')} remembers a {kind} ({name}), which a run "
                "cannot keep; let it remember tensors and numbers."
            )

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of all members; what they have of other weights is left out."""
        mine = states[self._first : self._first + self._n]
        for path, value in mine[0].items():
            part, _, rest = path.partition("/")
            owner, _, key = rest.rpartition("/")
            if part == "weights":
                continue
            if self._stacked and value.ndim and "=" not in path:
                value = torch.stack([state[path] for state in mine])
            if part in self._remembered:
                self._remembered[part][rest] = value.to(next(iter(self._weights.values())).device)
            elif part == "optimizer" and owner in self._weights:
                weight = self._weights[owner]
                name, plain = _as_it_was(key, value.clone().to(weight.device))
                self._optimizer.state[weight][name] = plain
            elif part == "group":
                name, plain = _as_it_was(key, value.clone())
                self._optimizer.param_groups[int(owner)][name] = plain


def _copied(value: Any) -> Any:
    return copy.deepcopy(value) if isinstance(value, Tensor | list | tuple | dict) else value


def _equal(one: Any, other: Any) -> bool:
    """Whether two values of a parameter group are equal, tensors and lists of them too."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and bool(one == other)


def _as_it_was(key: str, value: Tensor) -> tuple[str, object]:
    """The name of a part of a state, and what it was: a number where its name says so."""
    name, _, kind = key.partition("=")
    return name, value.item() if kind else value
