"""Every decision about slots, from every state that can be reached."""

import json

import pytest

from edge_client.updates.slots import (
    MAX_REMEMBERED,
    MAX_STARTS,
    InstalledBundle,
    RefusalReason,
    SlotName,
    SlotState,
    committed,
    from_json,
    installed,
    of_earlier_record,
    refused,
    rolled_back,
    started,
    to_json,
    why_not,
)

AT = "2026-06-01T12:00:00+00:00"
OLD = {"version": "old-1", "digest": "ab" * 32, "signed_by": "test"}


def bundle(number, release=None):
    return InstalledBundle(
        version=f"v{number}",
        digest=f"{number:064d}",
        signed_by="test",
        release=number if release is None else release,
        file=f"{number}.zip",
    )


def steps(state):
    """Every event that may come next, by name; bundles 1 to 3 may be installed."""
    for number in (1, 2, 3):
        offered = bundle(number)
        for leave in (False, True):
            reason = why_not(
                state,
                version=offered.version,
                digest=offered.digest,
                release=offered.release,
                allow_older=leave,
                allow_rolled_back=leave,
            )
            if reason is None:
                yield f"install {number}", installed(state, offered)
    yield "start", started(state, at=AT)
    yield "commit", committed(state, at=AT)
    if state.trial is not None:
        yield (
            "damage",
            rolled_back(state, reason=RefusalReason.SLOT_DAMAGED, what="damaged", at=AT),
        )


def reachable():
    """All states that any sequence of events leads to, each with one that led there."""
    found = {SlotState(): ()}
    waiting = [SlotState()]
    while waiting:
        state = waiting.pop()
        for name, after in steps(state):
            if after not in found:
                found[after] = (*found[state], name)
                waiting.append(after)
    return found


@pytest.fixture(scope="module")
def every_state():
    return reachable()


def test_there_are_many_states_and_they_end(every_state):
    assert 500 < len(every_state) < 20_000


def test_in_every_state_there_is_one_bundle_to_run_and_it_is_whole(every_state):
    for state in every_state:
        for slot in (state.trial, state.committed):
            assert slot is None or state.content(slot) is not None
        assert state.trial is None or state.trial is not state.committed
        assert 0 <= state.starts <= MAX_STARTS
        assert state.trial is not None or state.starts == 0


def test_no_event_touches_the_committed_bundle_except_a_commit(every_state):
    for state in every_state:
        before = state.content(state.committed)
        for name, after in steps(state):
            if name != "commit":
                assert after.content(after.committed) == before, (state, name)


def test_nothing_goes_back_after_a_commit(every_state):
    for state in every_state:
        done = committed(state, at=AT)
        assert done.trial is None
        assert done.running == state.running
        assert started(done, at=AT) == done
        with pytest.raises(ValueError, match="no bundle is on trial"):
            rolled_back(done, reason=RefusalReason.NO_REPORT, what="", at=AT)


def test_a_trial_without_a_report_ends_within_its_starts_at_what_was_committed(every_state):
    for state in every_state:
        after = state
        for _ in range(MAX_STARTS + 1):
            after = started(after, at=AT)
        assert after.trial is None
        assert after.running == state.content(state.committed)
        if state.trial is not None:
            assert after.rolled_back[-1] == state.running.version
            assert after.refusal.reason == "no_report"
            assert after.refusal.at == AT


def test_every_state_is_written_and_read_back(every_state):
    for state in every_state:
        assert from_json(json.loads(json.dumps(to_json(state)))) == state


def test_next_bundle_never_takes_the_committed_slot_or_its_file(every_state):
    for state in every_state:
        assert state.free is not state.committed
        after = installed(state, bundle(9))
        kept = state.content(state.committed)
        assert kept is None or kept.file in after.files
        assert after.running == bundle(9)
        assert after.starts == 0


def test_starts_are_counted_one_by_one():
    state = installed(SlotState(), bundle(1))
    assert [(state := started(state, at=AT)).starts for _ in range(3)] == [1, 2, 3]
    assert state.trial is SlotName.A
    assert started(state, at=AT).trial is None


def test_bundle_that_is_on_trial_is_not_put_on_trial_anew():
    state = started(installed(SlotState(), bundle(1)), at=AT)
    assert installed(state, bundle(1)) == state


def test_installing_what_is_committed_ends_a_trial():
    state = committed(installed(SlotState(), bundle(1)), at=AT)
    state = started(installed(state, bundle(2)), at=AT)
    after = installed(state, bundle(1))
    assert (after.trial, after.running) == (None, bundle(1))


@pytest.mark.parametrize(
    ("release", "allow_older", "reason"),
    [
        (4, False, RefusalReason.OLDER_RELEASE),
        (4, True, None),
        (5, False, None),
        (6, False, None),
        (None, False, RefusalReason.OLDER_RELEASE),
        (None, True, None),
    ],
)
def test_older_release_needs_leave(release, allow_older, reason):
    state = committed(installed(SlotState(), bundle(5)), at=AT)
    found = why_not(
        state, version="other", digest="f" * 64, release=release, allow_older=allow_older
    )
    assert found is reason


def test_order_of_releases_outlives_a_bundle_without_number():
    state = committed(installed(SlotState(), bundle(5)), at=AT)
    state = committed(installed(state, bundle(7)._replace(release=None)), at=AT)
    assert state.least_release == 5


def test_without_a_committed_release_any_bundle_may_come():
    state = committed(installed(SlotState(), bundle(1)._replace(release=None)), at=AT)
    assert why_not(state, version="x", digest="f" * 64, release=None) is None


def test_a_release_counts_from_its_commit():
    state = installed(SlotState(), bundle(5))
    assert why_not(state, version="x", digest="f" * 64, release=4) is None


def test_version_that_failed_is_refused_until_leave_is_given():
    state = SlotState()
    state = rolled_back(
        installed(state, bundle(1)), reason=RefusalReason.NO_REPORT, what="silent", at=AT
    )
    facts = {"version": "v1", "digest": "e" * 64, "release": 1}
    assert why_not(state, **facts) is RefusalReason.ROLLED_BACK_BEFORE
    assert why_not(state, **facts, allow_rolled_back=True) is None
    assert installed(state, bundle(1)).rolled_back == ()


def test_damaged_file_says_nothing_of_its_version():
    state = rolled_back(
        installed(SlotState(), bundle(1)), reason=RefusalReason.SLOT_DAMAGED, what="holes", at=AT
    )
    assert state.rolled_back == ()
    assert state.refusal.reason == "slot_damaged"


def test_only_the_latest_failures_are_remembered():
    state = SlotState()
    for number in range(40):
        state = rolled_back(
            installed(state, bundle(number)), reason=RefusalReason.NO_REPORT, what="", at=AT
        )
    assert len(state.rolled_back) == MAX_REMEMBERED
    assert state.rolled_back[-1] == "v39"


def test_what_a_hostile_bundle_calls_itself_is_bounded():
    state = refused(
        SlotState(),
        version="\x1b[31m" + "x" * 10_000,
        reason=RefusalReason.UNTRUSTED,
        what="no\x07good\n" * 1000,
        at=AT,
    )
    assert len(state.refusal.version) == 200
    assert "\x1b" not in state.refusal.version
    assert len(state.refusal.what) <= 200


def test_record_of_the_first_version_is_a_committed_slot():
    state = of_earlier_record(OLD)
    assert state.running == state.content(state.committed)
    assert state.running.file == "ab" * 8 + ".zip"
    assert installed(state, bundle(2)).content(SlotName.A) == state.running


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 3},
        {"committed": "c"},
        {"committed": "a"},
        {"trial": "b"},
        {"a": {"file": "../x.zip", **OLD, "release": None}, "committed": "a"},
        {"a": {"file": ".x", **OLD, "release": None}, "committed": "a"},
        {"a": {"file": "x.zip"}},
        {"starts": "many"},
        {"refusal": {}},
    ],
)
def test_state_that_cannot_be_is_not_read(change):
    with pytest.raises((ValueError, TypeError, KeyError)):
        from_json(to_json(SlotState()) | change)


def test_fields_of_a_later_version_are_passed_over():
    assert from_json(to_json(SlotState()) | {"later": 1}) == SlotState()
