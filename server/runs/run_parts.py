"""The parts of a run: each process that carried it on, with its versions and its machine.

`run.json` lists them, so that a replay can say which rounds were made by what. A report of
yesterday has none; what it says of its one process is its first part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPart:
    """What one process did of a run.

    Attributes:
        from_round: number of its first round, from 1.
        started_at: aware UTC.
        seconds: that it took so far; with those of parts before it that came to no round.
        versions: of Python and of the libraries that decide a run's outcome.
        platform: what of the machine may decide the last digit.
    """

    from_round: int
    started_at: datetime
    seconds: float
    versions: Mapping[str, str]
    platform: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the part as plain fields."""
        return {
            "from_round": self.from_round,
            "started_at": self.started_at.astimezone(UTC).isoformat(),
            "seconds": round(self.seconds, 3),
            "versions": dict(self.versions),
            "platform": dict(self.platform),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> RunPart:
        """Read a part.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return RunPart(
            from_round=int(value["from_round"]),
            started_at=datetime.fromisoformat(value["started_at"]).astimezone(UTC),
            seconds=float(value["seconds"]),
            versions=dict(value["versions"]),
            platform=dict(value["platform"]),
        )


def parts_of(report: Mapping[str, Any]) -> tuple[RunPart, ...]:
    """Return the parts of a run, oldest first; yesterday's report makes one of its own words.

    Args:
        report: as `run.json` holds it.

    Raises:
        KeyError, TypeError, ValueError: it holds none.
    """
    said = report.get("parts")
    if said:
        return tuple(RunPart.from_json(one) for one in said)
    only = RunPart.from_json(
        {
            "from_round": 1,
            "started_at": report["started_at"],
            "seconds": report["seconds"],
            "versions": report.get("versions", {}),
            "platform": report.get("record", {}).get("platform", {}),
        }
    )
    return (only,)


def with_part(before: Sequence[RunPart], new: RunPart) -> tuple[RunPart, ...]:
    """Return the parts of a run that goes on; one that came to no round gives way to the next.

    Args:
        before: oldest first; none where the run begins.
        new: the part that begins.
    """
    kept = [part for part in before if part.from_round < new.from_round]
    idle = sum(part.seconds for part in before if part.from_round >= new.from_round)
    return (*kept, replace(new, seconds=new.seconds + idle))
