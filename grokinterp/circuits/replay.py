"""The model run again and again with hooks, sharing what lies before the first of them."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.circuits.interventions import HookPair
from grokinterp.errors import InputError, shown
from grokinterp.models.kinds import has_positions
from grokinterp.models.last_block import Edit, LastBlock
from grokinterp.models.model_locks import alone_with
from grokinterp.runs.forward import answer
from grokinterp.runs.snapshot import BLOCK_ROWS, Snapshot


def replay(snapshot: Snapshot, hooks: Iterable[HookPair]) -> Float[Tensor, "n_inputs p"]:
    """Logits of the answer classes over the whole table with these hooks in place.

    Edits of this package in the last block of a plain transformer start from the kept activations;
    everything else goes through `run_with_hooks`. The model, its hooks and its flags are left as
    they were, whatever a hook raises.
    """
    pairs = tuple(hooks)
    block = _last_block(snapshot)
    own = [(name, edit) for name, edit in pairs if isinstance(edit, Edit)]
    with torch.no_grad():
        if block is not None and len(own) == len(pairs) and all(block.has(name) for name, _ in own):
            logits = block.logits(own)
        else:
            logits = _hooked(snapshot, pairs)
    return logits[:, : snapshot.task.n_classes]


def _last_block(snapshot: Snapshot) -> LastBlock | None:
    """The restartable last block of a plain transformer."""
    architecture = snapshot.transformer
    if architecture is None:
        return None

    def build() -> LastBlock:
        resid_pre = None
        with torch.no_grad():
            if architecture.n_layers > 1:
                name = f"blocks.{architecture.n_layers - 1}.hook_resid_pre"
                model = snapshot.hooked()
                with alone_with(model):
                    resid_pre = torch.cat(
                        [
                            model.run_with_cache(tokens, names_filter=[name])[1][name]
                            for tokens in snapshot.task.model_inputs.split(BLOCK_ROWS)
                        ]
                    )
            return LastBlock(
                snapshot.weights, architecture, snapshot.task.model_inputs, resid_pre=resid_pre
            )

    return snapshot.memo("last_block", build)


def _checked(name: str, function: Callable[..., object]) -> Callable[..., object]:
    """Somebody's own hook, refused where it gives something that cannot stand in its place."""

    def checked(given: Tensor, hook: object) -> object:
        found = function(given, hook=hook)
        like = isinstance(found, Tensor) and found.shape == given.shape
        if found is not None and not like:
            raise InputError(
                f"the hook at {name!r} returns {shown(found)}; give a tensor of shape "
                f"{tuple(given.shape)}, or None to leave it as it is."
            )
        return found

    return checked


def _hooked(snapshot: Snapshot, hooks: tuple[HookPair, ...]) -> Tensor:
    model = snapshot.hooked()
    for name, _ in hooks:
        if name not in model.hook_dict:
            raise InputError(f"the model has no hook point {name!r} (model.hook_dict lists all).")
    device = next(iter(model.parameters())).device
    inputs = snapshot.task.model_inputs.to(device)
    checked = [(name, f if isinstance(f, Edit) else _checked(name, f)) for name, f in hooks]
    with alone_with(model):
        logits = model.run_with_hooks(inputs, fwd_hooks=checked)
    return (answer(logits) if has_positions(model) else logits).cpu()
