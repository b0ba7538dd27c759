"""How much memory a model needs on its task, before any of it is taken."""

from grokinterp.errors import InputError
from grokinterp.models.architecture import Architecture
from grokinterp.runs.snapshot import BLOCK_ROWS
from grokinterp.tasks.modular import ModularTask

MOST_BYTES = 16 * 2**30  # p = 1600


def check_affordable(architecture: Architecture, task: ModularTask, where: str) -> None:
    """Refuse sizes that a file of a few kilobytes can state and no machine can compute with.

    Counted: the table of pairs, its logits, and what a forward holds of one block of inputs.
    """
    rows = min(task.n_inputs, BLOCK_ROWS)
    heads = architecture.n_heads * architecture.d_head
    wide = 6 * heads + 4 * architecture.d_mlp + 8 * architecture.d_model
    pairs = architecture.n_heads * architecture.d_vocab**2 if architecture.n_ctx == 2 else 0
    needed = 4 * (rows * wide + pairs + task.n_inputs * (12 + architecture.d_vocab_out))
    if needed > MOST_BYTES:
        raise InputError(
            f"{where} needs {needed / 2**30:.0f} GiB for the {task.n_inputs} inputs of p={task.p}, "
            f"{architecture.n_heads} heads and {architecture.d_mlp} neurons, more than the "
            f"{MOST_BYTES / 2**30:.0f} that are taken for a run; give a smaller one."
        )
