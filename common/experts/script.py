"""What a TorchScript file may hold: code that computes from its input alone, judged by reading it before it is loaded.

TorchScript is a program without Python, which can still name PyTorch's operators that read and write files, send
messages or load libraries. What is allowed is listed, and what cannot be judged is refused: PyTorch is lenient about
how a file is packed and spelled, and would find code where a reader does not look.
"""

from __future__ import annotations

import ast
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import ExpertError
from ..zips import DAMAGED

__all__ = ["check_script"]

_LARGEST = 20_000_000  # bytes of code
_PARTS = (".data", ".format_version", ".storage_alignment", "byteorder", "bytecode.pkl", "code", "constants",
          "constants.pkl", "data", "data.pkl", "extra", "mobile_debug_handles.pkl", "traced_inputs",
          "traced_inputs.pkl", "version")  # fmt: skip
_CODE = re.compile(r"[^/]+/code/(?:[^/]+/)*[^/]+\.py")
_TEXT = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_ODD = re.compile(r"""["'#\\]|\w\0|\0\s*\0""")  # after texts have become zeros
_NAMESPACES = ("aten", "prim", "torchvision", "quantized")
_FORBIDDEN = re.compile(r"(?:_*(?:save|load|from_file|fork|awaitable|rpc|rpc_\w+|_*import_*|exec|eval|compile|open))_*")
_FILES = frozenset(("save", "load", "file", "files", "read", "write", "open", "path", "rpc", "library", "url"))
_CALLED = frozenset((
    "abs", "all", "annotate", "any", "bool", "complex", "dict", "divmod", "enumerate", "float", "getattr", "hasattr",
    "int", "isinstance", "len", "list", "max", "min", "ord", "pow", "print", "range", "reversed", "round", "sorted",
    "str", "sum", "super", "tuple", "unchecked_cast", "uninitialized", "zip",
))  # fmt: skip
_NODES = (
    ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.keyword, ast.Assign, ast.AnnAssign,
    ast.AugAssign, ast.Return, ast.If, ast.For, ast.While, ast.With, ast.withitem, ast.Expr, ast.Pass, ast.Break,
    ast.Continue, ast.Raise, ast.Assert, ast.Call, ast.Attribute, ast.Name, ast.Constant, ast.Subscript, ast.Slice,
    ast.Tuple, ast.List, ast.Dict, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Starred,
    ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def check_script(path: str | Path) -> None:
    """Refuse a TorchScript file whose code does more than compute, or of which that cannot be told.

    Raises:
        ExpertError: for such a file, or one that is no TorchScript.
    """
    try:
        _check_ends(Path(path))
        with zipfile.ZipFile(path) as archive:
            entries = _code(archive.infolist(), path)
            for entry in archive.infolist():
                if entry.filename.lower().endswith(".pkl") and _classes(archive.read(entry)):
                    raise _refused(path, f"torch.classes in {entry.filename!a}")
            for entry in entries:
                for wrong in _problems(archive.read(entry)):
                    raise _refused(path, f"{wrong[:100]} in {entry.filename!a}")
    except DAMAGED as error:
        raise ExpertError("cannot read this TorchScript file", where=path, got=ascii(error)[:200]) from error


def _refused(path: object, got: str) -> ExpertError:
    return ExpertError(
        "this TorchScript file reads or writes files when it runs, or hides what it does", where=path, got=got,
        expected="a network that computes from its input alone, as torch.jit.save writes it",
        hint="write it again with torch.jit.save",
    )  # fmt: skip


def _check_ends(path: Path) -> None:
    """Refuse a file that PyTorch and Python would not read as one and the same zip."""
    with path.open("rb") as file:
        start = file.read(4)
        size = file.seek(0, 2)
        file.seek(max(0, size - 98))
        tail = file.read()
    if start != b"PK\x03\x04" or tail[-22:-18] != b"PK\x05\x06":
        raise zipfile.BadZipFile("it does not begin and end as a zip of torch.jit.save")
    length, offset, comment = struct.unpack("<IIH", tail[-10:])
    end = size - 22
    if tail[-42:-38] == b"PK\x06\x07":  # what large files need, and torch.jit.save always writes
        end = size - 98
        (place,) = struct.unpack("<Q", tail[-34:-26])
        long_length, long_offset = struct.unpack("<QQ", tail[-58:-42])
        if tail[:4] != b"PK\x06\x06" or place != end:
            raise zipfile.BadZipFile("two lists of contents")
        if length not in (long_length, 0xFFFFFFFF) or offset not in (long_offset, 0xFFFFFFFF):
            raise zipfile.BadZipFile("two lists of contents")
        length, offset = long_length, long_offset
    if comment or offset + length != end:
        raise zipfile.BadZipFile("data before or after the list of contents")


def _code(entries: list[zipfile.ZipInfo], path: object) -> list[zipfile.ZipInfo]:
    """The entries with code, once every entry is one that belongs into such a file."""
    names = [entry.filename for entry in entries]
    if len({name.casefold() for name in names}) != len(names) or len({n.split("/")[0] for n in names}) > 1:
        raise _refused(path, "entries of one name, or in several folders")
    found = []
    for entry in entries:
        parts, name = entry.filename.split("/"), entry.filename
        plain = name == entry.orig_filename and "\\" not in name and not {"", ".", ".."} & set(parts)
        if not plain or len(parts) < 2 or parts[1] not in _PARTS or entry.flag_bits & 1:
            raise _refused(path, f"an entry {ascii(name)[:100]}")
        if _CODE.fullmatch(name):
            found.append(entry)
        elif (parts[1] == "code" and not name.endswith(".debug_pkl")) or name.casefold().endswith(".py"):
            if parts[1] != "extra":  # never run
                raise _refused(path, f"an entry {ascii(name)[:100]}")
    data = sum(entry.file_size for entry in entries if entry.filename.lower().endswith(".pkl"))
    if sum(entry.file_size for entry in found) > _LARGEST or data > 10 * _LARGEST:
        raise ExpertError("the file holds too much code", where=path, expected=f"at most {_LARGEST} bytes")
    return found


def _classes(pickled: bytes) -> bool:
    """Whether data name a class of compiled code, which may do anything when it is made."""
    return b"torch.classes" in pickled.replace(b"\n", b".")


def _problems(source: bytes) -> Iterator[str]:
    """What an allowed file of code does not hold."""
    text = source.decode("ascii", "replace")
    if any(not (" " <= c <= "~" or c == "\n") for c in set(text)):
        yield "characters that code is not written with"
        return
    if (odd := _ODD.search(_TEXT.sub("\0", text))) is not None:
        yield f"a spelling that cannot be judged ({odd.group()!a})"
        return
    try:
        tree = ast.parse(text)
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield "code that cannot be read"
        return
    parents = {id(child): node for node in nodes for child in ast.iter_child_nodes(node)}
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    for node in nodes:
        wrong = _problem(node, parents, bound)
        if wrong:
            yield wrong


def _problem(node: ast.AST, parents: dict[int, ast.AST], bound: set[str]) -> str | None:
    if not isinstance(node, _NODES):
        return f"a {type(node).__name__}"
    if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.decorator_list:
        return "a decorator"
    above = parents.get(id(node))
    if isinstance(node, ast.Attribute):
        if _FORBIDDEN.fullmatch(node.attr) and not _own(node):
            return ast.unparse(node)
        if node.attr == "torch" and not (isinstance(above, ast.Attribute) and above.attr != "classes"):
            return "torch.classes"
    elif isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load):
            return _name_problem(node, parents)
        if node.id in ("torch", "ops", "__torch__", *_CALLED) and not isinstance(above, ast.AnnAssign):
            return f"another {node.id}"
    elif isinstance(node, ast.Call):
        return _call_problem(node, bound)
    return None


def _own(node: ast.Attribute) -> bool:
    """Whether it is a method or function of the file itself: ``self.load``, ``__torch__.net.load``."""
    inner: ast.AST = node
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    return isinstance(inner, ast.Name) and inner.id == "__torch__"


def _name_problem(node: ast.Name, parents: dict[int, ast.AST]) -> str | None:
    """PyTorch's own names are called where they stand, one operator deep; nothing else is done with them."""
    if node.id not in ("torch", "ops", "__torch__"):
        return node.id if _FORBIDDEN.fullmatch(node.id) else None
    names: list[str] = []
    inner: ast.AST = node
    above = parents.get(id(inner))
    while isinstance(above, ast.Attribute):
        names.append(above.attr)
        inner, above = above, parents.get(id(above))
    if node.id == "__torch__":
        return None if names and names[:2] != ["torch", "classes"] else "torch.classes"
    called = isinstance(above, ast.Call) and above.func is inner
    fits = len(names) == 1 if node.id == "torch" else len(names) == 2 and names[0] in _NAMESPACES
    harmless = called and fits and not _FILES & set(names[-1].lower().split("_"))
    return None if harmless else ".".join([node.id, *names])


def _call_problem(node: ast.Call, bound: set[str]) -> str | None:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    if name is None:
        return None if isinstance(node.func, ast.Attribute) else "a call of what is computed"
    if name in ("getattr", "hasattr"):
        what = node.args[1] if len(node.args) == 2 and not node.keywords else None
        text = what.value if isinstance(what, ast.Constant) else None
        if not isinstance(text, str) or (text.isidentifier() and name == "getattr"):
            return ast.unparse(node)
    elif name not in _CALLED and name not in bound:
        return ast.unparse(node.func)
    return None
