from datetime import UTC, datetime, timedelta

import pytest

from privacy import CorrelatedRelease, next_entry, release_epsilon
from server.errors import RegistryError
from server.registry import LedgerKind, ModelState, admit, move
from tests.unit.privacy.test_accountant import release

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGEST = "ab" * 32


def ledger_of(*kinds, event=None):
    """A ledger with an entry of each kind, all of one stream."""
    entry, entries = None, []
    for index, kind in enumerate(kinds):
        released = event or CorrelatedRelease(
            stream="2026-a",
            index=index,
            noise_multiplier=4.0,
            clipping_norm=0.5,
            cohort_size=500,
            bands=1,
            min_separation=1,
            most_participations=index + 1,
            policy_digest="ef" * 32,
        )
        entry = next_entry(entry, released, kind=kind, at=NOW)
        entries.append(entry)
    return entries


LEDGER = ledger_of("stream", "stream", "stream")
STREAM = LEDGER[2].reference() | {"stream": "2026-a"}
SIMULATED = {"kind": "stream", "hash": "cd" * 32, "simulated": True}


def candidate(entry, *, ledger=LEDGER, claim=None):
    return admit(
        version="2.0.0", digest=DIGEST, ledger_entry=entry, now=NOW, ledger=ledger, claim=claim
    )


def test_a_model_from_public_data_enters_without_a_hash():
    model = candidate({"kind": "public", "sources": {}})

    assert (model.state, model.ledger_kind, model.ledger_hash) == (
        ModelState.CANDIDATE,
        LedgerKind.PUBLIC,
        None,
    )


def test_a_model_from_a_stream_enters_with_its_hash():
    assert candidate(STREAM).ledger_hash == LEDGER[2].hash


def test_an_entry_is_looked_up_in_the_ledger_and_not_believed():
    for quoted, ledger, what in [
        (STREAM, None, "no ledger is at hand"),
        (STREAM, [], "does not hold"),
        (STREAM | {"index": 1}, LEDGER, "does not hold"),
        (STREAM | {"index": -1}, LEDGER, "does not hold"),
        (STREAM | {"index": True}, LEDGER, "does not hold"),
        (STREAM | {"hash": "cd" * 32}, LEDGER, "does not hold"),
        (STREAM | {"stream": "2026-b"}, LEDGER, "another stream"),
    ]:
        with pytest.raises(RegistryError, match=what):
            candidate(quoted, ledger=ledger)


@pytest.mark.parametrize("kind", ["simulated", "comparison", "public"])
def test_a_card_that_calls_an_entry_a_streams_is_not_believed(kind):
    ledger = ledger_of(kind)
    with pytest.raises(RegistryError, match=f"kind is '{kind}'"):
        candidate(ledger[0].reference() | {"kind": "stream"}, ledger=ledger)


def test_independent_noise_is_for_comparison_whatever_its_entry_says():
    ledger = ledger_of("stream", event=release())
    with pytest.raises(RegistryError, match="not a stream's release"):
        candidate(ledger[0].reference(), ledger=ledger)


def test_a_claim_below_what_the_ledger_gives_is_refused():
    spent = release_epsilon((entry.event for entry in LEDGER), delta=1e-6)
    for value in (spent, spent * 1.1):
        assert candidate(STREAM, claim={"value": value, "delta": 1e-6}).version == "2.0.0"
    for claim in ({"value": spent * 0.99, "delta": 1e-6}, {"value": None, "delta": 1e-6}, {}):
        with pytest.raises(RegistryError, match="ε_release"):
            candidate(STREAM, claim=claim)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (None, "no ledger entry"),
        ({}, "no ledger entry"),
        ({"kind": "simulated", "hash": "cd" * 32}, "kind 'simulated'"),
        ({"kind": "comparison", "hash": "cd" * 32}, "kind 'comparison'"),
        ({"kind": 7}, "kind 7"),
        (SIMULATED, "kind simulated"),
        ({"kind": "public", "simulated": True}, "kind simulated"),
        ({"kind": "stream"}, "without its hash"),
        ({"kind": "stream", "hash": "short"}, "without its hash"),
    ],
)
def test_a_model_that_nobody_paid_for_is_refused(entry, what):
    with pytest.raises(RegistryError, match=what) as refused:
        candidate(entry)

    assert refused.value.version == "2.0.0"
    assert refused.value.exit_code == 5


def test_a_bundle_without_a_digest_is_refused():
    with pytest.raises(RegistryError, match="SHA-256"):
        admit(version="2.0.0", digest="short", ledger_entry=STREAM, now=NOW)


def test_a_model_goes_from_candidate_to_released_to_retired():
    later = NOW + timedelta(days=1)
    released = move(candidate(STREAM), ModelState.RELEASED, now=later)
    retired = move(released, ModelState.RETIRED, now=later)

    assert (released.state, released.state_at) == (ModelState.RELEASED, later)
    assert retired.added_at == NOW


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ((), ModelState.CANDIDATE),
        ((ModelState.RELEASED,), ModelState.CANDIDATE),
        ((ModelState.RELEASED,), ModelState.RELEASED),
        ((ModelState.RETIRED,), ModelState.RELEASED),
    ],
)
def test_a_model_never_goes_back(path, to):
    model = candidate(STREAM)
    for state in path:
        model = move(model, state, now=NOW)

    with pytest.raises(RegistryError, match=f"cannot go from {model.state} to {to}"):
        move(model, to, now=NOW)
