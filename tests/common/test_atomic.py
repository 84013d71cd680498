"""Files are complete or absent."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys

import pytest
import torch

from common import atomic
from common.atomic import atomic_write, process_alive, remove_stale, require_space, usable_cores
from common.errors import CheckpointError
from common.integrity import sealed_write


def test_the_new_file_appears_at_the_end_only(tmp_path) -> None:
    path = tmp_path / "new folder" / "a b.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_every_name_that_a_disk_takes_can_be_written(tmp_path) -> None:
    for name in ("x" * 255, "é" * 127, "😀" * 63):
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text("new")
            assert temporary.name.endswith(f".{socket.gethostname()}.{os.getpid()}.tmp")
        assert (tmp_path / name).read_text() == "new"
    with pytest.raises(CheckpointError, match="too long"), atomic_write(tmp_path / ("x" * 256)) as temporary:
        temporary.write_text("never")
    with pytest.raises(CheckpointError, match="too long"), sealed_write(tmp_path / ("y" * 249)) as temporary:
        temporary.write_text("never")
    assert {len(os.fsencode(p.name)) for p in tmp_path.iterdir()} == {255, 254, 252}


def test_an_error_leaves_the_previous_file(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyError("x")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_explained(tmp_path, number) -> None:
    path = tmp_path / "model.pt"
    path.write_text("old")
    with pytest.raises(CheckpointError, match="disk is full") as caught, atomic_write(path, needed=12345) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert "12345 bytes" in str(caught.value) and "the previous file is intact" in str(caught.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_other_system_errors_pass_through(tmp_path) -> None:
    with pytest.raises(PermissionError), atomic_write(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk(tmp_path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with atomic_write(disk / "model.pt") as temporary:
            torch.save(torch.zeros(1000), temporary)
        before = (disk / "model.pt").read_bytes()
        with pytest.raises(CheckpointError, match="disk is full"), atomic_write(disk / "model.pt") as temporary:
            torch.save(torch.zeros(1_000_000), temporary)
        assert (disk / "model.pt").read_bytes() == before and len(list(disk.iterdir())) == 1
        with pytest.raises(CheckpointError, match="not enough free disk space"):
            require_space(disk / "not yet there", 2_000_000)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_space_is_checked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(atomic, "free_bytes", lambda folder: 10)
    require_space(tmp_path, 10)
    with pytest.raises(CheckpointError, match=r"10 bytes\) free"):
        require_space(tmp_path, 11)


def test_stale_files_of_dead_processes_are_removed(tmp_path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host = socket.gethostname()
    dead = tmp_path / f".model.pt.{host}.{child.pid}.tmp"
    kept = [
        tmp_path / f".model.pt.{host}.{os.getppid()}.tmp",
        tmp_path / f".model.pt.elsewhere.{child.pid}.tmp",
        tmp_path / ".notes.tmp",
        *(tmp_path / f".model.pt.{host}.{pid}.tmp" for pid in ("²", "٣٣٣٣٣٣", "9" * 200, "")),
        tmp_path / "model.pt",
    ]
    for path in (dead, *kept):
        path.touch()
    assert remove_stale(tmp_path) == [dead]
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_zombies_are_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process_alive(child.pid)
    child.wait()
    assert not process_alive(child.pid) and process_alive(os.getpid())


def test_the_processes_of_a_launch_share_the_cores_that_it_may_use(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    for launched, cores in ((None, 6), ("1", 6), ("4", 1), ("3", 2), ("0", 6), ("50", 1)):
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        if launched is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", launched)
        assert usable_cores() == cores, launched
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 150)
    assert usable_cores() == 3, "where nobody says which cores are its own"
