"""Photographs and other pictures: PNG, JPEG, TIFF and BMP files as 2-D images without a place in the patient."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import DataError

__all__ = ["PICTURES", "is_picture", "read_picture"]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_AS_THEY_ARE = ("1", "L", "I", "I;16", "F", "RGB")
_HINT = "is it a picture? copy or export the file again"


def is_picture(path: str | Path) -> bool:
    """Whether a file's name is that of a picture."""
    return str(path).lower().endswith(PICTURES)


def read_picture(path: str | Path, channels: int | None = None) -> MetaTensor:
    """Read a picture; its first axis runs to the right, its second downwards.

    Args:
        path: the file.
        channels: how many are wanted: 3 repeats a grey picture and looks a palette's colours up, 1 takes one channel of
            a colour picture whose channels are equal, and a palette's indices; None takes what is there.

    Returns:
        ``[C, X, Y]`` float32 with the values of the file and an identity affine.

    Raises:
        DataError: for a file that is no picture, is cut off, holds several pictures, or is partly transparent.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise DataError("the file holds several pictures", where=path, got=f"{picture.n_frames} pictures",  # type: ignore[attr-defined]
                                expected="one", hint="save them one by one")  # fmt: skip
            mode = picture.mode
            array = np.asarray(_plain(picture, path, channels))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"the file cannot be read ({type(error).__name__}: {error})", where=path, hint=_HINT) from error
    values = array.astype(np.float32).swapaxes(0, 1)
    planes = _with_channels(np.moveaxis(np.atleast_3d(values), 2, 0), channels)
    meta = {"filename_or_obj": str(path), "spatial_shape": np.asarray(planes.shape[1:]), "mode": mode}
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(planes)), affine=torch.eye(4).double(), meta=meta)


def _plain(picture: Image.Image, path: Path, channels: int | None) -> Image.Image:
    """The picture without transparency, palette or another colour space."""
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        whole = picture.convert("RGBA")
        low, _ = cast(tuple[int, int], whole.getchannel("A").getextrema())
        if low < 255:
            raise DataError("the picture is partly transparent", where=path, got=f"opacity from {low} of 255",
                            expected="an opaque picture", hint="flatten it onto a background first")  # fmt: skip
        return (
            picture if picture.mode == "P" and channels != 3 else whole.convert("L" if "L" in picture.mode else "RGB")
        )
    if picture.mode in _AS_THEY_ARE or picture.mode.startswith("I;") or (picture.mode == "P" and channels == 1):
        return picture
    return picture.convert("RGB")


def _with_channels(planes: NDArray[np.float32], channels: int | None) -> NDArray[np.float32]:
    if channels == 3 and len(planes) == 1:
        return planes.repeat(3, 0)
    if channels == 1 and len(planes) == 3 and bool((planes == planes[:1]).all()):
        return planes[:1]
    return planes
