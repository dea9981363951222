"""Pictures of networks, runs and data, by matplotlib (extra: xpnet[plot]).

Every function draws into the axes it is given as `ax`, or into new ones, and returns them. Nothing is shown and no
state of pyplot is used, so a machine without a display will do; `save(ax, "name.png")` writes a file. Only the
sign of a weight is shown by colour alone.
"""

from __future__ import annotations

from xpnet.plots.curves import activation, loss_curve, measure_of_runs, rate_search, score_curve, score_names
from xpnet.plots.diagram import network_graph
from xpnet.plots.figures import SUFFIXES, check_suffix, new_axes, save
from xpnet.plots.images import confusion_matrix, digits, first_layer_weights, worst_mistakes
from xpnet.plots.live import LiveCurve
from xpnet.plots.planes import decision_regions, misclassified, scatter
from xpnet.plots.predictions import (
    calibration_curve,
    precision_recall_curve,
    predicted_against_true,
    residuals,
    roc_curve,
)
from xpnet.plots.search import trial_values
from xpnet.plots.speed import comparison, samples_per_second

__all__ = [
    "SUFFIXES",
    "LiveCurve",
    "activation",
    "calibration_curve",
    "check_suffix",
    "comparison",
    "confusion_matrix",
    "decision_regions",
    "digits",
    "first_layer_weights",
    "loss_curve",
    "measure_of_runs",
    "misclassified",
    "network_graph",
    "new_axes",
    "precision_recall_curve",
    "predicted_against_true",
    "rate_search",
    "residuals",
    "roc_curve",
    "samples_per_second",
    "save",
    "scatter",
    "score_curve",
    "score_names",
    "trial_values",
    "worst_mistakes",
]
