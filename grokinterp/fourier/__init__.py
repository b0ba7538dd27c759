"""Fourier bases, spectra, the answer's directions and key frequencies."""

from grokinterp.fourier.answers import AnswerSpectrum, logit_shares
from grokinterp.fourier.basis import fourier_basis, gini, spectrum, transform, transform_2d
from grokinterp.fourier.heldout import HeldoutFit, heldout_fit
from grokinterp.fourier.key_frequencies import (
    KeyFrequencies,
    frequency_shares,
    key_frequencies,
)
from grokinterp.fourier.rules import RULES
from grokinterp.fourier.spectra import (
    embedding_spectrum,
    neuron_frequency_fractions,
    neuron_logit_map,
    neuron_logit_spectrum,
    unembedding_spectrum,
)

__all__ = [
    "RULES",
    "AnswerSpectrum",
    "HeldoutFit",
    "KeyFrequencies",
    "embedding_spectrum",
    "fourier_basis",
    "frequency_shares",
    "gini",
    "heldout_fit",
    "key_frequencies",
    "logit_shares",
    "neuron_frequency_fractions",
    "neuron_logit_map",
    "neuron_logit_spectrum",
    "spectrum",
    "transform",
    "transform_2d",
    "unembedding_spectrum",
]
