"""The hook factories: every function returns an `Intervention`, a sequence of hook pairs.

from grokinterp.circuits import hooks

model.run_with_hooks(task.tokens, fwd_hooks=hooks.heads(0, 2) + hooks.mlp_skip(0))
gi.ablate(run, [hooks.heads(0, [0, 2]), hooks.fourier("unembed.hook_out", run.task, [9])])
gi.ablate(run, [hooks.neurons(0, i) for i in range(10)])  # ten rows; neurons(0, range(10)): one

`layer` counts from 0. `mode` says what stands in for the part: "zero", its "mean" over the inputs,
or "resample", its activation on another input (a fixed permutation of the table). Interventions
add up with `+`; `.called(name)` gives one another name. Run them on the whole table,
`task.model_inputs`, which of modular arithmetic are `task.tokens`.
"""

from grokinterp.circuits.components import (
    attention,
    attention_skip,
    channels,
    heads,
    mlp,
    mlp_skip,
    neurons,
    patterns,
    replaced_neurons,
    replaced_patterns,
)
from grokinterp.circuits.interventions import intervention
from grokinterp.circuits.subspaces import directions, embedding, fourier

__all__ = [
    "attention",
    "attention_skip",
    "channels",
    "directions",
    "embedding",
    "fourier",
    "heads",
    "intervention",
    "mlp",
    "mlp_skip",
    "neurons",
    "patterns",
    "replaced_neurons",
    "replaced_patterns",
]
