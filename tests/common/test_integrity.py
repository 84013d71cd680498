"""A file's hash lies beside it, is compared when it is read, and never stands in the way of what was just saved."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from common import integrity
from common.card import save_weights
from common.engine.run.best import KeepBest
from common.errors import CheckpointError, WeightError
from common.integrity import (
    copy_sealed,
    file_hash,
    keep_previous,
    remove_seal,
    seal_of,
    sealed_hash,
    sealed_write,
    verify,
)
from common.weights import load_weights, read_card, read_state_dict


def saved(path: Path, value: float = 1.0) -> Path:
    return save_weights(path, {"weight": torch.full((2, 3), value), "bias": torch.zeros(2)})


def flip(path: Path, at: int = -20) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def flip_value(path: Path) -> None:
    """One bit of a stored number, which torch reads without a word."""
    at = path.read_bytes().index(torch.full((2, 3), 1.0).numpy().tobytes())
    flip(path, at)


@pytest.mark.parametrize("name", ["model.pt", "a model ü.pth", "model.safetensors"])
def test_saved_weights_have_their_hash_beside_them(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / f"{name}.sha256").read_text() == f"{digest}  {name}\n"
    assert verify(path) == sealed_hash(path) == file_hash(path) == digest
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, f"{name}.sha256"])
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", f"{name}.sha256"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_one_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name)
    before = file_hash(path)
    flip_value(path)
    network = torch.nn.Linear(3, 2)
    kept = network.weight.clone()
    message = (
        rf"(?s)name.*not those that were saved.*sha256 {file_hash(path)}.*sha256 {before}.*train it again".replace(
            "name", name
        )
    )
    for read in (lambda: load_weights(network, path), lambda: read_card(path), lambda: read_state_dict(path)):
        with pytest.raises(WeightError, match=message):
            read()
    assert torch.equal(network.weight, kept)
    remove_seal(path)
    assert load_weights(network, path).fraction == 1  # without a hash nothing would tell


def test_an_emptied_or_cut_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightError, match="not those that were saved"):
        read_state_dict(path)
    path.write_bytes(b"")
    with pytest.raises(WeightError, match="an empty file"):
        read_state_dict(path)


def test_the_way_out_works(tmp_path: Path) -> None:
    """Who put another file there types what the message says."""
    folder = tmp_path / "it's mine"
    path = saved(folder / "model.pt")
    other = saved(tmp_path / "other.pt", 2.0)
    path.write_bytes(other.read_bytes())
    with pytest.raises(WeightError) as refusal:
        verify(path)
    command = str(refusal.value).rpartition("there yourself: ")[2]
    if shutil.which("sha256sum"):
        subprocess.run(["sh", "-c", command], check=True)
        assert verify(path) == file_hash(other)


def test_without_a_hash_files_are_read_as_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "old.pt")
    monkeypatch.setattr(integrity, "file_hash", lambda *_: pytest.fail("read for nothing"))
    assert read_state_dict(tmp_path / "old.pt")[0]["weight"].item() == 1
    assert not caplog.records and not seal_of(tmp_path / "old.pt").exists()


@pytest.mark.parametrize(
    "text", ["{0}\n", "{0} *model.pt\n", "SHA256 (model.pt) = {0}\n", "{1}  other.pt\n{0}  model.pt\n", "{2}  model.pt"]
)
def test_hashes_of_other_tools_are_read(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path / "model.pt")
    digest = file_hash(path)
    seal_of(path).write_text(text.format(digest, "0" * 64, digest.upper()))
    assert verify(path) == digest


@pytest.mark.parametrize(
    "text", ["", "no hash\n", "abc  model.pt\n", "0" * 63 + "  model.pt\n", "0" * 65 + "  model.pt\n"]
)
def test_a_hash_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path / "model.pt")
    seal_of(path).write_text(text)
    with pytest.raises(WeightError, match=r"(?s)model\.pt\.sha256.*holds none.*sha256sum model\.pt"):
        read_state_dict(path)
    saved(path, 2.0)
    assert read_state_dict(path)[0]["weight"][0, 0] == 2  # saving again mends it


@pytest.mark.parametrize("moment", ["seal", "remove_seal"])
def test_killed_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Whatever was reached, there is a whole file that can be read."""
    path = saved(tmp_path / "model.pt", 1.0)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(integrity, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            saved(path, 2.0)
    value = read_state_dict(path)[0]["weight"][0, 0]
    assert value == (2.0 if moment == "seal" else 1.0) and seal_of(path).exists() == (moment == "remove_seal")
    saved(path, 3.0)
    assert verify(path) is not None


def test_a_full_disk_leaves_file_and_hash(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="disk is full"), sealed_write(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert verify(path) and read_state_dict(path)[0]["weight"][0, 0] == 1


def test_a_file_that_is_replaced_meanwhile_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, seen = saved(tmp_path / "model.pt"), file_hash, []

    def slow(given: Path) -> str:
        if not seen:
            seen.append(given)
            monkeypatch.setattr(integrity, "file_hash", real)
            saved(path, 2.0)
        return real(given)

    monkeypatch.setattr(integrity, "file_hash", slow)
    assert verify(path) == hashlib.sha256(path.read_bytes()).hexdigest() and seen


def test_a_file_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads, real = tmp_path / "x", [], hashlib.file_digest
    path.write_bytes(b"one")
    monkeypatch.setattr(integrity.hashlib, "file_digest", lambda *a: (reads.append(a), real(*a))[1])
    first = file_hash(path)
    assert file_hash(path) == first and len(reads) == 2  # as young as it is, its time would not show a change
    monkeypatch.setattr(integrity, "_SETTLED_NS", -(10**18))
    assert [file_hash(path) for _ in range(3)] == [first] * 3 and len(reads) == 3
    path.write_bytes(b"eno")
    assert file_hash(path) == hashlib.sha256(b"eno").hexdigest() != first


def test_copies_have_the_hash_and_damaged_files_are_not_copied(tmp_path: Path) -> None:
    source = saved(tmp_path / "run" / "model.pt")
    target = copy_sealed(source, tmp_path / "bundle" / "models" / "model.pt")
    assert target.read_bytes() == source.read_bytes() and verify(target) == file_hash(source)
    flip(source)
    with pytest.raises(WeightError, match="not those that were saved"):
        copy_sealed(source, target)
    assert verify(target)
    torch.save({"weight": torch.ones(1)}, tmp_path / "old.pt")
    assert verify(copy_sealed(tmp_path / "old.pt", target)) == file_hash(tmp_path / "old.pt")


def test_the_file_before_keeps_its_own_hash(tmp_path: Path) -> None:
    assert keep_previous(tmp_path / "model.pt") is None
    path = saved(tmp_path / "model.pt")
    digest = file_hash(path)
    kept = keep_previous(path)
    assert kept == tmp_path / "previous" / f"model_{digest[:8]}.pth" and verify(kept) == digest
    assert keep_previous(path) == kept  # once is enough
    kept.unlink()
    kept.write_bytes(b"somebody else's file of that name")
    second = keep_previous(path)
    assert second is not None and second != kept and second.read_bytes() == path.read_bytes()
    flip(path)
    damaged = keep_previous(path)
    assert damaged is not None and damaged.read_bytes() == path.read_bytes()
    with pytest.raises(WeightError):  # keeping it did not make it right
        verify(damaged)


def test_a_run_that_goes_on_does_not_trust_a_damaged_model(tmp_path: Path) -> None:
    path, network = saved(tmp_path / "model.pt"), torch.nn.Linear(3, 2)
    state = {"best": 0.9, "epoch": 3, "own": True}
    keeper = KeepBest(path=path, network=network)
    keeper.load_state_dict(state)
    assert keeper.best == 0.9
    flip_value(path)
    damaged = path.read_bytes()
    again = KeepBest(path=path, network=network)
    again.load_state_dict(state)
    assert again.best is None
    again._write(4, {})
    assert torch.equal(read_state_dict(path)[0]["weight"], network.weight)
    assert [p.read_bytes() for p in (tmp_path / "previous").glob("*.pth")] == [damaged]


def test_a_list_of_several_hashes_names_the_file_in_full(tmp_path):
    """``sha256sum n.pt old_n.pt n.pt.bak > n.pt.sha256`` is a list, and each line is of the file that it names."""
    file = tmp_path / "n.pt"
    file.write_bytes(b"weights")
    other, own = "0" * 64, file_hash(file)
    for text in (f"{other}  old_n.pt\n{own}  n.pt\n", f"{other}  n.pt.bak\n{own} *n.pt\n", f"{own}\n"):
        seal_of(file).write_text(text)
        assert sealed_hash(file) == own
    seal_of(file).unlink()
    seal_of(file).mkdir()
    with pytest.raises(WeightError, match="cannot be read"):
        sealed_hash(file)
