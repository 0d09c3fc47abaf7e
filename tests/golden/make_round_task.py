"""Records a round's task as servers sent it before tasks said their deadline.

Run it only to add files: python -m tests.golden.make_round_task. A file that is there is never
overwritten: devices and servers of different ages meet in a round.
"""

from __future__ import annotations

import json
from pathlib import Path

from models.wire.rounds import LocalRecipe, RoundTask

FILE = Path(__file__).parent / "messages" / "round_task_v1.json"


def task() -> RoundTask:
    """A task as it was then."""
    return RoundTask(
        stream="run-1",
        index=7,
        clipping_norm=0.3,
        cohort_size=2000,
        device_ids=("BT-1", "BT-2"),
        recipe=LocalRecipe(steps=2, proximal=0.5),
        policy="{}",
        pseudonyms=("0" * 32, "1" * 32),
        has_norm_bit=True,
    )


def main() -> None:
    if not FILE.exists():
        FILE.write_text(json.dumps(task().to_plain(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
