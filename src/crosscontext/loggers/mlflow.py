"""MLflow: where ``MLFLOW_TRACKING_URI`` says, else in its own local store below the working directory."""

import os
import time
from collections.abc import Mapping
from typing import ClassVar

from crosscontext.loggers.contract import LoggedRun, Logger
from crosscontext.settings import leaves

_PARAMETERS_AT_ONCE = 100  # as many as MLflow takes in one request
_LONGEST_VALUE = 6000  # in letters, the limit of MLflow's parameters


class MlflowLogger(Logger):
    """One MLflow run; its id is kept in the run folder, so that a resumed run goes on in it."""

    needs: ClassVar = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, run: LoggedRun) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # is read when mlflow is imported
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        identity = run.files / "run-id"
        if identity.is_file():
            self._id = identity.read_text()
            self._client.update_run(self._id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "crosscontext")
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._id = self._client.create_run(place, run_name=run.folder.name).info.run_id
        identity.write_text(self._id)
        parameters = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in leaves(run.settings)]
        for first in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=parameters[first : first + _PARAMETERS_AT_ONCE])

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send one point of each curve."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, failed: bool) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")
