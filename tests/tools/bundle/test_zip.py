"""Zips are written alike, and read within limits."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ConfigError
from tools.bundle.zip import MAX_BYTES, MAX_FILES, _checked, unpack, zip_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy" / "configs").mkdir(parents=True)
    (tmp_path / "toy" / "configs" / "ä b.json").write_text("{}")
    (tmp_path / "toy" / "LICENSE").write_bytes(b"x" * 5000)
    return tmp_path / "toy"


def test_same_bytes_whenever_and_whoever(folder: Path, tmp_path: Path) -> None:
    first = zip_folder(folder, tmp_path / "a.zip").read_bytes()
    (folder / "LICENSE").touch()
    (folder / "LICENSE").chmod(0o755)
    assert zip_folder(folder, tmp_path / "b.zip").read_bytes() == first
    (folder / "LICENSE").write_text("y")
    assert zip_folder(folder, tmp_path / "c.zip").read_bytes() != first


def test_there_and_back(folder: Path, tmp_path: Path) -> None:
    out = unpack(zip_folder(folder, tmp_path / "a.zip"), tmp_path / "new" / "place")
    assert out == tmp_path / "new" / "place" / "toy"
    assert (out / "configs" / "ä b.json").read_text() == "{}"
    assert (out / "LICENSE").read_bytes() == b"x" * 5000
    assert [p.name for p in out.parent.iterdir()] == ["toy"]


def entry(name: str, data: str = "x", mode: int = 0) -> Callable[[zipfile.ZipFile], None]:
    def write(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data)

    return write


def folders(*names: str) -> Callable[[zipfile.ZipFile], None]:
    def write(archive: zipfile.ZipFile) -> None:
        for name in names:
            entry(name)(archive)

    return write


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("toy/zeros", b"\0" * 60_000_000, zipfile.ZIP_DEFLATED)


HOSTILE = {
    "..": (entry("toy/../../x"), "leads out"),
    "absolute": (entry("/toy/x"), "leads out"),
    "drive": (entry("C:/x"), "leads out"),
    "backslash": (entry("toy\\..\\x"), "leads out"),
    "dot": (entry("toy/./x"), "leads out"),
    "empty part": (entry("toy//x"), "leads out"),
    "control": (entry("toy/a\nb"), "leads out"),
    "symbolic link": (entry("toy/x", "/etc/passwd", stat.S_IFLNK | 0o777), "link"),
    "device": (entry("toy/x", "", stat.S_IFCHR | 0o777), "special"),
    "same name": (entry("toy/License"), "one name"),
    "two folders": (entry("other/x"), "one folder"),
    "file at the top": (entry("x"), "one folder"),
    "bomb": (bomb, "more than is accepted"),
    "expression": (entry("toy/$__import__('os')"), "misreads"),
    "reference": (entry("toy/@model/x"), "misreads"),
    "identifier": (entry("toy/a#b.json"), "misreads"),
    "direction": (entry("toy/a\u202egnp.json"), "misreads"),
    "spaces": (entry("toy/a .json/ b"), "misreads"),
    "final dot": (entry("toy/LICENSE."), "misreads"),
    "reserved": (entry("toy/configs/NUL.json"), "misreads"),
    "reserved port": (entry("toy/com1 .txt"), "misreads"),
    "reserved port in small figures": (entry("toy/COM\u00b9.json"), "misreads"),
    "reserved name in wide letters": (entry("toy/\uff23on"), "misreads"),
    "invisible letter": (entry("toy/a\u3164.json"), "misreads"),
    "folders that differ in capitals": (folders("toy/docs/x", "toy/Docs/y"), "one name"),
    "folders that differ in capitals above": (folders("toy/docs/x", "Toy/y"), "one name"),
    "a file and a folder": (folders("toy/docs", "toy/Docs/y"), "one name"),
    "wildcard": (entry("toy/a*b"), "misreads"),
    "long name": (entry("toy/" + "x" * 300), "misreads"),
    "same name in wide letters": (entry("toy/\uff2cICENSE"), "one name"),
    "same name composed": (entry("toy/LICEN\u017fE"), "one name"),
    "folder of the bundle": (entry("$toy/x"), "misreads"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_zips_leave_nothing(case: str, tmp_path: Path) -> None:
    write, problem = HOSTILE[case]
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("toy/LICENSE", "fine")
        write(archive)
    with pytest.raises(ConfigError, match=problem):
        unpack(tmp_path / "bad.zip", tmp_path / "out" / "deep")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "bad.zip"]


GOOD = {"path": "models/model.pt", "url": "https://example.org/model.pt", "hash_val": "ab", "hash_type": "sha256"}


def with_list(tmp_path: Path, content: object, name: str = "large_files.yml") -> Path:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("toy/LICENSE", "fine")
        archive.writestr(f"toy/{name}", json.dumps(content))
    return tmp_path / "a.zip"


@pytest.mark.parametrize("name", ["large_files.yml", "large_files.yaml", "large_files.json", "large_files_more.yml"])
@pytest.mark.parametrize(
    "changes",
    [{"path": "../x"}, {"path": "/etc/x"}, {"path": "C:/x"}, {"path": "models\\x"}, {"path": "$x"}, {"path": ""},
     {"path": None}, {"url": "file:///etc/passwd"}, {"url": "http://example.org/x"}, {"url": "https:///x"}, {"url": ""},
     {"url": "https://example.org/\n"}, {"filepath": "/etc/x"}, {"progress": "$x"}, {"url": ["https://example.org"]}],
)  # fmt: skip
def test_large_files_come_from_the_web_into_the_bundle(name: str, changes: dict[str, object], tmp_path: Path) -> None:
    file = with_list(tmp_path, {"large_files": [GOOD, {**GOOD, **changes}]}, name)
    with pytest.raises(ConfigError, match="large file"):
        unpack(file, tmp_path / "out")
    assert not (tmp_path / "out" / "toy").exists()


def test_a_list_of_large_files(tmp_path: Path) -> None:
    plain = {key: GOOD[key] for key in ("path", "url")}
    assert unpack(with_list(tmp_path, {"large_files": [GOOD, plain]}), tmp_path / "out").is_dir()
    for content in ([], {"large_files": 3}, {"large_files": ["x"]}, {}, "$x"):
        with pytest.raises(ConfigError, match="cannot be read"):
            unpack(with_list(tmp_path, content), tmp_path / "other")


def test_a_list_of_large_files_does_not_grow_when_it_is_read(tmp_path: Path) -> None:
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("toy/large_files.yml", "\n".join(["a0: &a0 [x]", *rows, "large_files: *a11"]))
    with pytest.raises(ConfigError, match="names parts of itself"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_limits(folder: Path, tmp_path: Path) -> None:
    file = zip_folder(folder, tmp_path / "a.zip")
    with pytest.raises(ConfigError, match="too many files"):
        unpack(file, tmp_path / "out", max_files=1)
    with pytest.raises(ConfigError, match="more than is accepted"):
        unpack(file, tmp_path / "out", max_bytes=5001)
    assert unpack(file, tmp_path / "out", max_files=2, max_bytes=5002).is_dir()


def test_a_zip_that_lies_about_its_sizes(folder: Path, tmp_path: Path) -> None:
    content = bytearray(zip_folder(folder, tmp_path / "a.zip").read_bytes())
    at = content.rfind((5000).to_bytes(4, "little"))  # LICENSE's size in the list of contents
    content[at : at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        unpack(tmp_path / "b.zip", tmp_path / "out")
    assert not (tmp_path / "out" / "toy").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_no_zip(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be read|empty"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_damaged_missing_and_existing(folder: Path, tmp_path: Path) -> None:
    file = zip_folder(folder, tmp_path / "a.zip")
    (tmp_path / "cut.zip").write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ConfigError, match="cannot be read"):
        unpack(tmp_path / "cut.zip", tmp_path / "out")
    with pytest.raises(ConfigError, match="missing"):
        unpack(tmp_path / "none.zip", tmp_path / "out")
    with pytest.raises(ConfigError, match="exists"):
        unpack(file, tmp_path)


def listed(*sizes: int) -> list[zipfile.ZipInfo]:
    found = []
    for number, size in enumerate(sizes):
        found.append(zipfile.ZipInfo(f"toy/{number}"))
        found[-1].file_size = size
    return found


def test_limits_have_two_sides(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(b"x" * 100_000)
    assert _checked(file, listed(*[1] * 7), 7, 7) == "toy"
    for files, size in ((6, 7), (7, 6)):
        with pytest.raises(ConfigError, match=r"too many files|more than is accepted"):
            _checked(file, listed(*[1] * 7), files, size)
    assert _checked(file, listed(20_000_000), MAX_FILES, MAX_BYTES) == "toy", "two hundred times"
    with pytest.raises(ConfigError, match="20000001 bytes from 100000"):
        _checked(file, listed(20_000_000, 1), MAX_FILES, MAX_BYTES)
    file.write_bytes(b"")
    assert _checked(file, listed(10_000_000), MAX_FILES, MAX_BYTES) == "toy", "below ten megabytes nobody is harmed"
    with pytest.raises(ConfigError, match="more than is accepted"):
        _checked(file, listed(10_000_001), MAX_FILES, MAX_BYTES)


def test_a_zip_has_no_date_and_plain_rights(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(zip_folder(folder, tmp_path / "a.zip")) as archive:
        for entry_ in archive.infolist():
            assert entry_.date_time == (1980, 1, 1, 0, 0, 0) and entry_.create_system == 3
            assert entry_.external_attr >> 16 == stat.S_IFREG | 0o644 and entry_.compress_type == zipfile.ZIP_DEFLATED


def test_two_bundles_lie_side_by_side(folder: Path, tmp_path: Path) -> None:
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    for one in (folder, other):
        assert unpack(zip_folder(one, tmp_path / f"{one.name}.zip"), tmp_path / "out").name == one.name
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["other", "toy"]
