from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from models import bundle
from models.bundle import DEFAULT_FOLDER
from privacy import CorrelatedRelease, PublicData, next_entry, release_epsilon
from server.audits.canary_audit import audited_policy
from server.audits.privacy_audit import production_policy
from server.errors import RegistryError
from server.privacy_home.home_words import HomeWords
from server.registry import LedgerKind, ModelState, PaidBy, admit, move
from tests.unit.privacy.test_accountant import release

NOW = datetime(2026, 6, 1, tzinfo=UTC)
POLICY = production_policy()
DELTA = POLICY.privacy.delta
WEIGHTS = "12" * 32
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
            policy_digest=POLICY.digest,
        )
        entry = next_entry(entry, released, kind=kind, at=NOW)
        entries.append(entry)
    return entries


LEDGER = ledger_of("stream", "stream", "stream")
STREAM = LEDGER[2].reference() | {"stream": "2026-a"}
SPENT = release_epsilon((entry.event for entry in LEDGER), delta=DELTA)
CLAIM = {"value": SPENT, "delta": DELTA}
PAID_BY = PaidBy(
    policy=POLICY,
    witness={LEDGER[2].hash: WEIGHTS},
    weights_digest=WEIGHTS,
    proposed_digest=DIGEST,
)
NOTHING_SAID = HomeWords()
SIMULATED = {"kind": "stream", "hash": "cd" * 32, "simulated": True}


def candidate(
    entry, *, ledger=LEDGER, claim=CLAIM, paid_by=PAID_BY, digest=DIGEST, words=NOTHING_SAID
):
    return admit(
        version="2.0.0",
        digest=digest,
        ledger_entry=entry,
        now=NOW,
        ledger=ledger,
        claim=claim,
        paid_by=paid_by,
        words=words,
    )


def test_the_pinned_default_enters_without_a_hash():
    pinned = (DEFAULT_FOLDER / bundle.DIGEST).read_text().strip()

    model = candidate({"kind": "public", "sources": {}}, ledger=None, digest=pinned)

    assert (model.state, model.ledger_kind, model.ledger_hash) == (
        ModelState.CANDIDATE,
        LedgerKind.PUBLIC,
        None,
    )


def test_another_model_of_public_data_enters_with_the_entry_that_names_them():
    public = next_entry(None, PublicData(sources=("cells",)), kind="public", at=NOW)

    assert candidate(public.reference(), ledger=[public]).ledger_hash == public.hash
    for quoted, ledger, what in [
        ({"kind": "public"}, [public], "without its hash"),
        (public.reference(), None, "no ledger is at hand"),
        (LEDGER[0].reference() | {"kind": "public"}, LEDGER, "names no public data"),
    ]:
        with pytest.raises(RegistryError, match=what):
            candidate(quoted, ledger=ledger)


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


def test_a_claim_below_what_devices_say_is_refused():
    said = HomeWords(said_mu_squared=4 * 3 / 16)
    more = said.epsilon([], delta=DELTA)
    with pytest.raises(RegistryError, match="claims ε_release"):
        candidate(STREAM, words=said)
    assert candidate(STREAM, words=said, claim={"value": more, "delta": DELTA}).version == "2.0.0"


def test_what_devices_say_of_later_releases_is_no_matter_of_an_earlier_model():
    earlier = LEDGER[0].reference() | {"stream": "2026-a"}
    paid_by = replace(PAID_BY, witness={LEDGER[0].hash: WEIGHTS})
    spent = {"value": release_epsilon([LEDGER[0].event], delta=DELTA), "delta": DELTA}
    for mu_squared, is_refused in ((3 / 16, False), (3.1 / 16, True)):
        words = HomeWords(said_mu_squared=mu_squared)
        if is_refused:
            with pytest.raises(RegistryError, match="claims ε_release"):
                candidate(earlier, paid_by=paid_by, claim=spent, words=words)
        else:
            assert candidate(earlier, paid_by=paid_by, claim=spent, words=words).version == "2.0.0"


def test_a_streams_model_enters_only_with_what_devices_say():
    with pytest.raises(RegistryError, match="what devices say beside it"):
        candidate(STREAM, words=None)


@pytest.mark.parametrize("value", [SPENT, SPENT * 1.1])
def test_a_claim_that_covers_the_ledger_is_let_in(value):
    assert candidate(STREAM, claim={"value": value, "delta": DELTA}).version == "2.0.0"


@pytest.mark.parametrize(
    "claim",
    [
        None,
        {},
        {"value": None, "delta": DELTA},
        {"value": SPENT * 0.99, "delta": DELTA},
        {"value": float("nan"), "delta": DELTA},
        {"value": float("inf"), "delta": DELTA},
        {"value": 0.05, "delta": 0.5},
        {"value": SPENT, "delta": None},
    ],
)
def test_a_claim_that_is_no_number_or_lower_or_at_another_delta_is_refused(claim):
    with pytest.raises(RegistryError, match="ε_release"):
        candidate(STREAM, claim=claim)


def test_weights_of_another_step_than_the_quoted_one_are_refused():
    first = LEDGER[0].reference() | {"stream": "2026-a"}
    both = replace(PAID_BY, witness={LEDGER[0].hash: "34" * 32, LEDGER[2].hash: WEIGHTS})
    for quoted, paid_by, what in [
        (first, both, "other weights"),
        (first, PAID_BY, "other weights"),
        (STREAM, replace(PAID_BY, weights_digest="56" * 32), "other weights"),
        (STREAM, None, "no run under the policy"),
        (STREAM, replace(PAID_BY, policy=audited_policy(1.0, cohort_size=9)), "no run under"),
    ]:
        with pytest.raises(RegistryError, match=what):
            candidate(quoted, paid_by=paid_by)


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


def test_bundle_that_the_gate_did_not_pass_is_refused():
    with pytest.raises(RegistryError, match="quality gate of its run passed"):
        candidate(STREAM, digest="cd" * 32)
    assert candidate(STREAM).state is ModelState.CANDIDATE
