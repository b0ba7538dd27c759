"""At which hooks of a network to look for its answer, up to what its unembedding reads?"""

import torch

from grokinterp.models.hooked_module import HookedModule
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.forwards import hooked_forward


def usual_hooks(snapshot: Snapshot) -> tuple[tuple[str, ...], list[str]]:
    """Neurons and residual stream of every layer, the last one what the unembedding reads."""
    architecture = snapshot.architecture
    own = getattr(architecture, "hook_names", None)
    known = list(own() if own else snapshot.hooked().hook_dict)
    if snapshot.n_layers or snapshot.positions:
        convs = [name for name in known if name.endswith(".hook_pool")]
        blocks = [
            f"blocks.{i}.{name}"
            for i in range(snapshot.n_layers)
            for name in ("mlp.hook_post", "hook_resid_post")
        ]
        wanted = (*convs, *blocks, "ln_final.hook_normalized")
        return tuple(name for name in wanted if name in known), []
    model, some = snapshot.hooked(), snapshot.task.model_inputs[:64]
    if not isinstance(model, HookedModule):
        return (), []
    hidden = tuple(model.hidden_layers(some))
    found = model.last_linear(some)
    if found is not None and hidden:
        _, there = hooked_forward(model, some, hidden)
        for i, name in enumerate(hidden):
            if torch.equal(there[name].flatten(1), found[1].flatten(1).cpu()):
                return hidden[: i + 1], []
    return hidden, [
        "what the last layer reads is no sub-module's output: the last hook is the one before it"
    ] * bool(hidden)
