"""In which frequencies: Fourier bases, spectra, the answer's directions, key frequencies.

`RULES` has the rules of `key_frequencies` by name, functions of a snapshot: here each chooses by
itself, unasked.

>>> import grokinterp as gi
>>> run = gi.load("mod31-small")
>>> list(gi.fourier.RULES)
['logits', 'embedding', 'embedding_demo', 'neuron_logit', 'neurons']
>>> gi.fourier.RULES["embedding"](run.snapshot()).frequencies
(1, 8, 14)
"""

from grokinterp.base.names import room_names
from grokinterp.fourier import answers, heldout, spectra
from grokinterp.fourier._key_frequencies import (
    RULES,
    KeyFrequencies,
    frequency_shares,
    key_frequencies,
    of_any_with_keys,
)
from grokinterp.fourier.answers import AnswerSpectrum
from grokinterp.fourier.basis import fourier_basis, gini, spectrum, transform, transform_2d
from grokinterp.fourier.heldout import HeldoutFit
from grokinterp.fourier.localization import NeuronIPR, fourier_heat_map, neuron_ipr
from grokinterp.reading._load import of_any

embedding_spectrum = of_any(spectra.embedding_spectrum)
heldout_fit = of_any_with_keys(heldout.heldout_fit)
logit_shares = of_any(answers.logit_shares)
neuron_frequency_fractions = of_any(spectra.neuron_frequency_fractions)
neuron_logit_map = of_any(spectra.neuron_logit_map)
neuron_logit_spectrum = of_any(spectra.neuron_logit_spectrum)
unembedding_spectrum = of_any(spectra.unembedding_spectrum)

__all__ = [
    "RULES", "AnswerSpectrum", "HeldoutFit", "KeyFrequencies", "NeuronIPR", "embedding_spectrum",
    "fourier_basis", "fourier_heat_map", "frequency_shares", "gini", "heldout_fit",
    "key_frequencies", "logit_shares", "neuron_frequency_fractions", "neuron_ipr",
    "neuron_logit_map", "neuron_logit_spectrum", "spectrum", "transform", "transform_2d",
    "unembedding_spectrum",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
