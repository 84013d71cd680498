"""What a structure's name means in SNOMED CT, for DICOM; names that are not known stay private and say so."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

__all__ = ["PRIVATE_SCHEME", "Meaning", "meaning"]

PRIVATE_SCHEME = "99AMALGAM"

_ORGAN, _CHANGE, _UNSTATED = "AnatomicalStructure", "MorphologicallyAbnormalStructure", "SpatialAndRelationalConcept"
# Keywords of pydicom's dictionary, which is made of the DICOM standard's own tables.
_ORGANS = {
    "adrenal gland": "AdrenalGland", "aorta": "Aorta", "bladder": "Bladder", "brain": "Brain",
    "brainstem": "BrainStem", "breast": "Breast", "colon": "Colon", "duodenum": "Duodenum", "esophagus": "Esophagus",
    "femur": "Femur", "gallbladder": "Gallbladder", "heart": "Heart", "inferior vena cava": "InferiorVenaCava",
    "kidney": "Kidney", "larynx": "Larynx", "left atrium": "LeftAtrium", "left ventricle": "LeftVentricle",
    "liver": "Liver", "lung": "Lung", "mandible": "Mandible", "pancreas": "Pancreas", "parotid gland": "ParotidGland",
    "portal vein": "PortalVein", "prostate": "Prostate", "rectum": "Rectum", "right atrium": "RightAtrium",
    "right ventricle": "RightVentricle", "spinal cord": "SpinalCord", "spleen": "Spleen",
    "splenic vein": "SplenicVein", "stomach": "Stomach", "thyroid": "Thyroid", "trachea": "Trachea",
    "uterus": "Uterus", "vertebra": "Vertebra",
}  # fmt: skip
_CHANGES = {"tumor": "Neoplasm", "lesion": "Lesion", "edema": "Edema", "necrosis": "Necrosis", "scar": "Scar"}
_PAIRED = ("adrenal gland", "femur", "kidney", "lung", "parotid gland")
_SYNONYMS = {
    "tumour": "tumor", "oedema": "edema", "oesophagus": "esophagus", "urinary bladder": "bladder",
    "brain stem": "brainstem", "parotid": "parotid gland", "parotid gland gland": "parotid gland",
    "thyroid gland": "thyroid", "postcava": "inferior vena cava", "gall bladder": "gallbladder",
}  # fmt: skip


class Meaning(NamedTuple):
    """The codes of a structure: category, type, and where they apply the body's side and the organ of a change."""

    category: Code
    type: Code
    side: Code | None = None
    region: Code | None = None

    @property
    def known(self) -> bool:
        """Whether the type is one of SNOMED CT."""
        return str(self.type.scheme_designator) == "SCT"


def meaning(name: str) -> Meaning:
    """The codes for a structure's name.

    Sides (``left kidney``, ``kidney_left``) and changes of organs (``liver tumour``) are understood. Any other name
    gets a code of the private scheme ``99AMALGAM`` with the name as its meaning, and a category that claims nothing.
    """
    plain = _plain(name)
    side, rest = _side(plain)
    if plain in _ORGANS:
        return Meaning(_code(_ORGAN), _code(_ORGANS[plain]))
    if side and rest in _PAIRED:
        return Meaning(_code(_ORGAN), _code(_ORGANS[rest]), side=_code(side))
    organ, _, change = plain.rpartition(" ")
    if change in _CHANGES and (not organ or organ in _ORGANS):
        return Meaning(_code(_CHANGE), _code(_CHANGES[change]), region=_code(_ORGANS[organ]) if organ else None)
    value = hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return Meaning(_code(_UNSTATED), Code(value, PRIVATE_SCHEME, name[:64]))


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_\-]+", " ", name.strip().lower())
    for word, other in _SYNONYMS.items():
        plain = re.sub(rf"\b{word}\b", other, plain)
    return plain


def _side(plain: str) -> tuple[str, str]:
    for side in ("left", "right"):
        for rest in (plain.removeprefix(f"{side} "), plain.removesuffix(f" {side}")):
            if rest != plain:
                return side.capitalize(), rest
    return "", plain


def _code(keyword: str) -> Code:
    found: Code = getattr(codes.SCT, keyword)
    return found
