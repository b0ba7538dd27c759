"""Snapshot: one model at one step, seen over its whole task."""

import contextlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.models import answer_position
from grokinterp.models.adapter import (
    HookedModel,
    architecture_of,
    build_model,
    canonical_weights,
)
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.tasks.modular import ModularTask

BLOCK_ROWS = 2048  # inputs a forward sees at once: intermediate results stay in the cache
T = TypeVar("T")
Forward = Callable[[Tensor, tuple[str, ...]], tuple[Tensor, Mapping[str, Tensor]]]


class Snapshot:
    """A model's answers and activations at the answer position, over all inputs of its task.

    Everything is computed when first asked for, at most once. Rows are in table order (`a*p + b`).
    Build one with `run.snapshot(step)` or `gi.snapshot(model, task)`.
    """

    def __init__(
        self,
        task: ModularTask,
        *,
        weights: Weights,
        n_layers: int,
        forward: Forward,
        hooked: Callable[[], HookedModel] | None = None,
        architecture: Architecture | None = None,
        linear_readout: bool = True,
        train_mask: Bool[Tensor, " n_inputs"] | None = None,
        step: int | None = None,
    ) -> None:
        self.task = task
        self.weights = weights
        self.n_layers = n_layers
        self.architecture = architecture  # None: `weights` alone do not say what it computes
        self.linear_readout = linear_readout  # the unembedding reads the last residual as it is
        self.train_mask = train_mask
        self.step = step
        self._forward = forward
        self._hooked = hooked
        self._activations: dict[str, Tensor] = {}
        self._memo: dict[str, object] = {}

    @property
    def logits(self) -> Float[Tensor, "n_inputs p"]:
        """Logits of the p answer classes on every input (the "=" class is left out)."""
        return self.all_logits[:, : self.task.n_classes]

    @property
    def all_logits(self) -> Float[Tensor, "n_inputs d_vocab_out"]:
        """Logits as the training softmax saw them, with the "=" class where the model has one."""
        return self.memo("logits", lambda: self._run(())[0])

    @property
    def mlp_post(self) -> Float[Tensor, "n_inputs d_mlp"]:
        """Activations of the last MLP's neurons after the nonlinearity."""
        return self.activation(f"blocks.{self.n_layers - 1}.mlp.hook_post")

    def activation(self, name: str) -> Float[Tensor, "n_inputs ..."]:
        """The activation at a TransformerLens hook name, at the answer position.

        [n_inputs, ...] without the position axis; attention patterns and scores are
        [n_inputs, n_heads, key position].
        """
        self.gather(name)
        return self._activations[name]

    def gather(self, *names: str) -> None:
        """Compute several activations in one forward, for `activation` to return."""
        missing = tuple(name for name in names if name not in self._activations)
        if missing:
            logits, found = self._run(missing)
            self.memo("logits", lambda: logits)
            self._activations |= found

    def logits_with(self, weights: Mapping[str, Tensor]) -> Float[Tensor, "n_inputs n_classes"]:
        """Logits of the answer classes with other weights of this architecture; none are kept."""
        if self.architecture is None:
            raise InputError(
                "the weights alone do not say what this model computes; give a plain transformer, "
                "without hooks or modules of its own."
            )
        self.architecture.check(weights)
        return from_weights(dict(weights), self.architecture, self.task).logits

    def hooked(self) -> HookedModel:
        """The model, for hooks: the user's own, or one built from the weights. Leave it so."""
        if self._hooked is None:
            raise InputError("this snapshot has no model; make it with gi.snapshot(model, task).")
        return self._hooked()

    def compute(self) -> None:
        """Run the forward now: the logits, and the neurons of the last MLP where there is one."""
        with contextlib.suppress(InputError):
            _ = self.mlp_post
        _ = self.all_logits

    def memo(self, key: str, compute: Callable[[], T]) -> T:
        """What `compute()` returned the first time this key was asked for."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]  # type: ignore[return-value]

    def __repr__(self) -> str:
        at = "" if self.step is None else f" at step {self.step}"
        return f"Snapshot({self.task.operation} mod {self.task.p}{at})"

    def _run(self, names: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        whole: dict[str, Tensor] = {}
        first = 0
        for tokens in self.task.tokens.split(BLOCK_ROWS):
            with torch.no_grad():
                logits, found = self._forward(tokens, names)
            for name, block in {"logits": logits, **{n: found[n] for n in names}}.items():
                if name not in whole:
                    whole[name] = block.new_empty(self.task.n_inputs, *block.shape[1:])
                whole[name][first : first + len(tokens)] = block
            first += len(tokens)
        return whole.pop("logits"), whole


def forward_of(
    weights: Weights,
    architecture: Architecture,
    hooked: Callable[[], HookedModel] | None = None,
) -> Forward:
    """The forward of canonical weights: at the answer position alone where that applies."""
    # Built when first needed: that imports TransformerLens.
    hooked = hooked or cache(partial(build_model, architecture, weights))

    def forward(tokens: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Mapping[str, Tensor]]:
        if answer_position.applies_to(architecture, tokens.shape[1]):
            found: dict[str, Tensor] = {}
            logits = answer_position.answer_logits(
                weights,
                tokens,
                act_fn=architecture.act_fn,
                attention_rate=architecture.attention_rate,
                cache=found,
            )
            if set(names) <= set(found):
                return logits, {name: found[name] for name in names}
        return _hooked_forward(hooked(), tokens, names)

    return forward


def from_weights(
    weights: Weights,
    architecture: Architecture,
    task: ModularTask,
    *,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    step: int | None = None,
) -> Snapshot:
    """A snapshot of canonical weights."""
    hooked = cache(partial(build_model, architecture, weights))
    return Snapshot(
        task,
        weights=weights,
        n_layers=architecture.n_layers,
        forward=forward_of(weights, architecture, hooked),
        hooked=hooked,
        architecture=architecture,
        linear_readout=architecture.normalization_type is None,
        train_mask=train_mask,
        step=step,
    )


def snapshot(
    model: HookedModel,
    task: ModularTask,
    *,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    step: int | None = None,
) -> Snapshot:
    """Any hooked model of the user's own, seen over a whole task; the model is not changed.

    `train_mask` says which rows `a*p + b` were trained on; without it, measures that need the split
    are null. The logits and neurons are those of the model as it is now; activations that are asked
    for later come from the model as it is then, unless it is a plain transformer.
    """
    check_task(task)
    _check_model(model, task)
    if train_mask is not None:
        train_mask = checked_mask(train_mask, task)
    architecture = architecture_of(model)
    weights = {name: weight.cpu() for name, weight in canonical_weights(model).items()}
    if architecture is not None and _same_function(model, architecture, weights, task):
        return from_weights(weights, architecture, task, train_mask=train_mask, step=step)
    cfg = model.cfg
    seen = Snapshot(
        task,
        weights=weights,
        n_layers=cfg.n_layers,
        forward=lambda tokens, names: _hooked_forward(model, tokens, names),
        hooked=lambda: model,
        linear_readout=cfg.normalization_type is None
        and getattr(cfg, "output_logits_soft_cap", -1.0) <= 0,
        train_mask=train_mask,
        step=step,
    )
    seen.compute()
    return seen


def check_task(task: ModularTask) -> None:
    """Refuse what is not a task."""
    if not isinstance(task, ModularTask):
        raise InputError(f"task={task!r} is not a task; give such as gi.ModularTask('add', p=113).")


def checked_mask(
    train_mask: Bool[Tensor, " n_inputs"], task: ModularTask
) -> Bool[Tensor, " n_inputs"]:
    """The mask on the CPU, refused if it does not say true or false of every row of the table."""
    train_mask = torch.as_tensor(train_mask).cpu()
    if train_mask.dtype != torch.bool or tuple(train_mask.shape) != (task.n_inputs,):
        raise InputError(
            f"train_mask is {train_mask.dtype} of shape {tuple(train_mask.shape)}, expected "
            f"torch.bool of shape ({task.n_inputs},): true for every row a*p + b trained on."
        )
    return train_mask


def _check_model(model: HookedModel, task: ModularTask) -> None:
    if not hasattr(model, "run_with_cache"):
        raise InputError(
            f"{type(model).__name__} is not a hooked model; give a HookedTransformer or a "
            "TransformerBridge."
        )
    cfg, n_tokens = model.cfg, task.tokens.shape[1]
    if cfg.d_vocab_out < task.n_classes or cfg.d_vocab < task.d_vocab or cfg.n_ctx < n_tokens:
        raise InputError(
            f"the model has {cfg.d_vocab} tokens, {cfg.d_vocab_out} output classes and "
            f"{cfg.n_ctx} positions, the task needs {task.d_vocab}, {task.n_classes} and "
            f"{n_tokens}; give the task it was trained on."
        )


def _same_function(
    model: HookedModel, architecture: Architecture, weights: Weights, task: ModularTask
) -> bool:
    """Whether the weights under that architecture give the model's own logits on a sample.

    A configuration does not show everything: a module may have been replaced or hooked.
    """
    ours = forward_of(weights, architecture)
    return agree(
        lambda tokens: ours(tokens, ())[0],
        lambda tokens: _hooked_forward(model, tokens, ())[0],
        task,
    )


def agree(
    ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], task: ModularTask
) -> bool:
    """Whether two forwards give the same logits, within float32, on a sample of the inputs."""
    tokens = task.tokens[:: max(1, task.n_inputs // 64)]
    with torch.no_grad():
        expected = theirs(tokens)
        return bool((ours(tokens) - expected).norm() <= 1e-3 * expected.norm())


def _hooked_forward(
    model: HookedModel, tokens: Tensor, names: tuple[str, ...]
) -> tuple[Tensor, Mapping[str, Tensor]]:
    device = next(iter(model.parameters())).device
    if not names:
        return model(tokens.to(device))[:, -1].cpu(), {}
    if unknown := sorted(set(names) - set(model.hook_dict)):
        raise InputError(f"the model has no activation {unknown[0]!r} (model.hook_dict lists all).")
    logits, cache = model.run_with_cache(tokens.to(device), names_filter=list(names))
    last = {
        name: (cache[name][:, :, -1] if _is_attention(name) else cache[name][:, -1]).cpu()
        for name in names
    }
    return logits[:, -1].cpu(), last


def _is_attention(name: str) -> bool:
    return name.endswith(("hook_pattern", "hook_attn_scores"))
