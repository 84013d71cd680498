"""What the model zoo's CI does to a bundle, step by step; run in a bare environment with the bundle's folder first."""

import json
import os
import sys
from pathlib import Path

from monai.bundle import ckpt_export, create_workflow, load, verify_metadata, verify_net_in_out
from monai.bundle.scripts import download_large_files


def verify_bundle_directory(root):
    for suffix in ("yml", "yaml", "json"):
        if (root / f"large_files.{suffix}").is_file():
            download_large_files(bundle_path=str(root))
    for name in ("configs/metadata.json", "LICENSE", "models/model.pt"):
        assert (root / name).is_file(), f"{name} is missing"
    assert any((root / f"configs/inference.{s}").is_file() for s in ("json", "yaml", "yml"))


def verify_version_changes(root, released=()):
    meta = json.loads((root / "configs" / "metadata.json").read_text())
    assert "version" in meta and "changelog" in meta
    assert meta["version"] in meta["changelog"], "the changelog says nothing of this version"
    assert f"{root.name}_v{meta['version']}" not in released


def verify_metadata_format(root, schema):
    """The zoo downloads the schema once and copies it to eval/schema.json."""
    verify_metadata(meta_file=str(root / "configs" / "metadata.json"), filepath=schema, create_dir=False)


def verify_data_shape(root):
    configs = root / "configs"
    verify_net_in_out(net_id="network_def", config_file=str(configs / "inference.json"), device="cpu",
                      meta_file=str(configs / "metadata.json"), bundle_root=str(root))  # fmt: skip


def verify_torchscript(root):
    ckpt_export(net_id="network_def", config_file=str(root / "configs" / "inference.json"),
                meta_file=str(root / "configs" / "metadata.json"), ckpt_file=str(root / "models" / "model.pt"),
                filepath=str(root / "models" / "verify_model.ts"), bundle_root=str(root))  # fmt: skip


def check_workflow(root, kind, **overrides):
    """The convention of the zoo's unit tests, without running."""
    workflow = create_workflow(config_file=str(root / "configs" / f"{kind}.json"), bundle_root=str(root),
                               workflow_type=kind, output_dir=str(root / "eval"), **overrides)  # fmt: skip
    assert workflow.check_properties() == [], workflow.check_properties()
    workflow.finalize()


def loads(root):
    network = load(root.name, bundle_dir=str(root.parent), workflow_type="inference", source="local", device="cpu")
    import torch

    state = torch.load(root / "models" / "model.pt", weights_only=True)
    own = network.state_dict()
    assert set(state) <= set(own) and all(torch.equal(own[k], v) for k, v in state.items()), "weights did not arrive"
    return network


if __name__ == "__main__":
    folder, what = Path(sys.argv[1]), json.loads(sys.argv[2])
    sys.path.insert(0, str(folder))  # the zoo's CI does so, too
    os.chdir(folder.parent)
    for step, options in what.items():
        globals()[step](folder, **options)
        print("passed", step, flush=True)
