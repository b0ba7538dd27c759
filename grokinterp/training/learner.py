"""A model in training: canonical weights as leaves, and the forward that reads the answer."""

from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models import answer_position
from grokinterp.models.adapter import build_model, functional_logits
from grokinterp.models.architecture import Weights, is_bias
from grokinterp.models.initialize import initial_weights
from grokinterp.recipe.recipe import Recipe


class Learner:
    """Weights under canonical names, of which some are trained, and their answer logits.

    The answer-position forward is used where it applies, otherwise the hooked forward of
    TransformerLens: the same numbers either way.
    """

    def __init__(self, recipe: Recipe, device: str) -> None:
        architecture = recipe.architecture()
        initial = initial_weights(
            architecture, seed=recipe.seed, rule=recipe.init, init_scale=recipe.init_scale
        )
        self.weights: Weights = {name: weight.to(device) for name, weight in initial.items()}
        self.trained: Weights = {
            name: weight.requires_grad_()
            for name, weight in self.weights.items()
            if _is_trained(name, recipe.biases)
        }
        self._act_fn = architecture.act_fn
        self._hooked = None
        if not answer_position.applies_to(architecture, architecture.n_ctx):
            self._hooked = functional_logits(build_model(architecture, initial, device=device))

    def logits(self, tokens: Int[Tensor, "n n_ctx"]) -> Float[Tensor, "n d_vocab_out"]:
        """Logits at the answer position, differentiable in the trained weights."""
        if self._hooked is not None:
            return self._hooked(self.weights, tokens)
        return answer_position.answer_logits(self.weights, tokens, act_fn=self._act_fn)


def _is_trained(name: str, biases: str) -> bool:
    return not is_bias(name) or biases == "all" or (biases == "mlp" and ".mlp." in name)
