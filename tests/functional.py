"""TransformerLens' own forward as a function of canonical weights: what ours is compared with."""

from importlib.metadata import version

import torch

from grokinterp.models.transformer_lens_adapter import _slots

BRIDGE = int(version("transformer-lens").partition(".")[0]) >= 4


def exactness(architecture):
    """To how much TransformerLens' own float64 forward is exact: the bridge norms in float32."""
    in_float32 = BRIDGE and architecture.normalization_type in ("RMS", "RMSPre", "LNPre")
    return 1e-5 if in_float32 and architecture.in_transformer_lens else 1e-9


def functional_logits(model):
    """`(weights, tokens) -> answer-position logits`, differentiable in the weights.

    Give it a model of its own: a TransformerBridge is left with other parameter objects.
    """
    places = _slots(model)
    state = model.state_dict(keep_vars=True)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    path_of = {id(tensor): path for path, tensor in tensors}
    paths = {name: path_of[id(state[slot.key])] for name, slot in places.items()}

    def logits(weights, tokens):
        native = {paths[name]: slot.foreign(weights[name]) for name, slot in places.items()}
        return torch.func.functional_call(model, native, (tokens,))[:, -1]

    return logits
