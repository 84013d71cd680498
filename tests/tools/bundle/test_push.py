"""Publishing, up to the network's edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from common.errors import ConfigError
from tests.tools.bundle.test_pack import toy, trained  # noqa: F401
from tools.bundle.command import Bundle
from tools.bundle.pack import pack_bundle
from tools.bundle.push import packed_files
from tools.question import ask


class Hub:
    """In the place of ``huggingface_hub.HfApi``."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    files: ClassVar[set[str]] = set()

    def __init__(self, token: str | None = None) -> None:
        self.calls.clear()

    def create_repo(self, **given: Any) -> None:
        self.calls.append(("create_repo", given))

    def upload_folder(self, *, repo_id: str, folder_path: str) -> str:
        root = Path(folder_path)
        Hub.files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
        self.calls.append(("upload_folder", {"repo_id": repo_id}))
        return f"https://huggingface.co/{repo_id}"

    def create_tag(self, **given: Any) -> None:
        self.calls.append(("create_tag", given))


@pytest.fixture
def packed(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    import monai.bundle.scripts as scripts

    monkeypatch.setattr(scripts.huggingface_hub, "HfApi", Hub)
    Hub.calls.clear()
    folder = pack_bundle(toy, tmp_path / "out", weights=trained(tmp_path / "w.pt")).folder
    for name in ("eval/secret.json", "models/other.pth", "toy_bundle/__pycache__/x.pyc", "mlruns.db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("private")
    return folder


def test_private_tagged_and_nothing_but_what_was_packed(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Bundle().push(str(packed), "me/toy", yes=True)
    assert [c[0] for c in Hub.calls] == ["create_repo", "upload_folder", "create_tag"]
    assert Hub.calls[0][1] == {"repo_id": "me/toy", "private": True, "exist_ok": True}
    assert Hub.calls[2][1]["tag"] == "0.1.0"
    assert {"README.md", "models/model.pt", "configs/metadata.json", "docs/VENDORED.json"} <= Hub.files
    assert not [f for f in Hub.files if "secret" in f or "pyc" in f or f.endswith((".pth", ".db"))]
    assert not (packed / "README.md").exists()
    assert "https://huggingface.co/me/toy" in capsys.readouterr().out


def test_public_and_latest_when_told(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Bundle().push(str(packed), "me/toy", private=False, latest=True, yes=True)
    assert Hub.calls[0][1]["private"] is False and Hub.calls[-1][1]["tag"] == "latest_version"
    assert "PUBLIC" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "sent"), [("y", True), ("n", False), ("", False)])
def test_asks_first(packed: Path, monkeypatch: pytest.MonkeyPatch, answer: str, sent: bool) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    if sent:
        Bundle().push(str(packed), "me/toy")
    else:
        with pytest.raises(ConfigError, match="nothing was sent"):
            Bundle().push(str(packed), "me/toy")
    assert bool(Hub.calls) is sent


def test_without_a_terminal_the_answer_is_no(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert ask("really?") is False
    with pytest.raises(ConfigError, match="nothing was sent"):
        Bundle().push(str(packed), "me/toy")
    assert Hub.calls == []


def test_refusals(packed: Path, toy: Path) -> None:  # noqa: F811
    for repo in ("toy", "a/b/c", "../x", "me/"):
        with pytest.raises(ConfigError, match="user/name"):
            Bundle().push(str(packed), repo, yes=True)
    with pytest.raises(ConfigError, match="was not packed"):
        Bundle().push(str(toy), "me/toy", yes=True)
    (packed / "LICENSE").unlink()
    with pytest.raises(ConfigError, match="does not pass"):
        Bundle().push(str(packed), "me/toy", yes=True)
    assert Hub.calls == []


def test_links_are_left_behind(packed: Path, tmp_path: Path) -> None:
    (packed / "docs" / "link.md").symlink_to(packed / "LICENSE")
    assert "docs/link.md" not in packed_files(packed, "toy_bundle")
