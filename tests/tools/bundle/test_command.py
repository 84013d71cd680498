"""Finding, listing and reading bundles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ConfigError
from tools.bundle.checks import merged
from tools.bundle.command import Bundle
from tools.bundle_files import bundle_folders, configurations, find_bundle, read_json, walk

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with one complete file, one overlay and one overlay of the inference."""
    configs = tmp_path / "toy" / "configs"
    configs.mkdir(parents=True)
    train = {"bundle_root": ".", "rate": 0.1, "net": {"_target_": "Identity"}, "run": ["$print(@rate)"]}
    (configs / "train.json").write_text(json.dumps(train))
    (configs / "inference.json").write_text(json.dumps({"bundle_root": ".", "run": ["$1"]}))
    (configs / "fast.json").write_text(json.dumps({"rate": 0.5, "net::keys": "image"}))
    (configs / "evaluate.json").write_text(json.dumps({"run": ["$2"]}))
    (configs / "metadata.json").write_text(json.dumps({"version": "1", "task": "toy"}))
    return tmp_path / "toy"


def test_configurations_know_their_base(bundle: Path) -> None:
    assert [c.name for c in configurations(bundle)] == ["inference", "train", "inference+evaluate", "train+fast"]


def test_merged_as_monai_merges(bundle: Path) -> None:
    content = merged(configurations(bundle)[-1])
    assert content["rate"] == 0.5
    assert content["net"] == {"_target_": "Identity", "keys": "image"}


def test_walk_gives_monai_ids() -> None:
    ids = dict(walk({"a": {"b": [1, {"c": 2}]}}))
    assert ids["a::b::1::c"] == 2
    assert ids["a::b::0"] == 1


def test_show_lists_calls_and_expressions(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Bundle().show(str(bundle), "fast")
    shown = capsys.readouterr().out
    assert "call      net = Identity" in shown
    assert "evaluate  run::0 = print(@rate)" in shown


def test_show_refuses_unknown_files(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration"):
        Bundle().show(str(bundle), "fsat")


def test_check_fails_with_the_findings(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="errors in 1 bundles"):
        Bundle().check(str(bundle))
    shown = capsys.readouterr().out
    assert "LICENSE: missing" in shown
    assert "evaluate  run::0" in shown


def test_names_and_paths(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert find_bundle("ka2er") == Path("bundles/ka2er")
    assert find_bundle(bundle) == bundle
    monkeypatch.chdir(bundle)
    assert find_bundle("ka2er") == ROOT / "bundles" / "ka2er"
    assert "ka2er" in {p.name for p in bundle_folders()}
    with pytest.raises(ConfigError, match="did you mean 'ka2er'"):
        find_bundle("ka2err")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"a":1,"a":2}', "twice"),
        ("[" * 100_000, "nested more than 100 levels"),
        ('{"a":' + "9" * 5000 + "}", "not valid JSON"),
    ],
    ids=range(5),
)
def test_unreadable_json(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_json(tmp_path / "x.json")


def test_missing_json(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        read_json(tmp_path / "x.json")


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    Bundle().list()
    assert "ka2er " in capsys.readouterr().out


def test_check_shows_what_would_run_and_builds_nothing_unless_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    built: list[Path] = []
    monkeypatch.setattr("tools.bundle.command.verify_network", built.append)
    Bundle().check("ka2er_expert")
    assert "  call      network_def = " in capsys.readouterr().out and built == []
    Bundle().check("ka2er_expert", quiet=True, run=True)
    shown = capsys.readouterr().out
    assert "call" not in shown and "evaluate" not in shown and [p.name for p in built] == ["ka2er_expert"]
