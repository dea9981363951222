"""Functions of one's own: used, saved and given back; refused with the error measured, or the word that is unknown."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest
from refusals import says

import xpnet
from xpnet import (
    SGD,
    Activation,
    CustomActivation,
    CustomLoss,
    Dataset,
    Dense,
    Network,
    check_gradients,
    select_backend,
)
from xpnet.kernels.activations import ACTIVATIONS, relu_backward, sigmoid, tanh_backward
from xpnet.kernels.losses import squared_error
from xpnet.network.losses import LOSSES

CPU = select_backend("cpu", "float64")


def swish2(xp, Z, out, work):
    """A = Z sigmoid(2 Z)."""
    xp.multiply(Z, 2.0, out=work)
    sigmoid(xp, work, work)
    xp.multiply(Z, work, out=out)


def swish2_backward(xp, Z, dA, out, work):
    """dZ = dA S (1 + 2 Z (1 - S)) with S = sigmoid(2 Z)."""
    xp.multiply(Z, 2.0, out=work)
    sigmoid(xp, work, out)
    xp.subtract(1.0, out, out=work)
    xp.multiply(work, Z, out=work)
    xp.multiply(work, 2.0, out=work)
    xp.add(work, 1.0, out=work)
    xp.multiply(out, work, out=out)
    xp.multiply(out, dA, out=out)


def log_cosh(xp, A, Y, L, dA, work):
    """L = sum of log cosh(A - Y) as R + log(1 + exp(-2 R)) - log 2 with R = |A - Y|, dA = tanh(A - Y)."""
    xp.subtract(A, Y, out=dA)
    xp.abs(dA, out=dA)
    xp.multiply(dA, -2.0, out=work)
    xp.exp(work, out=work)
    xp.log1p(work, out=work)
    xp.add(work, dA, out=work)
    xp.subtract(work, 0.6931471805599453, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.subtract(A, Y, out=dA)
    xp.tanh(dA, out=dA)


def square(xp, Z, out):
    xp.multiply(Z, Z, out=out)


def square_backward(xp, Z, dA, out):
    xp.multiply(Z, 2.0, out=out)
    xp.multiply(out, dA, out=out)


SWISH2 = CustomActivation("swish2", swish2, swish2_backward, from_input=True, scratch=("matrix",), init="he")
LOG_COSH = CustomLoss("log_cosh", log_cosh)
FUNCTIONS = {"swish2": SWISH2, "log_cosh": LOG_COSH}


def make(backend, **options):
    return Network([4, 6, 3], **{"activation": SWISH2, "loss": LOG_COSH, "backend": backend, **options})


def test_a_network_of_ones_own_functions_computes_them(backend):
    network = make(backend)
    assert network.architecture.dense[0][1].init == "he"
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((4, 9)), rng.standard_normal((3, 9))
    (W1, W2), to_device = [backend.to_host(W).astype(float) for W in network.parameters.weights], backend.to_device
    Z = W1 @ X
    A = W2 @ (Z / (1 + np.exp(-2 * Z)))
    np.testing.assert_allclose(backend.to_host(network.predict(to_device(X))), A, rtol=0, atol=1e-5)
    expected = np.log(np.cosh(A - Y)).sum(axis=0).mean()
    assert network.evaluate_loss(to_device(X), to_device(Y)) == pytest.approx(expected, rel=1e-5)
    history = xpnet.train(network, Dataset(X, Y), SGD(lr=0.1), epochs=3, batch_size=4)
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_their_networks_have_right_gradients():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((4, 9)), rng.random((3, 9))
    for network in (make(CPU), make(CPU, loss="squared_error", output=SWISH2), make(CPU, activation="tanh")):
        assert check_gradients(network, X, Y, rng.random(9)) <= 1e-7


@pytest.mark.parametrize("name", [name for name, function in ACTIVATIONS.items() if function])
def test_xpnets_own_activations_pass(name):
    f = ACTIVATIONS[name]
    scratch = {"scratch": f.scratch, "backward_scratch": f.backward_scratch}
    CustomActivation("mine", f.forward, f.backward, from_input=f.from_input, kinks=f.kinks, **scratch)


@pytest.mark.parametrize("name", LOSSES)
def test_xpnets_own_losses_pass(name):
    loss = LOSSES[name]()
    CustomLoss("mine", loss.losses_into, link=loss.link, threshold=loss.threshold, link_scratch=loss.link_scratch)


def test_scratch_goes_to_both_unless_it_is_named_apart(backend):
    """square takes none forward; a backward of its own takes a row, and a link of its own none."""

    def backward_by_a_row(xp, Z, dA, out, row):
        xp.sum(Z, axis=0, keepdims=True, out=row)
        xp.add(row, 1.0, out=row)
        square_backward(xp, Z, dA, out)

    apart = CustomActivation("apart", square, backward_by_a_row, from_input=True, backward_scratch=("row",))
    assert (apart.scratch, apart.backward_scratch) == ((), ("row",))
    assert SWISH2.backward_scratch == SWISH2.scratch == ("matrix",)
    loss = CustomLoss("own", log_cosh, link=sigmoid, threshold=0.0, link_scratch=())
    network, X = make(backend, activation=apart, loss=loss), backend.to_device(np.ones((4, 5)))
    xpnet.train(network, Dataset(np.ones((4, 5)), np.zeros((3, 5))), SGD(lr=0.1), epochs=1, batch_size=5)
    Z = backend.to_host(network.forward(X)).astype(float)
    np.testing.assert_allclose(backend.to_host(network.predict(X)), 1 / (1 + np.exp(-Z)), rtol=1e-5)


@pytest.mark.parametrize("given", ["elu", SWISH2], ids=["elu", "swish2"])
def test_a_pickle_of_when_both_had_the_same_scratch(given):
    layer, Z = Activation(given), np.linspace(-2.0, 2.0, 12).reshape(3, 4)
    A, trace = layer.forward({}, Z)
    dZ, _ = layer.backward({}, trace, Z)
    function = object.__new__(type(layer.function))
    state = {name: value for name, value in vars(layer.function).items() if name != "backward_scratch"}
    function.__dict__.update({**state, "scratch": ("matrix",)})
    object.__setattr__(layer, "function", function)
    found = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(found.forward({}, Z)[0], A)
    np.testing.assert_array_equal(found.backward({}, trace, Z)[0], dZ)


def test_a_loss_of_one_output_is_checked_on_one():
    def of_one(xp, A, Y, L, dA, work):
        xp.subtract(A, Y, out=dA)
        xp.sum(dA, axis=0, keepdims=True, out=L)
        xp.multiply(L, L, out=L)
        xp.multiply(dA, 2.0, out=dA)

    with pytest.raises(ValueError, match="gradient of loss 'one' disagrees"):
        CustomLoss("one", of_one)
    Network([4, 1], loss=CustomLoss("one", of_one, n_outputs=1), backend=CPU)


def test_ways_to_say_it_and_the_spec():
    layers = [Dense(4, 6), Activation(SWISH2), Dense(6, 3)]
    by_layers, by_list = Network(layers, loss=LOG_COSH, backend=CPU), make(CPU, activation=[SWISH2])
    assert by_layers.architecture == by_list.architecture == make(CPU).architecture
    spec = json.loads(json.dumps(by_layers.to_spec()))
    assert spec["layers"][1] == {"type": "activation", "name": "swish2"} and spec["loss"] == "log_cosh"
    again = Network.from_spec(spec, backend=CPU, functions=FUNCTIONS)
    assert again.architecture == by_layers.architecture
    assert repr(again).startswith("Network(4-6-3 swish2, log_cosh;")


def test_save_and_load(tmp_path):
    network = make(CPU, seed=5)
    network.save(tmp_path / "m")
    again = Network.load(tmp_path / "m", CPU, functions=FUNCTIONS)
    X = np.random.default_rng(0).standard_normal((4, 9))
    np.testing.assert_array_equal(again.predict(X), network.predict(X))


@pytest.mark.parametrize(
    ("functions", "parts"),
    [
        (None, ["loss is 'log_cosh'", "functions={'log_cosh': your CustomLoss}"]),
        ({"log_cosh": LOG_COSH}, ["activation is 'swish2'", "functions={'swish2': your CustomActivation}"]),
        ({"log_cosh": SWISH2}, ["functions['log_cosh'] is", "it must be the CustomLoss", "of that name"]),
        (["zz"], ["functions is ['zz']", "it must be a dict", "functions={'mine': mine}"]),
        (
            {
                **FUNCTIONS,
                "swish2": CustomActivation("other", swish2, swish2_backward, from_input=True, scratch=["matrix"]),
            },
            ["functions['swish2'] is the CustomActivation called 'other'", "called 'swish2'", "under its own name"],
        ),
        ({**FUNCTIONS, "swish2": swish2}, ["functions['swish2'] is", "it must be the CustomActivation of that name"]),
    ],
)
def test_a_missing_function_is_named(tmp_path, functions, parts):
    make(CPU).save(tmp_path / "m")
    with pytest.raises(ValueError) as error:
        Network.load(tmp_path / "m", CPU, functions=functions)
    says(error, str(tmp_path / "m"), *parts)
    with pytest.raises(ValueError) as error:
        Network.from_spec(make(CPU).to_spec(), backend=CPU, functions=functions)
    says(error, *parts)


def logistic(xp, A, out, work, row):
    sigmoid(xp, A, out)


@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_metrics_cut_where_classify_does(backend, threshold):
    rng = np.random.default_rng(1)
    X, labels = rng.standard_normal((4, 200)), rng.integers(2, size=200)
    X[:, :20], labels[:20] = 0.0, 1  # these outputs are the bias: the threshold, to rounding
    for link in (logistic, None):
        network = Network([4, 1], loss=CustomLoss("l", log_cosh, link, threshold), backend=backend)
        network.parameters.biases[0][...] = threshold * 1.00000001
        found = xpnet.evaluate(network, Dataset(X, labels), metrics=("f1", "precision", "roc_auc"))
        predicted = backend.to_host(network.classify(backend.to_device(X)))
        assert found["accuracy"] == pytest.approx((predicted == labels).mean(), abs=1e-9)
        right = ((predicted == 1) & (labels == 1)).sum()
        assert found["precision"] == pytest.approx(right / predicted.sum(), abs=1e-9)
        assert found["f1"] == pytest.approx(2 * right / (predicted.sum() + labels.sum()), abs=1e-9)
    assert CustomLoss("l", log_cosh).threshold == 0.5


def test_a_link_of_ones_own():
    link = logistic
    network = make(CPU, loss=CustomLoss("linked", log_cosh, link=link, threshold=0.0))
    X = np.random.default_rng(0).standard_normal((4, 9))
    np.testing.assert_allclose(network.predict(X), 1 / (1 + np.exp(-network.forward(X))), rtol=1e-14)
    with pytest.raises(ValueError) as error:
        make(CPU, loss=CustomLoss("linked", log_cosh, link=link, threshold=0.0), output="tanh")
    says(error, "linked applies its own link", "output='identity'")


def wrong_in_place(xp, A, dA, out):
    """Right only if A were Z: `out` of the forward is Z itself unless from_input."""
    square_backward(xp, A, dA, out)


def half_squared(xp, A, Y, L, dA, work):
    squared_error(xp, A, Y, L, dA, work)
    xp.multiply(L, 0.5, out=L)


def writing(xp, A, Y, L, dA, work):
    squared_error(xp, A, Y, L, dA, work)
    xp.multiply(Y, 1.0 + 1e-3, out=Y)


def wrong_where_negative(xp, A, Y, L, dA, work):
    """L = sum |A|, but with the gradient of sum A."""
    xp.abs(A, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.multiply(Y, 0.0, out=dA)
    xp.add(dA, 1.0, out=dA)


def keeps_in_scratch(xp, Z, out, work):
    xp.multiply(Z, 2.0, out=work)
    xp.multiply(Z, Z, out=out)


def reads_scratch(xp, Z, dA, out, work):
    xp.multiply(work, dA, out=out)


def adds_to_out(xp, Z, dA, out):
    xp.multiply(dA, 2.0, out=dA)
    xp.multiply(dA, Z, out=dA)
    xp.add(out, dA, out=out)


def tanh_of_out(xp, Z, out):
    """Right in place alone."""
    xp.tanh(out, out=out)


def spoils_Z(xp, Z, out):
    xp.multiply(Z, Z, out=out)
    xp.multiply(Z, 2.0, out=Z)


def doubled_Z(xp, Z, dA, out):
    xp.multiply(Z, dA, out=out)


def spoils_its_trace(xp, Z, dA, out):
    xp.multiply(Z, 2.0, out=Z)
    xp.multiply(Z, dA, out=out)


def shifted(xp, Z, out):
    """Computes right, but leaves Z changed where `out` is another array."""
    xp.tanh(Z, out=Z)
    xp.multiply(Z, 1.0, out=out)


def capped(xp, Z, out):
    xp.maximum(Z, 0.0, out=out)
    xp.minimum(out, 6.0, out=out)


def capped_backward(xp, A, dA, out):
    xp.subtract(6.0, A, out=out)
    xp.multiply(out, A, out=out)
    xp.greater(out, 0.0, out=out)
    xp.multiply(out, dA, out=out)


def steep(xp, Z, out):
    xp.multiply(Z, 30.0, out=out)
    xp.tanh(out, out=out)


def steep_backward(xp, A, dA, out):
    tanh_backward(xp, A, dA, out)
    xp.multiply(out, 30.0, out=out)


def test_a_steep_function_and_kinks_are_no_mistakes():
    CustomActivation("steep", steep, steep_backward)
    CustomActivation("relu6", capped, capped_backward, kinks=(0.0, 6.0))


def entropy(xp, A, Y, L, dA, work):
    """L = sum of Y log(Y / A), which is NaN for Y = 0."""
    xp.divide(Y, A, out=work)
    xp.multiply(work, -1.0, out=dA)
    xp.log(work, out=work)
    xp.multiply(work, Y, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)


def test_samples_for_which_a_loss_is_undefined_are_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CustomLoss("kl", entropy)
        with pytest.raises(ValueError) as error:
            CustomLoss("kl", lambda xp, A, Y, L, dA, work: entropy(xp, dA, Y, L, dA, work))
    says(error, "loss 'kl' is finite for no sample", "A from 0.1 to 0.9", "only after it has written")


def reads_out(xp, A, out, work, row):
    xp.add(out, A, out=out)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (
            lambda: CustomActivation("a", keeps_in_scratch, reads_scratch, from_input=True, scratch=("matrix",)),
            ["backward of activation 'a'", "relative error nan", "scratch that is read before it is written"],
        ),
        (
            lambda: CustomActivation("a", square, adds_to_out, from_input=True),
            ["backward of activation 'a'", "relative error nan", "out or scratch that is read before it is written"],
        ),
        (
            lambda: CustomActivation("a", tanh_of_out, tanh_backward),
            ["backward of activation 'a'", "relative error nan", "out or scratch that is read before it is written"],
        ),
        (
            lambda: CustomActivation("a", spoils_Z, doubled_Z, from_input=True),
            [
                "forward of activation 'a' writes into Z",
                "must stay as it is",
                "write into out",
                "and the scratch given",
            ],
        ),
        (lambda: CustomActivation("a", shifted, tanh_backward), ["forward of activation 'a' writes into Z"]),
        (
            lambda: CustomActivation("a", square, spoils_its_trace, from_input=True),
            ["backward of activation 'a' writes into Z", "write into out"],
        ),
        (lambda: CustomActivation("a", capped, relu_backward), ["backward of activation 'a'", "relative error"]),
        (lambda: CustomActivation("a", capped, relu_backward, kinks=(0.0, 6.0)), ["relative error"]),
        (
            lambda: CustomLoss("b", squared_error, link=reads_out, threshold=0.0),
            ["link of loss 'b' gives NaN", "it must be defined there", "only after it has written them"],
        ),
        (
            lambda: CustomActivation("a", square, lambda xp, Z, dA, out: xp.multiply(Z, dA, out=out), from_input=True),
            ["backward of activation 'a'", "relative error 5.0e-01", "at most 1e-07"],
        ),
        (lambda: CustomActivation("a", square, wrong_in_place), ["backward of activation 'a'", "relative error"]),
        (
            lambda: CustomActivation("a", lambda xp, Z, out: xp.sin(Z, out=out), square_backward),
            ["'a' cannot be recorded", "'sin' is not a word of the Program", "forward(xp, Z, out, *scratch)"],
        ),
        (
            lambda: CustomActivation("a", lambda xp, Z, out: xp.multiply(Z, np.float64(2), out=out), square_backward),
            ["'a' cannot be recorded", "float64", "Python numbers"],
        ),
        (
            lambda: CustomActivation("a", lambda xp, Z: xp.exp(Z, out=Z), square_backward),
            ["'a' cannot be recorded", "positional arguments", "forward(xp, Z, out, *scratch)"],
        ),
        (
            lambda: CustomActivation("a", lambda xp, Z, out: Z, square_backward, from_input=True),
            ["'a' writes nothing into A", "it must be forward(", "with out="],
        ),
        (
            lambda: CustomActivation("relu", square, square_backward),
            ["the activation 'relu'", "is one of xpnet's own", "give yours another name"],
        ),
        (
            lambda: CustomActivation("", square, square_backward),
            ["name of the activation is ''", "it must be a text", "such as 'mine'"],
        ),
        (
            lambda: CustomActivation("a", square, square_backward, scratch=("vector",)),
            ["scratch of activation 'a' is", "it must be a tuple", "of 'matrix' and 'row'"],
        ),
        (
            lambda: CustomActivation("a", square, square_backward, backward_scratch=("vector",)),
            ["backward_scratch of activation 'a' is ('vector',)", "it must be a tuple", "of 'matrix' and 'row'"],
        ),
        (
            lambda: CustomLoss("b", log_cosh, link_scratch=["row"]),
            ["link_scratch of loss 'b' is ['row']", "it must be a tuple", "of 'matrix' and 'row'"],
        ),
        (lambda: CustomLoss("b", half_squared), ["gradient of loss 'b'", "relative error", "at most 1e-07"]),
        (lambda: CustomLoss("b", wrong_where_negative), ["gradient of loss 'b'", "relative error"]),
        (lambda: CustomLoss("b", writing), ["pair of loss 'b' writes into Y", "dA and work"]),
        (lambda: CustomLoss("b", lambda xp, A, Y, L, dA, work: xp.subtract(A, Y, out=dA)), ["nothing into L"]),
        (lambda: CustomLoss("b", lambda A, Y: A - Y), ["'b' cannot be recorded", "pair(xp, A, Y, L, dA, work)"]),
        (
            lambda: CustomLoss("b", log_cosh, link=logistic),
            ["'b' has a link and no threshold", "give the value at which", "threshold=0.0"],
        ),
        (lambda: CustomLoss("b", log_cosh, threshold=np.nan), ["threshold of loss 'b' is nan", "finite number"]),
        (lambda: CustomLoss("huber", log_cosh), ["'huber' is one of xpnet's own"]),
    ],
)
def test_refusals(make, parts):
    with pytest.raises(ValueError) as error:
        make()
    says(error, *parts)


def test_two_functions_of_one_name_are_refused():
    other = CustomActivation("swish2", square, square_backward, from_input=True)
    with pytest.raises(ValueError) as error:
        Network([2, 3, 3, 1], activation=[SWISH2, other], loss=LOG_COSH, backend=CPU)
    says(error, "two activations of your own", "are called 'swish2'", "give one another name")
    Network([2, 3, 3, 1], activation=[SWISH2, SWISH2], loss=LOG_COSH, backend=CPU)
    with pytest.raises(ValueError) as error:
        Network([2, 3, 1], activation=SWISH2, loss=CustomLoss("swish2", log_cosh), backend=CPU)
    says(error, "an activation and the loss of your own", "both called 'swish2'", "give one another name")
    Network([2, 3, 1], activation="relu", loss=CustomLoss("relu", log_cosh), backend=CPU)  # xpnet's is never looked up


def test_a_nan_in_the_derivative_is_refused():
    def root(xp, Z, out):
        xp.sqrt(Z, out=out)

    def root_backward(xp, A, dA, out):
        xp.divide(0.5, A, out=out)
        xp.multiply(out, dA, out=out)

    with pytest.raises(ValueError, match="relative error nan"):
        CustomActivation("root", root, root_backward)
