from datetime import UTC, datetime, timedelta

import pytest

from server.errors import RegistryError
from server.registry import LedgerKind, ModelState, admit, move

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGEST = "ab" * 32
STREAM = {"kind": "stream", "index": 3, "hash": "cd" * 32}
SIMULATED = {"kind": "stream", "hash": "cd" * 32, "simulated": True}


def candidate(entry):
    return admit(version="2.0.0", digest=DIGEST, ledger_entry=entry, now=NOW)


def test_a_model_from_public_data_enters_without_a_hash():
    model = candidate({"kind": "public", "sources": {}})

    assert (model.state, model.ledger_kind, model.ledger_hash) == (
        ModelState.CANDIDATE,
        LedgerKind.PUBLIC,
        None,
    )


def test_a_model_from_a_stream_enters_with_its_hash():
    assert candidate(STREAM).ledger_hash == "cd" * 32


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
