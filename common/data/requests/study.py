"""What a study is by what lies beside it, compared with the model's card: ``dataset.json``, and DICOM's headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...contract import Contract
from ...dicom_tags import doubts, of_dicom
from ...errors import DataError
from ...modalities import same
from ...paths import is_there
from ..datasets.dataset_json import base_name
from ..datasets.described import Description, about_structures, described
from ..dicom.contents import modality_tag
from ..dicom.slices import is_dicom

__all__ = ["Study", "compared", "place_of"]


class Study(NamedTuple):
    """How a study fits a model.

    Args:
        modalities: the model's names of what it can be; empty when nobody knows.
        notes: what a user should be told.
    """

    modalities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def place_of(image: Any) -> Path | None:
    """Where an image was read; None when nothing says it.

    Args:
        image: with MONAI's ``meta``, or any array.
    """
    meta = getattr(image, "meta", None)
    name = meta.get("filename_or_obj") if isinstance(meta, Mapping) else None
    return Path(name) if isinstance(name, str | Path) and str(name) and is_there(Path(name)) else None


def compared(place: Path, contract: Contract, modality: str = "") -> Study:
    """Compare a study with what the model was taught on, as ``predict`` does.

    Args:
        place: its file, or the folder of its series; a series that was converted lies beside its file.
        contract: what the model's card says.
        modality: what the request says that it is; empty when nothing.

    Raises:
        DataError: for a study that is surely something else, and where who speaks of it contradicts another.
    """
    tag, where = _tag(place), place.name
    found = described([place])
    notes = [] if found is None or not found.problem else [f"{found.file.name}: {found.problem}: not compared with it"]
    said = Description(place) if found is None or found.problem else found
    notes += about_structures(said._replace(file=Path(said.file.name)), contract)
    called = [n for n in (modality or said.modality, *said.channels[: len(said.channels) == 1]) if n]
    _check_called(modality, said, of_dicom(tag, called), where)
    fit = contract.fit(said.channels or None, modality or said.modality, tag=tag, where=where)
    if said.channels and fit.order not in (tuple(range(len(said.channels))), ()):
        raise DataError("the channels lie in another order than the model reads", where=where,
                        got=", ".join(said.channels), expected=", ".join(said.channels[i] for i in fit.order),
                        hint=f"write them in this order; or correct {said.file.name}")  # fmt: skip
    open_ = [f"{where}: {line}" for line in doubts(tag, (*called, *fit.modalities))]
    return Study(fit.modalities, tuple(dict.fromkeys([*notes, *fit.notes, *open_])))


def _check_called(modality: str, said: Description, dicom: str, where: str) -> None:
    """Refuse a study of which DICOM, the request and a ``dataset.json`` surely say different things."""
    own = [n for n in (said.modality, *said.channels[: len(said.channels) == 1]) if n]
    pairs = [(modality, "the request", n, said.file.name) for n in own if modality]
    pairs += [(n, by, dicom, "DICOM") for n, by in ((modality, "the request"), *((o, said.file.name) for o in own))]
    for one, by, other, by_other in pairs:
        if one and other and same(one, other) is False:
            raise DataError(f"{by} and {by_other} say different things of the study", where=where,
                            got=f"{other} ({by_other})", expected=f"{one} ({by})",
                            hint="choose what the study is; or correct what says something else")  # fmt: skip


def _tag(place: Path) -> str:
    """DICOM's tag of a series, be it converted beforehand; empty of what is no DICOM."""
    series = place if is_dicom(place) else place.with_name(base_name(place))
    return modality_tag(series) if is_there(series) and is_dicom(series) else ""
