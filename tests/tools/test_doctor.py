"""The doctor reads what is installed against what was tested, and knows the next command."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from tools import doctor
from tools.doctor import Package, machine, next_command, packages

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("package", "verdict"),
    [
        (Package("a", "1.2.0", ">=1,<2", "1.2.0"), "ok"),
        (Package("a", "1.2.0+cpu", ">=1,<2", "1.2.0"), "ok"),
        (Package("a", "1.3.0", ">=1,<2", "1.2.0"), "untested"),
        (Package("a", "2.0", ">=1,<2", "1.2.0"), "outside the range"),
        (Package("a", None, ">=1", "1.2.0"), "missing"),
        (Package("a", "5", "", None), "ok"),
    ],
)
def test_verdict(package: Package, verdict: str) -> None:
    assert package.verdict == verdict


def test_packages_are_read_from_the_repository(tmp_path: Path) -> None:
    (tmp_path / "setup.cfg").write_text("[options]\ninstall_requires =\n    numpy>=1\n    no-such-thing>=3\n")
    (tmp_path / "requirements.txt").write_text("# pins\nnumpy==1.0  # old\n\n")
    numpy, other = packages(tmp_path)
    assert (numpy.tested, numpy.allowed, numpy.verdict) == ("1.0", ">=1", "untested")
    assert (other.installed, other.verdict) == (None, "missing")


def test_machine_names_what_matters(tmp_path: Path) -> None:
    assert {"python", "processor", "memory", "disk"} <= {name for name, _ in machine(tmp_path)}


def test_next_command_follows_the_demonstration(tmp_path: Path) -> None:
    assert next_command(tmp_path)[1] == "python -m tools phantom"
    (tmp_path / "data" / "phantom").mkdir(parents=True)
    assert next_command(tmp_path) == ("the demonstration is not finished", "make demo")
    (tmp_path / "runs" / "one_pass" / "report").mkdir(parents=True)
    (tmp_path / "runs" / "one_pass" / "report" / "index.html").touch()
    assert "report" in next_command(tmp_path)[1]


def test_it_fails_after_showing_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "packages", lambda root: iter([Package("gone", None, ">=1", "1")]))
    with pytest.raises(ConfigError, match="gone"):
        doctor.doctor()
    assert "next:" in capsys.readouterr().out


def test_untested_versions_fail_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "packages", lambda root: iter([Package("new", "2", ">=1", "1")]))
    doctor.doctor()
    with pytest.raises(ConfigError, match="new"):
        doctor.doctor(strict=True)
