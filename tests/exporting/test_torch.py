"""PyTorch: the module that is exported predicts what the network does, and networks come back from modules."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
from forms import NAMES, apart, expected, network, rows_for
from refusals import refusal

import xpnet

torch = pytest.importorskip("torch", reason="the extra torch brings it")
nn = torch.nn
BOUND = {"float32": 1e-6, "float64": 1e-12}


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", NAMES)
def test_a_module_predicts_what_the_network_does_and_comes_back(name, dtype, tmp_path):
    made = network(name, dtype)
    made.inputs, rows = None, rows_for(network(name, dtype)).astype(dtype) / (255 if "every" in name else 1)
    path, page = xpnet.export(made, tmp_path / "model.safetensors")
    P, _ = expected(made, rows)
    built = runpy.run_path(str(page))
    assert apart(built["predict"](torch.from_numpy(rows)).numpy(), P) < BOUND[dtype]
    Z = made.forward(rows.T).T
    module = built["module"]
    assert (
        isinstance(module, nn.Sequential) and apart(module(torch.from_numpy(rows)).detach().numpy(), Z) < BOUND[dtype]
    )
    for source, wanted in ((path, P), (module, Z)):
        back = xpnet.from_torch(source)
        assert back.backend.dtype == dtype and apart(back.predict(rows.T).T, wanted) < BOUND[dtype]


def module_of(*layers):
    torch.manual_seed(0)
    made = nn.Sequential(*layers)
    for name, buffer in made.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    for parameter in made.parameters():
        parameter.data.uniform_(-1, 1)
    return made.eval()


MODULES = {
    "links": lambda: [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(dim=-1)],
    "yes or no": lambda: [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Sigmoid()],
    "normalized": lambda: [
        nn.Linear(4, 5),
        nn.BatchNorm1d(5),
        nn.SiLU(),
        nn.Dropout(0.3),
        nn.Linear(5, 3),
        nn.LayerNorm(3),
    ],
    "without scales": lambda: [
        nn.Flatten(),
        nn.Linear(4, 5, bias=False),
        nn.BatchNorm1d(5, affine=False, momentum=None),
        nn.Sequential(nn.GELU(approximate="tanh"), nn.Linear(5, 3)),
        nn.LayerNorm(3, elementwise_affine=False),
    ],
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_others_predicts_the_same(name):
    module = module_of(*MODULES[name]())
    X = np.random.default_rng(0).standard_normal((100, 4)).astype("f")
    back = xpnet.from_torch(module)
    assert apart(back.predict(X.T).T, module(torch.from_numpy(X)).detach().numpy()) < 1e-6
    Y = np.zeros((back.architecture.n_outputs, 100), "f")
    Y[0] = 1.0
    xpnet.train(back, xpnet.Dataset(X.T, Y), xpnet.SGD(0.01), epochs=1, progress=False)  # it can be trained further


def test_a_state_dict_with_its_activations():
    module = module_of(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 6), nn.ELU(), nn.Linear(6, 2)
    )
    X = np.random.default_rng(0).standard_normal((100, 4)).astype("f")
    wanted = module(torch.from_numpy(X)).detach().numpy()
    back = xpnet.from_torch(module.state_dict(), activation=["relu", "elu"])
    assert apart(back.predict(X.T).T, wanted) < 1e-6
    back = xpnet.from_torch(module.state_dict(), activation=["relu", "elu"], output="sigmoid", loss="squared_error")
    assert apart(back.predict(X.T).T, 1 / (1 + np.exp(-wanted))) < 1e-6
    half = module_of(nn.Linear(4, 2)).bfloat16()
    assert xpnet.from_torch(half.state_dict()).backend.dtype == np.float32


def test_modules_that_xpnet_has_not():
    with refusal(ValueError, "layer 1 is PReLU, which xpnet has not", "it must be Linear", "replace it"):
        xpnet.from_torch(module_of(nn.Linear(4, 5), nn.PReLU()))
    with refusal(ValueError, "layer 1 is GELU with approximate='none'", "approximate='tanh' alone", "train with GELU("):
        xpnet.from_torch(module_of(nn.Linear(4, 5), nn.GELU()))
    with refusal(ValueError, "layer 0 is Conv1d", "it must be Linear", "replace it"):
        xpnet.from_torch(module_of(nn.Conv1d(1, 1, 3)))
