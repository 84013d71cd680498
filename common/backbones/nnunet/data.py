"""nnU-Net's preprocessing and patches as MONAI transforms, its arrays unchanged."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform
from numpy.typing import NDArray

from ...data.datasets.dataset_json import case_name
from ...data.store.entry import StoredArray
from ...errors import DataError
from ...plain_json import parse_object
from .fingerprint import to_nnunet
from .network import plan_managers, quiet
from .plan import Plan
from .recipe import Recipe, foreground_fraction, seeded

__all__ = ["NNUNetPatchd", "NNUNetPreprocessd", "NNUNetRestored"]


class NNUNetPreprocessd(Transform):
    """Crop to non-zero, normalise and resample as nnU-Net's ``DefaultPreprocessor`` does (it does it itself).

    ``image`` ``[C, X, Y, Z]`` becomes ``[C, a, b, c]`` in nnU-Net's axis order at the plans' spacing, ``label`` (when
    given) ``[1, a, b, c]`` with -1 outside the non-zero region. ``nnunet`` holds what brings a prediction back.

    Args:
        plan: plans, labels and configuration.
        image: image key, a MetaTensor in the plans' orientation.
        label: label key with indices 0..K; None leaves labels on their own grid.
        locations: also keep foreground voxels per class for patch sampling (key ``class_locations``).

    Raises:
        DataError: when the image is empty or has other channels than the plans.
    """

    def __init__(
        self, *, plan: Plan, image: str = "image", label: str | None = "label", locations: bool = False
    ) -> None:
        self.plan, self.image, self.label, self.locations = plan, image, label, locations
        self.manager, self.config = plan_managers(plan.plans, plan.configuration)

    def chain_identity(self) -> dict[str, Any]:
        """What decides the result: the plans, wherever their files lie."""
        keys = {"image": self.image, "label": self.label, "locations": self.locations}
        return {**self.plan.settings, **keys, "nnunetv2": version("nnunetv2")}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the preprocessed entries."""
        result, image = dict(data), data[self.image]
        where = f"case {case_name(data, self.image)}"
        if image.shape[0] != len(self.plan.channels):
            expected = ", ".join(self.plan.channels)
            raise DataError(
                "the image has other channels than the plans", where=where, got=len(image), expected=expected
            )
        if not bool((image != 0).any()):
            raise DataError("the image is zero everywhere", where=where)
        spatial = image.ndim - 1
        array, spacing = to_nnunet(_array(image), [float(s) for s in image.pixdim[:spatial]])
        label = None
        if self.label is not None and self.label in data:
            label = to_nnunet(_array(data[self.label]), spacing)[0].astype(np.int16)
        array, label, properties = self._preprocess(array, label, {"spacing": spacing})
        result[self.image] = MetaTensor(torch.from_numpy(array)).copy_meta_from(image)
        if self.label is not None and self.label in data:
            result[self.label] = torch.from_numpy(np.ascontiguousarray(label))
            if self.locations:
                found = properties["class_locations"]
                result["class_locations"] = {int(k): torch.from_numpy(np.array(v)) for k, v in found.items()}
        result["nnunet"] = json.dumps({**_plain(properties), "dim": spatial})
        return result

    def _preprocess(
        self, array: NDArray[Any], label: NDArray[Any] | None, properties: dict[str, Any]
    ) -> tuple[NDArray[Any], NDArray[Any], dict[str, Any]]:
        with quiet():
            worker = self.config.preprocessor_class(verbose=False)
            data, seg, found = worker.run_case_npy(
                array, label, properties, self.manager, self.config, self.plan.dataset_json
            )
        return np.ascontiguousarray(data, dtype=np.float32), seg, found


def _array(image: Any) -> NDArray[Any]:
    plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    return plain.detach().cpu().numpy()


def _box(image: Any, low: Sequence[int], high: Sequence[int], fill: int) -> torch.Tensor:
    """A crop, filled up where it leaves the volume; never a part of an array that is kept in memory."""
    if isinstance(image, StoredArray):
        return image.box(low, high, fill)
    box = [[a, b] for a, b in zip(low, high, strict=True)]
    return torch.from_numpy(crop_and_pad_nd(_array(image), box, fill)).clone()


def _plain(properties: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("spacing", "shape_before_cropping", "bbox_used_for_cropping", "shape_after_cropping_and_before_resampling")
    return {k: np.asarray(properties[k]).tolist() for k in kept}


class NNUNetRestored(Transform):
    """Logits on nnU-Net's grid to an integer label map on the oriented image's grid, by nnU-Net's own export.

    Args:
        plan: plans, labels and configuration.
        pred: key of the logits ``[K+1, a, b, c]``; becomes ``[1, X, Y, Z]`` with the history of ``image``.
        image: the preprocessed image, whose orientation is undone later by ``RestoreGridd``.
    """

    def __init__(self, *, plan: Plan, pred: str = "pred", image: str = "image") -> None:
        self.plan, self.pred, self.image = plan, pred, image
        self.manager, self.config = plan_managers(plan.plans, plan.configuration)
        self.labels = self.manager.get_label_manager(plan.dataset_json)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the label map."""
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        properties = parse_object(data["nnunet"], error=DataError, finite=False)
        with quiet():
            seg = convert_predicted_logits_to_segmentation_with_correct_shape(
                torch.from_numpy(_array(data[self.pred])).float(),
                self.manager,
                self.config,
                self.labels,
                properties,
                num_threads_torch=torch.get_num_threads(),
            )
        flat = properties["dim"] == 2
        volume = torch.from_numpy(np.ascontiguousarray(seg[0].T if flat else seg.transpose(2, 1, 0)))[None]
        image = data[self.image]
        restored = MetaTensor(volume).copy_meta_from(image) if isinstance(image, MetaTensor) else volume
        return {**data, self.pred: restored}


class NNUNetPatchd(Randomizable, Transform):
    """One augmented training patch of a preprocessed case; patch choice and augmentation are nnU-Net's.

    Args:
        plan: plans, labels and configuration.
        batch_size: patches of a batch; decides how often a patch is centred on foreground.
        oversample: share of patches that are centred on foreground, 0..1.
        mirror: whether patches may be mirrored.
        augment: False cuts the patch only.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        batch_size: int | None = None,
        oversample: float = 0.33,
        mirror: bool = True,
        augment: bool = True,
    ) -> None:
        recipe = Recipe(plan=plan)
        self.augmentation = recipe.augmentation(mirror=mirror)
        if not augment:
            self.augmentation = self.augmentation._replace(initial_patch=self.augmentation.patch)
        self.augment = augment
        self.fraction = foreground_fraction(batch_size or plan.batch_size, oversample)
        self.loader = recipe.loader(self.augmentation)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``image`` ``[C, *patch]``, ``label`` ``[1, *patch]`` and the case's names."""
        with seeded(int(self.R.randint(2**31))):
            image, label = self._cut(data, force=bool(np.random.uniform() < self.fraction))
            if self.augment:
                done = self.augmentation.transforms(image=image, segmentation=label)
                image, label = done["image"], done["segmentation"]
        kept: dict[Hashable, Any] = {k: v for k, v in data.items() if k in ("case", "task")}
        return {**kept, "image": image.contiguous(), "label": label.clamp_min(0).contiguous()}

    def _cut(self, data: Mapping[Hashable, Any], *, force: bool) -> tuple[torch.Tensor, torch.Tensor]:
        found = data["class_locations"].items()
        locations = {k: v if isinstance(v, StoredArray) else v.numpy() for k, v in found}
        low, high = self.loader.get_bbox(data["image"].shape[1:], force, locations)
        cut = _box(data["image"], low, high, 0).float()
        seg = _box(data["label"], low, high, -1).to(torch.int16)
        return (cut[:, 0], seg[:, 0]) if self.loader.patch_size_was_2d else (cut, seg)
