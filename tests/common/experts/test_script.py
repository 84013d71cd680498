"""A TorchScript file is loaded only where its code was read in full and computes from its input alone."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
import torch
from torch import nn

from common.errors import ExpertError
from common.experts.script import _problems, check_script


class Net(nn.Module):
    """Holds what ordinary networks hold: children with numbers for names, texts, loops, a branch that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.InstanceNorm3d(2))
        self.memory = nn.LSTM(2, 2)

    def forward(self, x: torch.Tensor, scale: float = float("inf")) -> torch.Tensor:
        if x.device.type == "none":
            raise ValueError(f"it's # \\ \n odd: {scale}")
        for part in self.layers:
            x = part(x)
        with torch.no_grad():
            size: list[int] = x.shape[2:]
        return nn.functional.interpolate(x, size=size).masked_fill(x > 0, -scale)


@pytest.fixture(scope="module")
def good() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Net()), file)
    return file.getvalue()


def entries_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_line(good: bytes, line: str) -> bytes:
    entries = entries_of(good)
    name = next(
        n for n in entries if n.endswith("code/__torch__.py") or (n.endswith(".py") and b"class Net" in entries[n])
    )
    head, found, rest = entries[name].partition(b"    layers = self.layers")
    assert found
    entries[name] = head + b"    " + line.encode() + b"\n" + found + rest
    return zipped(entries)


def check(content: bytes, path) -> None:
    path.write_bytes(content)
    check_script(path)


def test_what_torch_writes_is_allowed(good, tmp_path):
    check(good, tmp_path / "net.ts")
    check(zipped(entries_of(good)), tmp_path / "net.ts")
    check(with_line(good, "y = torch.zeros([1])"), tmp_path / "net.ts")


CALL = '("written", True, 16)'


@pytest.mark.parametrize(
    "line",
    [
        f"y = torch.from_file{CALL}",
        f"y = torch . from_file {CALL}",
        f"y = (torch.from_file){CALL}",
        f"y = (torch.from_file # x\n {CALL})",
        f"y = torch.from_file\\\n{CALL}",
        f'y = getattr(torch, "from_file"){CALL}',
        f'g = getattr(torch, "from_file")\n    y = g{CALL}',
        f"f = torch.from_file\n    y = f{CALL}",
        f"t = torch\n    y = t.from_file{CALL}",
        f"f, g = torch.from_file, 1\n    y = f{CALL}",
        f"y = [torch.from_file][0]{CALL}",
        f"y = torch.autograd.from_file{CALL}",
        f"y = ops.aten.from_file{CALL}",
        f"y = (ops.aten).from_file{CALL}",
        f"a = ops.aten\n    y = a.from_file{CALL}",
        f'y = getattr(ops.aten, "from_file"){CALL}',
        f'y = getattr(getattr(ops, "aten"), "from_file"){CALL}',
        'y = ("written").from_file(True, 16)',
        'y = ops.c10d.barrier()',
        'y = ops.mine.load_library("x.so")',
        'y = ops.prim.rpc_sync("a", "b", (), {})',
        "y = fork(torch.zeros, [1])",
        'torch.save([1], "written")',
        '_0 = __torch__.torch.classes.inductor.Runner("x.so")',
        '_0 = __torch__.torch\n    y = _0.classes.inductor.Runner("x.so")',
        'y = open("written")',
        'y = "a" "b"',
        "y = 'a'",
        'y = """a"""',
        'y = r"a"',
        'y = f"{x}"',
        "y = lambda: 1",
        "import os",
        "y = \u0074orch\u00aa",
        "y =\t1",
        "y = (",
    ],
)  # fmt: skip
def test_other_code_is_refused(line, good, tmp_path):
    with pytest.raises(ExpertError, match=r"(?s)reads or writes files.*torch\.jit\.save"):
        check(with_line(good, line), tmp_path / "net.ts")


def test_code_is_where_it_is_looked_for(good, tmp_path):
    entries = entries_of(good)
    code = next(n for n in entries if n.endswith(".py"))
    top = code.split("/")[0]
    more = b"def f():\n  pass\n"
    cases = [
        {(n[:-3] + ".PY" if n == code else n): c for n, c in entries.items()},
        {(n[:-3] + ".pY" if n == code else n): c for n, c in entries.items()},
        {(n.replace("/code/", "/Code/")): c for n, c in entries.items()},
        entries | {f"{top}/code/{code.split('/code/')[1].upper()[:-3]}.py": more},
        entries | {f"{top}/more/x.py": more},
        entries | {f"{top}/code/x.txt": more},
        entries | {"other/code/x.py": more},
        entries | {f"{top}/model.json": b"{}"},
        entries | {f"{top}/code/../x.py": more},
        entries | {"x.py": more},
        entries | {f"{top}/data.pkl": b"\x80\x02c__torch__.torch\nclasses.inductor.Runner\n."},
    ]
    for case in cases:
        with pytest.raises(ExpertError, match="reads or writes files"):
            check(zipped(case), tmp_path / "net.ts")


def test_a_file_is_one_zip_and_nothing_else(good, tmp_path):
    plain = zipped(entries_of(good))
    length, offset = struct.unpack("<II", plain[-10:-2])
    shifted = plain[:-10] + struct.pack("<II", length, offset - 1) + plain[-2:]
    elsewhere = bytearray(good)
    elsewhere[-50] ^= 1  # the list's place in what large files need
    bad = [b"TFMB" * 4 + plain, plain + b" ", plain + plain, good + plain, plain + good, shifted, bytes(elsewhere),
           plain[:-2] + b"\1\0x", b"nothing", b""]  # fmt: skip
    for content in bad:
        with pytest.raises(ExpertError, match="cannot read this TorchScript"):
            check(content, tmp_path / "net.ts")
    with pytest.raises(ExpertError, match="cannot read this TorchScript"):
        check_script(tmp_path / "missing.ts")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('getattr(x, "a b")', None), ('hasattr(x, "name")', None), ('getattr(x, "0")', None), ("f(x)", "f"),
        ('getattr(x, "name")', 'getattr(x, "name")'), ('getattr(x, "a b", y)', 'getattr(x, "a b", y)'),
        ('getattr(x, "a b", default=y)', 'getattr(x, "a b", default=y)'), ("getattr(x, y)", "getattr(x, y)"),
        ('hasattr(x, "a", y)', 'hasattr(x, "a", y)'), ("hasattr(x)", "hasattr(x)"), ("getattr(x, 0)", "getattr(x, 0)"),
        ('getattr(x, name="a b")', 'getattr(x, name="a b")'), ("y = f\nf = y\nf(x)", None), ("annotate(int, x)", None),
        ("torch.add(x, x)", None), ("torch.add", "torch.add"), ("ops.prim.NumToTensor(x)", None), ("eval(x)", "eval"),
        ("ops.image.read_file(x)", "ops.image.read_file"), ("ops.aten.add.out(x)", "ops.aten.add.out"),
        ("torch", "torch"),
        ("torch.from_file(x)", "torch.from_file"), ("ops.quantized.add(x)", None),
        ("ops.other.add(x)", "ops.other.add"),
        ("__torch__.net.load(x)", None), ("x.load(x)", "x.load"), ("(lambda: 1)()", "a Lambda"),
        ("f(x)(x)", "a call of"),
        ("__torch__.torch.classes.x(x)", "torch.classes"), ("torch = x", "another torch"), ("len = x", "another len"),
        ("x.torch.classes", "torch.classes"), ("import os", "a Import"), ("[y for y in x]", "a ListComp"),
        ("@f\ndef g(x):\n  pass", "a decorator"), ("len(x)", None), ("def g(y):\n  return y(y)", None),
    ],
)  # fmt: skip
def test_what_a_line_of_code_may_do(line: str, wrong: str | None) -> None:
    found = [p.replace("'", '"') for p in _problems(line.encode())]
    assert found == [] if wrong is None else any(p.startswith(wrong) for p in found)
