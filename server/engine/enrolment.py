"""Who is enrolled in a stream: a record that stands, whoever can be reached.

Cohorts are chosen from the record alone. A device that cannot be reached is invited all the same,
and counts as zero; what nodes answer says only which way a task takes. The record of a stream is
fixed when it begins: a device that is enrolled later joins with the next stream, so that no choice
of this one ever changes.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.wire.errors import WireError
from models.wire.topics import checked_device_id

from ..errors import SettingError
from ..privacy_home.enrolment_record import EnrolmentSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_REMEDY = "write a CSV file with the column device_id and, to bind devices to nodes, node_id"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Who is enrolled when a stream begins.

    Attributes:
        nodes: every enrolled device, and the node that it is bound to; None for any.
        source: what says so.
    """

    nodes: Mapping[str, int | None]
    source: EnrolmentSource

    @staticmethod
    def of_fleet(device_ids: Iterable[str]) -> Enrolment:
        """Return the enrolment of a simulated fleet: all of it."""
        return Enrolment(dict.fromkeys(device_ids), EnrolmentSource.FLEET)


def read_enrolment(path: Path) -> Enrolment:
    """Read a CSV file with the column `device_id` and, if need be, `node_id`.

    Args:
        path: of the file. An empty `node_id` lets any node name the device.

    Raises:
        SettingError: it cannot be read, names nobody, a device twice, or what is no identifier.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingError(str(path), f"cannot be read ({error})", _REMEDY) from error
    nodes: dict[str, int | None] = {}
    for number, row in enumerate(rows, start=2):
        try:
            device_id = str(checked_device_id(row.get("device_id") or ""))
            nodes_of_row = _node_of(row.get("node_id") or "")
        except (WireError, ValueError) as error:
            raise SettingError(f"{path}, line {number}", str(error), _REMEDY) from error
        if device_id in nodes:
            what = f"names device {device_id} a second time"
            raise SettingError(f"{path}, line {number}", what, "name each device once")
        nodes[device_id] = nodes_of_row
    if not nodes:
        raise SettingError(str(path), "names no device", _REMEDY)
    return Enrolment(nodes, EnrolmentSource.FILE)


def _node_of(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal():
        raise ValueError(f"node_id must be a whole number as Flower lists it, got {text[:40]!r}")
    return int(text)
