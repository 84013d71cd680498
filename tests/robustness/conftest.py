"""A tiny bundle that trains in a second, run as a process of its own that may be killed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import monai.bundle
import pytest
import torch

ROOT = Path(__file__).parents[2]
MAIN = str(Path(monai.bundle.__file__).with_name("__main__.py"))

CONFIG = {
    "bundle_root": ".",
    "dataset_dir": ".",
    "output_dir": "$@bundle_root + '/run'",
    "ckpt_dir": "$@bundle_root + '/models'",
    "device": "cpu",
    "seed": 3,
    "max_epochs": 4,
    "learning_rate": 0.01,
    "num_workers": 0,
    "resume": True,
    "quiet": False,
    "labels": {"_target_": "common.labels.LabelSpace", "names": ["ball"]},
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8],
        "strides": [2],
        "dropout": 0.1,
        "norm": "batch",
    },
    "network": "$@network_def.to(@device)",
    "card": {
        "_target_": "common.card.ModelCard",
        "labels": "@labels",
        "channels": ["CT"],
        "bundle": "toy",
        "version": "0.1.0",
    },
    "keep_best": {
        "_target_": "common.engine.run.best.KeepBest",
        "path": "$@ckpt_dir + '/model.pt'",
        "network": "@network",
        "card": "@card",
    },
    "train": {
        "dataset": {
            "_target_": "Dataset",
            "data": (
                "$[{'image': torch.arange(64.).reshape(1, 8, 8) / 64 + i, 'label': (torch.arange(64).reshape(1, 8, 8)"
                " > 20 + 4 * i).long(), 'case': f'case_{i}'} for i in range(6)]"
            ),
            "transform": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": 0},
                    {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.8},
                ],
            },
        },
        "sampler": {
            "_target_": "common.data.samples.sampler.DrawSampler",
            "dataset": "@train::dataset",
            "seed": "@seed",
        },
        "dataloader": {
            "_target_": "common.data.samples.loader.SampleLoader",
            "dataset": "@train::dataset",
            "sampler": "@train::sampler",
            "batch_size": 2,
            "num_workers": "@num_workers",
            "seed": "@seed",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "optimizer": {
            "_target_": "torch.optim.Adam",
            "params": "$@network.parameters()",
            "lr": "@learning_rate",
        },
        "lr_scheduler": {
            "_target_": "torch.optim.lr_scheduler.StepLR",
            "optimizer": "@train::optimizer",
            "step_size": 2,
        },
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "handlers": [
            {
                "_target_": "common.engine.run.checkpoint.RunCheckpoint",
                "folder": "$@output_dir + '/checkpoints'",
                "save_dict": {
                    "network": "@network",
                    "optimizer": "@train::optimizer",
                    "lr_scheduler": "@train::lr_scheduler",
                    "keep_best": "@keep_best",
                },
                "card": "@card",
                "resume": "@resume",
            },
            {"_target_": "common.engine.run.seeding.SeedEachEpoch", "seed": "@seed"},
            {"_target_": "LrScheduleHandler", "lr_scheduler": "@train::lr_scheduler", "print_lr": False},
            {"_target_": "ValidationHandler", "validator": "@validate::evaluator", "interval": 1},
            "@keep_best",
            {"_target_": "common.engine.monitor.progress.Progress", "quiet": "@quiet"},
            {
                "_target_": "common.engine.monitor.history.History",
                "output_dir": "@output_dir",
                "evaluator": "@validate::evaluator",
            },
            {"_target_": "common.engine.monitor.tracking.Tracking", "output_dir": "@output_dir"},
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "device": "$torch.device(@device)",
            "max_epochs": "@max_epochs",
            "train_data_loader": "@train::dataloader",
            "network": "@network",
            "loss_function": "@train::loss",
            "optimizer": "@train::optimizer",
            "inferer": "@train::inferer",
            "prepare_batch": {"_target_": "common.engine.training.steps.PrepareKeys"},
            "iteration_update": {"_target_": "common.engine.training.steps.TermsStep", "micro_batch": 2},
            "train_handlers": "@train::handlers",
        },
    },
    "validate": {
        "dataset": {
            "_target_": "Dataset",
            "data": (
                "$[{'image': torch.arange(64.).reshape(1, 8, 8) / 64 + i, 'label': (torch.arange(64).reshape(1, 8, 8)"
                " > 22 + 4 * i).long(), 'case': f'val_{i}'} for i in range(2)]"
            ),
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate::dataset", "batch_size": 1},
        "handlers": [
            "@keep_best",
            {
                "_target_": "common.engine.monitor.overlays.Overlays",
                "output_dir": "@output_dir",
                "labels": "@labels",
                "cases": 1,
            },
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "$torch.device(@device)",
            "val_data_loader": "@validate::dataloader",
            "network": "@network",
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True, "to_onehot": 2},
                    {"_target_": "AsDiscreted", "keys": "label", "to_onehot": 2},
                ],
            },
            "key_val_metric": {
                "dice": {
                    "_target_": "MeanDice",
                    "include_background": False,
                    "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
                }
            },
            "val_handlers": "@validate::handlers",
        },
    },
    "run": [
        {
            "_target_": "common.engine.run.start.start_run",
            "output_dir": "@output_dir",
            "seed": "@seed",
            "free_gb": 0.01,
        },
        "$@train::trainer.run()",
    ],
}

LOGGING = """[loggers]
keys=root
[handlers]
keys=console
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=console
[handler_console]
class=StreamHandler
level=INFO
formatter=plain
args=(sys.stdout,)
[formatter_plain]
format=%(levelname)s %(message)s
"""


class ToyBundle:
    """The bundle's folder and two ways to run it: as a forked process (fast) and as the command itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "configs" / "train.json"
        self.config.parent.mkdir(parents=True)
        self.write(CONFIG)
        self.config.with_name("logging.conf").write_text(LOGGING)
        self.output = root / "run"
        self.model = root / "models" / "model.pt"
        self.last = self.output / "checkpoints" / "last.pth"
        self.log = root / "log.txt"

    def write(self, config: dict) -> None:
        self.config.write_text(json.dumps(config))

    def arguments(self, *extra: str) -> list[str]:
        given = ["run", *extra, "--bundle_root", str(self.root)]
        return given if "--config_file" in extra else [*given, "--config_file", str(self.config)]

    def start(self, *extra: str, before: Callable[[], None] | None = None) -> int:
        """Start ``python -m monai.bundle run`` as a fork of this process (nothing needs importing again)."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setpgid(0, 0)
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            sys.argv = [MAIN, *self.arguments(*extra)]
            torch.set_num_threads(1)
            if before is not None:
                before()
            runpy.run_module("monai.bundle", run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            if sys.excepthook is sys.__excepthook__:
                traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    @staticmethod
    def wait(pid: int) -> int:
        """Exit code; negative: killed by that signal."""
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def run(self, *extra: str, before: Callable[[], None] | None = None) -> int:
        return self.wait(self.start(*extra, before=before))

    def command(self, *extra: str) -> subprocess.CompletedProcess[str]:
        """The real command."""
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "monai.bundle", *self.arguments(*extra)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(self.text())
            time.sleep(0.002)

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.last, weights_only=True)["objects"]["network"]

    def epoch(self) -> int:
        return torch.load(self.last, weights_only=True)["trainer"]["epoch"] if self.last.exists() else 0


def _kill_in_save(call: int, name: str) -> None:
    """In the process that calls this: die after half of the ``call``-th file called ``name`` has been written."""
    save, seen = torch.save, []

    def dying_save(content, file, *args, **kwargs):
        save(content, file, *args, **kwargs)
        if hasattr(file, "write"):
            file.flush()
        path = Path(getattr(file, "name", file))
        if name in path.name:
            seen.append(path)
            if len(seen) == call:
                size = path.stat().st_size
                with path.open("r+b") as handle:
                    handle.truncate(size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

    torch.save = dying_save


@pytest.fixture
def kill_in_save() -> Callable[[int, str], None]:
    return _kill_in_save


@pytest.fixture
def toy_bundle(tmp_path: Path) -> ToyBundle:
    return ToyBundle(tmp_path / "töy büundle")


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[[str], ToyBundle]:
    return lambda name: ToyBundle(tmp_path / name)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> ToyBundle:
    """The toy bundle after four epochs without an interruption."""
    toy = ToyBundle(tmp_path_factory.mktemp("toy") / "undisturbed")
    assert toy.run() == 0, toy.text()
    return toy
