"""Zip files of bundles: written the same byte for byte, read within limits."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from common.atomic import atomic_write
from common.errors import ConfigError
from common.literals import disk_name, is_device, odd_in
from common.paths import check_path
from common.plain_yaml import read_config
from common.zips import DAMAGED

__all__ = ["MAX_BYTES", "MAX_FILES", "MAX_RATIO", "unpack", "zip_folder"]

MAX_FILES = 5_000
MAX_BYTES = 20_000_000_000
MAX_RATIO = 200  # JSON shrinks about 20 times
_STAMP = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
_LARGE = ("path", "url", "hash_val", "hash_type")
_FREE = 10_000_000  # below this nobody is harmed, whatever the ratio


def zip_folder(folder: Path, path: Path) -> Path:
    """Zip a folder under its own name; equal content gives equal bytes (with one version of zlib).

    Args:
        folder: a packed bundle; every file in it is taken.
        path: the zip, replaced only once it is complete.
    """
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(folder).as_posix())
    with (
        atomic_write(path, needed=sum(p.stat().st_size for p in files)) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for file in files:
            entry = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}", _STAMP)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, _CHUNK)
    return path


def unpack(file: Path | str, out: Path | str, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack a bundle's zip into ``out/<name>``, all of it or nothing.

    Args:
        file: the zip; everything in it lies in one folder.
        out: the folder to unpack into; made when it does not exist.
        max_files: entries that are accepted.
        max_bytes: bytes, unpacked, that are accepted; counted while unpacking, whatever the zip says.

    Returns:
        the bundle's folder.

    Raises:
        ConfigError: for no zip, a damaged one, links, paths that leave the folder, names that something misreads, more
            than the limits, a ``large_files.yml`` that names other places, or a folder that exists.
    """
    file = check_path(file, what="zip", error=ConfigError)
    out = check_path(out, what="folder", error=ConfigError)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            name = _checked(file, entries, max_files, max_bytes)
            target = out / name
            if target.exists() or target.is_symlink():
                raise ConfigError("the folder exists", where=target, hint="give another folder, or remove it first")
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out, prefix=".unpack-") as temporary:
                _extract(archive, entries, Path(temporary), file, max_bytes)
                _check_large_files(Path(temporary) / name, file)
                (Path(temporary) / name).rename(target)
            return target
    except FileNotFoundError:
        raise ConfigError("the file is missing", where=file) from None
    except DAMAGED as error:
        raise ConfigError(f"the zip cannot be read: {str(error)[:200] or type(error).__name__}", where=file) from error


def _checked(file: Path, entries: list[zipfile.ZipInfo], max_files: int, max_bytes: int) -> str:
    """The one top folder of a zip whose list of contents is harmless."""
    if not entries:
        raise ConfigError("the zip is empty", where=file)
    if len(entries) > max_files:
        raise ConfigError("too many files", where=file, got=len(entries), expected=f"at most {max_files}")
    seen, spelt = set[str](), dict[str, str]()
    for entry in entries:
        problem = _path_problem(entry)
        if problem:
            raise ConfigError(problem, where=file, got=repr(entry.filename)[:200])
        if entry.filename.rstrip("/") in seen or not _spelt_alike(entry.filename, spelt):
            raise ConfigError("two files of one name", where=file, got=ascii(entry.filename)[:200])
        seen.add(entry.filename.rstrip("/"))
    total, packed = sum(e.file_size for e in entries), file.stat().st_size
    if total > max_bytes or (total > _FREE and total > MAX_RATIO * max(packed, 1)):
        got = f"{total} bytes from {packed}"
        expected = f"at most {max_bytes} bytes and {MAX_RATIO} times the zip"
        raise ConfigError("unpacks to more than is accepted", where=file, got=got, expected=expected)
    tops = {PurePosixPath(e.filename).parts[0] for e in entries}
    if len(tops) != 1 or any(len(PurePosixPath(e.filename).parts) == 1 and not e.is_dir() for e in entries):
        raise ConfigError("a bundle's zip holds one folder", where=file, got=", ".join(sorted(tops)[:5]))
    return tops.pop()


def _spelt_alike(name: str, spelt: dict[str, str]) -> bool:
    """Whether a path and its folders are spelt as before, where a disk could take them for ones that were there."""
    parts = name.rstrip("/").split("/")
    places = ("/".join(parts[: i + 1]) for i in range(len(parts)))
    return all(spelt.setdefault("/".join(map(disk_name, p.split("/"))), p) == p for p in places)


def _path_problem(entry: zipfile.ZipInfo) -> str | None:
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    parts = name.removesuffix("/").split("/")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or special file"
    if entry.flag_bits & 1:
        return "an encrypted file"
    if name.startswith("/") or "\\" in name or ":" in name:
        return "a path that leads out of the folder"
    if any(p in ("", ".", "..") for p in parts) or any(ord(c) < 32 for c in name) or "\0" in entry.orig_filename:
        return "a path that leads out of the folder"
    odd = next((reason for reason in map(_odd_part, parts) if reason), None)
    return None if odd is None else f"a name that a configuration, a command or another system misreads: {odd}"


def _odd_part(part: str) -> str | None:
    if is_device(part):
        return "it is a device on Windows"
    if part.endswith(".") or any(c in '<>"|?*' for c in part):
        return "Windows has no such name"
    return odd_in(part)


def _extract(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, file: Path, most: int) -> None:
    left = most
    for entry in entries:
        path = folder / entry.filename
        if entry.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, path.open("xb") as target:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ConfigError("unpacks to more than is accepted", where=file, expected=f"at most {most} bytes")
                target.write(chunk)


def _check_large_files(folder: Path, file: Path) -> None:
    """Refuse a list of files to fetch that lie outside of the folder, or come from elsewhere than the web.

    MONAI writes what the addresses give to the paths, unseen.
    """
    for path in sorted(p for p in folder.glob("large_files*") if p.suffix in (".yml", ".yaml", ".json")):
        where = f"{file}, {path.name}"
        try:
            entries = read_config(path).get("large_files")
        except ConfigError as error:
            got = f"{error.problem}: {error.got}"
            raise ConfigError(
                "the list of large files cannot be read", where=where, got=got, expected=error.expected, hint=error.hint
            ) from error
        if not isinstance(entries, list):
            raise ConfigError("the list of large files cannot be read", where=where, got=ascii(entries)[:200])
        for entry in entries:
            _check_large_file(entry, where)


def _check_large_file(entry: object, where: str) -> None:
    told = entry if isinstance(entry, dict) else {}
    plain = all(isinstance(value, str) or (value is None and key in _LARGE[2:]) for key, value in told.items())
    if not {*_LARGE[:2]} <= set(told) <= set(_LARGE) or not plain:
        raise ConfigError(
            "the list of large files cannot be read", where=where, got=ascii(entry)[:200], expected=", ".join(_LARGE)
        )
    path, url = str(told["path"]), str(told["url"])
    if ":" in path or any(map(_odd_part, path.split("/"))):
        expected = "a relative path such as models/model.pt"
        raise ConfigError("a large file lies outside of the bundle", where=where, got=ascii(path), expected=expected)
    if not url.isprintable() or urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
        problem = "a large file comes from elsewhere than the web"
        raise ConfigError(problem, where=where, got=ascii(url), expected="an address that begins with https://")
