"""The data path of the bundles: samples do not depend on the processes that make them, and read a shared store."""

from __future__ import annotations

import pytest
import torch

from common.data.store.entry import StoredArray
from common.data.store.place import listed
from tests.bundles.commands import ROOT, parsed


def configured(bundle, workers, dataset_dir, store_dir, **overrides):
    own = {"bundle_root": ROOT / "bundles" / bundle, "dataset_dir": dataset_dir, "num_workers": workers}
    return parsed(bundle, ["train", "smoke"], **own, store_dir=store_dir, batch_size=2, **overrides)


def epochs(parser, count=2):
    loader = parser.get_parsed_content("train::dataloader")
    found = []
    for epoch in range(1, count + 1):
        loader.sampler.set_epoch(epoch)
        found += list(loader)
    loader._iterator = None  # its workers end at once; found as a part of a cycle, each is waited for 5 seconds
    return found


def assert_equal(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key], key


OWN = {  # what a bundle needs beside the data, and with it random parts in every bundle's path
    "ka2er": {},
    "ka2er_expert": {"spacing": [8.0, 8.0, 8.0], "name": "own"},
    "m4oe": {},
    "m4oe_expert": {},
    "samora": {},
    "samora_expert": {},
    "ic_moe": {"augment": 1.0},
    "sam_med3d_moe": {"structures": ["liver"]},
    "sam_med3d_moe_expert": {"structures": ["liver"], "name": "own"},
}


@pytest.fixture
def given(request, phantom_dir, phantom_2d_dir, sam3d_files, tmp_path):
    """A bundle's data and options; the store is ``tmp_path/store``."""
    bundle = request.param
    data = {"ic_moe": phantom_2d_dir / "phantom_2d_skin", "ka2er_expert": phantom_dir / "phantom_ct"}
    options = {**OWN[bundle], "output_dir": tmp_path / "run"}
    if bundle == "sam_med3d_moe":
        general = sam3d_files.general()
        options |= {"general": general, "experts": sam3d_files.expert("own", "liver", of=general).parent}

    def made(workers):
        return configured(bundle, workers, data.get(bundle, phantom_dir), tmp_path / "store", **options)

    return made


@pytest.mark.parametrize("given", OWN, indirect=True)
def test_workers_change_nothing_and_a_second_start_prepares_nothing(given, tmp_path):
    first, store = given(0), tmp_path / "store"
    threads = torch.get_num_threads()
    try:  # the process itself may have several threads, a worker has one
        torch.set_num_threads(2)
        wanted = epochs(first)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(torch.as_tensor(wanted[0]["image"]), torch.as_tensor(wanted[-1]["image"]))
    (kept,) = listed(store)
    before = {p: p.stat().st_mtime_ns for p in kept.folder.rglob("*.b2nd")}
    second = given(2)
    assert second.get_parsed_content("train::dataloader").num_workers == 2
    assert_equal(epochs(second), wanted)
    assert {p: p.stat().st_mtime_ns for p in kept.folder.rglob("*.b2nd")} == before and len(before) > 0


@pytest.mark.parametrize("given", ["ka2er", "m4oe", "samora", "ic_moe", "sam_med3d_moe"], indirect=True)
def test_validation_reads_what_training_prepares(given, tmp_path):
    parser = given(0)
    parser.get_parsed_content("train::dataloader")
    (kept,) = listed(tmp_path / "store")
    validated = next(iter(parser.get_parsed_content("validate::dataloader")))
    assert listed(tmp_path / "store")[0].cases > kept.cases and len(listed(tmp_path / "store")) == 1, "the same chain"
    assert not any(isinstance(v, StoredArray) for v in validated.values()) and "positions" not in validated


def test_every_bundle_is_here():
    assert OWN.keys() == {p.parents[1].name for p in (ROOT / "bundles").glob("*/configs/train.json")}


def test_crops_of_ka2er_are_what_its_network_reads(phantom_dir, tmp_path):
    parser = configured("ka2er", 0, phantom_dir, tmp_path, augment=0.0)
    batch = next(iter(parser.get_parsed_content("train::dataloader")))
    assert batch["image"].shape == batch["raw"].shape == batch["label"].shape == (2, 1, 64, 32, 32)
    assert batch["stats"].shape == (2, 1, 10) and {"task_id", "annotated", "case"} <= batch.keys()
    assert type(batch["image"]) is torch.Tensor and batch["image"].dtype == torch.float32
    flips = parser.get_parsed_content("flips")
    assert set(flips) <= {0, 1, 2}
