"""Writes privacy_ledger_v1.jsonl: run once, when the format was fixed."""

from datetime import UTC, datetime
from pathlib import Path

from privacy import GaussianRelease, PublicData, RecordLevelSteps, next_entry


def main() -> None:
    """Write the file beside this script."""
    release = {
        "stream": "2026-a",
        "mechanism": "independent_gaussian",
        "noise_multiplier": 13.0,
        "clipping_norm": 0.25,
        "cohort_size": 500,
    }
    events = [
        (PublicData(sources=("simulated fleet, seed 7",)), "public"),
        (GaussianRelease(index=0, most_participations=1, **release), "stream"),
        (GaussianRelease(index=1, most_participations=2, **release), "stream"),
        (
            RecordLevelSteps(noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5),
            "simulated",
        ),
    ]
    entry, lines = None, []
    for day, (event, kind) in enumerate(events, start=1):
        entry = next_entry(entry, event, kind=kind, at=datetime(2026, 1, day, tzinfo=UTC))
        lines.append(entry.to_line() + "\n")
    Path(__file__).with_name("privacy_ledger_v1.jsonl").write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    main()
