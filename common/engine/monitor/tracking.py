"""What MONAI's MLflow tracking leaves out: all knobs as parameters, loss terms, curves and overlays as artifacts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from ...errors import visible
from ..run.overrides import hash_settings, meaningful, read_command
from .history import read_history

__all__ = ["Tracking"]

logger = logging.getLogger(__name__)

_LONGEST = 500


class Tracking:
    """Adds parameters, loss terms and pictures to the run's MLflow record; does nothing when the run is not tracked.

    ``--tracking mlflow`` lets MONAI open the record; this handler finds it. A run that the caller opened with
    ``mlflow.start_run()`` is used as well. Place it before the end of the trainer's handlers.

    Args:
        output_dir: folder of ``history.csv``, ``curves.png`` and ``overlays``.
        params: further parameters, e.g. names of the structures.
        artifacts: what to attach, as glob patterns below ``output_dir``.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        params: Mapping[str, Any] | None = None,
        artifacts: Sequence[str] = ("history.csv", "curves.png", "overlays/*.png", "evaluation/*.*"),
    ) -> None:
        self.folder = Path(output_dir)
        self.params = dict(params or {})
        self.artifacts = tuple(artifacts)
        self._logged: str | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or an evaluator."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_STARTED, self._params)
            engine.add_event_handler(Events.COMPLETED, self._finish)

    def _params(self, engine: Engine) -> None:
        client, run = _record(engine)
        if client is None or run == self._logged:
            return
        self._logged = run
        known = client.get_run(run).data.params
        for name, value in {**_knobs(), **self.params}.items():
            if name not in known:
                client.log_param(run, name, visible(str(value))[:_LONGEST])

    def _finish(self, engine: Engine) -> None:
        client, run = _record(engine)
        if client is None:
            return
        self._log_history(client, run)
        for pattern in self.artifacts:
            for path in sorted(self.folder.glob(pattern)):
                parent = path.relative_to(self.folder).parent
                client.log_artifact(run, str(path), None if parent == Path() else parent.as_posix())
        command = read_command()
        if command is not None:
            client.log_dict(run, command.config(), "config.json")

    def _log_history(self, client: Any, run: str) -> None:
        """Whole curves, also of epochs before an interruption."""
        path = self.folder / "history.csv"
        if not path.exists():
            return
        from mlflow.entities import Metric

        now = int(path.stat().st_mtime * 1000)
        metrics = [
            Metric(f"epoch_{name}", value, now, int(row["epoch"] or 0))
            for row in read_history(path)
            for name, value in row.items()
            if value is not None and name not in ("epoch", "iteration")
        ]
        for start in range(0, len(metrics), 500):
            client.log_batch(run, metrics=metrics[start : start + 500])


def _record(engine: Engine) -> tuple[Any, str]:
    """Client and id of the MLflow run in progress, ``(None, "")`` when there is none."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is None:
        return None, ""
    from monai.handlers import MLFlowHandler

    # ignite offers no public list of what is attached.
    for handler, *_ in engine._event_handlers.get(Events.STARTED, ()):
        owner = getattr(handler, "__self__", None)
        if isinstance(owner, MLFlowHandler) and owner.cur_run is not None:
            return owner.client, owner.cur_run.info.run_id
    active = mlflow.active_run()
    return (None, "") if active is None else (mlflow.MlflowClient(), active.info.run_id)


def _knobs() -> dict[str, Any]:
    """The scalars at the top of the running configuration, and its hash."""
    command = read_command()
    if command is None:
        return {}
    config = command.config()
    knobs = {k: v for k, v in config.items() if isinstance(v, (str, int, float, bool)) and not k.startswith("_")}
    return {**knobs, "config_hash": hash_settings(meaningful(config))}
