"""Command-line keys: what is accepted, what is refused, and which of them decide the result."""

from __future__ import annotations

import json

import pytest

from common.engine.run.overrides import BundleCommand, check_overrides, hash_settings, meaningful, read_command
from common.errors import ConfigError

MAIN = "/somewhere/site-packages/monai/bundle/__main__.py"
CONFIG = {
    "imports": ["$import os"],
    "bundle_root": ".",
    "max_epochs": 10,
    "learning_rate": 0.1,
    "output_dir": "$@bundle_root + '/run'",
    "network_def": {"_target_": "UNet", "spatial_dims": 3, "channels": [4, 8]},
    "train": {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": "@learning_rate"},
        "dataloader": {"_target_": "DataLoader", "batch_size": 2, "num_workers": 4},
        "handlers": [{"_target_": "StatsHandler"}],
        "trainer": {"_target_": "SupervisedTrainer", "max_epochs": "@max_epochs"},
    },
    "validate": {"dataloader": {"_target_": "DataLoader", "batch_size": 1}},
    "run": ["$@train::trainer.run()"],
}


@pytest.fixture
def files(tmp_path):
    base, overlay = tmp_path / "train.json", tmp_path / "smoke.json"
    base.write_text(json.dumps(CONFIG))
    overlay.write_text(json.dumps({"max_epochs": 2, "network_def::channels": [2, 4], "extra_knob": 1}))
    return base, overlay


def command(files, *arguments: str) -> BundleCommand:
    given = f"['{files[0]}','{files[1]}']"
    found = read_command([MAIN, "run", "--config_file", given, *arguments])
    assert found is not None
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--max_epochs", "1"),
        ("--max-epochs", "1"),
        ("--extra_knob=2",),
        ("--train::trainer::max_epochs", "1"),
        ("--train#trainer#max_epochs", "1"),
        ("--train::dataloader::prefetch_factor", "2"),
        ("--train::optimizer::momentum", "0.9"),
        ("--network_def::norm", "batch"),
        ("--train::handlers::0::_disabled_", "True"),
        ("--network_def::channels::1", "16"),
        ("--+network_def", "{'dropout': 0.1}"),
        ("--_meta_::version", "1"),
        ("--logging_file", "False", "--run_id", "run", "--meta_file", "m.json"),
        ("--tracking", "mlflow", "--experiment_name", "x", "--tracking_uri", "sqlite:///x"),
    ],
)
def test_known_keys_are_accepted(files, arguments) -> None:
    check_overrides(command(files, *arguments))


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("max_epoch", "did you mean --max_epochs?"),
        ("epochs", "did you mean --max_epochs?"),
        ("lr", "the knobs are: bundle_root, max_epochs, learning_rate"),
        ("trian::trainer::max_epochs", "did you mean --train::trainer::max_epochs?"),
        ("train::trainer::max_epoch", "did you mean --train::trainer::max_epochs?"),
        ("train::optimizer::momentun", "did you mean --train::optimizer::momentum?"),
        ("train::dataloader::prefetch_facto", "did you mean --train::dataloader::prefetch_factor?"),
        ("train::handlers::7::_disabled_", "the knobs are"),
        ("train::handlers::²::_disabled_", "the knobs are"),
        ("train::handlers::٠::_disabled_", "the knobs are"),
        (f"train::handlers::{'1' * 5000}::_disabled_", "the knobs are"),
        ("learning_rate::x", "the knobs are"),
        ("experiment_name", "the knobs are"),
    ],
)
def test_unknown_keys_are_refused_with_a_suggestion(files, key, hint) -> None:
    with pytest.raises(ConfigError) as caught:
        check_overrides(command(files, f"--{key}", "1"))
    assert f"--{key}" in str(caught.value) and hint in str(caught.value)
    assert "train.json" in str(caught.value)


def test_an_arguments_file_is_checked_too(files, tmp_path) -> None:
    arguments = tmp_path / "args.json"
    arguments.write_text(json.dumps({"config_file": str(files[0]), "max_epoch": 3}))
    found = read_command([MAIN, "run", "--args_file", str(arguments)])
    with pytest.raises(ConfigError, match="max_epoch"):
        check_overrides(found)


@pytest.mark.parametrize(
    "argv",
    [
        ["/usr/bin/pytest", "-q"],
        [MAIN],
        [MAIN, "verify_metadata"],
        ["monai/bundle/__main__.py"],
        [MAIN, "run", "--x", "1"],
    ],
)
def test_other_programs_have_no_command(argv) -> None:
    assert read_command(argv) is None


def test_values_and_files_merge_as_in_monai(files) -> None:
    config = command(files, "--train::trainer::max_epochs", "1", "--learning_rate=0.5").config()
    assert config["max_epochs"] == 2 and config["extra_knob"] == 1
    assert config["network_def"]["channels"] == [2, 4]
    assert config["train"]["trainer"]["max_epochs"] == 1
    assert config["learning_rate"] == 0.5


def settings_hash(files, *arguments: str) -> str:
    return hash_settings(meaningful(command(files, *arguments).config()))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max_epochs", "99"),
        ("--cpu_gain", "2.0"),
        ("--train::trainer::max_epochs", "99"),
        ("--output_dir", "/elsewhere"),
        ("--bundle_root", "/elsewhere"),
        ("--train::dataloader::num_workers", "0"),
        ("--train::handlers", "[]"),
        ("--validate::dataloader::batch_size", "4"),
        ("--tracking", "mlflow", "--experiment_name", "x"),
    ],
)
def test_free_knobs_do_not_change_the_hash(files, arguments) -> None:
    assert settings_hash(files, *arguments) == settings_hash(files)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--learning_rate", "0.2"),
        ("--max_steps", "7"),
        ("--max_minutes", "7"),
        ("--precision", "bf16"),
        ("--network_def::channels", "[4,4]"),
        ("--train::dataloader::batch_size", "3"),
        ("--train::optimizer::momentum", "0.9"),
    ],
)
def test_meaningful_knobs_change_the_hash(files, arguments) -> None:
    assert settings_hash(files, *arguments) != settings_hash(files)


def test_the_hash_ignores_the_order_of_keys() -> None:
    assert hash_settings({"a": 1, "b": {"c": 2, "d": 3}}) == hash_settings({"b": {"d": 3, "c": 2}, "a": 1})
