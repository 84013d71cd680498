"""`python -m tools experts`: describe and check somebody's expert; give a trained mixture one more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import DataError, WeightError
from common.integrity import SUFFIX
from common.paths import check_new

from .check import check
from .decoder import add
from .describe import describe
from .modality import append
from .told import read_folds, told

__all__ = ["Experts"]


class Experts:
    """Describe somebody else's expert, or change those of a trained M4oE or SAM-Med3D-MoE without training it again."""

    def describe(
        self,
        path: str,
        out: str,
        task: str = "",
        external: bool = False,
        name: str | None = None,
        labels: str | None = None,
        channels: str | Sequence[str] | None = None,
        spacing: Sequence[float] | None = None,
        orientation: str | None = None,
        features: str | None = None,
        normalise: dict[str, Any] | None = None,
        divisor: int | None = None,
        configuration: str | None = None,
        fold: int | str | None = None,
        folds: str | None = None,
        checkpoint: str | None = None,
        training_files: str | None = None,
        profile: str | None = None,
        map: str | None = None,
        trust: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Describe a trained nnU-Net, zoo bundle or TorchScript file, so that KA2ER can ask it.

        What an nnU-Net's own files or a bundle's metadata tell need not be given. The expert is opened once to see
        that it can be. Then: ``python -m tools chain run ka2er --given <task>=<out>``, or ``--external <out>``.

        Args:
            path: results folder of nnU-Net (with plans.json), folder of a MONAI bundle, or a TorchScript file.
            out: the JSON file to write.
            task: the data set whose expert it is.
            external: it belongs to no task: a task-agnostic expert.
            name: of the expert; the task or the file's name when left out.
            labels: its structures and their values in its output, ``"liver=1,spleen=2"``.
            channels: names of the image channels in its order, separated by commas.
            spacing: mm per voxel in x, y, z that it was trained with; the crops' when left out.
            orientation: axis codes that it was trained with; RAS when left out, of an nnU-Net its reader's.
            features: for bundles and TorchScript, the module whose output is taken, such as ``model.1.submodule``.
            normalise: for these, ``{"scheme": "range", "low": -57, "high": 164}``, ``{"scheme": "zscore"}``, ...
            divisor: for these, what sizes must be a multiple of.
            configuration: of an nnU-Net with several, such as ``3d_fullres``.
            fold: of an nnU-Net.
            folds: several of them, which answer together as one expert: ``0,1,2,3,4``, or ``all``.
            checkpoint: weight file, relative to the fold or the bundle.
            training_files: folder of the scans that an nnU-Net learned from, which tell its orientation.
            profile: the program that an nnU-Net lives in: ``totalsegmentator``, or a JSON file of the same form.
            map: structures that are called otherwise here: ``"old=new,other=another"``.
            trust: of a MONAI bundle, whose code is run to open it: do so without asking. The description remembers the
                code's hash, and no other code is run later.
            overwrite: replace --out.
        """
        target = Path(str(out))
        _check_json(target, overwrite)
        extra = {k: v for k, v in (("normalise", normalise), ("divisor", divisor)) if v is not None}
        more = told(Path(str(path)), orientation=orientation, training_files=training_files, fold=fold, folds=folds,
                    checkpoint=checkpoint, profile=profile, renamed=map)  # fmt: skip
        known = {"spacing": spacing, "features": features, "configuration": configuration, "checkpoint": checkpoint,
                 "extra": extra or None, **more}  # fmt: skip
        describe(Path(str(path)), target, task=str(task), external=external, name=name, labels=labels,
                 channels=channels, known=known, trust=trust,
                 training_files=None if training_files is None else str(training_files))  # fmt: skip

    def check(
        self,
        expert: str,
        *scans: str,
        spacing: Sequence[float] | None = None,
        orientation: str = "RAS",
        mirroring: bool | None = None,
        folds: str | None = None,
        together: bool = False,
        out: str | None = None,
    ) -> None:
        """Ask a described nnU-Net twice, as its answers are kept and by nnU-Net's whole pipeline, and compare.

        Args:
            expert: the description that ``experts describe`` wrote.
            scans: scans that the expert can read: files, folders, DICOM series.
            spacing: mm per voxel in x, y, z of the student that it will teach; its own when left out.
            orientation: axis codes of that student.
            mirroring: whether both answer for mirrored scans, too; when left out as its home does (nnU-Net does).
            folds: which folds answer together, ``0,1,2``; the description's when left out.
            together: the files are the channels of one scan, in the expert's order.
            out: JSON file to write what was found to.
        """
        check(Path(str(expert)), [Path(str(s)) for s in scans], spacing=spacing, orientation=str(orientation),
              mirroring=mirroring, folds=read_folds(folds), together=together,
              out=None if out is None else Path(str(out)))  # fmt: skip

    def add_decoder(
        self,
        model: str,
        expert: str,
        out: str,
        name: str | None = None,
        seed: int = 0,
        overwrite: bool = False,
    ) -> None:
        """Append a fine-tuned mask decoder to a SAM-Med3D-MoE; proves that nobody else's answers change.

        Args:
            model: the trained mixture's model.pt.
            expert: a run of sam_med3d_moe_expert on the same general model, or its model.pt.
            out: the file to write, .pt, .pth or .safetensors.
            name: of the expert; its own when omitted.
            seed: of the prompts of the proof.
            overwrite: replace --out, which may then be the model itself.
        """
        target = Path(str(out))
        _check_target(target, overwrite)
        add(Path(str(model)), Path(str(expert)), target, name=None if name is None else str(name), seed=seed)

    def add_modality(
        self,
        model: str,
        dataset_dir: str,
        out: str,
        copy_of: str | None = None,
        seed: int = 0,
        overwrite: bool = False,
        ignore_card: bool = False,
    ) -> None:
        """Append the expert and the head of one new data set; the result is the start of a further training.

        Args:
            model: the trained network's weights, with their card.
            dataset_dir: one data set of one modality, both new to the model.
            out: the file to write, .pt, .pth or .safetensors.
            copy_of: the modality whose experts the new ones start as; at random without it.
            seed: of what starts at random.
            overwrite: replace --out, which may then be the model itself.
            ignore_card: go on where the data set calls its modality something that its channels are not.
        """
        source, target = Path(str(model)), Path(str(out))
        _check_target(target, overwrite)
        append(source, dataset_dir, target, copy_of=None if copy_of is None else str(copy_of), seed=seed,
               ignore_card=ignore_card)  # fmt: skip


def _check_target(target: Path, overwrite: bool) -> None:
    check_new(target, ("", SUFFIX), error=WeightError)
    if target.suffix not in (".pt", ".pth", ".safetensors"):
        raise WeightError("unknown weights format", where=target, got=target.suffix, expected=".pt, .pth, .safetensors")
    if target.exists() and not overwrite:
        raise WeightError("the file exists already", where=target, hint="choose another --out, or pass --overwrite")


def _check_json(target: Path, overwrite: bool) -> None:
    check_new(target)
    if target.suffix != ".json":
        raise DataError("a description is a JSON file", where="--out", got=target.name, expected="expert.json")
    if target.exists() and not overwrite:
        raise DataError("there is a file of this name already", where=target, hint="add --overwrite True")
