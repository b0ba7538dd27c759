"""What computes the answer: neurons, attention, ablations, attributions, the algorithm."""
