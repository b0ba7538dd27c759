"""One thread at a time with a hooked model: for as long as it has hooks, it is another model.

TransformerLens puts hooks into the model itself, for `run_with_cache` too, and takes all of them
out after a run. Two threads with one model would see each other's hooks, lose their own, and leave
some behind.
"""

import threading
from weakref import WeakKeyDictionary

_LOCKS: WeakKeyDictionary[object, threading.RLock] = WeakKeyDictionary()
_GUARD = threading.Lock()  # of the table of locks
_OTHERS = threading.RLock()  # of models that no table can hold without keeping them alive


def alone_with(model: object) -> threading.RLock:
    """The lock of a model, to be held wherever this package runs it or looks at its hooks.

        with alone_with(model):
            logits = model.run_with_hooks(tokens, fwd_hooks=hooks)

    The thread that holds it may take it again, as a hook does that looks at the model by itself.
    Runs of the model by the user's own code do not wait for it.
    """
    with _GUARD:
        try:
            return _LOCKS.setdefault(model, threading.RLock())
        except TypeError:
            return _OTHERS
