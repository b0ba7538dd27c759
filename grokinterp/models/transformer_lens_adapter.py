"""How is a transformer built, read and filled through either of TransformerLens' model classes?

TransformerLens 3.x has HookedTransformer, whose state dict already has canonical names and shapes.
In 4.x TransformerBridge replaces it, with torch.nn.Linear layouts under other names. Hook names and
`run_with_hooks` / `run_with_cache` are the same on both, so all analysis is written against the
protocol `HookedModel` (`user_models.py`) and nothing else.
"""

import random
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.models.architecture import ACTIVATIONS, NORMS, Weights
from grokinterp.models.foreign_names import BRIDGE, Slot, slots
from grokinterp.models.user_models import HookedModel, configuration, effective_state


def build_model(
    sizes: Mapping[str, Any], weights: Mapping[str, Tensor], *, device: str = "cpu"
) -> HookedModel:
    """A HookedTransformer (TransformerLens 3) or TransformerBridge (4) of `SIZES` and weights.

    Global random state (torch, numpy, `random`) is left as it was.
    """
    config: dict[str, Any] = {key: sizes[key] for key in SIZES}
    config |= {"device": device, "dtype": weights["embed.W_E"].dtype}
    with _quiet_construction():
        model = _new_model(config)
        assert isinstance(model, torch.nn.Module)
        torch.nn.Module.to(model, config["dtype"])  # the bridge starts in float32 whatever it says
    load_weights(model, weights)
    return model


def canonical_weights(model: HookedModel) -> Weights:
    """Detached copies of a model's weights under canonical names and per-head shapes."""
    assert isinstance(model, torch.nn.Module)
    state = effective_state(model)
    return {
        name: slot.canonical(state[slot.key].detach(), _said(model, "n_heads")).clone()
        for name, slot in _slots(model, state).items()
    }


def load_weights(model: HookedModel, weights: Mapping[str, Tensor]) -> None:
    """Copy canonical weights into a model, which must have exactly these parameters."""
    places = _slots(model)
    if missing := sorted(set(places) ^ set(weights)):
        raise InputError(f"weight {missing[0]!r} is not in both the model and the weights given.")
    state = model.state_dict()
    with torch.no_grad():
        for name, slot in places.items():
            state[slot.key].copy_(slot.foreign(weights[name]))


def plain_sizes(model: HookedModel) -> dict[str, Any] | None:
    """The `SIZES` of a plain model; None for one that these do not describe, or that has hooks."""
    cfg = configuration(model)
    plain = (
        all(hasattr(cfg, key) for key in DESCRIBED)
        and cfg.normalization_type in NORMS
        and cfg.positional_embedding_type == "standard"
        and (cfg.attn_only or cfg.act_fn in ACTIVATIONS)
        and cfg.use_attn_scale
        and (cfg.attn_scale < 0 or abs(cfg.attn_scale - cfg.d_head**0.5) < 1e-6)  # < 0: default
        and not any(getattr(cfg, key, None) for key in UNUSUAL)
        and max(getattr(cfg, key, -1.0) for key in SOFT_CAPS) <= 0
        and not any(point.fwd_hooks for point in model.hook_dict.values())
    )
    return {key: getattr(cfg, key) for key in SIZES} if plain else None


# What an architecture and TransformerLens' configurations both have, under the same name.
SIZES = (
    "n_layers", "n_heads", "d_model", "d_head", "d_mlp", "d_vocab", "d_vocab_out", "n_ctx",
    "act_fn", "normalization_type", "eps", "attention_dir", "attn_only",
)  # fmt: skip
# What a configuration has to say before a model can be taken for a plain one.
DESCRIBED = (*SIZES, "positional_embedding_type", "use_attn_scale", "attn_scale")
# Settings that change what a TransformerLens block computes; all are falsy in a plain model.
UNUSUAL = (
    "parallel_attn_mlp", "gated_mlp", "use_local_attn", "use_qk_norm",
    "n_key_value_heads", "num_experts", "scale_attn_by_inverse_layer_idx",
    "use_normalization_before_and_after", "post_embedding_ln", "final_rms",
)  # fmt: skip
SOFT_CAPS = ("attn_scores_soft_cap", "output_logits_soft_cap")

# Buffers that hold no weight: the causal mask and what stands for minus infinity.
BUFFERS = (".mask", ".IGNORE")


def _slots(model: HookedModel, state: Mapping[str, Tensor] | None = None) -> dict[str, Slot]:
    """Where the model's own state dict keeps each canonical weight."""
    state = model.state_dict() if state is None else state
    keys = [key for key in state if not key.endswith(BUFFERS)]
    found = {} if "embed.W_E" in keys else slots(BRIDGE, _said(model, "n_layers"))
    found = {name: slot for name, slot in found.items() if slot.key in keys}
    # What has no canonical form keeps its name and shape.
    others = sorted(set(keys) - {slot.key for slot in found.values()})
    return found | {key: Slot(key, "... -> ...") for key in others}


def _said(model: HookedModel, size: str) -> int:
    """A size as the model's configuration has it; 0 where a model of the user's own has none."""
    found = getattr(configuration(model), size, 0)
    return found if isinstance(found, int) else 0


def _new_model(config: dict[str, Any]) -> HookedModel:
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig
    except ImportError:
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_native(TransformerBridgeConfig(**config))
    return HookedTransformer(HookedTransformerConfig(**config, init_weights=False))


_CONSTRUCTION = threading.RLock()


@contextmanager
def _quiet_construction() -> Iterator[None]:
    """Leave every global random state as it was, and show no deprecation note for our choice.

    One thread at a time: each would put back what another has changed.
    """
    with _CONSTRUCTION:
        python_state, numpy_state = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
