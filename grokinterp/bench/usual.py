"""The usual way to train and to measure: TransformerLens' model, and the demo's dense sums.

Written from the Grokking_Demo of TransformerLens, and as it goes about it: a hooked forward with
all positions, a float64 log-softmax, AdamW, projections by dense vectors over all pairs, and the
56 cubes cos(w_k(a + b - c)) of 113^3 numbers multiplied with the logits at every checkpoint.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.models.adapter import build_model, load_weights
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.models.initialize import initial_weights
from grokinterp.recipe.recipe import Recipe

POST = "blocks.0.mlp.hook_post"


def usual_step(recipe: Recipe) -> Callable[[], None]:
    """One full-batch update of TransformerLens' model (HookedTransformer, or the bridge of 4.x)."""
    architecture, task = recipe.architecture(), recipe.build_task()
    assert isinstance(architecture, Architecture)
    rows = recipe.train_indices()
    tokens, labels = task.model_inputs[rows], task.labels[rows]
    model = build_model(architecture, initial_weights(architecture, seed=recipe.seed))
    assert isinstance(model, torch.nn.Module)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("b_" not in name and not name.endswith("bias"))
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
    )

    def step() -> None:
        optimizer.zero_grad()
        log_probabilities = model(tokens)[:, -1].to(torch.float64).log_softmax(dim=-1)
        (-log_probabilities.gather(1, labels[:, None]).mean()).backward()
        optimizer.step()

    return step


def usual_measures(
    recipe: Recipe, frequencies: tuple[int, ...]
) -> Callable[[Weights], dict[str, float]]:
    """Loads a checkpoint's weights and returns the demo's measures, under our columns' names.

    The 56 cubes of the trig fit and all dense vectors are made once, outside of what is timed.
    """
    architecture, task, p = recipe.architecture(), recipe.build_task(), recipe.p
    assert isinstance(architecture, Architecture)
    rows, tokens, labels = recipe.train_indices(), task.model_inputs, task.labels
    test = torch.ones(p * p, dtype=torch.bool)
    test[rows] = False
    model = build_model(architecture, initial_weights(architecture, seed=recipe.seed))
    a, b, c = (torch.arange(p)[(None,) * i + (slice(None),) + (None,) * (2 - i)] for i in range(3))

    def wave(exponent: Tensor, k: int, shift: float = 0.0) -> Tensor:
        angle = 2 * torch.pi * k * (exponent % p) / p
        x = torch.cos(angle - shift)
        return x / x.norm()

    cubes = torch.stack([wave(a + b - c, k) for k in range(1, p // 2 + 1)])
    sums = (a + b).flatten()
    directions = {
        k: torch.stack([wave(sums, k), wave(sums, k, torch.pi / 2)], dim=1) for k in frequencies
    }

    def loss(logits: Float[Tensor, "n p"], chosen: Tensor) -> Tensor:
        log_probabilities = logits[chosen].double().log_softmax(dim=-1)
        return -log_probabilities.gather(1, labels[chosen][:, None]).mean()

    test_rows, every = test.nonzero()[:, 0], torch.arange(p * p)

    @torch.no_grad()
    def measures(weights: Weights) -> dict[str, float]:
        load_weights(model, weights)
        logits, cache = model.run_with_cache(tokens, names_filter=[POST])
        logits, post = logits[:, -1, :p], cache[POST][:, -1]
        found = {"train_loss": loss(logits, rows), "test_loss": loss(logits, test_rows)}
        # The fit of the logits by cosines: every cube times the whole table.
        centred = (logits - logits.mean(dim=1, keepdim=True)).view(p, p, p)
        coefficients = (cubes * centred).sum(dim=(1, 2, 3))
        fit = torch.stack([coefficients[k - 1] * cubes[k - 1] for k in frequencies]).sum(dim=0)
        found["trig_loss"] = loss(fit.reshape(p * p, p), every)
        # Restricted and excluded: neurons along dense vectors over all pairs, then the readout.
        readout = weights["blocks.0.mlp.W_out"] @ weights["unembed.W_U"][:, :p]
        parts = {k: basis @ (basis.T @ post) for k, basis in directions.items()}
        for k, part in parts.items():
            found[f"excluded_loss_demo_k{k}"] = loss(logits - part @ readout, rows)
        key = torch.stack(list(parts.values())).sum(dim=0)
        restricted = (key + post.mean(dim=0)) @ readout
        restricted += logits.mean(dim=0) - restricted.mean(dim=0)
        found["restricted_loss_demo"] = loss(restricted, test_rows)
        found["excluded_loss_demo"] = loss(logits - key @ readout, rows)
        found["sum_sq_weights"] = torch.stack([w.square().sum() for w in weights.values()]).sum()
        return {name: float(value) for name, value in found.items()}

    return measures
