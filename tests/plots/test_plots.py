"""The pictures by their structure: artists, data, colours, texts; that they can be drawn without a display."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyArrowPatch, Rectangle
from refusals import says
from test_grid import result

import xpnet
from xpnet import plots
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.plots.figures import new_figure
from xpnet.training.lr_finder import RateSearch
from xpnet.training.records import History

RATES = [
    (device, width, batch, 1000 * batch / width * (2 if device == "cuda" else 1))
    for batch in (8, 1024)
    for width in (64, 32, 128)
    for device in ("cpu", "cuda")
]
BOTH = result(*RATES, machine={"cpu": "AMD EPYC", "cores": 2, "blas": "openblas 1.2", "gpu": "Fake GPU"})
CPU = xpnet.select_backend("cpu")
# Okabe and Ito's (2008), which every kind of colour vision can tell, and neutral ones.
SAFE = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#ffffff", "#767676"}
BLUE, VERMILION, GREY = "#0072b2", "#d55e00", "#767676"
CPU_ONLY = result(*[rate for rate in RATES if rate[0] == "cpu"], machine={"cpu": "A laptop", "gpu": None})


def style(line):
    return line.get_color(), line.get_marker(), str(line._dash_pattern), line.get_markerfacecolor()


@pytest.mark.full
def test_a_line_for_each_device_and_batch_size():
    ax = plots.samples_per_second(BOTH)
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["cpu, batch 8", "cuda, batch 8", "cpu, batch 1,024", "cuda, batch 1,024"]
    for label, line in lines.items():
        factor = (8 if label.endswith("8") else 1024) * (2 if label.startswith("cuda") else 1)
        assert list(line.get_xdata()) == [32, 64, 128]
        assert list(line.get_ydata()) == [1000 * factor / width for width in (32, 64, 128)]
    assert len({style(line) for line in ax.lines}) == 4
    # A batch size is told by colour and marker, a device by the line: neither needs the eye to tell colours.
    assert len({line.get_marker() for line in ax.lines}) == 2
    assert len({str(line._dash_pattern) for line in ax.lines}) == 2


def test_scales_labels_and_title():
    ax = plots.samples_per_second(BOTH)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["32", "64", "128"]
    assert "samples per second" in ax.get_ylabel()
    assert "784-width-width-10" in ax.get_xlabel() and "float32" in ax.get_xlabel()
    assert ax.get_title(loc="left") == "AMD EPYC, 2 cores, openblas 1.2, Fake GPU"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [line.get_label() for line in ax.lines]
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    assert len(ticks) >= 3 and ax.yaxis.get_major_formatter()(20_000) == "20k"


def test_two_machines_in_one_picture():
    ax = plots.comparison(CPU_ONLY, BOTH)
    labels = [line.get_label() for line in ax.lines]
    assert labels[:2] == ["a: cpu, batch 8", "a: cpu, batch 1,024"]
    assert labels[2:] == [f"b: {device}, batch {batch}" for batch in ("8", "1,024") for device in ("cpu", "cuda")]
    assert len({style(line) for line in ax.lines}) == 6
    assert {line.get_markerfacecolor() for line in ax.lines[2:]} == {"white"}
    assert ax.get_title(loc="left") == "a: A laptop\nb: AMD EPYC, 2 cores, openblas 1.2, Fake GPU"
    with pytest.raises(ValueError, match="float64"):
        plots.comparison(CPU_ONLY, {**BOTH, "dtype": "float64"})


def test_many_batch_sizes_stay_apart():
    ax = plots.samples_per_second(result(*[("cpu", 32, 2**i, 1.0) for i in range(20)]))
    assert len({style(line) for line in ax.lines}) == 20


def test_axes_that_are_given_for_measurements_are_drawn_into_and_returned():
    ax = plots.new_axes()
    assert plots.samples_per_second(BOTH, ax) is ax and plots.comparison(CPU_ONLY, BOTH, ax=ax) is ax
    assert len(ax.lines) == 10


def test_a_search_for_a_rate_and_its_suggestion():
    lrs, losses = np.logspace(-4, 0, 6), np.array([2.0, 1.9, 1.0, 0.9, 1.0, 90.0])
    ax = plots.rate_search(RateSearch(lrs, losses, 1e-2))
    curve, mark = ax.lines
    assert list(curve.get_xdata()) == list(lrs) and list(curve.get_ydata()) == list(losses)
    assert list(mark.get_xdata()) == [1e-2, 1e-2] and "0.01" in mark.get_label()
    assert ax.get_xscale() == "log" and (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "loss")
    low, high = ax.get_ylim()
    assert low < 0.9 and 2.0 < high < 4.0  # the fall fills the picture, not the end
    given = plots.new_axes()
    for lost in (RateSearch(lrs[:1], losses[:1], None), RateSearch(lrs[:0], losses[:0], None)):
        assert plots.rate_search(lost, given) is given
    assert len(given.lines) == 2


# --- curves ----------------------------------------------------------------------------------------------------------


def records(*columns, names=("train_loss", "val_loss", "val_accuracy"), **last):
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    history = History(
        {"epoch": i, **row, "steps": 3, "seconds": 0.1, "bytes_uploaded": 0} for i, row in enumerate(rows)
    )
    history[-1].update(last)
    return history


HISTORY = records([2.0, 0.2, 0.01], [2.1, 0.4, 0.3], [0.1, 0.8, 0.9], stopped="why", chosen_epoch=1)


def labelled(ax):
    return {line.get_label(): line for line in ax.lines}


def test_losses_of_training_and_validation_in_one_axes():
    ax = plots.loss_curve(HISTORY)
    lines = labelled(ax)
    assert list(lines) == ["training loss", "validation loss", "weights of epoch 1 kept"]
    assert list(lines["training loss"].get_xdata()) == [0, 1, 2]
    assert list(lines["training loss"].get_ydata()) == [2.0, 0.2, 0.01]
    assert list(lines["validation loss"].get_ydata()) == [2.1, 0.4, 0.3]
    assert set(lines["weights of epoch 1 kept"].get_xdata()) == {1}
    assert ax.get_yscale() == "log" and (ax.get_xlabel(), ax.get_ylabel()) == ("epoch (0: untrained)", "loss")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(lines)
    for part in (lambda line: line.get_color(), lambda line: line.get_marker(), lambda line: str(line._dash_pattern)):
        assert len({part(line) for line in list(lines.values())[:2]}) == 2  # told by each of the three


@pytest.mark.parametrize(
    ("losses", "log", "scale"),
    [
        ([2.0, 1.9], True, "log"),
        ([1.05, 0.22], True, "log"),
        ([3.0, 0.2], True, "log"),
        ([2.0, 1e-9], True, "log"),
        ([2.0, 1.0], False, "linear"),
        ([2.0, 0.0], True, "linear"),
        ([1.0, -1.0], True, "linear"),
        ([2.0, None], True, "log"),
        ([float("nan"), None], True, "linear"),
    ],
)
def test_the_axis_of_losses_is_logarithmic_where_it_can_be(losses, log, scale):
    ax = plots.loss_curve(records(losses, names=["train_loss"]), log=log)
    assert ax.get_yscale() == scale
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), np.array(losses, float))
    ax.figure.draw_without_rendering()
    if scale == "log":
        low, high = ax.get_ylim()
        ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
        assert len(ticks) >= (3 if losses[1] else 2)
        assert ax.yaxis.get_major_formatter()(0.05) == "0.05"


def test_scores_of_a_run():
    names = ["train_loss", "val_loss", "val_accuracy", "val_mean_squared_error", "val_roc_auc"]
    history = records([2, 1], [2, 1], [0.1, 0.5], [4, 3], [0.6, 0.7], names=names)
    ax = plots.score_curve(history)
    assert list(labelled(ax)) == ["validation accuracy", "validation roc auc"]
    assert list(ax.lines[1].get_ydata()) == [0.6, 0.7]
    assert ax.get_yscale() == "linear" and ax.get_ylabel() == "score"
    chosen = plots.score_curve(history, names=["val_mean_squared_error"])
    assert [line.get_label() for line in chosen.lines] == ["validation mean squared error"]
    assert chosen.get_ylabel() == "mean squared error"


@pytest.mark.parametrize(
    ("draw", "parts"),
    [
        (lambda: plots.loss_curve(History()), ["no record", "train(...)", "read_history"]),
        (lambda: plots.loss_curve(records([1], names=["val_f1"])), ["val_f1", "train_loss", "train(...)"]),
        (lambda: plots.score_curve(records([1], names=["train_loss"])), ["train_loss", "val_accuracy", "validation="]),
        (lambda: plots.score_curve(HISTORY, names=["val_acuracy"]), ["'val_acuracy'", "did you mean 'val_accuracy'"]),
        (lambda: plots.activation("sigmoide"), ["'sigmoide'", "did you mean 'sigmoid'"]),
        (lambda: plots.activation("log_softmax"), ["log_softmax", "all outputs", "activation('sigmoid')"]),
        (
            lambda: plots.activation("relu", low=1, high=1),
            ["the range is from 1 to 1", "they must be finite, the lower first", "low=-6, high=6"],
        ),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(draw, parts):
    with pytest.raises(ValueError) as error:
        draw()
    says(error, *parts)


def test_a_text_in_place_of_names_is_refused():
    with pytest.raises(TypeError) as error:
        plots.score_curve(HISTORY, names="val_accuracy")
    says(error, "names is the text 'val_accuracy'", "it must be a list", "names=['val_accuracy']")


def softplus(Z):
    return np.log1p(np.exp(Z))


@pytest.mark.parametrize(
    ("name", "value", "slope", "kinks"),
    [
        ("sigmoid", lambda Z: 1 / (1 + np.exp(-Z)), lambda Z: np.exp(-Z) / (1 + np.exp(-Z)) ** 2, []),
        ("relu", lambda Z: np.where(Z > 0, Z, 0), lambda Z: np.where(Z > 0, 1.0, 0.0), [0.0]),
        ("softplus", softplus, lambda Z: 1 / (1 + np.exp(-Z)), []),
        ("hard_sigmoid", lambda Z: np.clip(Z / 6 + 0.5, 0, 1), lambda Z: np.where(abs(Z) < 3, 1 / 6, 0.0), [-3.0, 3.0]),
        ("identity", lambda Z: Z, np.ones_like, []),
    ],
)
def test_an_activation_and_its_derivative(name, value, slope, kinks):
    ax = plots.activation(name, low=-5, high=4)
    curve, derivative = labelled(ax)[name], labelled(ax)["its derivative"]
    Z = curve.get_xdata()
    assert (Z[0], Z[-1]) == (-5, 4) and len(Z) > 500
    np.testing.assert_allclose(curve.get_ydata(), value(Z), atol=1e-12)
    found = derivative.get_ydata()
    assert list(Z[np.isnan(found)]) == kinks  # a jump is not joined
    np.testing.assert_allclose(found[~np.isnan(found)], slope(Z[~np.isnan(found)]), atol=1e-12)
    assert curve.get_color() != derivative.get_color() and curve.get_linestyle() != derivative.get_linestyle()


def test_every_activation_and_ones_own():
    for name in set(ACTIVATIONS) - {"log_softmax"}:
        assert plots.activation(name).has_data()
    own = xpnet.CustomActivation(
        "twice", lambda xp, Z, out: xp.multiply(Z, 2.0, out=out), lambda xp, A, dA, out: xp.multiply(dA, 2.0, out=out)
    )
    lines = labelled(plots.activation(own))
    np.testing.assert_array_equal(lines["twice"].get_ydata(), 2 * lines["twice"].get_xdata())
    assert set(lines["its derivative"].get_ydata()) == {2.0}


# --- the plane of two features ---------------------------------------------------------------------------------------

PLANE_X = np.array([[-2, -1, 1, 2, -1.5, 1.5], [1, 2, 3, 4, 5, 6], [30, 20, 10, 0, -10, -20]], np.float32)
PLANE = xpnet.Dataset.from_labels(PLANE_X, [0, 0, 1, 1, 1, 0])  # the last two lie on the wrong side of feature 0


def halves():
    """A network that says class 1 where feature 0 is above 0."""
    network = xpnet.Network([3, 2], backend=CPU)
    network.parameters.weights[0] = [[-1, 0, 0], [1, 0, 0]]
    return network


def points(ax):
    """The points under each label of a picture."""
    return {collection.get_label(): collection for collection in ax.collections if collection.get_label()[0] != "_"}


def test_a_labelled_data_set_in_the_plane_of_two_features():
    ax = plots.scatter(PLANE, features=(2, 1), names=["ash", "beech"])
    classes = points(ax)
    assert list(classes) == ["ash (3)", "beech (3)"]
    np.testing.assert_array_equal(classes["ash (3)"].get_offsets(), PLANE_X[[2, 1]][:, [0, 1, 5]].T)
    np.testing.assert_array_equal(classes["beech (3)"].get_offsets(), PLANE_X[[2, 1]][:, [2, 3, 4]].T)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("feature 2", "feature 1")
    colours = {to_hex(collection.get_facecolor()[0]) for collection in classes.values()}
    shapes = {collection.get_paths()[0].vertices.shape for collection in classes.values()}
    assert len(colours) == 2 and colours <= SAFE and len(shapes) == 2


def test_bytes_are_scaled_and_one_output_has_two_classes():
    data = xpnet.Dataset(np.array([[0, 255, 51], [255, 0, 102]], np.uint8), np.array([0, 1, 1.0]))
    ax = plots.scatter(data)  # two features need no choice
    np.testing.assert_allclose(points(ax)["class 1 (2)"].get_offsets(), [[1, 0], [0.2, 0.4]], atol=1e-6)


def test_many_samples_are_thinned_evenly():
    data = xpnet.Dataset.from_labels(np.vstack([np.arange(1000.0), np.zeros(1000)]), np.arange(1000) % 2)
    drawn = np.vstack([part.get_offsets() for part in points(plots.scatter(data, n=11)).values()])
    assert len(drawn) == 11 and {0.0, 999.0} <= set(drawn[:, 0].tolist())
    assert abs(np.diff(np.sort(drawn[:, 0])) - 99.9).max() < 1


def test_regions_are_what_the_network_says_and_rings_are_its_mistakes():
    ax = plots.decision_regions(halves(), PLANE, features=(0, 1))
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    regions = image.get_array()
    x = np.linspace(left, right, regions.shape[1])
    np.testing.assert_array_equal(regions, np.broadcast_to(x > 0, regions.shape).astype(int))
    assert left < -2 and right > 2 and bottom < 1 and top > 6
    assert (ax.get_xlim(), ax.get_ylim()) == ((left, right), (bottom, top))
    rings = points(ax)["misclassified (2)"]
    np.testing.assert_array_equal(rings.get_offsets(), PLANE_X[:2, [4, 5]].T)
    assert len(rings.get_facecolor()) == 0 and to_hex(rings.get_edgecolor()[0]) == "#000000"
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["region of class 0", "region of class 1", "class 0 (3)", "class 1 (3)", "misclassified (2)"]
    pale = [np.array(image.cmap(label)[:3]) for label in (0, 1)]  # paler than the points on them, of one hue
    for colour, name in zip(pale, ("class 0 (3)", "class 1 (3)"), strict=True):
        point = points(ax)[name].get_facecolor()[0][:3]
        assert (colour >= point).all() and colour.min() > 0.5
    borders = [collection for collection in ax.collections if type(collection).__name__ == "QuadContourSet"]
    for border in borders:
        np.testing.assert_allclose(border.get_paths()[0].vertices[:, 0], 0.0, atol=0.02)
    assert len(borders) == 2


def test_regions_of_many_classes_stay_apart():
    n = 16
    network = xpnet.Network([2, n], backend=CPU)  # the class whose angle is nearest
    angles = 2 * np.pi * np.arange(n) / n
    directions = np.vstack([np.cos(angles), np.sin(angles)])
    network.parameters.weights[0] = directions.T
    ax = plots.decision_regions(network, xpnet.Dataset.from_labels(directions, np.arange(n)))
    patches = [handle for handle in ax.get_legend().legend_handles if isinstance(handle, Rectangle)]
    assert len({(to_hex(patch.get_facecolor()), patch.get_hatch()) for patch in patches}) == len(patches) == n
    hatches = [part.hatches[0] for part in ax.collections if any(getattr(part, "hatches", None) or [])]
    assert sorted(hatches) == sorted(patch.get_hatch() for patch in patches if patch.get_hatch())


def test_other_features_are_held_at_their_mean():
    network = xpnet.Network([3, 2], backend=CPU)
    network.parameters.weights[0] = [[0, 0, 0], [10, 0, 1]]  # class 1 where 10 x0 + x2 > 0; the mean of x2 is 5
    image = plots.decision_regions(network, PLANE, features=(0, 1)).images[0]
    x = np.linspace(*image.get_extent()[:2], image.get_array().shape[1])
    np.testing.assert_array_equal(image.get_array()[0], (x > -0.5).astype(int))


def test_right_and_wrong_differ_by_colour_and_by_shape():
    ax = plots.misclassified(halves(), PLANE, features=(0, 2))
    right, wrong = points(ax)["right (4, 66.7%)"], points(ax)["wrong (2, 33.3%)"]
    np.testing.assert_array_equal(right.get_offsets(), PLANE_X[[0, 2]][:, :4].T)
    np.testing.assert_array_equal(wrong.get_offsets(), PLANE_X[[0, 2]][:, 4:].T)
    assert (to_hex(right.get_facecolor()[0]), to_hex(wrong.get_edgecolor()[0])) == (BLUE, VERMILION)
    assert right.get_paths()[0].vertices.shape != wrong.get_paths()[0].vertices.shape
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("feature 0", "feature 2")


@pytest.mark.parametrize(
    ("draw", "parts"),
    [
        (lambda: plots.scatter(PLANE), ["the data set has 3 features", "a plane has 2", "features=(0, 1)"]),
        (
            lambda: plots.scatter(PLANE, features=(1, 1)),
            ["features is (1, 1)", "two different ones, from 0 to 2", "features=(0, 1)"],
        ),
        (lambda: plots.scatter(PLANE, features=(0, 3)), ["(0, 3)", "0 to 2"]),
        (
            lambda: plots.scatter(PLANE, features=(0, -1)),
            ["features is (0, -1)", "they must be two, from 0 to 2", "features=(0, 1)"],
        ),
        (lambda: plots.scatter(PLANE, features=(0, 1, 2)), ["(0, 1, 2)", "they must be two"]),
        (lambda: plots.scatter(PLANE, features=1), ["features is 1", "features=(0, 1)"]),
        (
            lambda: plots.scatter(PLANE, features=(0, 1), names=["one"]),
            ["names is ['one']", "the data set has 2 classes", "give a list of 2 names"],
        ),
        (lambda: plots.scatter(PLANE, features=(0, 1), n=0), ["n is 0", "at least 1"]),
        (
            lambda: plots.scatter(xpnet.Dataset(np.ones((1, 3)), [0.0, 1, 1])),
            ["the data set has 1 feature", "a plane needs 2", "np.vstack([X, x2])"],
        ),
        (lambda: plots.scatter(xpnet.Dataset(np.ones((2, 3)), [0.5, 1, 1])), ["no classes", "from_labels"]),
        (lambda: plots.decision_regions(xpnet.Network([2, 2], backend=CPU), PLANE), ["3 features", "expects 2"]),
        (lambda: plots.misclassified(xpnet.Network([3, 5], backend=CPU), PLANE), ["2 outputs", "expects 5"]),
        (lambda: plots.decision_regions(halves(), PLANE), ["3 features", "features=(0, 1)"]),
    ],
)
def test_planes_that_cannot_be_drawn_are_refused(draw, parts):
    with pytest.raises(ValueError) as error:
        draw()
    says(error, *parts)


# --- the network as a graph ------------------------------------------------------------------------------------------


def graph_parts(ax):
    """Weights as {(start, end): (colour, width)}, circles as {position: colour}, and the arrows."""
    weights = {}
    for collection in (part for part in ax.collections if type(part).__name__ == "LineCollection"):
        for ends, colour, width in zip(
            collection.get_segments(), collection.get_colors(), collection.get_linewidths(), strict=True
        ):
            weights[tuple(map(tuple, ends.tolist()))] = (to_hex(colour), round(float(width), 5))
    circles = {}
    for collection in (part for part in ax.collections if type(part).__name__ == "PathCollection"):
        is_unit = collection.get_sizes()[0] > 50
        for position in collection.get_offsets().tolist() if is_unit else []:
            circles[tuple(position)] = to_hex(collection.get_facecolor()[0])
    arrows = [text.arrow_patch for text in ax.texts if getattr(text, "arrow_patch", None)]
    return weights, circles, arrows


def test_a_network_as_a_graph():
    network = xpnet.Network([2, 3, 1], loss="sigmoid_cross_entropy", backend=CPU)
    network.parameters.weights[0] = [[1, -2], [0.5, 0], [4, -1]]
    network.parameters.weights[1] = [[1, 1, 1]]
    network.parameters.biases[0] = [[-3], [0], [2]]
    ax = plots.network_graph(network)
    weights, circles, arrows = graph_parts(ax)
    inputs, hidden, output = [(0, 0.5), (0, -0.5)], [(1, 1), (1, 0), (1, -1)], (2, 0)
    biases = [position for position, colour in circles.items() if colour == "#ffffff"]
    assert {position for position, colour in circles.items() if colour == "#000000"} == {*inputs, *hidden, output}
    assert [x for x, _ in biases] == [0, 1] and min(y for _, y in biases) > 1
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["1", "1"]  # on the bias nodes
    assert len(weights) == 3 * 3 + 1 * 4
    wanted = {
        (inputs[0], hidden[0]): 1,
        (inputs[1], hidden[0]): -2,
        (inputs[0], hidden[1]): 0.5,
        (inputs[1], hidden[1]): 0,
        (inputs[0], hidden[2]): 4,
        (biases[0], hidden[0]): -3,
        (biases[0], hidden[2]): 2,
        (biases[1], output): 0,
        (hidden[1], output): 1,
    }
    narrow, wide = weights[inputs[1], hidden[1]][1], weights[inputs[0], hidden[2]][1]
    for ends, value in wanted.items():
        colour, width = weights[ends]
        assert colour == (BLUE if value > 0 else VERMILION if value < 0 else GREY)
        assert width == pytest.approx(narrow + (wide - narrow) * abs(value) / 4)
    assert wide > 5 * narrow > 0
    assert len(arrows) == 3 and all(isinstance(arrow, FancyArrowPatch) for arrow in arrows)
    ends = sorted(tuple(text.xy) for text in ax.texts if getattr(text, "arrow_patch", None))
    assert [round(x) for x, _ in ends] == [0, 0, 2] and [y for _, y in ends] == [-0.5, 0.5, 0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2 inputs", "dense 3\nrelu", "dense 1"]
    texts = " ".join(text.get_text() for text in ax.get_legend().get_texts())
    for part in ("above 0", "below 0", "size 4,", "size 2", "bias"):
        assert part in texts


def test_wide_layers_are_elided_and_say_so():
    network = xpnet.Network([784, 100, 5], normalization="batch", dropout=0.1, backend=CPU)
    ax = plots.network_graph(network, most=7)
    weights, circles, arrows = graph_parts(ax)
    columns = [
        [position for position in circles if position[0] == x and circles[position] == "#000000"] for x in range(3)
    ]
    assert [len(column) for column in columns] == [6, 6, 5] and len(arrows) == 6 + 5
    assert len(weights) == 6 * 6 + 5 * (6 + 1)  # no bias before a batch norm
    gaps = [part for part in ax.collections if type(part).__name__ == "PathCollection" and part.get_sizes()[0] < 50]
    assert [len(gap.get_offsets()) for gap in gaps] == [3, 3]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["784 inputs\n(6 drawn)", "dense 100\nbatch norm\nrelu\ndropout\n(6 drawn)", "dense 5"]
    W = network.parameters.weights[0]  # the last unit drawn is the layer's last, the first its first
    ordered = [sorted(column, key=lambda position: -position[1]) for column in columns]
    largest = max(
        abs(network.parameters.weights[1][:, [0, 1, 2, 97, 98, 99]]).max(),
        abs(W[np.ix_([0, 1, 2, 97, 98, 99], [0, 1, 2, 781, 782, 783])]).max(),
    )
    for end, unit in ((0, 0), (-1, -1)):
        colour, width = weights[ordered[0][end], ordered[1][end]]
        assert colour == (BLUE if W[unit, unit] > 0 else VERMILION)
        assert width == pytest.approx(0.3 + 4.7 * abs(W[unit, unit]) / largest, abs=1e-5)  # rounded above
    with pytest.raises(ValueError) as error:
        plots.network_graph(network, most=2)
    says(error, "most is 2", "at least 3")


# --- classifiers of images -------------------------------------------------------------------------------------------

SAMPLES = xpnet.Dataset.from_labels(
    np.array([[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 200, 100], [90, 100, 0, 0]], np.uint8).T,
    [0, 1, 2, 3, 0],
)


def largest_pixel():
    """A network that says the class of the largest of 4 pixels: wrong on the last two samples."""
    network = xpnet.Network([4, 4], backend=CPU)
    network.parameters.weights[0] = 10 * np.eye(4)
    return network


def test_a_confusion_matrix():
    ax = plots.confusion_matrix(largest_pixel(), SAMPLES, names=["a", "b", "c", "d"])
    counts = np.zeros((4, 4))
    for true, said in ((0, 0), (1, 1), (2, 2), (3, 2), (0, 1)):
        counts[true, said] += 1
    np.testing.assert_array_equal(ax.images[0].get_array(), counts / counts.sum(axis=1, keepdims=True))
    texts = {text.get_position()[::-1]: text for text in ax.texts}
    for cell, count in np.ndenumerate(counts):
        assert texts[cell].get_text() == (f"{count:.0f}" if count else "·")
        is_dark = ax.images[0].get_array()[cell] > 0.5
        assert texts[cell].get_color() == ("white" if is_dark else "black")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c", "d"]
    assert ax.get_title() == "accuracy 0.6000 on 5 samples"


def test_a_confusion_matrix_of_one_output_with_weights_and_one_of_many_classes():
    network = xpnet.Network([1, 1], loss="sigmoid_cross_entropy", backend=CPU)
    network.parameters.weights[0] = [[1.0]]
    data = xpnet.Dataset(np.array([[-1.0, 1.0, 2.0]]), [0.0, 0.0, 1.0], weights=[1.0, 2.5, 4.0])
    ax = plots.confusion_matrix(network, data)
    assert [text.get_text() for text in ax.texts] == ["1", "2.5", "·", "4"]
    many = xpnet.Dataset.from_labels(np.eye(30), np.arange(30))
    assert not plots.confusion_matrix(xpnet.Network([30, 30], backend=CPU), many).texts


def cells(ax):
    """The text over each image of a mosaic, and whether there is a frame round it."""
    frames = [patch.get_xy() for patch in ax.patches if isinstance(patch, Rectangle)]
    assert all(to_hex(patch.get_edgecolor()) == VERMILION for patch in ax.patches)
    found = {}
    for text in ax.texts:
        x, y = text.get_position()
        found[text.get_text()] = any(abs(x - left) <= 1.5 and 0 <= top - y <= 2 for left, top in frames)
    return found


def test_digits_with_predictions():
    ax = plots.digits(largest_pixel(), SAMPLES, n=10)
    assert cells(ax) == {"0": False, "1": False, "2": False, "3 → 2": True, "0 → 1": True}
    mosaic = ax.images[0].get_array().filled(-1) if hasattr(ax.images[0].get_array(), "filled") else None
    top = next(row for row in range(len(mosaic)) if (mosaic[row] >= 0).any())
    images = [mosaic[top : top + 2, left : left + 2] for left in range(0, mosaic.shape[1], 3)]
    np.testing.assert_array_equal(images, SAMPLES.samples.reshape(-1, 2, 2))
    assert list(cells(plots.digits(largest_pixel(), SAMPLES, n=2))) == ["0", "0 → 1"]  # evenly spaced
    tall = plots.digits(largest_pixel(), SAMPLES, n=1, shape=(4, 1)).images[0].get_array()
    np.testing.assert_array_equal(tall.compressed(), [255, 0, 0, 0])


def test_images_in_colours_by_the_names_of_their_classes():
    rng = np.random.default_rng(0)
    colours = rng.integers(256, size=(3, 2, 1, 3), dtype=np.uint8)
    dataset = xpnet.Dataset.from_labels(colours.reshape(3, 6).T, [0, 1, 1])
    network = xpnet.Network([6, 2], backend=CPU)
    network.parameters.weights[0][...], network.parameters.biases[0][...] = 0.0, [[1.0], [0.0]]
    ax = plots.digits(network, dataset, shape=(2, 1, 3), names=["ant", "bee"], n=2)
    assert [text.get_text() for text in ax.texts] == ["ant", "bee → ant"] and len(ax.patches) == 1
    mosaic = ax.images[0].get_array()
    top = next(row for row in range(len(mosaic)) if (mosaic[row] < 1).any())
    np.testing.assert_allclose(mosaic[top : top + 2, 0], colours[0, :, 0] / 255)
    assert (mosaic[:top] == 1).all()
    mistakes = plots.worst_mistakes(network, dataset, shape=(2, 1, 3), names=["ant", "bee"])
    assert [text.get_text()[:9] for text in mistakes.texts] == ["bee → ant"] * 2
    grey = plots.digits(largest_pixel(), SAMPLES, cmap="gray")
    assert grey.images[0].get_cmap().name == "gray"


def test_the_worst_mistakes_come_first():
    ax = plots.worst_mistakes(largest_pixel(), SAMPLES)
    # Softmax of 10 * pixel / 255: the margins of the two wrong samples.
    margins = []
    for sample, true, said in ((3, 3, 2), (4, 0, 1)):
        E = np.exp(10.0 * SAMPLES.samples[sample].astype(float) / 255)
        margins.append((E[said] - E[true]) / E.sum())
    assert margins[0] > margins[1] > 0
    assert list(cells(ax).items()) == [(f"3 → 2  {margins[0]:.2f}", True), (f"0 → 1  {margins[1]:.2f}", True)]
    assert ax.get_title().startswith("2 of 5 samples are misclassified\nthe 2 surest")
    assert len(plots.worst_mistakes(largest_pixel(), SAMPLES, n=1).texts) == 1
    right = plots.worst_mistakes(largest_pixel(), SAMPLES.subset([0, 1]))
    assert right.get_title() == "0 of 2 samples are misclassified" and not right.texts and not right.images


def test_first_layer_weights_as_images():
    network = xpnet.Network([6, 15, 2], backend=CPU)
    ax = plots.first_layer_weights(network, shape=(2, 3))
    (image,) = ax.images
    W = network.parameters.weights[0]
    assert sorted(image.get_array().compressed().tolist()) == sorted(W.ravel().tolist())
    low, high = image.get_clim()
    assert low == -high and high == pytest.approx(np.quantile(abs(W), 0.995))
    for value, colour in ((low, VERMILION), (0.0, "#ffffff"), (high, BLUE)):
        np.testing.assert_allclose(image.cmap(image.norm(value))[:3], to_rgb(colour), atol=0.01)
    assert [text.get_text() for text in ax.texts] == [str(i) for i in range(15)]
    assert "15 of 15 units" in ax.get_title()


@pytest.mark.parametrize(
    ("draw", "parts"),
    [
        (lambda: plots.digits(halves(), PLANE), ["3 features", "no square", "shape=(28, 28)"]),
        (lambda: plots.worst_mistakes(halves(), PLANE, shape=(2, 2)), ["(2, 2)", "3 features", "(1, 3)"]),
        (lambda: plots.first_layer_weights(halves()), ["3 features", "shape="]),
        (lambda: plots.digits(largest_pixel(), PLANE), ["3 features", "expects 4"]),
        (lambda: plots.confusion_matrix(largest_pixel(), PLANE), ["3 features", "expects 4"]),
    ],
)
def test_images_that_cannot_be_drawn_are_refused(draw, parts):
    with pytest.raises(ValueError) as error:
        draw()
    says(error, *parts)


def test_targets_that_are_no_classes_are_refused():
    network = xpnet.Network([4, 1], loss="squared_error", backend=CPU)
    numbers = xpnet.Dataset(np.ones((4, 3)), [0.5, 1.5, 2.5])
    for draw in (plots.confusion_matrix, plots.digits, plots.worst_mistakes):
        with pytest.raises(ValueError) as error:
            draw(network, numbers)
        says(error, "no classes", "from_labels")


OF_A_NETWORK = {  # what is drawn of a network, and what of the picture is compared
    "confusion_matrix": (lambda net: plots.confusion_matrix(net, SAMPLES), lambda ax: texts_of(ax)),
    "digits": (lambda net: plots.digits(net, SAMPLES), lambda ax: texts_of(ax)),
    "worst_mistakes": (lambda net: plots.worst_mistakes(net, SAMPLES), lambda ax: texts_of(ax)),
    "decision_regions": (
        lambda net: plots.decision_regions(net, SAMPLES, features=(2, 3)),
        lambda ax: list(points(ax)),
    ),
    "misclassified": (lambda net: plots.misclassified(net, SAMPLES, features=(2, 3)), lambda ax: list(points(ax))),
    "network_graph": (plots.network_graph, lambda ax: graph_parts(ax)[0]),
    "first_layer_weights": (plots.first_layer_weights, lambda ax: ax.images[0].get_array().tolist()),
}


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


@pytest.mark.full
@pytest.mark.in_turn(name=list(OF_A_NETWORK))
def test_pictures_of_a_network_on_any_device(backend, name):
    network = xpnet.Network([4, 4], backend=backend)
    network.parameters.weights[0] = backend.to_device(10 * np.eye(4))
    draw, compared = OF_A_NETWORK[name]
    assert compared(draw(network)) == compared(draw(largest_pixel()))


# --- every picture ---------------------------------------------------------------------------------------------------

SAMPLE = xpnet.Dataset.from_labels(np.random.default_rng(0).integers(0, 256, (784, 50), np.uint8), np.arange(50) % 10)
HUNDRED = xpnet.Dataset.from_labels(SAMPLE.samples.T[:64], 50 + np.arange(50), n_classes=100)
MANY = xpnet.Dataset.from_labels(np.random.default_rng(0).normal(size=(2, 100)).astype("float32"), np.arange(100))
EVERY = {
    "loss": lambda ax=None: plots.loss_curve(HISTORY, ax),
    "scores": lambda ax=None: plots.score_curve(HISTORY, ax),
    "rates": lambda ax=None: plots.rate_search(RateSearch(np.logspace(-4, 0, 6), np.linspace(2, 1, 6), 1e-2), ax),
    "activation": lambda ax=None: plots.activation("elu", ax),
    "scatter": lambda ax=None: plots.scatter(PLANE, ax, features=(0, 1)),
    "many classes": lambda ax=None: plots.scatter(MANY, ax),
    "regions": lambda ax=None: plots.decision_regions(halves(), PLANE, ax, features=(0, 1)),
    "misclassified": lambda ax=None: plots.misclassified(halves(), PLANE, ax, features=(0, 1)),
    "graph": lambda ax=None: plots.network_graph(xpnet.Network([784, 100, 200, 10], dropout=0.1, backend=CPU), ax),
    "small graph": lambda ax=None: plots.network_graph(xpnet.Network([2, 9, 6, 2], backend=CPU), ax),
    "confusion": lambda ax=None: plots.confusion_matrix(xpnet.Network([784, 10], backend=CPU), SAMPLE, ax),
    "digits": lambda ax=None: plots.digits(xpnet.Network([784, 10], backend=CPU), SAMPLE, ax),
    "mistakes": lambda ax=None: plots.worst_mistakes(xpnet.Network([784, 10], backend=CPU), SAMPLE, ax),
    "weights": lambda ax=None: plots.first_layer_weights(xpnet.Network([784, 60, 10], backend=CPU), ax),
    "samples/s": lambda ax=None: plots.samples_per_second(BOTH, ax),
}


@pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)
def test_axes_that_are_given_are_drawn_into_in_safe_colours_and_returned(draw):
    ax = plots.new_axes()
    assert draw(ax) is ax and ax.has_data()
    assert {to_hex(line.get_color()) for line in ax.lines} <= SAFE  # that every kind of vision tells


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.full] * (name not in ("loss", "regions", "graph"))) for name in EVERY],
)
def test_nothing_of_a_picture_is_clipped(name):
    figure = EVERY[name]().figure
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 >= 0 and drawn.x1 <= width and drawn.y0 >= 0 and drawn.y1 <= height


@pytest.mark.full
def test_a_legend_of_many_classes_lists_the_first_and_the_last():
    texts = [text.get_text() for text in plots.scatter(MANY).get_legend().get_texts()]
    assert texts == [*(f"class {label} (1)" for label in range(24)), "(75 more)", "class 99 (1)"]


@pytest.mark.parametrize(
    ("draw", "texts_of"),
    [
        (
            lambda: plots.network_graph(xpnet.Network([20, *[30] * 7, 3], normalization="batch", backend=CPU)),
            lambda ax: ax.get_xticklabels(),
        ),
        pytest.param(
            lambda: plots.digits(xpnet.Network([784, 10], backend=CPU), SAMPLE, shape=(7, 112)),
            lambda ax: ax.texts,
            marks=pytest.mark.full,
        ),
        (lambda: plots.worst_mistakes(xpnet.Network([64, 100], backend=CPU), HUNDRED), lambda ax: ax.texts),
    ],
    ids=["deep network", "wide images", "a hundred classes"],
)
def test_texts_do_not_overlap(draw, texts_of):
    ax = draw()
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent().padded(1.5) for text in texts_of(ax)]  # with room to tell them apart
    assert len(boxes) > 8
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_a_history_of_one_record_has_one_tick():
    ax = plots.loss_curve(History([{"epoch": 3, "train_loss": 2.0}]))
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [3]


def test_large_counts_are_whole_numbers():
    labels = np.repeat([0, 1], 12_345)
    dataset = xpnet.Dataset.from_labels(np.stack([labels == 0, labels == 1]).astype("float32"), labels)
    network = xpnet.Network([2, 2], backend=CPU)
    network.parameters.weights[0] = np.eye(2)
    assert [text.get_text() for text in plots.confusion_matrix(network, dataset).texts] == ["12345", "·", "·", "12345"]


# --- a curve that grows ----------------------------------------------------------------------------------------------


class Notebook:
    """In the place of IPython in a notebook: what is displayed, and what then stands in its place."""

    def __init__(self):
        self.shown = []

    def get_ipython(self):
        return SimpleNamespace(kernel=self)

    def display(self, picture, display_id):
        assert display_id is True
        self.shown.append([picture])
        return SimpleNamespace(update=self.shown[-1].append)


@pytest.mark.full
def test_in_a_notebook_one_picture_grows(monkeypatch):
    """Of the untrained network, then of every second epoch, and of the last. test_notebook.py runs a real one."""
    notebook = Notebook()
    display = SimpleNamespace(display=notebook.display, Image=lambda data, format: (format, data))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=notebook.get_ipython, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    curve = plots.LiveCurve(every=2)
    xpnet.train(halves(), PLANE, xpnet.SGD(0.1), epochs=3, validation=PLANE, callbacks=[curve], keep_best=False)
    (pictures,) = notebook.shown  # in one place
    assert len(set(pictures)) == len(pictures) == 3
    assert all(format == "png" and data.startswith(b"\x89PNG") for format, data in pictures)


def test_outside_a_notebook_a_live_curve_is_refused_before_the_first_step():
    network = halves()
    before = network.parameters.flat.copy()
    with pytest.raises(RuntimeError) as error:
        xpnet.train(network, PLANE, xpnet.SGD(lr=0.1), epochs=1, callbacks=[plots.LiveCurve()])
    says(error, "LiveCurve", "notebook", "loss_curve(history)")
    np.testing.assert_array_equal(network.parameters.flat, before)
    with pytest.raises(ValueError) as error:
        plots.LiveCurve(every=0)
    says(error, "every is 0", "at least 1")


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "start"), [("x.png", b"\x89PNG\r\n"), ("x.SVG", b"<?xml")])
def test_save_writes_what_the_name_says_and_nothing_else(tmp_path, name, start):
    plots.save(plots.samples_per_second(BOTH), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x.jpg", "x", ".png"])
def test_save_refuses_other_names(tmp_path, name):
    with pytest.raises(ValueError) as error:
        plots.save(plots.samples_per_second(BOTH), tmp_path / name)
    says(error, name, ".png", ".svg")
    assert not list(tmp_path.iterdir())


def test_nothing_is_outside_the_picture():
    """Also with long names, and the legend beside the axes."""
    long = {**BOTH["machine"], "cpu": "AMD EPYC 9B14 96-Core Processor", "gpu": "NVIDIA GeForce RTX of a long name" * 3}
    ax = plots.comparison({**BOTH, "machine": long}, {**BOTH, "machine": long})
    ax.figure.draw_without_rendering()
    inside = ax.figure.bbox
    texts = [ax.xaxis.label, ax.yaxis.label, ax._left_title, *ax.get_xticklabels(), *ax.get_legend().get_texts()]
    for text in texts:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1, text
    assert ax.get_window_extent().width > inside.width / 2


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    for draw in EVERY.values():
        with pytest.raises(ImportError) as error:
            draw()
        says(error, "pictures need matplotlib", "not installed", "pip install 'xpnet[plot]'")


@pytest.mark.full
def test_pyplot_is_left_alone(tmp_path):
    code = (
        "from test_plots import EVERY, plots; "
        "[draw().figure.draw_without_rendering() for draw in EVERY.values()]; "
        "plots.save(EVERY['loss'](), 'x.png'); print('matplotlib.pyplot' in sys.modules)"
    )
    path = f"import sys; sys.path[:0] = {[*sys.path]!r}; "
    done = subprocess.run(
        [sys.executable, "-c", path + code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_notebook_shows_the_axes_that_end_a_cell():
    """Without a magic command, and without asking for the figure; axes of the user's own are left alone."""
    formatters = pytest.importorskip("IPython.core.formatters", reason="the extra test-company brings it")
    display = formatters.DisplayFormatter()
    ax = plots.activation("relu")
    data, _ = display.format(ax)
    assert data["image/png"].startswith((b"\x89PNG", "iVBORw0KGgo"))
    mine = new_figure().add_subplot()
    assert "image/png" not in display.format(plots.activation("tanh", mine))[0]
