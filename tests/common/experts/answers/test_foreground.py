"""CT statistics of scans that nobody labelled are those of the voxels that the experts' answers call structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.backbones.nnunet import collection as planning
from common.backbones.nnunet.collection import plan_collection
from common.data.datasets.datalist import read_collection
from common.data.store.place import Store
from common.errors import ConfigError, DataError
from common.experts.answers.ask import AskExpertd
from common.experts.answers.foreground import AnsweredForeground
from tests.common.experts.answers.easy import dataset, expert

STATISTICS = "foreground_intensity_properties_per_channel"
KNOBS: dict[str, Any] = {"base_features": 4, "max_features": 8, "splits": ("training", "unlabelled")}


def foreground(folder: Path, experts: Any) -> AnsweredForeground:
    collection = read_collection(folder)
    return AnsweredForeground(experts=experts, labels=collection.labels, dataset_dir=folder,
                              store=Store(folder, workers=0, quiet=True))  # fmt: skip


def mean(folder: Path, numbers: range, *values: int) -> float:
    """Of structures' intensities as the generator drew them; each scan counts alike, as nnU-Net draws."""
    found = []
    for number in numbers:
        image, label = (np.asarray(nib.load(folder / "images" / f"{number}_{k}.nii.gz").dataobj)
                        for k in ("image", "label"))  # fmt: skip
        found.append(image[np.isin(label, values)].mean())
    return float(np.mean(found))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    heard, real = list[tuple[str, str]](), AskExpertd.__call__

    def asking(self: AskExpertd, data: Any) -> Any:
        heard.append((self.spec.name, str(data["case"])))
        return real(self, data)

    monkeypatch.setattr(AskExpertd, "__call__", asking)
    return heard


def test_answers_of_all_experts_together(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    folder = dataset(tmp_path, training=0, unlabelled=3)
    both = [expert(tmp_path, "a", "liver"), expert(tmp_path, "b", "spleen"),
            expert(tmp_path, "mr", "aorta", channels=("MR",))]  # fmt: skip
    source = foreground(folder, both)
    case = read_collection(folder).datasets[0].cases("unlabelled")[0]
    said = source(case)
    truth = nib.load(folder / "images" / "0_label.nii.gz")
    assert said.shape == (1, *truth.shape) and np.allclose(said.affine, truth.affine)
    assert (said[0].numpy() == np.asarray(truth.dataobj)).mean() > 0.99
    assert source(case).equal(said) and asked == [("a", "easy_0"), ("b", "easy_0")], "once; who does not read: never"
    found = plan_collection(folder, tmp_path / "p", foreground=source, **KNOBS).plans[STATISTICS]["0"]
    assert found["mean"] == pytest.approx(mean(folder, range(3), 1, 2), abs=2)
    alone = foreground(folder, both[:1])
    assert alone.identity != source.identity, "made of other answers, it is another plan"
    less = plan_collection(folder, tmp_path / "p", foreground=alone, **KNOBS).plans[STATISTICS]["0"]
    assert less["mean"] == pytest.approx(mean(folder, range(2), 1), abs=2), "the last scan has no liver"


def test_so_many_scans_are_asked_about_and_no_more(
    tmp_path: Path, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dataset(tmp_path, training=0, unlabelled=5)
    monkeypatch.setattr(planning, "ANSWERED", 2)
    plan_collection(folder, tmp_path / "p", foreground=foreground(folder, [expert(tmp_path, "a", "spleen")]), **KNOBS)
    assert asked == [("a", "easy_1"), ("a", "easy_3")], "evenly over all"


def test_label_maps_that_do_not_teach_are_not_read(
    tmp_path: Path, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maps here are false: the statistics would be those of air, had anybody looked at them."""
    folder = dataset(tmp_path, training=4, unlabelled=0)
    teaching = read_collection(folder).datasets[0].cases("training")
    for case in teaching:
        assert case.label is not None
        map_ = nib.load(case.label)
        false = (np.asarray(map_.dataobj) == 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(false, map_.affine), case.label)
    source = foreground(folder, [expert(tmp_path, "a", "spleen")])
    options = {**KNOBS, "foreground": source}
    with_maps = plan_collection(folder, tmp_path / "all", **options)
    assert with_maps.plans[STATISTICS]["0"]["mean"] == pytest.approx(0, abs=1) and not asked, "maps first"
    one = plan_collection(folder, tmp_path / "one", labels_used=1, **options)
    assert one.plans[STATISTICS]["0"]["mean"] == pytest.approx(0, abs=1) and not asked
    for case in teaching:
        assert case.label is not None
        case.label.write_bytes(b"nobody can read this")
    none = plan_collection(folder, tmp_path / "none", labels_used="none", **options)
    assert none.plans[STATISTICS]["0"]["mean"] == pytest.approx(200, abs=2) and len(asked) == len(teaching)
    validation = {**options, "splits": ("validation",), "labels_used": "none"}
    validated = plan_collection(folder, tmp_path / "v", **validation)
    assert validated.plans[STATISTICS]["0"]["mean"] == pytest.approx(200, abs=2)


def test_who_finds_nothing_or_reads_nothing_tells_nothing(tmp_path: Path) -> None:
    folder = dataset(tmp_path, training=0, unlabelled=2)
    blind = expert(tmp_path, "blind", "liver", value=-500.0)
    other = expert(tmp_path, "mr", "liver", channels=("MR",))
    for given in ([blind], [other]):
        with pytest.raises(ConfigError, match="nobody knows which voxels of the CT scans are structures"):
            plan_collection(folder, tmp_path / "p", foreground=foreground(folder, given), **KNOBS)
    elsewhere = dataset(tmp_path, "other", training=0, unlabelled=1)
    with pytest.raises(DataError, match="none of the collection's"):
        foreground(folder, [blind])(read_collection(elsewhere).datasets[0].cases("unlabelled")[0])
