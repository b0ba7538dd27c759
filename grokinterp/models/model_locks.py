"""One thread at a time with a hooked model: for as long as it has hooks, it is another model.

TransformerLens puts hooks into the model itself, for `run_with_cache` too, and takes all of them
out after a run. Two threads with one model would see each other's hooks, lose their own, and leave
some behind.

What is looked at is the model in evaluation: without dropout, with what its norms have learned so
far, and as it was written, not as torch.compile compiled it, which knows no hooks.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch

_LOCKS: WeakKeyDictionary[object, threading.RLock] = WeakKeyDictionary()
_GUARD = threading.Lock()  # of the table of locks
_OTHERS = threading.RLock()  # of models that no table can hold without keeping them alive
_EAGER: list[Any] = []  # one entry a thread that looks at a compiled model; the first can undo it


@contextlib.contextmanager
def alone_with(model: object) -> Iterator[None]:
    """Be alone with a model, to be held wherever this package runs it or looks at its hooks.

        with alone_with(model):
            logits = model.run_with_hooks(tokens, fwd_hooks=hooks)

    Meanwhile every part of it is in evaluation; afterwards each is as it was. The thread that holds
    it may take it again, as a hook does that looks at the model by itself. Runs of the model by the
    user's own code do not wait for it.
    """
    with _lock_of(model), _in_evaluation(model), _as_written(model):
        yield


def _lock_of(model: object) -> threading.RLock:
    with _GUARD:
        try:
            return _LOCKS.setdefault(model, threading.RLock())
        except TypeError:
            return _OTHERS


@contextlib.contextmanager
def _in_evaluation(model: object) -> Iterator[None]:
    """Every part of a module in evaluation, and back: train() would set all parts to one mode."""
    parts = model.modules() if isinstance(model, torch.nn.Module) else ()
    training = [part for part in parts if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def _as_written(model: object) -> Iterator[None]:
    """Nothing compiled, where a module or a part of it is to be compiled at its first run."""
    if not _is_compiled(model):
        yield
        return
    with _GUARD:  # one setting for all threads: the first sets it, the last puts it back
        _EAGER.append(None if _EAGER else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _GUARD:
            if (stance := _EAGER.pop()) is not None:  # the one at the bottom
                stance.__exit__(None, None, None)


def _is_compiled(model: object) -> bool:
    # Whoever has compiled a model has imported this, which takes seconds.
    if "torch._dynamo" not in sys.modules or not isinstance(model, torch.nn.Module):
        return False
    return any(
        part._compiled_call_impl is not None or "_orig_mod" in part._modules
        for part in model.modules()
    )
