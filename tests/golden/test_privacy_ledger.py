"""A ledger written by the first version verifies and means the same for ever.

Made by `make_privacy_ledger.py` beside this file; never made anew once released.
"""

from pathlib import Path

import pytest

from privacy import (
    GaussianRelease,
    PublicData,
    RecordLevelSteps,
    events_of,
    read_ledger,
    release_epsilon,
)

GOLDEN = Path(__file__).parent / "privacy_ledger_v1.jsonl"
HEAD = "cac0ccbe48257cac63881a84a4e18c610fc9205874ebf6b8a12e9459f87478a0"


def test_first_ledger_verifies_against_its_known_head():
    entries = read_ledger(GOLDEN.read_text(encoding="ascii"), head=HEAD)
    assert [entry.kind for entry in entries] == ["public", "stream", "stream", "simulated"]


def test_first_ledger_keeps_its_meaning():
    entries = read_ledger(GOLDEN.read_text(encoding="ascii"))
    events = events_of(entries)
    assert events[0] == PublicData(sources=("simulated fleet, seed 7",))
    assert events[2] == GaussianRelease(
        stream="2026-a",
        index=1,
        mechanism="independent_gaussian",
        noise_multiplier=13.0,
        clipping_norm=0.25,
        cohort_size=500,
        most_participations=2,
    )
    assert events[3] == RecordLevelSteps(
        noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5
    )
    # √2/13 at δ = 1e-8, by the closed form with 60 digits.
    assert release_epsilon(events[:3], delta=1e-8) == pytest.approx(0.53833970, rel=1e-6)
