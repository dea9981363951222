"""Callbacks that write the records of a run for the tools that draw and compare runs: TensorBoard and MLflow."""

from __future__ import annotations

import os
import time
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet.checks import check_path
from xpnet.training.callbacks import Callback
from xpnet.training.records import Record

if TYPE_CHECKING:
    from xpnet.network.network import Network

__all__ = ["MLflow", "TensorBoard"]


def _numbers(record: Record) -> dict[str, float]:
    """Return the numbers of a record by name, but for the epoch that they are of."""
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, Real) and not isinstance(value, bool) and name != "epoch"
    }


def _missing(what: str, package: str, error: ImportError) -> ImportError:
    return ImportError(
        f"{what} needs the package {package}, which is missing ({error}); pip install 'xpnet[{package}]'"
    )


class TensorBoard(Callback):
    """Writes the numbers of every record into an event file, by epoch: `tensorboard --logdir FOLDER` draws them.

    folder: of one run; folders side by side in another are compared.  Each epoch is on disk when it ends. A resumed run
    goes on in a file of its own in the same folder.
    """

    only_watches = True

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise _missing("TensorBoard(folder)", "tensorboard", error) from error
        self.folder = Path(check_path("folder", folder, 'TensorBoard("runs/first")'))
        self._make, self._writer = Writer, None

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._writer = self._make(str(self.folder))

    def on_epoch_end(self, record: Record, network: Network) -> None:
        assert self._writer is not None
        for name, value in _numbers(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def on_train_end(self, network: Network) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflow(Callback):
    """Logs a run to MLflow: the numbers of every record by epoch, the network, its parameters and device.

    experiment: its name, made if there is none.  run: a name of the run, None for one of MLflow's.
    store: where, such as "sqlite:///mlflow.db"; None for that of MLFLOW_TRACKING_URI, or else MLflow's default.
    A resumed run goes on in the run of before.
    """

    only_watches = True

    def __init__(self, experiment: str, run: str | None = None, store: str | None = None) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        except ImportError as error:
            raise _missing("MLflow(experiment)", "mlflow", error) from error
        self.experiment, self.run = experiment, run
        self._client, self._metric, self._param = MlflowClient(tracking_uri=store), Metric, Param
        self._run_id: str | None = None
        self._n_epochs, self._has_ended = 0, False

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._n_epochs, self._has_ended, self._run_id = n_epochs, False, None

    def on_epoch_end(self, record: Record, network: Network) -> None:
        if self._run_id is None:
            self._run_id = self._begun(network)
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, record["epoch"]) for name, value in _numbers(record).items()]
        self._client.log_batch(self._run_id, metrics=metrics)
        self._has_ended = "stopped" in record or record["epoch"] == self._n_epochs
        if "stopped" in record:
            self._client.set_tag(self._run_id, "stopped", record["stopped"])

    def on_train_end(self, network: Network) -> None:
        if self._run_id is not None:
            self._client.set_terminated(self._run_id, "FINISHED" if self._has_ended else "FAILED")

    def state(self) -> dict[str, Any]:
        return {} if self._run_id is None else {"run": self._run_id}

    def load_state(self, state: dict[str, Any]) -> None:
        self._run_id = state.get("run")
        if self._run_id is not None:
            self._client.update_run(self._run_id, "RUNNING")

    def _begun(self, network: Network) -> str:
        """Begin a run, and return its id."""
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = self._client.create_experiment(self.experiment) if found is None else found.experiment_id
        run_id: str = self._client.create_run(experiment, run_name=self.run).info.run_id
        backend, architecture = network.backend, network.architecture
        facts = {"network": architecture, "parameters": architecture.layout.count, "epochs": self._n_epochs}
        facts |= {"device": backend.device, "dtype": backend.dtype}
        self._client.log_batch(run_id, params=[self._param(name, str(value)) for name, value in facts.items()])
        return run_id
