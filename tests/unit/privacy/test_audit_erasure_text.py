"""What an erasure promises is what the ledger bears out, and nothing more."""

import math
import re
from datetime import UTC, datetime

import pytest

from privacy import CountAnswer, Participation, RecordLevelSteps, next_entry
from privacy.accountant import device_epsilon
from privacy.erasure_text import erasure_facts, erasure_text

DIGEST = "cd" * 32
SIGMA = 14.097


def ledger(*events):
    entries = []
    for day, event in enumerate(events, start=1):
        last = entries[-1] if entries else None
        at = datetime(2027, 1, day, 12, tzinfo=UTC)
        entries.append(next_entry(last, event, kind="stream", at=at))
    return entries


def participation(index, *, stream="a"):
    return Participation(
        stream=stream,
        index=index,
        noise_multiplier=SIGMA,
        clipping_norm=0.3,
        cohort_size=2_500,
        policy_digest=DIGEST,
    )


LIFE = ledger(
    participation(0),
    RecordLevelSteps(noise_multiplier=1.25, max_grad_norm=1.0, sampling_rate=0.3, steps=1),
    participation(4),
    participation(0, stream="b"),
    CountAnswer(channel="metrics", index=0, noise_multiplier=60.0, policy_digest=DIGEST),
)


def test_facts_are_those_of_the_ledger():
    facts = erasure_facts(LIFE, delta=1e-8)

    assert (facts.participations, facts.answers, facts.streams) == (3, 1, 2)
    assert (facts.first_day, facts.last_day) == ("2027-01-01", "2027-01-05")
    assert facts.epsilon == device_epsilon([entry.event for entry in LIFE], delta=1e-8)
    assert facts.odds_factor == math.exp(facts.epsilon)
    assert 0.5 < facts.best_guess < 0.55
    assert facts.head == LIFE[-1].hash


def test_text_says_every_figure_and_what_is_not_taken_back():
    facts = erasure_facts(LIFE, delta=1e-8)

    text = "\n".join(erasure_text(facts))

    for figure in (
        "3 rounds in 2 streams and 1 count.",
        f"{facts.odds_factor:.2f} times",
        f"ε = {facts.epsilon:.3f}",
        "1e-08 (δ)",
        f"at most {100 * facts.best_guess:.1f} times in 100",
        facts.head[:12],
        "is not unlearned",
        "no bound",
    ):
        assert figure in text


@pytest.mark.parametrize("entries", [[], LIFE[:1], LIFE])
def test_text_promises_neither_unlearning_nor_anonymity(entries):
    text = " ".join(erasure_text(erasure_facts(entries, delta=1e-8)))

    assert re.findall(r"(?<!is not )unlearn", text) == []
    assert re.findall(r"(?<!does not make the models or the device )anonym", text) == []
    assert "cannot be undone" in text
    assert "Kept: the device's privacy ledger" in text


def test_device_that_never_took_part_has_nothing_to_bound():
    facts = erasure_facts([], delta=1e-8)

    text = erasure_text(facts)

    assert (facts.epsilon, facts.odds_factor, facts.best_guess) == (0.0, 1.0, 0.5)
    assert any("No model or count was made" in line for line in text)
    assert not any("ε" in line for line in text)


def test_delta_out_of_bounds_is_refused():
    with pytest.raises(ValueError, match="delta must lie in"):
        erasure_facts(LIFE, delta=0.0)
