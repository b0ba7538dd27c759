"""Shapes: of representations, of the path of training, and of models in the Fisher metric.

Every measure takes `x` first (a run or its path, a snapshot, or a model with `task`; what goes
along training takes a run), the rest by name, and returns a table, or a result with a `.table()`.
What cannot be measured is an InputError of one line.
"""

from grokinterp.base.names import room_names
from grokinterp.geometry._representations import Plane, Representations, representations
from grokinterp.geometry.fisher import FisherDiagonal, fisher_diagonal
from grokinterp.geometry.metric import FisherMetric, fisher_metric, step_geometry
from grokinterp.geometry.paths import InformationPath, Limit, information_path, path_of, stages_of
from grokinterp.geometry.persistent_loops import Persistence, persistence
from grokinterp.geometry.predictions import (
    TrajectoryEmbedding,
    fisher_rao_distance,
    geodesic_point,
    pairwise_distances,
    root_probabilities,
    trajectory_embedding,
)
from grokinterp.geometry.ranks_of_matrices import participation_ratio
from grokinterp.geometry.symmetrised_grams import group_symmetry
from grokinterp.geometry.tangent_kernel import TangentKernel, centred_alignment, kernel
from grokinterp.geometry.transition_steps import Transition
from grokinterp.geometry.weight_path import Components, Drift, PowerLaw, drift

__all__ = [
    "Components", "Drift", "FisherDiagonal", "FisherMetric", "InformationPath", "Limit",
    "Persistence", "Plane", "PowerLaw", "Representations", "TangentKernel", "TrajectoryEmbedding",
    "Transition", "centred_alignment", "drift", "fisher_diagonal", "fisher_metric",
    "fisher_rao_distance", "geodesic_point", "group_symmetry", "information_path", "kernel",
    "pairwise_distances", "participation_ratio", "path_of", "persistence", "representations",
    "root_probabilities", "stages_of", "step_geometry", "trajectory_embedding",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
