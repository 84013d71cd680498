"""nnU-Net's preprocessing and patches as MONAI transforms, its arrays unchanged."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd, insert_crop_into_image
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform
from numpy.typing import NDArray

from ...data.datasets.dataset_json import case_name
from ...data.store.entry import StoredArray
from ...errors import DataError
from ...plain_json import parse_object
from .calls import asked, check_size
from .fingerprint import to_nnunet
from .grid import grid_affine
from .network import plan_managers
from .plan import Plan
from .recipe import Recipe, foreground_fraction, seeded
from .streamed import Running

__all__ = ["NNUNetPatchd", "NNUNetPreprocessd", "NNUNetRestored"]

VOLUME = 4
# Axes of an image with channels, of which no slice alone was cut.
_BYTE = 255
# Structures that nnU-Net writes in 16 bits.


class NNUNetPreprocessd(Transform):
    """Crop to non-zero, normalise and resample as nnU-Net's ``DefaultPreprocessor`` does (it does it itself).

    ``image`` ``[C, X, Y, Z]`` becomes ``[C, a, b, c]`` in nnU-Net's axis order at the plans' spacing, and its affine
    says where these voxels lie; ``label`` (when given) becomes ``[1, a, b, c]``. ``nnunet`` holds what brings a
    prediction back. Where the plans know a configuration for each modality, the case's own normalises it.

    Args:
        plan: plans, labels and configuration.
        image: image key, a MetaTensor in the plans' orientation.
        label: label key with indices 0..K, not needed in a case; None leaves labels on their own grid.
        locations: also keep foreground voxels per class for patch sampling (key ``class_locations``).
        outside: what the label map says outside of the non-zero region; nnU-Net's -1, or the background.
        modality: what all cases are, whatever they say; what each says when None.

    Raises:
        DataError: when the image is empty or has other channels than the plans, or nobody says of which modality it is
            where that decides how it is normalised.
        WeightError: when it would be resampled to more than this machine holds, or nnU-Net ends in the middle.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        image: str = "image",
        label: str | None = "label",
        locations: bool = False,
        outside: int = -1,
        modality: str | None = None,
    ) -> None:
        self.plan, self.image, self.label, self.locations = plan, image, label, locations
        self.outside, self.modality = outside, modality
        names = dict.fromkeys([plan.configuration, *plan.by_modality.values()])
        self.managers = {name: plan_managers(plan.plans, name) for name in names}

    def chain_identity(self) -> dict[str, Any]:
        """What decides the result: the plans, wherever their files lie."""
        keys = {"image": self.image, "label": self.label, "locations": self.locations, "outside": self.outside}
        return {**self.plan.settings, **keys, "modality": self.modality, "nnunetv2": version("nnunetv2")}

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
        configuration = self.plan.configuration_for(self.modality or data.get("modality"), where=where)
        array, label, properties = self._preprocess(configuration, array, label, {"spacing": spacing}, where)
        affine = torch.as_tensor(image.affine).double() if isinstance(image, MetaTensor) else torch.eye(4).double()
        result[self.image] = self._placed(array, image, affine, properties)
        if self.label is not None and self.label in data:
            known = torch.from_numpy(np.ascontiguousarray(label))
            result[self.label] = known.masked_fill(known < 0, self.outside)
            if self.locations:
                found = properties["class_locations"]
                result["class_locations"] = {int(k): torch.from_numpy(np.array(v)) for k, v in found.items()}
        result["nnunet"] = json.dumps({**_plain(properties), "dim": spatial, "affine": affine.tolist()})
        return result

    def _preprocess(
        self,
        configuration: str,
        array: NDArray[Any],
        label: NDArray[Any] | None,
        properties: dict[str, Any],
        where: str,
    ) -> tuple[NDArray[Any], NDArray[Any], dict[str, Any]]:
        manager, config = self.managers[configuration]
        place, turn = f"{where}, plans of {self.plan.folder}", manager.transpose_forward
        shape, spacing = [array.shape[1 + i] for i in turn], [properties["spacing"][i] for i in turn]
        check_size(shape, spacing, config.spacing, channels=len(array), where=place)
        with asked(place):
            worker = config.preprocessor_class(verbose=False)
            data, seg, found = worker.run_case_npy(array, label, properties, manager, config, self.plan.dataset_json)
        return np.ascontiguousarray(data, dtype=np.float32), seg, found

    def _placed(
        self, array: NDArray[Any], image: Any, affine: torch.Tensor, properties: Mapping[str, Any]
    ) -> MetaTensor:
        found: MetaTensor = MetaTensor(torch.from_numpy(array)).copy_meta_from(image)
        if image.ndim == VOLUME:
            transpose = self.plan.plans["transpose_forward"]
            found.affine = torch.from_numpy(grid_affine(affine.numpy(), transpose, properties, array.shape[1:]))
        return found


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
    """Logits on nnU-Net's grid to an integer label map on the oriented image's grid, as by nnU-Net's own export.

    Exclusive classes are resampled by nnU-Net one at a time, and the best so far is kept: the same label map, without
    the logits of all classes on the larger grid. What was decided in tiles is put in its place.

    Args:
        plan: plans, labels and configuration.
        pred: key of the logits ``[K+1, a, b, c]``; becomes ``[1, X, Y, Z]`` with the history of ``image``.
        image: the preprocessed image, whose orientation is undone later by ``RestoreGridd``; it gets the affine of the
            oriented scan back, which its history belongs to.
    """

    def __init__(self, *, plan: Plan, pred: str = "pred", image: str = "image") -> None:
        self.plan, self.pred, self.image = plan, pred, image
        self.manager, self.config = plan_managers(plan.plans, plan.configuration)
        self.labels = self.manager.get_label_manager(plan.dataset_json)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the label map."""
        properties = parse_object(data["nnunet"], error=DataError, finite=False)
        logits = torch.as_tensor(data[self.pred]).detach().cpu()
        logits = logits.as_tensor() if isinstance(logits, MetaTensor) else logits
        with asked(f"case {case_name(data, self.image)}, plans of {self.plan.folder}"):
            seg = self._exported(logits, properties)
        flat = properties["dim"] == 2
        volume = torch.from_numpy(np.ascontiguousarray(seg[0].T if flat else seg.transpose(2, 1, 0)))[None]
        image = data[self.image]
        if not isinstance(image, MetaTensor):
            return {**data, self.pred: volume}
        restored, image = MetaTensor(volume).copy_meta_from(image), MetaTensor(image).copy_meta_from(image)
        for one in (restored, image) if "affine" in properties else ():
            one.affine = torch.tensor(properties["affine"], dtype=torch.float64)
        return {**data, self.pred: restored, self.image: image}

    def _exported(self, logits: torch.Tensor, properties: dict[str, Any]) -> NDArray[Any]:
        """The label map in nnU-Net's order of axes."""
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        if logits.is_floating_point():  # as nnU-Net: ties are its ties
            logits = logits if logits.dtype == torch.float16 else logits.float()
        if self.labels.has_regions:
            found = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, self.manager, self.config, self.labels, properties,
                num_threads_torch=torch.get_num_threads(),
            )  # fmt: skip
            return np.asarray(found)
        index = self._best(logits, properties) if logits.is_floating_point() else logits[0]
        bits = np.uint8 if len(self.labels.foreground_labels) < _BYTE else np.uint16
        whole = np.zeros(properties["shape_before_cropping"], dtype=bits)
        insert_crop_into_image(whole, index.numpy(), properties["bbox_used_for_cropping"])
        return whole.transpose(self.manager.transpose_backward)

    def _best(self, logits: torch.Tensor, properties: Mapping[str, Any]) -> torch.Tensor:
        spacing = [properties["spacing"][i] for i in self.manager.transpose_forward]
        shape, own = properties["shape_after_cropping_and_before_resampling"], list(self.config.spacing)
        now = own if len(own) == len(shape) else [spacing[0], *own]
        running = Running()
        for number in range(len(logits)):
            values = self.config.resampling_fn_probabilities(logits[number : number + 1], shape, now, spacing)
            running.update(torch.as_tensor(values), number)
        return running.index


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
