"""Print a digest of the logits of fixed weights through the installed TransformerLens.

    python tests/logits_digest.py

Run under two versions, it shows whether the same weights give bit-equal logits.
"""

import hashlib
import warnings

import torch

from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.models.transformer_lens_adapter import canonical_weights
from grokinterp.tasks import ModularTask


def main() -> None:
    """One line for each of a one- and a two-layer model, with biases."""
    warnings.simplefilter("ignore")
    for n_layers in (1, 2):
        architecture = TransformerArchitecture(n_layers, 4, 128, 32, 512, 114, 114, 3)
        weights = architecture.initial(seed=1, scale=2.0)
        generator = torch.Generator().manual_seed(2)
        for name, weight in weights.items():
            if ".b_" in name:
                weights[name] = torch.randn(weight.shape, generator=generator)
        model = architecture.hooked(weights)
        back = canonical_weights(model)
        assert all(torch.equal(back[name], weight) for name, weight in weights.items())
        with torch.no_grad():
            logits = model(ModularTask("add", 113).tokens)
        print(n_layers, hashlib.sha256(logits.contiguous().numpy().tobytes()).hexdigest())


if __name__ == "__main__":
    main()
