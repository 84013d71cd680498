import json
import socket
from pathlib import Path

import pytest

from common.data.store.cases import StoredCases
from common.data.store.owned import remove_unfinished
from common.data.store.place import Store, clear, listed
from common.errors import DataError

KEY = "0123456789abcdef" * 2


@pytest.fixture
def place(items, reading, tmp_path):
    """A store of three cases beside the data."""
    StoredCases(items, reading, store=Store(tmp_path / "data"))
    return tmp_path / "data" / ".prepared"


@pytest.fixture
def papers(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years")
    return folder


def unfinished(folder, key=KEY, pid=11, host=None):
    aside = folder / f".{key}.{host or socket.gethostname()}.{pid}.tmp"
    aside.mkdir(parents=True)
    (aside / "0.b2nd").write_bytes(b"half")
    return aside


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["locks", "aa", KEY, f"{KEY}/{KEY}", "facts", "sources.json", "CACHEDIR.TAG"])
def test_no_link_in_a_store_is_followed_when_it_is_cleared(place, papers, name):
    (unfinished(papers, "keep") / "model.pt").write_text("weights")
    unfinished(papers)
    (papers / f"{KEY}.json").write_text("{}")
    (papers / "entry.json").write_text("{}")
    link = place / name
    if link.is_dir():
        link.rmdir()
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(papers / "thesis.tex" if "." in name else papers)
    kept = content(papers)
    problem = "no store of prepared volumes" if name == "CACHEDIR.TAG" else "is not followed"
    with pytest.raises(DataError, match=problem) as caught:
        clear(place)
    assert content(papers) == kept and [k.cases for k in listed(place)] == [3]
    assert link.name in str(caught.value)


def test_a_store_that_is_a_link_is_neither_cleared_nor_written(place, items, reading, tmp_path):
    place.rename(tmp_path / "runs")
    place.symlink_to(tmp_path / "runs")
    kept = content(tmp_path / "runs")
    with pytest.raises(DataError, match="is not followed"):
        clear(place)
    with pytest.raises(DataError, match="is not followed"):
        Store(tmp_path / "data")
    assert content(tmp_path / "runs") == kept


def test_a_folder_that_no_store_marked_is_not_cleared(tmp_path, place):
    runs = tmp_path / "runs"
    for name in ("samora", KEY):
        (runs / name / "student").mkdir(parents=True)
        (runs / name / "chain.json").write_text(json.dumps({"chain": "samora", "steps": []}))
        (runs / name / "student" / "model.pt").write_text("weights")
    kept = content(runs)
    with pytest.raises(DataError, match=r"no store of prepared volumes[\s\S]*no CACHEDIR.TAG"):
        clear(runs)
    (runs / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# pip\n")
    with pytest.raises(DataError, match="another program"):
        clear(runs)
    (runs / "CACHEDIR.TAG").write_bytes((place / "CACHEDIR.TAG").read_bytes())
    assert listed(runs) == [] and clear(runs) == (0, 0)
    assert kept.items() <= content(runs).items(), "a chain's record is no description of prepared volumes"


def test_only_what_a_store_wrote_is_deleted(place):
    (chain,) = (k.folder for k in listed(place))
    mine = [place / "locks" / "sub" / "a.txt", place / "locks" / "notes.txt", place / "aa" / "entry.json",
            chain / "notes.txt", chain / "sub" / "entry.json", place / "facts" / "notes.json"]  # fmt: skip
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    foreign = unfinished(place / "aa")
    dead = unfinished(place / KEY, pid=2**22 + 1)
    (place / "locks" / f"{KEY}{KEY[:8]}.lock").touch()
    assert clear(place)[0] == 3 and listed(place) == []
    assert all(file.read_text() == "mine" for file in mine) and foreign.is_dir() and not dead.parent.exists()
    for file in mine:
        file.unlink()
    left = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}
    assert left == {"CACHEDIR.TAG", f"aa/{foreign.name}/0.b2nd"}, "what is no store's stays, and with it the mark"


def test_no_link_is_written_through(items, reading, tmp_path, papers):
    place = tmp_path / "store"
    place.mkdir()
    (place / "CACHEDIR.TAG").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="is not followed"):
        StoredCases(items, reading, store=Store(store_dir=place))
    assert not (tmp_path / "outside").exists() and [f.name for f in place.iterdir()] == ["CACHEDIR.TAG"]
    (place / "CACHEDIR.TAG").unlink()
    StoredCases(items[:1], reading, store=Store(store_dir=place))
    (chain,) = (k.folder for k in listed(place))
    chain.rename(papers / "moved")
    for link in (place / "locks", chain):
        if link.is_dir():
            link.rmdir()
        link.symlink_to(papers / "moved")
        kept = content(papers)
        with pytest.raises(DataError, match="is not followed"):
            StoredCases(items, reading, store=Store(store_dir=place))
        assert content(papers) == kept
        link.unlink()


def test_what_a_killed_writer_left_is_removed(tmp_path):
    dead, alive = (unfinished(tmp_path, pid=n) for n in (11, 12))
    foreign, other = unfinished(tmp_path, host="elsewhere"), unfinished(tmp_path, "keep")
    (unfinished(tmp_path, pid=13) / "notes.txt").write_text("mine")
    remove_unfinished(tmp_path, lambda pid: pid == 12)
    assert not dead.exists() and alive.exists() and foreign.exists() and other.exists()
    assert [p.read_text() for p in tmp_path.rglob("*.txt")] == ["mine"]
    (tmp_path / "link").symlink_to(tmp_path)
    remove_unfinished(tmp_path / "link", lambda pid: False)
    assert alive.exists(), "no link is followed"
