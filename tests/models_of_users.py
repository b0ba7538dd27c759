"""Models as a user makes them with TransformerLens, of either class."""

import contextlib
import warnings
from collections.abc import Iterator

import torch

from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.models.user_models import HookedModel


def layer_norm_model(*, layers: int, p: int = 7) -> HookedModel:
    architecture = TransformerArchitecture(
        n_layers=layers, n_heads=2, d_model=16, d_head=8, d_mlp=32, d_vocab=p + 1, d_vocab_out=p,
        n_ctx=3, normalization_type="LN",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = architecture.hooked(architecture.initial(seed=2))
    # What it does, no weight tells: a snapshot has to run the model itself.
    model.add_perma_hook("blocks.0.hook_mlp_out", lambda value, hook: 1.5 * value)
    model.train()
    return model


def hooks_of(model: HookedModel) -> int:
    """How many hooks it carries, its own among them."""
    points = model.hook_dict.values()
    return sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in points)


@contextlib.contextmanager
def failing(model: HookedModel) -> Iterator[None]:
    """A model whose MLP fails."""

    def fail(value: torch.Tensor, hook: object) -> None:
        raise RuntimeError("from a hook")

    with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", fail)]):
        yield


def plain_weights(architecture: TransformerArchitecture) -> dict[str, torch.Tensor]:
    return architecture.initial(seed=4, scale=3.0)
