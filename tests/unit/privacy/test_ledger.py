"""The ledger's chain: what verifies, and what is found out."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from privacy import LedgerBrokenError, PublicData, UnsupportedEventError
from privacy.ledger import GENESIS_HASH, events_of, next_entry, read_ledger, verify_ledger
from tests.unit.privacy.test_accountant import release

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def ledger_of(count):
    entries = []
    for index in range(count):
        previous = entries[-1] if entries else None
        entries.append(next_entry(previous, release(index), kind="stream", at=NOW))
    return entries


def text_of(entries):
    return "".join(entry.to_line() + "\n" for entry in entries)


def test_first_entry_follows_genesis():
    entry = next_entry(
        None, PublicData(sources=("nmc111 simulation, seed 1",)), kind="public", at=NOW
    )
    assert entry.previous_hash == GENESIS_HASH
    assert entry.index == 0
    assert entry.reference() == {"index": 0, "kind": "public", "hash": entry.hash}


def test_written_ledger_reads_back_with_its_events():
    entries = ledger_of(3)
    read = read_ledger(text_of(entries), head=entries[-1].hash)
    assert events_of(read) == tuple(release(index) for index in range(3))
    assert [entry.at for entry in read] == [NOW] * 3


def test_time_is_stored_as_utc():
    berlin = timezone(timedelta(hours=1))
    entry = next_entry(None, release(), kind="stream", at=NOW.astimezone(berlin))
    assert entry.fields["at"] == "2026-03-01T12:00:00+00:00"


def test_naive_time_and_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="timezone-aware"):
        next_entry(None, release(), kind="stream", at=datetime(2026, 3, 1))
    with pytest.raises(ValueError, match="kind must be one of"):
        next_entry(None, release(), kind="secret", at=NOW)


def test_altered_event_is_found():
    lines = text_of(ledger_of(3)).splitlines()
    lines[1] = lines[1].replace('"noise_multiplier":10.0', '"noise_multiplier":20.0')
    with pytest.raises(LedgerBrokenError) as caught:
        read_ledger("\n".join(lines) + "\n")
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("order", "first_misfit"), [([0, 2, 1], 1), ([1, 2], 0), ([0, 2], 1), ([0, 0, 1], 1)]
)
def test_reordered_removed_and_repeated_entries_are_found(order, first_misfit):
    entries = ledger_of(3)
    with pytest.raises(LedgerBrokenError) as caught:
        verify_ledger([entries[index] for index in order])
    assert caught.value.index == first_misfit


def test_removal_at_the_end_is_found_by_the_head():
    entries = ledger_of(3)
    verify_ledger(entries[:2])
    with pytest.raises(LedgerBrokenError, match="missing at the end"):
        verify_ledger(entries[:2], head=entries[2].hash)


def test_torn_last_line_is_found():
    text = text_of(ledger_of(2))
    with pytest.raises(LedgerBrokenError, match="torn"):
        read_ledger(text[:-10])


@pytest.mark.parametrize("line", ["", "no json", "[]", '{"index":0}', '{"hash":7}'])
def test_a_line_that_is_no_entry_is_found(line):
    with pytest.raises(LedgerBrokenError) as caught:
        read_ledger(text_of(ledger_of(1)) + line + "\n")
    assert caught.value.index == 1


def test_fields_of_a_newer_version_verify_and_are_ignored():
    entry = ledger_of(1)[0]
    newer = json.loads(json.dumps(dict(entry.fields)))
    newer["event"]["matrix"] = "banded"
    newer["signature"] = "abc"
    relabelled = _rehash(newer)
    read = read_ledger(relabelled.to_line() + "\n")
    assert read[0].event == release(0)


def test_unknown_event_verifies_but_is_never_accounted():
    newer = {**ledger_of(1)[0].fields, "event": {"type": "teleport"}}
    entries = read_ledger(_rehash(newer).to_line() + "\n")
    with pytest.raises(UnsupportedEventError) as caught:
        events_of(entries)
    assert caught.value.event_type == "teleport"


def test_event_without_a_parameter_is_refused():
    event = {key: value for key, value in ledger_of(1)[0].fields["event"].items() if key != "index"}
    entries = read_ledger(_rehash({**ledger_of(1)[0].fields, "event": event}).to_line() + "\n")
    with pytest.raises(ValueError, match="lacks index"):
        events_of(entries)


def _rehash(fields):
    """An entry as another version would have written it, by the documented rule."""
    import hashlib

    from privacy.ledger import LedgerEntry, canonical_json

    digest = hashlib.sha256(canonical_json(fields).encode("ascii")).hexdigest()
    return LedgerEntry(fields=fields, hash=digest)
