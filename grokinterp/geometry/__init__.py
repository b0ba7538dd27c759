"""Shapes: of representations, of the path of training, and of models in the Fisher metric.

Every measure takes `x` first (a run or its path, a snapshot, or a model with `task`; what goes
along training takes a run), the rest by name, and returns a table, or a result with a `.table()`.
What cannot be measured is an InputError of one line.
"""

from grokinterp.base.names import room_names
from grokinterp.geometry._representations import Plane, Representations, representations
from grokinterp.geometry.density_of_eigenvalues import SpectralDensity, spectral_density
from grokinterp.geometry.fisher import FisherDiagonal, fisher_diagonal
from grokinterp.geometry.known_but_not_used import Routing, routing
from grokinterp.geometry.langevin import LangevinChain, langevin_chain
from grokinterp.geometry.learning_coefficient import (
    LearningCoefficient,
    local_learning_coefficient,
)
from grokinterp.geometry.line_between import ModeConnectivity, mode_connectivity
from grokinterp.geometry.loss_curvature import Curvature, CurvatureAt, Spectrum, curvature
from grokinterp.geometry.metric import FisherMetric, fisher_metric, step_geometry
from grokinterp.geometry.noise_in_weights import NoiseRadius, noise_radius
from grokinterp.geometry.paths import InformationPath, Limit, information_path, path_of, stages_of
from grokinterp.geometry.persistent_loops import Persistence, persistence
from grokinterp.geometry.plane_of_paths import WeightPlane, weight_plane
from grokinterp.geometry.predictions import (
    TrajectoryEmbedding,
    fisher_rao_distance,
    geodesic_point,
    pairwise_distances,
    root_probabilities,
    trajectory_embedding,
)
from grokinterp.geometry.ranks_of_matrices import participation_ratio
from grokinterp.geometry.sampled_basin import SampledBasin
from grokinterp.geometry.slices_of_loss import LossSlice, loss_slice
from grokinterp.geometry.symmetrised_grams import group_symmetry
from grokinterp.geometry.tangent_kernel import TangentKernel, centred_alignment, kernel
from grokinterp.geometry.transition_steps import Transition
from grokinterp.geometry.weight_path import Components, Drift, PowerLaw, drift

__all__ = [
    "Components", "Curvature", "CurvatureAt", "Drift", "FisherDiagonal", "FisherMetric",
    "InformationPath", "LangevinChain", "LearningCoefficient", "Limit", "LossSlice",
    "ModeConnectivity", "NoiseRadius", "Persistence", "Plane", "PowerLaw", "Representations",
    "Routing", "SampledBasin", "SpectralDensity", "Spectrum", "TangentKernel",
    "TrajectoryEmbedding", "Transition", "WeightPlane", "centred_alignment", "curvature",
    "drift", "fisher_diagonal", "fisher_metric", "fisher_rao_distance", "geodesic_point",
    "group_symmetry", "information_path", "kernel", "langevin_chain",
    "local_learning_coefficient", "loss_slice", "mode_connectivity", "noise_radius",
    "pairwise_distances", "participation_ratio", "path_of", "persistence", "representations",
    "root_probabilities", "routing", "spectral_density", "stages_of", "step_geometry",
    "trajectory_embedding", "weight_plane",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
