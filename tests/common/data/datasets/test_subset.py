"""A part of a dataset has the structures and cases that were asked for, and nothing of the source is touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.datalist import read_collection
from common.data.datasets.dataset import read_dataset
from common.data.datasets.subset import subset_dataset
from common.errors import AmalgamationError, DataError, LabelError
from tools.data import Data

LABELS = {"background": 0, "liver": 5, "left kidney": 2, "right kidney": 9, "spleen": 1}
MAPS = {"c1": [0, 5, 2, 9], "c2": [0, 1, 1, 2], "c3": [0, 1, 1, 1], "c4": [9, 9, 5, 0]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four labelled cases, ``c3`` of spleens alone, and one without a label map."""
    root = tmp_path / "all"
    (root / "images").mkdir(parents=True)
    (root / "maps").mkdir()
    for case in [*MAPS, "c5"]:
        voxels = np.repeat(np.array(MAPS.get(case, [0] * 4), np.uint8), 6).reshape(4, 3, 2)
        affine = np.diag([-2.0, 1.5, 3.0, 1.0])
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), root / "images" / f"{case}.nii.gz")
        if case in MAPS:
            nib.save(nib.Nifti1Image(voxels, affine), root / "maps" / f"{case}.nii.gz")
    entry = {c: {"id": c, "image": f"images/{c}.nii.gz", "label": f"maps/{c}.nii.gz"} for c in MAPS}
    content: dict[str, Any] = {
        "name": "abdomen", "licence": "of a test", "modality": {"0": "CT"}, "labels": LABELS,
        "training": [{**entry["c1"], "subject": "one"}, entry["c2"], entry["c3"]], "validation": [entry["c4"]],
        "unlabelled": [{"id": "c5", "image": "images/c5.nii.gz"}],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def voxels_of(path: Path | None) -> list[int]:
    found: list[int] = np.asarray(nib.load(str(path)).dataobj)[:, 0, 0].tolist()
    return found


def state(root: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


def test_structures_are_numbered_anew_and_the_rest_is_background(source: Path, tmp_path: Path) -> None:
    before = state(source)
    found = subset_dataset(source, tmp_path / "part", structures=["right kidney", "liver"])
    assert json.loads((tmp_path / "part" / "dataset.json").read_text())["labels"] == {
        "background": 0, "liver": 1, "right kidney": 2}  # fmt: skip
    maps = {c.id: voxels_of(c.label) for c in found.cases() if c.label is not None}
    assert maps == {"c1": [0, 1, 0, 2], "c2": [0] * 4, "c3": [0] * 4, "c4": [2, 2, 1, 0]}, "c3 has neither, and stays"
    old = read_dataset(source)
    assert [[c.id for c in found.cases(s)] for s in ("training", "validation", "test", "unlabelled")] == [
        ["c1", "c2", "c3"], ["c4"], [], ["c5"]]  # fmt: skip
    assert [[p.resolve() for p in c.images] for c in found.cases()] == [
        [p.resolve() for p in c.images] for c in old.cases()]  # fmt: skip
    assert (found.name, found.channels, found.about) == ("part", old.channels, old.about) and found.about
    assert found.cases()[0].subject == "one"
    images = [nib.load(str(p)) for p in (found.cases()[0].label, old.cases()[0].label)]
    assert np.array_equal(images[0].affine, images[1].affine) and images[0].get_data_dtype() == np.uint8
    assert state(source) == before
    assert read_collection(tmp_path / "part").labels.names == ("liver", "right kidney")


def test_cases_and_splits(source: Path, tmp_path: Path) -> None:
    found = subset_dataset(source, tmp_path / "part", name="two", cases=["c4", "c1", "c2"],
                           splits={"validation": "test"})  # fmt: skip
    assert found.name == "two" and found.labels.values == (1, 2, 5, 9), "maps that stay as they are are not copied"
    assert not (tmp_path / "part" / "labels").exists()
    assert [c.id for c in found.cases("test")] == ["c4"] and {c.id for c in found.cases()} == {"c1", "c2", "c4"}
    assert json.loads((tmp_path / "part" / "dataset.json").read_text())["validation"] == []


@pytest.mark.parametrize(
    ("given", "got", "hint"),
    [
        ({"structures": ["Livers", "spleen"]}, "Livers", "liver"),
        ({"structures": ["kidney"]}, "kidney", "left kidney, right kidney"),
        ({"structures": ["x" * 9]}, "xxxxxxxxx", None),
        ({"structures": ["background"]}, "background", None),
        ({"cases": ["c9"]}, "c9", "c5, c4, c3"),
        ({"splits": {"valid": "test"}}, "valid", "validation"),
        ({"splits": {"training": "tests"}}, "tests", "test"),
        ({"structures": []}, None, None),
        ({"cases": []}, None, None),
    ],
)
def test_what_is_not_there_is_refused(
    source: Path, tmp_path: Path, given: dict[str, Any], got: str | None, hint: str | None
) -> None:
    with pytest.raises(DataError) as caught:
        subset_dataset(source, tmp_path / "part", **given)
    assert caught.value.got == got and caught.value.expected and not (tmp_path / "part").exists()
    assert caught.value.hint == (None if hint is None else f"the nearest: {hint}")


def test_nothing_is_written_over(source: Path, tmp_path: Path) -> None:
    before = state(source)
    for out in (source, tmp_path / "linked"):
        if out != source:
            out.mkdir()
            (out / "labels").symlink_to(source / "maps")
        with pytest.raises(DataError, match=r"holds a dataset already|among the files"):
            subset_dataset(source, out, structures=["liver"])
    subset_dataset(source, tmp_path / "part", structures=["liver"])
    with pytest.raises(DataError, match="holds a dataset already"):
        subset_dataset(source, tmp_path / "part", structures=["spleen"])
    assert state(source) == before and read_dataset(tmp_path / "part").labels.names == ("liver",)


def test_a_collection_and_undeclared_values(source: Path, tmp_path: Path) -> None:
    subset_dataset(source, tmp_path / "more" / "a", structures=["liver"])
    subset_dataset(source, tmp_path / "more" / "b", structures=["spleen"])
    with pytest.raises(DataError, match=r"(?s)this is a collection.*a, b"):
        subset_dataset(tmp_path / "more", tmp_path / "part")
    content = json.loads((source / "dataset.json").read_text())
    del content["labels"]["spleen"]
    (source / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(LabelError, match=r"(?s)c2.*undeclared label values.*1"):
        subset_dataset(source, tmp_path / "part", structures=["liver"])
    assert not (tmp_path / "part" / "dataset.json").exists()


def test_typed(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Data().subset(str(source), str(tmp_path / "part"), structures="liver, left kidney", splits="validation=test")
    told = " ".join(capsys.readouterr().out.split())
    assert "5 cases: 4 with a label map, 1 without (c5); left kidney, liver" in told
    assert voxels_of(read_dataset(tmp_path / "part").cases("test")[0].label) == [0, 0, 2, 0]
    Data().subset(str(source), str(tmp_path / "one"), structures=("spleen",), cases=("c1", "c3"))  # as Fire reads a,b
    assert read_dataset(tmp_path / "one").labels.names == ("spleen",)
    with pytest.raises(AmalgamationError, match="cannot read the names"):
        Data().subset(str(source), str(tmp_path / "two"), splits="validation")
