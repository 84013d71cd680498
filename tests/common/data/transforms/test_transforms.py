import itertools
import pickle

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, CropForegroundd, DivisiblePadd, EnsureChannelFirstd, LoadImaged, Orientationd

from common.contract import Contract
from common.data.datasets.datalist import items
from common.data.datasets.dataset_json import case_name
from common.data.intensity.volume import NormalizePercentiled, VolumeStatsd
from common.data.transforms.loading import LoadCased
from common.data.transforms.restore import RestoreGridd, SavePredictiond
from common.data.transforms.transforms import CheckGridsd, CopyRawd, DescribeCased, MapLabelsd, SafeSpacingd
from common.errors import ConfigError, DataError, GeometryError, LabelError

KEYS = ["image", "label"]


def chain(folder, load=None):
    return Compose(
        [
            load or LoadCased(KEYS),
            DescribeCased(folder),
            CheckGridsd(KEYS),
            MapLabelsd("label", folder),
            Orientationd(KEYS, "RAS", labels=None),
            SafeSpacingd(KEYS, (1.0, 1.0, 1.0), mode=("bilinear", "nearest")),
            VolumeStatsd(),
            CopyRawd(),
            NormalizePercentiled("image"),
        ]
    )


@pytest.fixture
def pair(make_dataset, tmp_path):
    make_dataset("ct")
    make_dataset("mr", labels={"background": 0, "kidney": 2, "liver": 3})
    return tmp_path


def meta(array, affine=None, **more):
    affine = torch.eye(4, dtype=torch.float64) if affine is None else torch.as_tensor(affine, dtype=torch.float64)
    return MetaTensor(torch.as_tensor(array), affine=affine, meta=more)


class TestWholeChain:
    @pytest.mark.parametrize("load", [None, LoadImaged(KEYS, ensure_channel_first=True)])
    def test_gives_all_keys_and_pickles(self, pair, load):
        transform = pickle.loads(pickle.dumps(chain(pair, load)))
        for item in items(pair, "training", limit=1):
            result = transform(item)
            assert result["image"].shape == result["raw"].shape == result["label"].shape == (1, 6, 7, 8)
            assert result["stats"].shape == (1, 10) and result["stats"].dtype == torch.float32
            assert (
                result["annotated"].tolist()
                == {
                    "ct": [True, True, True, False],
                    "mr": [True, True, False, True],
                }[result["task"]]
            )
            assert result["task_id"] == ["ct", "mr"].index(result["task"])
            assert (result["raw"] - result["image"]).abs().max() > 1

    @pytest.mark.slow
    @pytest.mark.selected
    def test_collates_with_spawned_workers(self, pair):
        dataset = Dataset(items(pair, "training", limit=1), chain(pair))
        loader = DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="spawn")
        batch = next(iter(loader))
        assert batch["image"].shape == (2, 1, 6, 7, 8)
        assert batch["annotated"].shape == (2, 4) and batch["annotated"].dtype == torch.bool
        assert batch["task_id"].tolist() == [0, 1]
        assert batch["case"] == ["c0", "c0"]

    def test_what_monai_label_passes(self, pair):
        item = items(pair, "training", tasks="mr", limit=1)[0]
        given = {"image": item["image"]}
        loaded = Compose(
            [LoadCased("image", image_only=False), DescribeCased(pair, default_task="mr"), CheckGridsd(KEYS),
             Orientationd("image", "RAS", labels=None), SafeSpacingd("image", (2.0, 2, 2)), VolumeStatsd(), CopyRawd()]
        )({**given, "image_path": item["image"]})  # fmt: skip
        assert (loaded["case"], loaded["task"], loaded["task_id"]) == ("c0", "mr", 1)
        assert loaded["image_path"] == item["image"]
        assert loaded["image_meta_dict"]["filename_or_obj"] == item["image"]


class TestDescribeCased:
    def test_modality(self, make_dataset, tmp_path):
        make_dataset("ct")
        make_dataset("mr", modality={"0": "MR"})
        one = DescribeCased(tmp_path)
        names = one.modalities
        assert len(names) == 2
        for task in ("ct", "mr"):
            result = one({"image": "a.nii", "task": task})
            assert names[result["modality_id"]] == result["modality"]
        assert one({"image": "a.nii", "task": "ct", "modality": names[1]})["modality_id"] == 1
        assert "modality_id" not in one({"image": "a.nii", "task": "ct", "modality": "PET"})
        strict = DescribeCased(tmp_path, modalities=(names[1], "PET"))
        assert strict({"image": "a.nii", "task": "ct", "modality": "PET"})["modality_id"] == 1
        with pytest.raises(DataError, match=r"none of the network's"):
            strict({"image": "a.nii", "task": "ct", "modality": names[0]})

    def test_a_modality_that_is_taken_for_the_models_is_told(self, make_dataset, caplog):
        contract = Contract(("CT",), {"CT": {"channels": ["CT"]}}, {"CT": ("liver",)})
        DescribeCased(make_dataset(), contract=contract, modality="CT scan")
        assert not caplog.text
        DescribeCased(make_dataset(), contract=contract, modality="CTA")
        assert "CTA is taken for CT" in caplog.text

    def test_default_of_one_task_and_union_values(self, make_dataset):
        result = DescribeCased(make_dataset())({"image": "/x/a b_0000.nii.gz"})
        assert (result["task"], result["case"], result["label_values"]) == ("d", "a b", "union")
        assert result["annotated"].all()

    def test_default_task_values(self, pair):
        result = DescribeCased(pair, "mr", default_values="task")({"image": "a.nii"})
        assert "label_values" not in result
        assert result["annotated"].tolist() == [True, True, False, True]

    def test_refuses(self, pair):
        with pytest.raises(DataError, match="default_task"):
            DescribeCased(pair)({"image": "x.nii"})
        with pytest.raises(DataError, match="pet"):
            DescribeCased(pair)({"image": "x.nii", "task": "pet"})
        with pytest.raises(DataError, match="did you mean"):
            DescribeCased(pair, "mrr")
        with pytest.raises(DataError, match="default_values"):
            DescribeCased(pair, "mr", default_values="x")

    def test_does_not_change_its_input(self, pair):
        data = {"image": "x.nii", "task": "mr"}
        DescribeCased(pair)(data)
        assert data == {"image": "x.nii", "task": "mr"}

    @pytest.mark.parametrize(
        ("data", "name"),
        [
            ({"case": "c"}, "c"),
            ({"image": ["/a/x_0000.nii.gz", "/a/x_0001.nii.gz"]}, "x"),
            ({"image": meta(np.zeros((1, 2, 2, 2)), filename_or_obj="/a/y.nrrd")}, "y"),
            ({"image": "/a/amos_0001.nii.gz"}, "amos_0001"),
            ({"image": torch.zeros(1), "image_path": "/a/z.mha"}, "z"),
            ({}, "unknown case"),
        ],
    )
    def test_case_name(self, data, name):
        assert case_name(data) == name


class TestMapLabelsd:
    def test_equals_naive_loop(self, pair):
        values = np.random.default_rng(0).choice([0, 2, 3], (1, 3, 4, 5)).astype(np.float32)
        naive = np.vectorize({0: 0, 2: 3, 3: 1}.get)(values)  # union: liver, spleen, kidney
        transform = MapLabelsd("label", pair)
        for given in (meta(values), torch.from_numpy(values), torch.from_numpy(values).to(torch.uint8)):
            result = transform({"label": given, "task": "mr"})["label"]
            assert np.array_equal(np.asarray(result), naive)
            assert result.dtype == given.dtype and type(result) is type(given)

    def test_keeps_geometry(self, pair):
        label = meta(np.zeros((1, 2, 2, 2)), np.diag([2.0, 3, 4, 1]), filename_or_obj="l.nii")
        result = MapLabelsd("label", pair)({"label": label, "task": "ct"})["label"]
        assert torch.equal(result.affine, label.affine) and result.meta["filename_or_obj"] == "l.nii"

    @pytest.mark.parametrize("bad", [255.0, -1.0, 4.0])
    def test_refuses_undeclared(self, pair, bad):
        label = meta(np.array([[[[0, 1, bad]]]]), filename_or_obj="/data/l.nii.gz")
        with pytest.raises(LabelError) as error:
            MapLabelsd("label", pair)({"label": label, "task": "ct", "case": "c7"})
        assert all(t in str(error.value) for t in ("c7", "/data/l.nii.gz", str(int(bad)), "spleen"))

    @pytest.mark.parametrize("bad", [0.25, 1.7, float("nan"), float("inf")])
    def test_refuses_fractional(self, pair, bad):
        with pytest.raises(LabelError, match="fractional or non-finite"):
            MapLabelsd("label", pair)({"label": torch.tensor([[[[0.0, bad]]]]), "task": "ct"})

    def test_union_values_pass_and_are_checked(self, pair):
        transform = MapLabelsd("label", pair)
        data = {"label": torch.arange(4.0), "task": "ct", "label_values": "union"}
        assert transform(data)["label"].tolist() == [0, 1, 2, 3]
        with pytest.raises(LabelError, match="undeclared"):
            transform({**data, "label": torch.tensor([5.0])})

    def test_needs_a_task(self, pair):
        with pytest.raises(LabelError, match="DescribeCased before"):
            MapLabelsd("label", pair)({"label": torch.zeros(1)})


class TestCheckGridsd:
    @pytest.mark.parametrize(
        ("shape", "affine", "word"),
        [
            ((1, 4, 5, 7), np.eye(4), "shape"),
            ((1, 4, 5, 6), np.diag([1, 1, 2.0, 1]), "spacing"),
            ((1, 4, 5, 6), np.eye(4) + np.outer([1, 0, 0, 0], [0, 0, 0, 50.0]), "origin"),
            ((1, 4, 5, 6), np.diag([-1.0, 1, 1, 1]) + np.outer([1, 0, 0, 0], [0, 0, 0, 3.0]), "orientation"),
        ],
    )
    def test_four_kinds(self, shape, affine, word):
        data = {"image": meta(np.zeros((1, 4, 5, 6))), "label": meta(np.zeros(shape), affine), "case": "c3"}
        with pytest.raises(GeometryError, match=word) as error:
            CheckGridsd()(data)
        assert "c3" in str(error.value) and "voxels" in str(error.value)

    def test_passes(self):
        data = {"image": meta(np.zeros((2, 4, 5, 6))), "label": meta(np.zeros((1, 4, 5, 6)))}
        assert CheckGridsd()(data) == data
        assert CheckGridsd()({"image": data["image"], "label": "liver"})["label"] == "liver"
        assert "label" not in CheckGridsd()({"image": data["image"]})


class TestSafeSpacingd:
    def test_predicts_the_size(self):
        with pytest.raises(GeometryError, match="too much memory") as error:
            SafeSpacingd("image", (1.0, 1, 1))({"image": meta(np.zeros((1, 40, 40, 40)), np.diag([100.0] * 3 + [1]))})
        assert "3901" in str(error.value)
        SafeSpacingd("image", (-1.0, -1, -1), max_voxels=8)({"image": meta(np.zeros((1, 2, 2, 2)))})

    @pytest.mark.parametrize("suffix", ["nii.gz", "nrrd"])
    def test_leaves_other_entries(self, suffix):
        image = meta(np.zeros((1, 4, 4, 4)), np.diag([2.0, 2, 2, 1]), filename_or_obj=f"a.{suffix}")
        given = {"image": image, "image_path": f"a.{suffix}", "image_id": 7, "other": "x"}
        result = SafeSpacingd("image", (1.0, 1.0, 1.0))(given)
        assert result["image"].shape == (1, 7, 7, 7)
        assert {k: v for k, v in result.items() if k != "image"} == {k: v for k, v in given.items() if k != "image"}

    def test_two_keys_with_one_prefix(self):
        image = {"image": meta(np.zeros((1, 4, 4, 4))), "image_two": meta(np.zeros((1, 4, 4, 4)))}
        result = SafeSpacingd(["image", "image_two"], (2.0, 2, 2))(image)
        assert result["image_two"].shape == result["image"].shape == (1, 2, 2, 2)


def naive_stats(channel):
    v = np.sort(channel[channel != 0].astype(np.float64))
    v = v if len(v) else channel.ravel().astype(np.float64)

    def percentile(q):
        p = q / 100 * (len(v) - 1)
        i = int(p)
        return v[i] + (p - i) * (v[min(i + 1, len(v) - 1)] - v[i])

    mean = sum(v) / len(v)
    return [mean, (sum((v - mean) ** 2) / len(v)) ** 0.5, v[0], v[-1], percentile(0.5), percentile(99.5)]


class TestIntensity:
    IMAGE = np.random.default_rng(1).normal(50, 30, (2, 5, 6, 7)).astype(np.float32) * (
        np.random.default_rng(2).random((2, 5, 6, 7)) > 0.3
    )

    def test_stats_equal_naive(self):
        stats = VolumeStatsd()({"image": meta(self.IMAGE)})["stats"]
        assert np.allclose(stats[:, :6], [naive_stats(c) for c in self.IMAGE], rtol=1e-4)
        assert type(stats) is torch.Tensor

    def test_stats_of_the_box_are_nnunets(self):
        """Zero background in the box counts, that around it does not; the box is that of all channels."""
        from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

        image = np.zeros((2, 9, 8, 7), np.float32)
        image[0, 2:5, 1:4, 3:6] = np.random.default_rng(0).normal(100, 20, (3, 3, 3))
        image[1, 6, 5, 1] = -5
        cropped, *_ = crop_to_nonzero(image.copy())
        assert cropped.shape == (2, 5, 5, 5)
        wanted = [(c.mean(), c.std(), c.min(), c.max()) for c in cropped.astype(np.float64)]
        assert np.allclose(VolumeStatsd()({"image": meta(image)})["stats"][:, 6:], wanted, rtol=1e-5)

    def test_stats_of_an_empty_channel(self):
        assert VolumeStatsd()({"image": torch.zeros(1, 3, 3, 3)})["stats"].abs().sum() == 0

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_non_finite_is_refused_with_the_case(self, bad):
        image = torch.zeros(1, 3, 3, 3)
        image[0, 1, 1, 1] = bad
        for transform in (VolumeStatsd(), NormalizePercentiled("image")):
            with pytest.raises(DataError, match="c9"):
                transform({"image": image, "case": "c9"})

    def test_normalise_equals_naive_and_keeps_order(self):
        result = NormalizePercentiled("image")({"image": meta(self.IMAGE)})["image"]
        for got, channel in zip(result.numpy(), self.IMAGE, strict=True):
            low, high = naive_stats(channel)[4:]
            inside = np.clip(channel[channel != 0].astype(np.float64), low, high)
            naive = (np.clip(channel, low, high) - inside.mean()) / inside.std()
            assert np.allclose(got, naive, atol=1e-4)
            order = np.argsort(channel.ravel())
            assert (np.diff(got.ravel()[order]) >= 0).all()

    def test_normalise_is_invariant_to_gain_for_positive_gain(self):
        one = NormalizePercentiled("image")({"image": torch.from_numpy(self.IMAGE)})["image"]
        two = NormalizePercentiled("image")({"image": torch.from_numpy(self.IMAGE * 7)})["image"]
        assert torch.allclose(one, two, atol=1e-4)

    def test_constant_image(self):
        assert NormalizePercentiled("image")({"image": torch.full((1, 3, 3, 3), 4.0)})["image"].abs().max() == 0

    @pytest.mark.parametrize("limits", [(-1, 99), (50, 50), (1, 101)])
    def test_refuses_percentiles(self, limits):
        with pytest.raises(ConfigError, match="percentiles"):
            NormalizePercentiled("image", *limits)

    def test_copy_is_independent(self):
        data = CopyRawd()({"image": meta(self.IMAGE.copy())})
        data["image"] += 1
        assert np.array_equal(data["raw"].numpy(), self.IMAGE)


def all_orientations():
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = 0
            for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
                affine[axis, column] = sign * (1.0, 1.5, 2.0)[column]
            affine[:3, 3] = (10, -20, 30)
            yield affine


def oblique(affine):
    a, b = 0.3, -0.2
    x = np.array([[1, 0, 0, 0], [0, np.cos(a), -np.sin(a), 0], [0, np.sin(a), np.cos(a), 0], [0, 0, 0, 1]])
    z = np.array([[np.cos(b), -np.sin(b), 0, 0], [np.sin(b), np.cos(b), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return x @ z @ affine


class TestRestore:
    """A map of the image's own voxels that goes through the chain and back must be the image's map again."""

    def round_trip(self, tmp_path, affine, extra=(), extension=".nii.gz"):
        shape = (7, 9, 8)
        values = np.zeros(shape, np.float32)
        values[1:5, 2:8, 3:6] = 1
        values[2:4, 3:6, 4:7] = 2
        file = tmp_path / "case 1_0000.nii.gz"
        nib.save(nib.Nifti1Image(values, affine), file)
        pre = Compose(
            [LoadCased("image"), Orientationd("image", "RAS", labels=None), SafeSpacingd("image", (0.5, 0.5, 0.5),
             mode="nearest"), *extra]
        )  # fmt: skip
        data = pre({"image": str(file)})
        data["pred"] = MetaTensor(data["image"].as_tensor().round().clone(), affine=data["image"].affine)
        post = Compose([RestoreGridd("pred", pre), SavePredictiond("pred", tmp_path / "out", extension=extension)])
        return values, post(data)

    @pytest.mark.parametrize("tilt", [False, True])
    def test_all_48_orientations(self, tmp_path, tilt):
        for i, affine in enumerate(all_orientations()):
            affine = oblique(affine) if tilt else affine
            (tmp_path / str(i)).mkdir()
            values, result = self.round_trip(tmp_path / str(i), affine)
            written = nib.load(result["pred_file"])
            assert written.shape == values.shape
            assert np.allclose(written.affine, affine, atol=1e-4)
            assert written.get_data_dtype() == np.uint8
            assert np.array_equal(np.asarray(written.dataobj), values), f"orientation {i}"
            assert int(written.header["sform_code"]) == 1

    def test_with_crop_and_pad(self, tmp_path):
        extra = (CropForegroundd("image", source_key="image"), DivisiblePadd("image", 16))
        values, result = self.round_trip(tmp_path, oblique(np.diag([1.0, 1.5, 2, 1])), extra)
        assert np.array_equal(np.asarray(nib.load(result["pred_file"]).dataobj), values)

    @pytest.mark.parametrize("extension", [".nrrd", ".mha", ".nii"])
    def test_other_formats_lie_on_the_same_grid(self, tmp_path, extension):
        affine = oblique(np.diag([-1.0, 1.5, 2, 1]))
        values, result = self.round_trip(tmp_path, affine, extension=extension)
        back = LoadCased("pred")({"pred": result["pred_file"]})["pred"]
        assert np.allclose(back.affine, affine, atol=1e-4)
        assert np.array_equal(back.numpy()[0], values)

    def test_refuses_another_chain(self, tmp_path):
        other = Compose([EnsureChannelFirstd("image")])
        data = {
            "image": meta(np.zeros((1, 4, 4, 4)), spatial_shape=[8, 8, 8]),
            "pred": meta(np.zeros((1, 4, 4, 4))),
        }
        with pytest.raises(GeometryError, match="could not be put back"):
            RestoreGridd("pred", other)(data)


class TestSavePredictiond:
    def case(self, name, **more):
        return {"pred": meta(np.ones((1, 3, 3, 3))), "case": name, **more}

    def test_folder_per_task_and_suffix(self, tmp_path):
        save = SavePredictiond("pred", tmp_path, suffix="_seg")
        assert save(self.case("c1", task="ct"))["pred_file"] == str(tmp_path / "ct" / "c1_seg.nii.gz")
        assert save(self.case("c1", task="mr"))["pred_file"] == str(tmp_path / "mr" / "c1_seg.nii.gz")
        assert save(self.case("c1"))["pred_file"] == str(tmp_path / "c1_seg.nii.gz")

    def test_refuses_a_second_case_of_one_name(self, tmp_path):
        save = SavePredictiond("pred", tmp_path)
        save(self.case("c1"))
        with pytest.raises(DataError, match="one file"):
            save(self.case("c1"))

    def test_refuses_several_channels_and_too_large_values(self, tmp_path):
        with pytest.raises(DataError, match="one integer label map"):
            SavePredictiond("pred", tmp_path)({"pred": meta(np.ones((2, 3, 3, 3))), "case": "a"})
        with pytest.raises(DataError, match="fit uint8"):
            SavePredictiond("pred", tmp_path)({"pred": meta(np.full((1, 3, 3, 3), 300.0)), "case": "b"})
        assert not list(tmp_path.rglob("*"))

    def test_names_cannot_leave_the_folder(self, tmp_path):
        path = SavePredictiond("pred", tmp_path / "out")(self.case("../../evil"))["pred_file"]
        assert path == str(tmp_path / "out" / "evil.nii.gz")


def test_maps_of_real_numbers_are_interpolated_when_asked() -> None:
    image = MetaTensor(torch.zeros(1, 8, 8, 4), affine=torch.diag(torch.tensor([-2.0, 2.0, 2.0, 1.0])))
    pre = Compose(
        [Orientationd(keys="image", axcodes="RAS", labels=None), SafeSpacingd(keys="image", pixdim=(3.0, 2.0, 2.0))]
    )
    done = pre({"image": image, "case": "a"})
    ramp = torch.arange(done["image"].shape[1]).float()[None, :, None, None].expand(done["image"].shape).clone()
    data = {**done, "pred": MetaTensor(torch.cat([ramp, 1 - ramp])).copy_meta_from(done["image"])}
    smooth = RestoreGridd("pred", pre, interpolate=True)(data)["pred"]
    nearest = RestoreGridd("pred", pre)(data)["pred"]
    assert smooth.shape == nearest.shape == (2, 8, 8, 4)
    assert torch.equal(smooth.affine, image.affine)
    torch.testing.assert_close(smooth.as_tensor().sum(0), torch.ones(8, 8, 4))
    inner = smooth.as_tensor()[0, 1:-1, 0, 0].diff()
    torch.testing.assert_close(inner, torch.full_like(inner, -2 / 3), atol=1e-4, rtol=0)  # mm per mm, from the left
    assert bool((nearest == nearest.round()).all()) and not bool((smooth == smooth.round()).all())
    bare = RestoreGridd("pred", pre)({**data, "pred": data["pred"].as_tensor()})["pred"]  # as a network may return it
    assert torch.equal(bare, nearest) and torch.equal(bare.affine, image.affine)
