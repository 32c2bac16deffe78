"""Solvers: what weights cost and what they become, from the second moments of what their layers read.

They run a model over data and give plain arrays, which passes then put into the graph.
"""

from onnxcompress.solvers.moments import MomentObserver, Moments
from onnxcompress.solvers.pruning import PruneLayers, Solver
from onnxcompress.solvers.saliency import input_power, magnitude_saliency, obs_saliency, wanda_saliency
from onnxcompress.solvers.sequential import SAMPLES, observe_moments, solvable, solve_layers

__all__ = [
    "SAMPLES",
    "MomentObserver",
    "Moments",
    "PruneLayers",
    "Solver",
    "input_power",
    "magnitude_saliency",
    "obs_saliency",
    "observe_moments",
    "solvable",
    "solve_layers",
    "wanda_saliency",
]
