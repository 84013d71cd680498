"""What Python's reader of zips raises for one that is cut off, damaged, encrypted or packed in an unknown way."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib

__all__ = ["DAMAGED"]

# to be caught around opening a zip and reading its entries, and refused by the zip's name
DAMAGED: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    OSError,  # the file itself, and bzip2's streams
    RuntimeError,  # a password is needed; NotImplementedError, an unknown packing, is one
    EOFError,
    ValueError,  # names that are no text, places that are none
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)
