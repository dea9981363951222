"""Pictures of predictions beside the truth, against scikit-learn's curves."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refusal
from sklearn import metrics

import xpnet
from xpnet import plots

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 200)
Y = np.eye(3)[LABELS].T
P = RNG.dirichlet(np.ones(3), 200).T.round(2) * 0.5 + 0.5 * Y * RNG.random(200)
P /= P.sum(axis=0)
WEIGHTS = RNG.random(200) + 0.1


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_curves_of_classes_are_those_of_scikit_learn(weights):
    lines = plots.roc_curve(P, Y, names=["a", "b", "c"], weights=weights).lines
    areas, precise = [], plots.precision_recall_curve(P, Y, weights=weights).lines
    for i, line in enumerate(lines[:3]):
        taken, found, _ = metrics.roc_curve(Y[i], P[i], sample_weight=weights, drop_intermediate=False)
        np.testing.assert_allclose(line.get_xydata(), np.stack([taken, found], axis=1), rtol=1e-9, atol=1e-12)
        areas.append(metrics.roc_auc_score(Y[i], P[i], sample_weight=weights))
        assert line.get_label() == f"{'abc'[i]}: area {areas[-1]:.3f}"
        average = metrics.average_precision_score(Y[i], P[i], sample_weight=weights)
        assert precise[i].get_label() == f"class {i}: average precision {average:.3f}"


def test_curves_of_one_output_are_those_of_class_1():
    ax = plots.roc_curve(P[1], Y[1], names=["no", "yes"])
    assert ax.lines[0].get_label().startswith("yes: area ")


def test_calibration_is_the_mean_of_each_tenth():
    lines = plots.calibration_curve(P[:1], Y[:1], names=["no", "yes"]).lines
    places = np.minimum((P[0] * 10).astype(int), 9)
    expected = [[P[0][places == i].mean(), Y[0][places == i].mean()] for i in sorted(set(places))]
    np.testing.assert_allclose(lines[0].get_xydata(), expected)


def test_predictions_and_residuals_of_numbers():
    true, predicted = RNG.normal(size=50), RNG.normal(size=50)
    ax = plots.predicted_against_true(predicted, true, name="price in EUR")
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), np.stack([true, predicted], axis=1))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true price in EUR", "predicted price in EUR")
    assert ax.get_title() == f"R2 {metrics.r2_score(true, predicted):.4f}"
    ax = plots.residuals(predicted, true)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), np.stack([predicted, true - predicted], axis=1))


def test_of_one_class_there_is_no_curve():
    with refusal(ValueError, "Y has samples of one class only", "a curve needs two", "give samples of several classes"):
        plots.roc_curve(P[:1], np.ones((1, 200)))


def test_inputs_and_outputs_of_a_graph_have_names():
    network = xpnet.Network([14, 3, 2], device="cpu")
    texts = [
        text.get_text().strip()
        for text in plots.network_graph(network, most=5, inputs=list("abcdefghijklmn"), outputs=["no", "yes"]).texts
    ]
    assert [text for text in texts if text not in ("", "1")] == ["a", "b", "m", "n", "no", "yes"]
