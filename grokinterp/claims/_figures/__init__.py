"""Pictures of claims and of what they rest on: held norms, critical sizes."""

from grokinterp.claims._figures import held_norms, training_sizes

__all__ = ["held_norms", "training_sizes"]
