"""Who owns which device, as the operator knows it: for an owner of g devices μ grows g-fold."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from .errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path


def read_owners(path: Path) -> dict[str, str]:
    """Read a CSV file with the columns `device_id` and `owner`.

    Args:
        path: of the file.

    Returns:
        The owner of each device that it names.

    Raises:
        SettingError: it cannot be read, or has no such columns.
    """
    remedy = "write a CSV file with the columns device_id and owner"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingError(str(path), f"cannot be read ({error})", remedy) from error
    if any(not row.get("device_id") or not row.get("owner") for row in rows):
        raise SettingError(str(path), "has a row without device or owner", remedy)
    return {row["device_id"]: row["owner"] for row in rows}
