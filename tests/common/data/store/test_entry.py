import contextlib
import errno
import itertools
import os
import resource
import shutil

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.store import entry as module
from common.data.store.entry import DamagedEntryError, StoredArray, box_of, read_entry, write_entry
from common.data.store.layout import Reading
from common.errors import DataError


@pytest.fixture
def case():
    rng = torch.Generator().manual_seed(0)
    image = torch.rand((2, 30, 25, 20), generator=rng) * 100
    label = (torch.rand((1, 30, 25, 20), generator=rng) * 4).floor()
    meta = {"filename_or_obj": "old.nii"}
    return {"image": MetaTensor(image, affine=torch.diag(torch.tensor([2.0, 2, 3, 1])), meta=meta), "label": label,
            "case": "c", "places": {1: torch.arange(6000).reshape(2000, 3)}}  # fmt: skip


@pytest.fixture
def stored(case, tmp_path):
    assert write_entry(tmp_path / "e", case, Reading.crops(16), {"case": "c"}) > 1000
    return read_entry(tmp_path / "e", {"image": "new.nii"})


def test_what_was_written_is_read(case, stored):
    image = stored["image"].whole()
    step = (case["image"].amax((1, 2, 3)) - case["image"].amin((1, 2, 3))) / 65535
    apart = (image.as_tensor() - case["image"].as_tensor()).abs().amax((1, 2, 3))
    assert bool((apart <= step * 0.51).all())
    assert torch.equal(image.affine, case["image"].affine) and image.meta["filename_or_obj"] == "new.nii"
    label = stored["label"].whole()
    assert type(label) is torch.Tensor and label.dtype == torch.float32 and torch.equal(label, case["label"])
    assert stored["case"] == "c" and isinstance(stored["places"][1], StoredArray)
    assert np.array_equal(stored["places"][1][1999], [5997, 5998, 5999]) and len(stored["places"][1]) == 2000
    with pytest.raises(IndexError):
        stored["places"][1][2000]


def test_parts_are_parts_of_the_whole(stored):
    image, label = stored["image"], stored["label"].whole()
    whole = image.whole().as_tensor()
    assert image.shape == tuple(whole.shape) and image.ndim == 4
    for axis, k in itertools.product((1, 2, 3), (0, 7, -1)):
        assert torch.equal(image.select(axis, k), whole.select(axis, k))
    assert torch.equal(image.read([slice(1, 2), slice(3, 9)]), whole[1:2, 3:9])
    padded = torch.nn.functional.pad(label, [40] * 6, value=7.0)
    for low in [(2, 3, 4), (-5, 0, 10), (-20, 20, -3), (25, 24, 19), (-40, 0, 0), (30, 0, 0)]:
        high = [a + 12 for a in low]
        wanted = padded[:, *(slice(a + 40, b + 40) for a, b in zip(low, high))]
        assert torch.equal(stored["label"].box(low, high, fill=7.0), wanted), low
        for same in (stored["label"], label, MetaTensor(label), label.numpy()):
            found = box_of(same, low, high, fill=7.0)
            assert type(found) is torch.Tensor and torch.equal(found, wanted), low
            found.fill_(9.0)
        assert float(label.max()) < 7, "a crop is no part of what is kept in memory"


def test_what_an_entry_says_is_parsed_once_and_shared_with_nobody(case, tmp_path, monkeypatch):
    """The fast path against the plain one: the same content, and another file under the same name is read anew."""
    folder, parsed, real = tmp_path / "e", [], module.read_object
    monkeypatch.setattr(module, "read_object", lambda path, **how: parsed.append(path) or real(path, **how))
    case["names"] = ["a", "b"]
    write_entry(folder, case, Reading.crops(16), {"case": "c"})
    first = read_entry(folder)
    first["names"].append("c")
    first["image"].meta["spacing"] = "spoilt"
    again = read_entry(folder)
    assert again["names"] == ["a", "b"] and len(parsed) == 1
    module._text.cache_clear()
    plain = read_entry(folder)
    assert len(parsed) == 2 and str(plain["image"].meta) == str(again["image"].meta)
    assert torch.equal(plain["image"].whole(), again["image"].whole()) and plain.keys() == again.keys()
    shutil.rmtree(folder)
    write_entry(folder, {**case, "case": "d"}, Reading.crops(16), {"case": "d"})
    assert read_entry(folder)["case"] == "d"


@pytest.mark.parametrize("harm", ["cut", "gone", "text", "wild"])
def test_a_damaged_entry_is_noticed(stored, tmp_path, harm):
    folder = tmp_path / "e"
    file = folder / "0.b2nd"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif harm == "gone":
        file.unlink()
    elif harm == "text":
        (folder / "entry.json").write_text('{"content": 1')
    else:
        file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(DamagedEntryError, match=r"e/|/e"):
        read_entry(folder)["image"].whole()
    with pytest.raises(FileNotFoundError):
        read_entry(tmp_path / "nothing")


def test_a_full_disk_leaves_nothing(case, tmp_path, monkeypatch):
    def full(path, content):
        if path.name == "1.b2nd":
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(module, "_synced", full)
    with pytest.raises(OSError, match="No space"):
        write_entry(tmp_path / "s" / "e", case, Reading(), {})
    assert list((tmp_path / "s").iterdir()) == []


def test_the_second_writer_leaves_what_is_there(case, stored, tmp_path):
    before = (tmp_path / "e" / "0.b2nd").stat()
    write_entry(tmp_path / "e", {**case, "case": "other"}, Reading(), {})
    assert (tmp_path / "e" / "0.b2nd").stat().st_ino == before.st_ino
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_no_link_in_the_place_of_an_entry_is_followed(case, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "e").symlink_to(tmp_path / "elsewhere")
    write_entry(tmp_path / "e", case, Reading(), {})
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("number", ["EMFILE", "ENFILE", "ENOMEM", "EACCES", "ESTALE", "EIO"])
def test_what_the_machine_refuses_now_is_no_damage(stored, tmp_path, monkeypatch, number):
    def refusing(path, *args, **options):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    def returned_null(*args, **options):
        raise RuntimeError("blosc2_schunk_open_offset() returned NULL")

    monkeypatch.setattr(module.blosc2, "open", returned_null)
    with pytest.raises(DamagedEntryError):
        stored["image"].read()
    for method in ("open", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), method, refusing)
            if method == "stat":
                patch.setattr(type(tmp_path), "is_dir", lambda path: True)
            module._text.cache_clear()
            for read in (lambda: read_entry(tmp_path / "e"), *([stored["image"].read] if method == "open" else ())):
                with pytest.raises(DataError, match="left as it is") as caught:
                    read()
                assert not isinstance(caught.value, DamagedEntryError)
                assert caught.value.got == os.strerror(getattr(errno, number))
    assert (tmp_path / "e" / "0.b2nd").is_file()


def test_no_file_left_to_open_is_no_damage(stored, tmp_path):
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 2, most))  # noqa: PTH208
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.dup(0))
        with pytest.raises(DataError, match="Too many open files") as caught:
            stored["image"].read()
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))
    assert not isinstance(caught.value, DamagedEntryError) and stored["image"].read().shape == (2, 30, 25, 20)
