"""Taking a snapshot: of canonical weights, or of any hooked model of the user's own."""

from functools import cache, partial

from jaxtyping import Bool
from torch import Tensor

from grokinterp.arguments import mask, whole
from grokinterp.models.adapter import HookedModel, configuration
from grokinterp.models.architecture import Weights
from grokinterp.models.kinds import (
    Shape,
    architecture_of,
    build_model,
    has_positions,
    layers_of,
    weights_of,
)
from grokinterp.models.model_locks import alone_with
from grokinterp.models.unwrapping import AnyModel, hooked_model
from grokinterp.runs.forward import agree, forward_of, hooked_forward
from grokinterp.runs.snapshot import Snapshot
from grokinterp.runs.trying import try_on
from grokinterp.tasks.task import Task, check_task


def from_weights(
    weights: Weights,
    architecture: Shape,
    task: Task,
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
        kind=architecture.kind,
        forward=forward_of(weights, architecture, hooked),
        hooked=hooked,
        architecture=architecture,
        linear_readout=getattr(architecture, "normalization_type", None) is None,
        train_mask=train_mask,
        step=step,
    )


def snapshot(
    model: AnyModel,
    task: Task,
    *,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    step: int | None = None,
) -> Snapshot:
    """Any hooked model of the user's own, seen over a whole task; the model is not changed.

    What torch.compile, DataParallel or AveragedModel have wrapped is looked at as if it were given
    itself, and a pruned or parametrized model with the weights that it computes with. The model is
    seen in evaluation (no dropout), whatever mode it is in. It has to fit the task: as many tokens
    and positions as its inputs have, and as many classes as answers (or one more for "=").

    Weights and mask are copied: training may go on. Several threads may look at one model.

    `train_mask` says which rows `a*p + b` were trained on; without it, measures that need the split
    are null. The logits and neurons are those of the model as it is now; activations that are asked
    for later come from the model as it is then, unless it is a plain transformer.
    """
    check_task(task)
    looked_at = hooked_model(model)
    if train_mask is not None:
        train_mask = checked_mask(train_mask, task)
    if step is not None:
        step = whole("step", step, least=0, such_as="100")
    with alone_with(looked_at):
        try_on(looked_at, task)
        return _as_it_is(looked_at, task, train_mask, step)


def _as_it_is(
    model: HookedModel, task: Task, train_mask: Bool[Tensor, " n_inputs"] | None, step: int | None
) -> Snapshot:
    architecture = architecture_of(model)
    # As they lie in memory in a run: a transposed matrix is multiplied with other roundings.
    weights = {name: weight.cpu().contiguous() for name, weight in weights_of(model).items()}
    if architecture is not None and _same_function(model, architecture, weights, task):
        return from_weights(weights, architecture, task, train_mask=train_mask, step=step)
    cfg = configuration(model)
    seen = Snapshot(
        task,
        weights=weights,
        n_layers=layers_of(model),
        kind="transformer" if has_positions(model) else cfg.kind,
        forward=lambda tokens, names: hooked_forward(model, tokens, names),
        hooked=lambda: model,
        linear_readout=getattr(cfg, "normalization_type", None) is None
        and getattr(cfg, "output_logits_soft_cap", -1.0) <= 0,
        train_mask=train_mask,
        step=step,
    )
    seen.compute()
    return seen


def checked_mask(train_mask: Bool[Tensor, " n_inputs"], task: Task) -> Bool[Tensor, " n_inputs"]:
    """The mask on the CPU, refused if it does not say true or false of every row of the table."""
    return mask("train_mask", train_mask, task.n_inputs).cpu()


def _same_function(model: HookedModel, architecture: Shape, weights: Weights, task: Task) -> bool:
    """Whether the weights under that architecture give the model's own logits on a sample.

    A configuration does not show everything: a module may have been replaced or hooked.
    """
    ours = forward_of(weights, architecture)
    return agree(
        lambda inputs: ours(inputs, ())[0],
        lambda inputs: hooked_forward(model, inputs, ())[0],
        task,
    )
