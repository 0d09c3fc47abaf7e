"""What came of the step at hand, beside its sum: kept so that a killed process loses no count.

`collected.json` is written before the step's sum is committed. The report, which tells of a round
once it is kept, is written last; where a process ends before that, its round is told from here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from models.durable_file import write_durably

from .aggregation import ReplyRefusal

if TYPE_CHECKING:
    from pathlib import Path

STEP_FACTS_FILE: Final = "collected.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """What came of one step's tasks.

    Attributes:
        index: of the step.
        replied: devices in the good replies.
        refused: how many replies were refused, by reason.
        noise_only: whether too few devices answered, so that what is released is noise.
        clipping_norm: C_t where it adapts; None where it is fixed.
    """

    index: int
    replied: int = 0
    refused: dict[ReplyRefusal, int] = field(default_factory=dict)
    noise_only: bool = False
    clipping_norm: float | None = None


def write_facts(folder: Path, facts: StepFacts) -> None:
    """Keep what came of a step durably."""
    write_durably(folder / STEP_FACTS_FILE, (json.dumps(asdict(facts)) + "\n").encode("ascii"))


def read_facts(folder: Path, *, index: int) -> StepFacts | None:
    """Return what came of a step; None where nothing of it was kept, as in yesterday's folders."""
    try:
        values = json.loads((folder / STEP_FACTS_FILE).read_bytes())
        refused = {ReplyRefusal(reason): int(n) for reason, n in values.pop("refused").items()}
        facts = StepFacts(**values, refused=refused)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return facts if facts.index == index else None
