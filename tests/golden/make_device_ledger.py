"""Writes device_ledger_v1.jsonl and its head: run once, when the format was fixed."""

import json
from datetime import UTC, datetime
from pathlib import Path

from privacy import CountAnswer, Participation, RecordLevelSteps, next_entry


def main() -> None:
    """Write the files beside this script."""
    promise = {"epsilon": 2.0, "delta": 1e-8, "update_share": 0.85, "policy_digest": "ab" * 32}
    rows = RecordLevelSteps(noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5)
    step = {"noise_multiplier": 14.1, "clipping_norm": 0.3, "cohort_size": 2500}
    events = [
        Participation(stream="2026-a", index=3, max_participations=24, **step, **promise),
        rows,
        CountAnswer(channel="metrics", index=0, noise_multiplier=40.0, **promise),
        Participation(stream="2026-a", index=7, max_participations=24, **step, **promise),
        rows,
    ]
    entry, lines = None, []
    for day, event in enumerate(events, start=1):
        entry = next_entry(entry, event, kind="stream", at=datetime(2026, 3, day, tzinfo=UTC))
        lines.append(entry.to_line() + "\n")
    folder = Path(__file__).parent
    (folder / "device_ledger_v1.jsonl").write_text("".join(lines), encoding="ascii")
    head = {
        "format": "fedcell-ledger-head",
        "version": 1,
        "at": "2026-03-05T00:00:00+00:00",
        "entries": len(lines),
        "head": "" if entry is None else entry.hash,
        "device_hash": None,
    }
    (folder / "device_ledger_v1.head.json").write_text(json.dumps(head) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
