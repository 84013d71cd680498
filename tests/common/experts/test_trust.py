"""A bundle's code runs as an expert only after a yes to exactly this code; what an expert names stays in its folder."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from common.errors import ConfigError, ExpertError
from common.experts.describe import describe_expert
from common.experts.expert_set import load_experts
from common.experts.script import check_script
from common.experts.sources import open_source
from common.experts.spec import ExpertSpec, read_manifest
from common.experts.trust import check_trusted, code_hash
from common.labels import LabelSpace
from tools.experts import describe as experts_describe
from tools.experts.command import Experts

ARGUMENTS = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
GIVEN = {"features": "model.0", "extra": {"divisor": 4}, "labels": LabelSpace(("liver",)), "channels": ["CT"]}


@pytest.fixture
def bundle(tmp_path):
    """A bundle that leaves a file behind when it is opened, and that file."""
    root, ran = tmp_path / "zoo", tmp_path / "ran"
    for sub in ("configs", "models", "scripts"):
        (root / sub).mkdir(parents=True)
    config = {"ran": f"$__import__('pathlib').Path({str(ran)!r}).touch()",
              "network_def": {"_requires_": "@ran", "_target_": "UNet", **ARGUMENTS}}  # fmt: skip
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    (root / "scripts" / "__init__.py").write_text("")
    torch.save(UNet(**ARGUMENTS).state_dict(), root / "models" / "model.pt")
    return root, ran


def test_nothing_runs_without_a_yes_and_another_code_is_refused(bundle):
    root, ran = bundle
    with pytest.raises(ExpertError, match=r"(?s)nobody has agreed.*bundle check"):
        describe_expert(root, name="zoo", task="ct", **GIVEN)
    assert not ran.exists()
    spec = describe_expert(root, name="zoo", task="ct", trusted=code_hash(root), **GIVEN)
    assert ran.exists() and load_experts([spec]).for_task("ct").spec == spec
    ran.unlink()
    (root / "scripts" / "__init__.py").write_text("x = 1")
    for wrong in (spec, replace(spec, trusted=""), replace(spec, sha256="", trusted="0" * 64)):
        with pytest.raises(ExpertError, match="opening a MONAI bundle runs its code"):
            load_experts([wrong])
    assert not ran.exists()


def test_a_hash_is_of_all_code_and_of_its_places(bundle, tmp_path):
    root, _ = bundle
    seen = {code_hash(root)}
    for name, text in (
        ("scripts/net.py", "1"),
        ("configs/more.yaml", "1"),
        ("top.PY", "1"),
        ("configs/metadata.json", "1"),
    ):
        (root / name).write_text(text)
        seen.add(code_hash(root))
    (root / "scripts" / "net.py").rename(root / "scripts" / "other.py")
    assert len({*seen, code_hash(root)}) == 6
    before = code_hash(root)
    (root / "models" / "model.pt").write_bytes(b"trained further")  # has a hash of its own
    assert code_hash(root) == before and code_hash(root, "models/other.pt") != before
    check_trusted(root, before, where="zoo")
    (tmp_path / "elsewhere.py").write_text("")
    (root / "scripts" / "link.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(ExpertError, match="link leads out"):
        code_hash(root)


@pytest.mark.parametrize(
    "name",
    ["payload.txt", "eval/x.py", "scripts/__pycache__/net.cpython-311.pyc", "x.pyw", "x.pth", "x.pkl", "lib.zip",
     "x.py.bak", ".git/x", "models/more.pt", "docs/README.md", "none", "eval/\udce9.so"],
)  # fmt: skip
def test_code_in_a_file_of_any_name_counts(bundle, name):
    root, _ = bundle
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("print(1)")
    before = code_hash(root)
    (root / name).write_text("print(2)")
    assert code_hash(root) != before
    with pytest.raises(ExpertError, match=r"(?s)not the code that was agreed to.*__pycache__, eval"):
        check_trusted(root, before, where="zoo")


def test_a_link_that_leads_to_another_file_counts(bundle):
    root, _ = bundle
    for name in ("a.txt", "b.txt"):
        (root / name).write_text("same")
    (root / "link").symlink_to("a.txt")
    before = code_hash(root)
    (root / "link").unlink()
    (root / "link").symlink_to("b.txt")
    assert code_hash(root) != before


def test_opening_a_bundle_leaves_nothing_in_its_folder(bundle, monkeypatch):
    root, _ = bundle
    (root / "zoo_own_code.py").write_text("x = 1\n")
    config = json.loads((root / "configs" / "inference.json").read_text())
    config["ran"] = "$__import__('zoo_own_code')"
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    monkeypatch.syspath_prepend(str(root))
    spec = describe_expert(root, name="zoo", task="ct", trusted=code_hash(root), **GIVEN)
    assert "zoo_own_code" in sys.modules and not (root / "__pycache__").exists()
    load_experts([spec])


def test_the_command_lists_the_code_and_asks(bundle, tmp_path, capsys, monkeypatch):
    root, ran = bundle
    given = {"task": "ct", "features": "model.0", "divisor": 4, "labels": "liver=1", "channels": "CT"}
    out = tmp_path / "expert.json"
    with pytest.raises(ConfigError, match=r"(?s)was not run.*--trust True"):  # no terminal here
        Experts().describe(str(root), str(out), **given)
    said = capsys.readouterr().out
    assert (
        "call      UNet" in said and "evaluate  __import__('pathlib')" in said and not ran.exists() and not out.exists()
    )
    monkeypatch.setattr(experts_describe, "ask", lambda question: code_hash(root)[:12] in question)
    Experts().describe(str(root), str(out), **given)
    assert ran.exists() and read_manifest(out)[0].trusted == code_hash(root)
    monkeypatch.setattr(experts_describe, "ask", lambda question: pytest.fail("asked"))
    Experts().describe(str(root), str(out), trust=True, overwrite=True, **given)
    (root / "configs" / "inference.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        Experts().describe(str(root), str(out), trust=True, overwrite=True, **given)


def test_a_configuration_does_not_grow_when_it_is_read(bundle):
    root, _ = bundle
    (root / "configs" / "inference.json").unlink()
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (root / "configs" / "inference.yaml").write_text("\n".join(["a0: &a0 [x]", *rows]))
    with pytest.raises(ConfigError, match="names parts of itself"):
        experts_describe.foreign_calls(root)
    with pytest.raises(ExpertError, match="names parts of itself"):
        describe_expert(root, name="zoo", task="ct", trusted=code_hash(root), **GIVEN)


@pytest.mark.parametrize("divisor", ["x", 0, [1, 2], -1, 1.5, None, True])
def test_a_divisor_is_a_number_of_voxels(bundle, divisor):
    root, _ = bundle
    with pytest.raises(ExpertError, match="divisor"):
        describe_expert(
            root, name="zoo", task="ct", trusted=code_hash(root), **{**GIVEN, "extra": {"divisor": divisor}}
        )


@pytest.mark.parametrize(
    "checkpoint", ["../x.pt", "/etc/x.pt", "models/../../x.pt", "a\\b", "C:x", "", ".", "a\x00b", " x"]
)
def test_a_checkpoint_lies_in_the_experts_folder(checkpoint):
    with pytest.raises(ExpertError, match="outside of the expert's folder"):
        ExpertSpec("a", "bundle", "/x", LabelSpace(("liver",)), ("CT",), task="ct", checkpoint=checkpoint)
    assert ExpertSpec("a", "bundle", "/x", LabelSpace(("liver",)), ("CT",), task="ct", checkpoint="models/$ ü.pt")


class Writes(nn.Module):
    """Leaves a file when it runs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "written")
        return x


class Reads(nn.Module):
    """Computes with a file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("secret", False, 1)


class Part(nn.Module):
    """Hides another module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).relu()


@pytest.mark.parametrize("network", [Writes(), Part(Writes()), Reads(), Part(Reads())])
def test_torchscript_that_reads_or_writes_files_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(network).save("net.ts")
    with pytest.raises(ExpertError, match=r"(?s)reads or writes files.*(save|from_file)"):
        describe_expert("net.ts", name="ts", task="ct", **{**GIVEN, "features": "inner"})
    assert not (tmp_path / "written").exists()


def test_torchscript_of_a_network_is_opened(tmp_path):
    torch.jit.script(Part(UNet(**ARGUMENTS))).save(str(tmp_path / "net.ts"))
    torch.jit.trace(UNet(**ARGUMENTS).eval(), torch.zeros(1, 1, 8, 8, 8)).save(str(tmp_path / "traced.ts"))
    check_script(tmp_path / "net.ts")
    check_script(tmp_path / "traced.ts")
    (tmp_path / "net.ts").write_bytes(b"nothing")
    with pytest.raises(ExpertError, match="cannot read this TorchScript"):
        check_script(tmp_path / "net.ts")


def test_code_that_lies_outside_of_the_bundle_never_runs(bundle, tmp_path, monkeypatch, capsys):
    root, ran = bundle
    config = root / "configs" / "inference.json"
    (tmp_path / "outside.json").write_text(config.read_text())
    config.write_text(json.dumps({"network_def": "%outside.json::network_def", "ran": "%outside.json::ran"}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExpertError, match=r"(?s)outside\.json|does not have"):
        experts_describe.agreed(root, trust=True)
    with pytest.raises(ExpertError, match="a file that the bundle does not have"):
        describe_expert(root, name="zoo", task="ct", trusted=code_hash(root), **GIVEN)
    (root / "outside.json").write_text((tmp_path / "outside.json").read_text())
    (tmp_path / "outside.json").write_text("{}")
    trusted = experts_describe.agreed(root, trust=True)
    assert "call      UNet" in capsys.readouterr().out and not ran.exists()
    assert describe_expert(root, name="zoo", task="ct", trusted=trusted, **GIVEN).trusted == trusted and ran.exists()


def test_a_folders_name_is_no_code_in_the_bundle(bundle, tmp_path, monkeypatch):
    root, ran = bundle
    config = json.loads((root / "configs" / "inference.json").read_text())
    config["network_def"]["_requires_"] = "$print(@bundle_root)"
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    named = root.rename("$__import__('os').mkdir('ran') #x")
    describe = ExpertSpec("zoo", "bundle", str(named), GIVEN["labels"], ("CT",), task="ct", features="model.0",
                          trusted=code_hash(named), extra={"divisor": 4})  # fmt: skip
    assert open_source(describe).network is not None and not ran.exists()
