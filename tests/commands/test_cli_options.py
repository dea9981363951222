"""Options of train, evaluate and find-lr: each does what the library called by hand does, or is refused early."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from refusals import says
from safetensors.numpy import load_file
from test_cli import json_lines, refused, refused_by_parser, surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet.cli import main
from xpnet.network.losses import Huber, SoftmaxCrossEntropy
from xpnet.training import schedules
from xpnet.training.metrics import METRICS, Metric

N, N_TRAINING, BATCH, EPOCHS = 60, 54, 8, 3  # the last tenth is held out: 7 steps an epoch, the last of 6 samples
LOOP = ["--batch-size", "8", "--epochs", "3", "--layers", "4,6,5,3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """X.npy, classes.npy, targets.npy, weights.npy: small files of rows."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 4)).astype(np.float32)
    side = X @ rng.standard_normal((4, 3))
    side[:, 0] += 1.0  # classes of different sizes
    np.save(folder / "X.npy", X)
    np.save(folder / "classes.npy", side.argmax(axis=1))
    np.save(folder / "targets.npy", side)
    np.save(folder / "weights.npy", rng.uniform(0.5, 2.0, N))
    return folder


def flags(folder, labels="classes"):
    return ["--dataset", str(folder / "X.npy"), "--labels", str(folder / f"{labels}.npy"), "--split", "last"]


def plain(words):
    """Options of SGD alone, for those that words leave out."""
    options = {"--optimizer": "sgd", "--patience": "0", "--dropout": "0"}
    return [word for name, value in options.items() if name not in words for word in (name, value)]


def parts(folder, labels="classes", weights=None):
    """The training and validation part that these files give."""
    X, Y = np.load(folder / "X.npy", mmap_mode="r").T, np.load(folder / f"{labels}.npy")
    weights = None if weights is None else np.load(folder / f"{weights}.npy")
    if labels == "classes":
        dataset = xpnet.Dataset.from_labels(X, Y, weights=weights)
    else:
        dataset = xpnet.Dataset(X, Y.T, weights)
    return dataset.subset(slice(0, N_TRAINING)), dataset.subset(slice(N_TRAINING, N))


def by_hand(
    folder, tmp_path, optimizer, *, labels="classes", weights=None, class_weight=None, network=None, **learning
):
    """Train as the command line does and return the network."""
    training, validation = parts(folder, labels, weights)
    if class_weight is not None:
        training = training.with_class_weight(class_weight)
    network = {"layers": [4, 6, 5, 3], "loss": "softmax_cross_entropy"} | (network or {})
    model = xpnet.Network(network.pop("layers"), backend=xpnet.select_backend("cpu"), **network)
    learning = {"epochs": EPOCHS, "batch_size": BATCH, "validation": validation} | learning
    learning["callbacks"] = [make(optimizer) for make in learning.get("callbacks", [])]
    xpnet.train(model, training, optimizer, keep_best=optimizer.ema is None, **learning)
    return model


def same_weights(model, tmp_path, run="run"):
    model.save(tmp_path / "by_hand")
    expected, found = load_file(tmp_path / "by_hand"), load_file(Path(run) / "model.safetensors")
    assert sorted(found) == sorted(expected)
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[name])


# --- what reaches the library ----------------------------------------------------------------------------------------

OPTIMIZERS = {
    "--lr 0.2": xpnet.SGD(0.2),
    "--optimizer momentum --momentum 0.8": xpnet.Momentum(momentum=0.8),
    "--optimizer nesterov --lr 0.05": xpnet.Nesterov(0.05),
    "--optimizer adagrad --eps 1e-6": xpnet.AdaGrad(eps=1e-6),
    "--optimizer rmsprop --alpha 0.9": xpnet.RMSProp(alpha=0.9),
    "--optimizer adam --beta1 0.8 --beta2 0.99 --eps 1e-6": xpnet.Adam(beta1=0.8, beta2=0.99, eps=1e-6),
    "--optimizer adamw --weight-decay 0.1": xpnet.AdamW(weight_decay=0.1),
    "--optimizer nadam --momentum-decay 0.01": xpnet.NAdam(momentum_decay=0.01),
    "--optimizer lion --weight-decay 0.1": xpnet.Lion(weight_decay=0.1),
    "--l1 0.01 --l2 0.02 --l2-summed 0.3 --clip-norm 0.5 --clip-value 0.1 --max-norm 0.9": xpnet.SGD(
        l1=0.01, l2=0.02, l2_summed=0.3, clip_norm=0.5, clip_value=0.1, max_norm=0.9
    ),
    "--schedule step --every 5 --factor 0.5": xpnet.SGD(schedules.Step(0.1, every=5, factor=0.5)),
    "--schedule exponential --factor 0.9 --lr 0.3": xpnet.SGD(schedules.Exponential(0.3, factor=0.9)),
    "--schedule cosine --lr-end 0.01": xpnet.SGD(schedules.Cosine(0.1, total_steps=21, lr_end=0.01)),
    "--schedule cosine --total-steps 10": xpnet.SGD(schedules.Cosine(0.1, total_steps=10)),
    "--schedule cosine --warmup 6": xpnet.SGD(schedules.WarmUp(schedules.Cosine(0.1, total_steps=15), steps=6)),
    "--warmup 6 --optimizer adam": xpnet.Adam(schedules.WarmUp(0.001, steps=6)),
    "--schedule one-cycle --rise 0.4 --div 10 --final-div 100": xpnet.SGD(
        schedules.OneCycle(0.1, total_steps=21, rise=0.4, div=10, final_div=100)
    ),
    "--schedule inverse-scaling --power 0.25": xpnet.SGD(schedules.InverseScaling(0.1, power=0.25)),
}


@pytest.mark.parametrize("options", OPTIMIZERS)
def test_optimizer_and_schedule(folder, tmp_path, options):
    assert main(["train", *flags(folder), *LOOP, *plain(options), *options.split(), "--quiet", "--out", "run"]) == 0
    same_weights(by_hand(folder, tmp_path, OPTIMIZERS[options]), tmp_path)


REST = {
    "--dropout 0.5": {"network": {"dropout": 0.5}},
    "--dropout 0.2,0.4 --normalization layer": {"network": {"dropout": [0.2, 0.4], "normalization": "layer"}},
    "--normalization batch": {"network": {"normalization": "batch"}},
    "--init glorot --activation tanh,gelu": {"network": {"init": "glorot", "activation": ["tanh", "gelu"]}},
    "--label-smoothing 0.2": {"network": {"loss": SoftmaxCrossEntropy(smoothing=0.2)}},
    "--loss huber --huber-delta 0.3": {"network": {"loss": Huber(delta=0.3)}, "labels": "targets"},
    "--class-weight balanced": {"class_weight": "balanced"},
    "--weights W": {"weights": "weights"},
    "--weights W --class-weight balanced": {"weights": "weights", "class_weight": "balanced"},
    "--accumulate 3": {"accumulate": 3},
    "--schedule plateau --factor 0.5 --plateau-patience 0 --plateau-threshold 0.5 --lr-end 0.03": {
        "callbacks": [lambda optimizer: xpnet.ReduceOnPlateau(optimizer, 0.5, 0, 0.5, 0.03)],
        "epochs": 5,
    },
}


@pytest.mark.parametrize("options", REST)
def test_network_data_and_loop(folder, tmp_path, options):
    changed = dict(REST[options])
    words = options.replace(" W", f" {folder / 'weights.npy'}").split()
    words += ["--epochs", str(changed.get("epochs", EPOCHS))]
    data = flags(folder, changed.get("labels", "classes"))
    assert main(["train", *data, *LOOP, *plain(words), *words, "--quiet", "--out", "run"]) == 0
    same_weights(by_hand(folder, tmp_path, xpnet.SGD(0.1), **changed), tmp_path)


@pytest.mark.parametrize(
    ("options", "n_updates"),
    [
        ("--batch-size 8 --accumulate 3", 9),
        ("--batch-size 1000", 3),
        ("--batch-size 53", 6),
        ("--batch-size 53 --normalization batch", 3),
        ("--batch-size 26 --normalization batch", 9),
    ],
)
def test_a_schedule_ends_with_the_run(folder, options, n_updates, capsys):
    """Over 54 samples: a step of one sample is left out where there is a batch norm, which is said in one line."""
    assert (
        main(
            ["train", *flags(folder), *LOOP, *plain(options), *options.split(), "--schedule", "cosine", "--out", "run"]
        )
        == 0
    )
    optimizer = json.loads(Path("run/config.json").read_text(encoding="utf-8"))["optimizer"]
    assert optimizer["schedule"] == {"type": "cosine", "lr": 0.1, "total_steps": n_updates, "lr_end": 0.0}
    said = [line for line in capsys.readouterr().err.splitlines() if "BatchNorm" in line]
    assert len(said) == (options == "--batch-size 53 --normalization batch")
    assert all(line.startswith("xpnet: the last step of an epoch would have 1 sample") for line in said)


def test_config_describes_the_optimizer_in_full(folder):
    options = "--optimizer adamw --beta1 0.8 --clip-norm 2 --schedule step --every 5 --warmup 2"
    assert main(["train", *flags(folder), *LOOP, *plain(options), *options.split(), "--quiet", "--out", "run"]) == 0
    step = {"type": "step", "lr": 0.001, "every": 5, "factor": 0.1}
    assert json.loads(Path("run/config.json").read_text(encoding="utf-8"))["optimizer"] == {
        "type": "adamw",
        "lr": 0.001,
        "beta1": 0.8,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.01,
        "clip_norm": 2.0,
        "schedule": {"type": "warm-up", "after": step, "steps": 2, "start": 1 / 3},
    }
    assert main(["train", *flags(folder), *LOOP, *plain(""), "--schedule", "plateau", "--quiet", "--out", "other"]) == 0
    assert json.loads(Path("other/config.json").read_text(encoding="utf-8"))["optimizer"]["schedule"] == {
        "type": "plateau",
        "factor": 0.1,
        "patience": 10,
        "threshold": 1e-4,
        "lr_min": 0.0,
    }


# --- what the run is good for ----------------------------------------------------------------------------------------


def test_ema_saves_and_measures_the_averaged_weights(folder, tmp_path, capsys):
    words = ["--ema", "0.9", "--dropout", "0.2", "--normalization", "batch", "--metrics", "f1,roc_auc", "--json"]
    assert main(["train", *flags(folder), *LOOP, *plain(words), *words, "--quiet", "--out", "run"]) == 0
    *records, summary = json_lines(capsys.readouterr().out)
    optimizer = xpnet.SGD(0.1, ema=0.9)
    model = by_hand(folder, tmp_path, optimizer, network={"dropout": 0.2, "normalization": "batch"})
    _, validation = parts(folder)
    assert records[-1]["val_loss"] == xpnet.evaluate(model, validation)["loss"]  # an epoch's line: as it trains
    with optimizer.averaging(model):
        same_weights(model, tmp_path)
        expected = xpnet.evaluate(model, validation, metrics=("f1", "roc_auc"))
        rows = model.predict(np.load(folder / "X.npy").T).T
    assert expected["loss"] != records[-1]["val_loss"]
    for name in ("accuracy", "f1", "roc_auc"):
        assert summary[f"val_{name}"] == pytest.approx(expected[name])
    assert main(["evaluate", "run", "--metrics", "f1,roc_auc", "--json"]) == 0
    (measured,) = json_lines(capsys.readouterr().out)
    assert measured == pytest.approx({"part": "validation", **expected})
    assert main(["predict", "run", "--input", str(folder / "X.npy"), "--out", "P.npy"]) == 0
    np.testing.assert_array_equal(np.load("P.npy"), rows)


def test_ema_without_an_update_saves_the_initial_weights(folder, tmp_path):
    assert (
        main(["train", *flags(folder), *LOOP, *plain(""), "--ema", "0.9", "--epochs", "0", "--quiet", "--out", "run"])
        == 0
    )
    same_weights(xpnet.Network([4, 6, 5, 3]), tmp_path)


def test_metrics_in_words_and_weights_in_what_is_measured(folder, capsys):
    words = ["--weights", str(folder / "weights.npy"), "--metrics", "r2,mean_absolute_error"]
    assert main(["train", *flags(folder, "targets"), *LOOP, *plain(words), *words, "--quiet", "--out", "run"]) == 0
    summary = capsys.readouterr().out
    assert main(["evaluate", "run", "--metrics", "r2,mean_absolute_error"]) == 0
    told = capsys.readouterr().out
    model = xpnet.Network.load("run/model.safetensors", xpnet.select_backend("cpu"))
    expected = xpnet.evaluate(model, parts(folder, "targets", "weights")[1], metrics=("r2", "mean_absolute_error"))
    for name in ("r2", "mean_absolute_error"):
        assert f"validation {name} {expected[name]:.4f}" in summary
        assert f"  {name} {expected[name]:.4f}" in told
    assert f"loss {expected['loss']:.4f}" in told


@pytest.mark.parametrize(
    ("is_low", "beyond", "bound", "best"), [(True, "-1", "at least 0", 1), (False, "2", "at most 1", 2)]
)
def test_the_best_epoch_is_by_the_row_of_the_metric(folder, capsys, monkeypatch, is_low, beyond, bound, best):
    values = iter([0.3, 0.5, 0.1, 0.9, 0.2, 0.4])  # before the run, of four records, of the summary
    row = Metric(lambda P, Y, weights=None: next(values), lower_is_better=is_low)
    monkeypatch.setitem(METRICS, "toy", row)
    argv = ["train", *flags(folder), *LOOP, "--metrics", "toy", "--monitor", "val_toy", "--epochs", "3"]
    assert main([*argv, "--target-score", beyond]) == 2
    assert f"val_toy is {bound}" in capsys.readouterr().err
    assert main([*argv, "--patience", "9", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert f"best val_toy in epoch {best} (*)" in out and f"weights of epoch {best}" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith(" *")] == [str(best)]


# --- what ends a run early -------------------------------------------------------------------------------------------

STOPS = {
    "--patience 2 --monitor val_f1 --metrics f1 --min-delta 0.01": xpnet.EarlyStopping(2, "val_f1", 0.01),
    "--patience 1 --lr 2": xpnet.EarlyStopping(1),
    "--target-score 0.8": xpnet.StopAtScore(0.8),
    "--target-score 1.1 --monitor val_loss": xpnet.StopAtScore(1.1, "val_loss"),
    "--max-steps 10": xpnet.Budget(steps=10),
    "--max-seconds 1e-9": xpnet.Budget(seconds=1e-9),
}


@pytest.mark.parametrize("options", STOPS)
def test_a_run_that_ends_early(folder, tmp_path, capsys, options):
    argv = ["train", *flags(folder), *LOOP, "--epochs", "40", *plain(options), *options.split()]
    assert main([*argv, "--json", "--quiet", "--out", "run"]) == 0
    *records, summary = json_lines(capsys.readouterr().out)
    rate = 2.0 if "--lr" in options else 0.1
    metrics = ["f1"] if "f1" in options else []
    model = by_hand(
        folder, tmp_path, xpnet.SGD(rate), epochs=40, metrics=metrics, callbacks=[lambda optimizer: STOPS[options]]
    )
    same_weights(model, tmp_path)
    assert 1 <= len(records) < 41 and summary["stopped"] == records[-1]["stopped"]
    assert summary["chosen_epoch"] == records[-1].get("chosen_epoch")
    _, validation = parts(folder)
    assert summary["val_accuracy"] == pytest.approx(xpnet.evaluate(model, validation)["accuracy"])
    assert main([*argv, "--out", "told"]) == 0
    header, *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"stopped in epoch {records[-1]['epoch']} ({records[-1]['stopped']}), ")
    assert ("weights of epoch" in last) == ("--target-score" not in options)
    assert ("f1" in header.split()) == bool(metrics)


def test_a_run_that_cannot_go_on_stays_as_it_is(folder, capsys):
    """A course over all epochs is another one for more epochs."""
    assert main(["train", *flags(folder), *LOOP, *plain(""), "--schedule", "cosine", "--quiet", "--out", "run"]) == 0
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    assert main(["train", "--resume", "run", "--epochs", "9", "--quiet"]) == 2
    says(capsys.readouterr().err.splitlines()[-1], "goes over its 3 epochs", "--epochs is 9", "leave --epochs out")
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before
    assert main(["train", "--resume", "run", "--quiet"]) == 0


def test_targets_that_the_loss_cannot_take_leave_no_run(folder, capsys):
    argv = ["train", *flags(folder, "targets"), *LOOP, "--loss", "poisson", "--out", "run"]
    refused(capsys, argv, "poisson needs targets of at least 0", "X.npy")
    assert not Path("run").exists()


# --- refused ---------------------------------------------------------------------------------------------------------

EARLY = {
    "--optimizer adam --momentum 0.9": [
        "--momentum goes with --optimizer momentum or nesterov",
        "not with adam",
        "leave it out",
    ],
    "--weight-decay 0.1": ["--weight-decay", "adamw or lion", "not with adam"],
    "--optimizer lion --eps 1e-8": ["--eps", "adagrad or rmsprop", "not with lion"],
    "--loss squared_error --label-smoothing 0.1": ["--label-smoothing", "softmax_cross_entropy or", "squared_error"],
    "--loss poisson --huber-delta 1": ["--huber-delta", "--loss huber", "not with poisson"],
    "--loss huber --huber-delta 0": ["--huber-delta is 0", "it must be a finite number of at least 1.17549e-38"],
    "--loss sigmoid_cross_entropy --label-smoothing 1": ["smoothing", "1", "below 1"],
    "--schedule plateau --validation 0": [
        "--schedule plateau goes by",
        "no samples are held out",
        "give some with --validation",
    ],
    "--schedule one-cycle --epochs 0": ["--schedule one-cycle", "--epochs 0", "at least 2 steps"],
    "--schedule cosine --epochs 0": ["--schedule cosine", "--epochs 0", "at least 1 step", "give more epochs"],
    "--schedule one-cycle --total-steps 1": ["--total-steps", "at least 2"],
    "--schedule one-cycle --warmup 5": ["--warmup goes with --schedule ", "not with one-cycle", "leave it out"],
    "--schedule plateau --warmup 5": ["--warmup", "not with plateau"],
    "--schedule step": ["--schedule step", "needs --every", "add it"],
    "--schedule exponential": ["--schedule exponential needs --factor"],
    "--schedule exponential --factor 1.5": ["--schedule exponential", "1.5", "at most 1"],
    "--schedule constant --factor 0.5": ["--factor goes with --schedule step or exponential or plateau", "constant"],
    "--schedule plateau --factor 1": ["--schedule plateau: --factor is 1", "below 1", "give another"],
    "--schedule cosine --lr-end 1": ["--schedule cosine: --lr-end is 1", "at most 0.001", "give another"],
    "--optimizer adam --eps 0": ["--optimizer adam", "eps is 0", "1e-37"],
    "--optimizer adamw --weight-decay -1": ["--optimizer adamw: --weight-decay is -1", "at least 0", "give another"],
    "--optimizer momentum --momentum 1": ["--optimizer momentum", "momentum is 1", "below 1"],
    "--l2 -0.1": ["l2 is -0.1", "at least 0"],
    "--clip-norm 0": ["--clip-norm is 0", "above 0"],
    "--ema 1": ["ema is 1", "below 1"],
    "--normalization batch --batch-size 1": [
        "--normalization batch needs 2 samples",
        "--batch-size is 1",
        "raise it",
        "--normalization layer",
    ],
    "--layers 4,3 --dropout 0.5": [
        "--dropout works on hidden layers",
        "--layers 4,3 has none",
        "leave it out, or add a size",
    ],
    "--layers 4,3 --normalization layer": ["--normalization", "--layers 4,3", "none"],
    "--layers 4,5,3 --activation relu,tanh": ["activation has 2 names for 1 hidden layers"],
    "--layers 4,5,3 --dropout 0.1,0.2": [
        "dropout has 2 rates",
        "for 1 hidden layers",
        "give one rate for all, or one per hidden layer",
    ],
    "--monitor val_loss --end-with last": ["--monitor goes with", "or --end-with best", "add one, or leave it out"],
    "--patience 3 --end-with last": ["--patience ends with", "not with what --end-with last", "leave one of them out"],
    "--end-with best --ema 0.9": ["--end-with best", "--ema their average", "leave one of them out"],
    "--layers 4,6,3 --hidden 5": ["--layers 4,6,3 names all", "--hidden 5 those between", "leave one of them out"],
    "--min-delta 0.1 --target-score 0.9": ["--min-delta goes with --patience"],
    "--patience 3 --ema 0.9": ["--patience", "--ema", "leave one"],
    "--patience 3 --monitor val_f1": ["--monitor is 'val_f1'", "choose one of", "more come with --metrics"],
    "--patience 3 --monitor val_los": ["'val_los'", "did you mean 'val_loss'?"],
    "--patience 3 --validation 0": ["--validation 0", "val_loss", "--monitor train_loss"],
    "--target-score 0.9 --validation 0.0": ["--validation 0.0", "val_accuracy"],
    "--patience 3 --min-delta -1": ["--min-delta is -1", "at least 0"],
    "--loss softmax_cross_entropy --output tanh": ["softmax_cross_entropy", "'tanh'", "identity"],
}


@pytest.mark.parametrize("options", EARLY)
def test_refused_before_anything_is_loaded(capsys, options):
    nowhere = ["--dataset", "nowhere.npy", "--labels", "nowhere.npy"]
    refused(capsys, ["train", *nowhere, *options.split()], *EARLY[options], code=2)


def test_what_the_parser_refuses(capsys):
    for options, found in (
        (["--dropout", "1.0"], ["'1.0'", "from 0 to below 1"]),
        (["--dropout", "0.2,,0.3"], ["'0.2,,0.3'", "0.2,0.5"]),
        (["--dropout=-0.1"], ["'-0.1'"]),
        (["--l2", "nan"], ["'nan'", "finite"]),
        (["--eps", "small"], ["'small'", "finite number"]),
        (["--activation", "relu,tahn"], ["'tahn'", "did you mean 'tanh'?"]),
        (["--optimizer", "adma"], ["'adma'", "did you mean 'adam'?"]),
        (["--schedule", "one_cicle"], ["'one_cicle'", "did you mean 'one-cycle'?"]),
        (["--normalization", "bach"], ["did you mean 'batch'?"]),
        (["--metrics", "f1,roc"], ["'roc'", "did you mean 'roc_auc'?"]),
        (["--class-weight", "equal"], ["'balanced'"]),
        (["--accumulate", "0"], ["whole number of at least 1"]),
        (["--threads", "0"], ["whole number of at least 1"]),
        (["--init", "hee"], ["did you mean 'he'?"]),
        (["--precision", "tf23"], ["'fp32', 'tf32'", "did you mean 'tf32'?"]),
        (["--engine", "compile"], ["'auto', 'replay', 'compiled'", "did you mean 'compiled'?"]),
    ):
        refused_by_parser(capsys, ["train", *options], options[0].partition("=")[0], *found)


@pytest.mark.parametrize(
    ("labels", "options", "found"),
    [
        (
            "targets",
            "--class-weight balanced",
            ["--class-weight balanced needs classes", "targets.npy holds other targets", "leave it out"],
        ),
        ("targets", "--label-smoothing 0.1", ["--label-smoothing", "not with squared_error"]),
        (
            "targets",
            "--metrics f1",
            ["--metrics f1", "holds no classes", "it must be one-hot columns", "use labels of classes"],
        ),
        (
            "classes",
            "--metrics f1 --validation 0",
            ["--metrics", "held out, and there are none", "give some with --validation"],
        ),
        ("classes", "--schedule plateau --validation 0", ["--schedule plateau", "--validation"]),
        ("classes", "--schedule one-cycle --batch-size 60 --epochs 1", ["--epochs 1 give 1", "at least 2 steps"]),
        (
            "targets",
            "--target-score 0.9",
            ["val_accuracy needs classes", "X.npy has other targets", "take another --monitor"],
        ),
        ("classes", "--patience 3 --validation 0", ["val_loss", "--validation"]),
        ("classes", "--warmup 20 --schedule cosine", ["--schedule cosine", "20", "longer"]),
    ],
)
def test_refused_for_these_data_before_a_run_is_made(folder, capsys, labels, options, found):
    refused(capsys, ["train", *flags(folder, labels), *LOOP, *options.split(), "--out", "run"], *found, code=2)
    assert not Path("run").exists()


def test_weights_go_with_a_file_and_fit_it(folder, capsys):
    refused(
        capsys,
        ["train", "--weights", "W.npy"],
        "--weights goes with --dataset X.npy",
        "not with mnist-sample",
        "leave it out",
        code=2,
    )
    np.save("W.npy", np.ones(3))
    refused(capsys, ["train", *flags(folder), "--weights", "W.npy"], "W.npy", "X.npy", "(3,)")
    assert (
        main(["train", *flags(folder), *LOOP, "--weights", str(folder / "weights.npy"), "--quiet", "--out", "a"]) == 0
    )
    config = json.loads(Path("a/config.json").read_text(encoding="utf-8"))
    assert config["data"]["weights"] == str(folder / "weights.npy")
    config["data"]["weights"] = 3
    Path("a/config.json").write_text(json.dumps(config), encoding="utf-8")
    capsys.readouterr()
    refused(capsys, ["evaluate", "a"], "weights is 3", "null or a path")


# --- find-lr ---------------------------------------------------------------------------------------------------------

SEARCH = ["--optimizer", "adam", "--l2", "0.01", "--dropout", "0.1", "--layers", "4,6,3", "--batch-size", "8"]


@pytest.mark.full
def test_find_lr_says_what_the_library_finds(folder, capsys):
    argv = ["find-lr", *flags(folder), *SEARCH, "--seed", "3", "--steps", "60", "--lr-end", "1"]
    assert main([*argv, "--json", "--plot", "rates.png"]) == 0
    out, err = capsys.readouterr()
    (found,) = json_lines(out)
    network = xpnet.Network([4, 6, 3], dropout=0.1, backend=xpnet.select_backend("cpu"), seed=3)
    training, validation = parts(folder)
    options = {"lr_end": 1.0, "n_steps": 60, "batch_size": 8, "seed": 3, "validation": validation}
    search = xpnet.find_lr(network, training, xpnet.Adam(l2=0.01), **options)
    trials = [{"lr": rate, "val_loss": loss} for rate, loss in search.trials.items()]
    curve = {"lrs": search.lrs.tolist(), "losses": search.losses.tolist(), "trials": trials}
    alike = None if search.alike is None else list(search.alike)
    assert found == {"suggestion": search.suggestion, **curve, "alike": alike}
    assert err == "" and Path("rates.png").read_bytes().startswith(b"\x89PNG")
    assert main(argv) == 0
    header, *rows, last = capsys.readouterr().out.splitlines()
    rows, tried = rows[:12], rows[12:]
    assert header.split() == ["lr", "loss"] and tried[0].split() == ["tried", "val_loss"]
    assert [float(line.split()[0]) for line in tried[1:]] == pytest.approx(list(search.trials), rel=1e-2)
    assert [float(cell) for cell in rows[0].split()] == pytest.approx([search.lrs[0], search.losses[0]], rel=1e-2)
    assert [float(cell) for cell in rows[-1].split()] == pytest.approx([search.lrs[-1], search.losses[-1]], rel=1e-2)
    assert last.startswith(f"suggestion: --lr {search.suggestion:.2g}")


def test_find_lr_without_a_suggestion(folder, capsys):
    assert main(["find-lr", *flags(folder), "--layers", "4,3", "--lr-start", "1e5", "--lr-end", "1e9", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json_lines(out)[0]["suggestion"] is None
    says(err.rstrip("\n"), "no suggestion", "lower --lr-start")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("--lr-start 1 --lr-end 0.1", ["--lr-end is 0.1", "--lr-start 1", "the end must be above the start"]),
        ("--plot rates.jpg", ["--plot rates.jpg", ".png"]),
        ("--momentum 0.9", ["--momentum", "not with adam"]),
    ],
)
def test_find_lr_refuses_before_anything_is_loaded(capsys, options, found):
    nowhere = ["--dataset", "nowhere.npy", "--labels", "nowhere.npy"]
    refused(capsys, ["find-lr", *nowhere, *options.split()], *found, code=2)
