"""Text that comes from data: what a name may hold, and how text reaches a configuration without being read as code.

MONAI evaluates the strings of a configuration (``$`` expressions, ``@`` references, ``%`` macros), and a command line
turns words into numbers, lists or options. So text from data is never put into either: it lies in a JSON file of
literals, and the configuration holds the :func:`component` that reads it from there.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .atomic import atomic_write
from .errors import AmalgamationError, ConfigError, LabelError, is_hidden
from .plain_json import parse, read_object

__all__ = [
    "check_channel",
    "check_file_name",
    "check_name",
    "component",
    "disk_name",
    "file_name",
    "file_names",
    "folder_names",
    "inert",
    "is_device",
    "is_plain",
    "literal",
    "odd_in",
    "same_on_disk",
    "spreadsheet_cell",
    "text_of_cell",
    "value",
    "write_literals",
]

LONGEST = 128
_LONGEST_BYTES, _LONGEST_FILE = 180, 230  # which leaves room for the endings of results
_CODE, _PATHS = ("$", "@", "%", "#", "::"), ("/", "\\")
_JOINING = re.compile("[\u200c\u200d\ufe00-\ufe0f]")  # parts of words and of emoji, which files are called by
_PLAIN_START = ("$", "@", "%")
_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)),
}  # no files on Windows
_FORMULA = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")  # the last four are the wide forms of the first
_NUMBER = re.compile(r"[+-](\d+\.?\d*|\.\d+|inf|nan)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def odd_in(text: str, *, file_name: bool = False) -> str | None:
    """Why a text cannot be a name, None when it can.

    Args:
        text: the name of a task, structure, channel, modality, model, ...
        file_name: it is that of a file or case, which may hold the signs that configurations evaluate (they are only
            kept out of configurations).
    """
    if not text or text != text.strip():
        return "it is empty" if not text.strip() else "it begins or ends with a space"
    size, most = (len(text.encode("utf-8", "surrogatepass")), _LONGEST_FILE) if file_name else (len(text), LONGEST)
    if size > most:
        return f"it has {size} {'bytes' if file_name else 'characters'}, more than {most}"
    seen = _JOINING.sub("", text) if file_name else text
    hidden = next(filter(is_hidden, seen), None) if seen else text[0]
    if hidden is not None:
        return f"it holds the invisible character U+{ord(hidden):04X}"
    signs = _PATHS if file_name else (*_CODE, *_PATHS)
    sign = next((s for s in signs if s in text), None)
    if sign is not None:
        return f"it holds {sign!r}"
    if text.startswith("-") and not file_name:
        return "it begins with '-', as options do"
    return "it stands for a folder" if text.strip(".") == "" else None


def check_name(
    text: object, what: str, *, where: object | None = None, error: type[AmalgamationError] = LabelError
) -> str:
    """The gate for names that come from data: refuse what a configuration, a path or a command could take for its own.

    Refused are ``$``, ``@``, ``%``, ``#``, ``::``, path separators, control, direction and other invisible characters,
    spaces at either end, ``-`` in front, names of dots and names of more than 128 characters.

    Args:
        text: the name.
        what: of which thing, for the message: ``"structure"``, ``"task"``, ...
        where: the file or case that it comes from.
        error: class of the refusal.

    Returns:
        the name, unchanged.

    Raises:
        AmalgamationError: of the class ``error``, for a name that is refused or no text.
    """
    return _checked(text, what, where, error, file_name=False)


def check_file_name(
    text: object, what: str, *, where: object | None = None, error: type[AmalgamationError] = LabelError
) -> str:
    """The gate for the names of files and cases, which become the names of results: as :func:`check_name`, but any
    sign is allowed that does not lead out of a folder.
    """
    return _checked(text, what, where, error, file_name=True)


def check_channel(text: object, *, where: object | None = None, error: type[AmalgamationError] = LabelError) -> str:
    """The gate for a channel of data: names as of :func:`check_name`, several of them joined by `` | `` where the cases
    of a data set differ, and no other ``|``.

    Args:
        text: the name or names.
        where: the file that it comes from.
        error: class of the refusal.

    Returns:
        the name, unchanged.

    Raises:
        AmalgamationError: of the class ``error``, as :func:`check_name` and for ``|``.
    """
    if not isinstance(text, str):
        return check_name(text, "channel", where=where, error=error)
    for name in text.split(" | "):
        if "|" in check_name(name, "channel", where=where, error=error):
            raise error("this cannot be the name of a channel: it holds '|', which joins several names for one",
                        where=where, got=ascii(text), expected="one name",
                        hint="rename it where it is declared (data convert has --rename and --channels)")  # fmt: skip
    return text


def _checked(text: object, what: str, where: object | None, error: type[AmalgamationError], *, file_name: bool) -> str:
    reason = odd_in(text, file_name=file_name) if isinstance(text, str) else f"it is {type(text).__name__}, not text"
    if reason is None:
        return str(text)
    shown = ascii(text)
    raise error(
        f"this cannot be the name of a {what}: {reason}",
        where=where,
        got=shown if len(shown) < 100 else shown[:97] + "...",
        expected="letters, digits, spaces and signs such as - _ . , + ( )"
        + ("" if file_name else f"; none of {' '.join(_CODE)} / \\"),
        hint=f"rename the {what} where it is declared (data convert has --rename, weights has rename)",
    )


def is_plain(text: str) -> bool:
    """Whether MONAI takes a configuration's string for just this text."""
    return not text.startswith(_PLAIN_START) and not any(s in text for s in ("#", "@::", "%::"))


def literal(file: str, key: str) -> Any:
    """The value that :func:`write_literals` has kept: what a configuration's ``_target_`` calls in the place of text.

    Args:
        file: path of the JSON file.
        key: of the value.

    Raises:
        ConfigError: when the file or the key is missing.
    """
    path = Path(file)
    problem, hint = "a value cannot be read from its file", "type the command that wrote the file again"
    data = read_object(path, error=ConfigError, problem=problem, hint=hint, finite=False)
    if key not in data:
        raise ConfigError(problem, where=path, got=f"no entry {key!a}", hint=hint)
    return data[key]


def component(file: str | Path, key: str) -> dict[str, Any]:
    """What a configuration holds in the place of a text: the call of :func:`literal`."""
    target = "common.literals.literal"
    return {"_target_": target, "file": inert(str(file)), "key": inert(key)}


def value(text: str) -> Any:
    """The value of :func:`inert`: what a configuration's ``_target_`` calls in the place of a value from data.

    Args:
        text: JSON.

    Raises:
        ConfigError: when it is none.
    """
    problem = "a value cannot be read from the configuration"
    if not isinstance(text, str):
        raise ConfigError(problem, got=ascii(text)[:100], expected="JSON as text")
    return parse(text, error=ConfigError, where=ascii(text)[:100], problem=problem, finite=False)


def inert(data: Any) -> Any:
    """What a configuration holds in the place of a value from data: itself, unless the configuration would misread it.

    A text or key that a configuration would not take for itself, or a key that it acts on (``_target_``), makes the
    whole value the call of :func:`value`, on JSON in which the signs are escaped.

    Args:
        data: plain values: text, numbers, None, lists and mappings with text as keys.
    """
    if _harmless(data):
        return data
    text = json.dumps(data)
    for sign in _CODE:  # they occur in JSON within texts alone
        text = text.replace(sign, "".join(f"\\u{ord(c):04x}" for c in sign))
    return {"_target_": "common.literals.value", "text": text}


def _harmless(data: Any) -> bool:
    if isinstance(data, str):
        return is_plain(data)
    if isinstance(data, Mapping):
        return all(_harmless_key(k) and _harmless(v) for k, v in data.items())
    return all(_harmless(entry) for entry in data) if isinstance(data, (list, tuple)) else True


def _harmless_key(key: Any) -> bool:
    if not isinstance(key, str) or any(sign in key for sign in _CODE):
        return False
    return not (key.startswith("_") and key.endswith("_"))


def write_literals(file: Path, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Keep plain values for a configuration.

    Args:
        file: the JSON file to write.
        values: by key; text, numbers, lists and mappings.

    Returns:
        The component for each key.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(dict(values), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {key: component(file, key) for key in values}


def folder_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A folder name for each name: letters, digits and ``_`` alone, each its own also where capitals do not count.

    A name without other signs is its own folder; where two would share one, the others end with a part of their hash.

    Args:
        names: different from each other.
        taken: folders that are somebody else's.
    """
    listed = list(dict.fromkeys(names))
    slugs = {name: re.sub(r"\W+", "_", name).strip("_") for name in listed}
    used, found = {disk_name(t) for t in taken}, dict[str, str]()
    for name in sorted(listed, key=lambda n: (slugs[n] != n, listed.index(n))):
        slug = slugs[name]
        if not slug or _cut(slug) != slug or disk_name(slug) in used or is_device(slug):
            slug = f"{_cut(slug)}_{_digest(name)}".strip("_")
        found[name] = _free(slug, used)
    return {name: found[name] for name in listed}


def file_name(*texts: str) -> str:
    """A part of a file's name that every file system takes, for texts of any kind.

    Where signs had to go, spaces as well, or it would not be told where one of several texts ends, or a text ends as
    such a name does, a part of the texts' hash tells it from similar ones.
    """
    text = "_".join(texts)
    plain = re.sub(r"[^\w.+-]+", "_", text).lstrip(".-")
    clear = plain == text == unicodedata.normalize("NFC", text) and not any("_" in part for part in texts[:-1])
    made = re.search("_[0-9a-f]{8}$", disk_name(plain))
    if text and clear and not made and _cut(plain) == plain and not is_device(plain):
        return plain
    name = f"{_cut(plain)}_{_digest(chr(10).join(texts))}"
    return f"_{name}" if is_device(name) else name


def _cut(text: str) -> str:
    """As much of a text as leaves room for an ending in a file's name, of which disks take 255 bytes."""
    return text[:LONGEST].encode("utf-8", "replace")[:_LONGEST_BYTES].decode("utf-8", "ignore")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def file_names(names: Iterable[str]) -> dict[str, str]:
    """:func:`file_name` of each name, each its own also where capitals do not count."""
    listed = list(dict.fromkeys(names))
    twins = {name for group in same_on_disk(listed) for name in group}
    used = set[str]()
    return {n: _free(file_name(n) if n not in twins else f"{file_name(n)}_{_digest(n)}", used) for n in listed}


def _free(made: str, used: set[str]) -> str:
    """A made name, or another where somebody is really called so; it is used then."""
    while disk_name(made) in used:
        made = f"{_cut(made)}_{_digest(made)}"
    used.add(disk_name(made))
    return made


def disk_name(text: str) -> str:
    """What disks and copies may make of a name: capitals, spellings, and spaces and dots at its end do not count."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).rstrip(" .")


def is_device(name: str) -> bool:
    """Whether Windows takes a file's name for a device, whatever its ending: ``con``, ``NUL.txt``, ``COM\u00b9``."""
    return disk_name(disk_name(name).split(".")[0]) in _DEVICES


def same_on_disk(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that a disk may take for one; none when all differ.

    Args:
        names: equal ones count once.
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(disk_name(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def spreadsheet_cell(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet takes for a formula: text that begins like one gets a ``'`` in front.

    Numbers, also as text, stay as they are. :func:`text_of_cell` gives the text back.
    """
    return "'" + value if isinstance(value, str) and _needs_quote(value) else value


def text_of_cell(cell: str) -> str:
    """Inverse of :func:`spreadsheet_cell`."""
    return cell[1:] if cell.startswith("'") and _needs_quote(cell[1:]) else cell


def _needs_quote(text: str) -> bool:
    inner = text.lstrip("'")  # a text that begins with ' itself is told from one that got it here
    if not inner.startswith(_FORMULA):
        return False
    return inner != text or _NUMBER.fullmatch(text) is None
