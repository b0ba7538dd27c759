"""A model in training: canonical weights as leaves, its answers and its gradients."""

from collections.abc import Callable, Iterator
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models import answer_gradients, mlp_forward
from grokinterp.models.adapter import build_model, functional_logits
from grokinterp.models.architecture import Architecture, Weights, is_bias
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.cnn_gradients import CNNGradients
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.models.initialize import initial_weights
from grokinterp.models.kinds import QuickForward
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.recipe.recipe import Recipe

BLOCK_ROWS = 4096  # inputs evaluated at once: intermediate results stay in the cache


class Learner:
    """Weights under canonical names, of which some are trained, on the inputs of a task.

    A transformer's answer-position forward is used where it applies, otherwise the hooked forward
    of TransformerLens: the same numbers either way. An MLP and a CNN have explicit gradients.
    """

    def __init__(
        self, recipe: Recipe, inputs: Tensor, labels: Int[Tensor, " n"], device: str
    ) -> None:
        self._architecture = architecture = recipe.architecture()
        self._inputs, self._labels = inputs.to(device), labels.to(device)
        initial = initial_weights(
            architecture, seed=recipe.seed, rule=recipe.init, init_scale=recipe.init_scale
        )
        trained = {name for name in initial if is_trained(name, recipe.biases)}
        self.weights: Weights = {
            name: (weight if name in trained or not is_bias(name) else 0 * weight).to(device)
            for name, weight in initial.items()
        }
        self.trained: Weights = {
            name: weight.requires_grad_()
            for name, weight in self.weights.items()
            if name in trained
        }
        self._hooked = None
        if QuickForward(architecture, self.weights)(self._inputs[:1]) is None:
            assert isinstance(architecture, Architecture)
            self._hooked = functional_logits(build_model(architecture, initial, device=device))
        self._lattices: tuple[Tensor, CNNGradients] | None = None  # rows, and what depends on them

    def logit_blocks(self) -> Iterator[Float[Tensor, "rows d_vocab_out"]]:
        """Logits of all inputs of the task, so many rows at a time."""
        forward = self._forward()
        return map(forward, self._inputs.split(BLOCK_ROWS))

    def backward(self, rows: Int[Tensor, " n"]) -> None:
        """Put the gradient of the mean cross-entropy over some rows into every trained weight."""
        labels = self._labels[rows]
        gradients: Weights = {}
        if isinstance(self._architecture, MLPArchitecture):
            gradients = mlp_forward.gradients(
                self.weights, self._inputs[rows], labels, architecture=self._architecture
            )
        elif isinstance(self._architecture, CNNArchitecture):
            gradients = self._on_lattices(rows, self._architecture)(self.weights, labels)
        elif self._hooked is None:
            gradients = answer_gradients.gradients(
                self.weights,
                self._inputs[rows],
                labels,
                act_fn=self._architecture.act_fn,
                attention_rate=self._architecture.attention_rate,
            )
        for name, weight in self.trained.items():
            # torch's fused optimisers read a gradient as it lies in memory, whatever its strides.
            weight.grad = gradients[name].contiguous() if gradients else None
        if not gradients:
            cross_entropies(self._forward()(self._inputs[rows]), labels).mean().backward()

    def _forward(self) -> Callable[[Tensor], Tensor]:
        """The forward of the weights as they are now; differentiable."""
        if self._hooked is not None:
            return partial(self._hooked, self.weights)
        quick = QuickForward(self._architecture, self.weights)
        return lambda inputs: quick(inputs)  # type: ignore[return-value]

    def _on_lattices(self, rows: Tensor, architecture: CNNArchitecture) -> CNNGradients:
        """Kept while the rows are the same, as they are with full batches."""
        if self._lattices is None or self._lattices[0] is not rows:
            found = CNNGradients(self._inputs[rows], architecture=architecture)
            self._lattices = rows, found
        return self._lattices[1]


def is_trained(name: str, biases: str) -> bool:
    """Whether a weight is trained, by the `biases` of a recipe.

    A key bias never is: it adds the same to every score of a query, so that its gradient is 0 and
    what is computed of it rounding, which Adam would make steps of.
    """
    if name.endswith("attn.b_K"):
        return False
    return not is_bias(name) or biases == "all" or (biases == "mlp" and ".mlp." in name)
