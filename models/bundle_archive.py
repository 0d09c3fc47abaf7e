"""Bundles as one zip: read within bounds, written byte-identical for the same content."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from .errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_REMEDY = "copy it again from where it was released"


def read_archive(path: Path, names: Sequence[str], *, max_file_bytes: int) -> dict[str, bytes]:
    """Read the files of a zip that must hold exactly `names`.

    Args:
        path: the zip.
        names: its files.
        max_file_bytes: of a larger file no more is read than shows that it is too large.

    Raises:
        BundleError: when it is truncated, altered, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = archive.namelist()
            if sorted(held) != sorted(names):
                raise BundleError(path, f"holds {held[:9]} instead of {list(names)}", _REMEDY)
            return {name: _member(path, archive, name, max_file_bytes) for name in names}
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise BundleError(path, f"truncated or altered ({error})", _REMEDY) from error


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of the files, in their order, without any time or owner."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _member(path: Path, archive: zipfile.ZipFile, name: str, max_file_bytes: int) -> bytes:
    if archive.getinfo(name).compress_type not in COMPRESSIONS:
        raise BundleError(path, f"{name} is compressed in an unknown way", _REMEDY)
    with archive.open(name) as file:
        return file.read(max_file_bytes + 1)
