"""Writes tests/golden/gateway_v1: what a gateway remembers, as version 1 wrote it.

Run it once: python -m tests.golden.make_gateway_record. Files that are there are never overwritten:
what gateways have written must load for ever.
"""

from pathlib import Path

from edge_client.gateway.record import Answered, StepTold, tell_step, write_answered

FOLDER = Path(__file__).parent / "gateway_v1"


def main() -> None:
    """Write both files."""
    if FOLDER.exists():
        return
    answered = Answered(
        stream="run-0123456789abcdef",
        index=4,
        offered_to=("meter-1", "meter-2"),
        retained_parts=3,
    )
    write_answered(
        FOLDER,
        answered.with_answer("update/run-0123456789abcdef", 4).with_answer(
            "count/evaluation/0123456789abcdef", 0
        ),
    )
    told = StepTold(
        kind="update",
        stream="run-0123456789abcdef",
        index=4,
        at="2026-11-22T20:00:00+00:00",
        seconds=12.5,
        invited=2,
        answered=1,
        refused={"bad_signature": 2},
        silent=("meter-2",),
    )
    tell_step(FOLDER, "gateway-1", told)


if __name__ == "__main__":
    main()
