"""What an owner reads of the ledger: every text in every language, its figures, and alarms."""

import json
from dataclasses import replace

import pytest

from edge_client.cli import main
from edge_client.commands.ledger import training_json
from edge_client.privacy.account import LedgerAccount, RecordAccount, account_of
from edge_client.privacy.owner_words import budget_words, ledger_texts, owner_lines
from edge_client.privacy.participation import admit, debit, debit_count
from edge_client.privacy.receipts import check_receipt, keep_receipt, read_receipts
from edge_client.store.erasure import erase_device, ledger_path, receipts_path
from edge_client.telemetry_store import TelemetryStore
from edge_client.wording import LANGUAGES, fields_of
from privacy import CountChannel, StreamPolicy
from privacy.accountant import gaussian_epsilon
from privacy.budget import Refusal
from privacy.statement import OF_DEVICE
from tests.support.edge_devices import NOW, new_store
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import (
    KEYS,
    POLICY,
    TERMS,
    agreeing_store,
    receipt_of,
    release_of,
    signed,
    task_of,
)

COUNTING = StreamPolicy(
    stream="s",
    num_rounds=POLICY.num_rounds,
    cohort_size=POLICY.cohort_size,
    privacy=POLICY.privacy,
    record=replace(POLICY.record, noise_multiplier=0.0),
    channels=(CountChannel(name="metrics", noise_multiplier=30.0, max_answers=2),),
)


def texts_of(node):
    if isinstance(node, str):
        yield node
    else:
        for part in node.values() if isinstance(node, dict) else node:
            yield from texts_of(part)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_there_and_names_the_fields_of_the_english_one(language):
    english, other = ledger_texts("en"), ledger_texts(language)
    assert set(other["reasons"]) == {reason.value for reason in Refusal}
    assert other.keys() == english.keys()
    for name in english:
        fields = [fields_of(text) for text in texts_of(english[name])]
        assert [fields_of(text) for text in texts_of(other[name])] == fields


def test_unknown_language_is_english():
    assert ledger_texts("fr") == ledger_texts("en") == ledger_texts("en-GB")


def take_part(store, index, *, policy=POLICY):
    admission = admit(store, task_of(policy, index=index), terms=TERMS, now=NOW)
    return debit(store, admission, terms=TERMS, now=NOW)


@pytest.fixture
def path(tmp_path):
    """The store of a device that took part twice, answered a count, and has one receipt."""
    with agreeing_store(tmp_path, language="de") as store:
        take_part(store, 0, policy=COUNTING)
        debit_count(
            store, policy=signed(COUNTING), channel="metrics", index=0, terms=TERMS, now=NOW
        )
        ledger = take_part(store, 2, policy=COUNTING)
    hand_over(store.path, release_of(COUNTING), ledger)
    return store.path


def hand_over(path, event, ledger):
    receipt = receipt_of(event)
    keep_receipt(path, check_receipt(receipt, ledger=ledger, keys=KEYS), receipt, now=NOW)


def ran(capsys, path, *words):
    code = main(["--store", str(path), "ledger", *words])
    return code, *capsys.readouterr()


def test_ledger_is_told_with_cost_rest_and_all_that_belongs_to_an_epsilon(capsys, path):
    code, out, err = ran(capsys, path, "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    mu_squared = 2 * POLICY.privacy.noise_multiplier**-2 + 1 / (30.0**2 - 1)
    assert data["epsilon"] == pytest.approx(
        gaussian_epsilon(mu=mu_squared**0.5, delta=1e-8), rel=1e-6
    )
    assert (data["delta"], data["participations"], data["participations_left"]) == (1e-8, 2, 1)
    assert [step["receipt"] for step in data["steps"]] == ["matches", "none_came"]
    assert [count["channel"] for count in data["counts"]] == ["metrics"]
    assert data["epsilon_limit"] == pytest.approx(2.0, rel=1e-6)
    assert data["epsilon_server"] is None
    for said in ("unit_of_privacy", "neighboring_relation", "assumptions"):
        assert data[said]


def test_owner_reads_plain_words_first_in_the_owners_language(capsys, path):
    code, german, _ = ran(capsys, path)
    assert code == 0
    assert "Teilnahmen bisher: 2. Erlaubt sind 3 im ganzen Leben; übrig: 1." in german
    assert "bei Delta 1e-08" in german
    assert german.index("In einfachen Worten") < german.index("verbucht")
    _, english, _ = ran(capsys, path, "--language", "en")
    assert "Participations so far: 2. The rules allow 3 in its whole life; 1 left." in english
    assert "Receipts of the server: 1 match, 1 not here yet, 0 different." in english


def test_receipt_that_differs_is_the_first_thing_that_is_said(capsys, path):
    with TelemetryStore(path) as store:
        ledger = take_part(store, 4, policy=COUNTING)
    hand_over(path, release_of(COUNTING, index=4, noise_multiplier=1.0), ledger)
    code, out, _ = ran(capsys, path, "--language", "en")
    assert code == 1
    assert out.splitlines()[2].startswith("ATTENTION: the server's receipts differ")
    assert "DIFFERS in noise_multiplier" in out
    assert "never takes part again" in out


def test_receipts_are_checked_once_more_under_keys_that_are_named(capsys, path, tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({name: key.hex() for name, key in KEYS.items()}))
    code, out, _ = ran(capsys, path, "--json", "--policy-keys", str(keys))
    assert (code, json.loads(out)["steps"][0]["receipt"]) == (0, "matches")

    file = receipts_path(path)
    other = receipt_of(release_of(COUNTING, noise_multiplier=1.0)).entry
    (kept,) = read_receipts(path)
    file.write_text(json.dumps({**kept, "signed": other}) + "\n")
    assert ran(capsys, path, "--json")[0] == 0
    code, out, _ = ran(capsys, path, "--json", "--policy-keys", str(keys))
    assert (code, json.loads(out)["steps"][0]["differs"]) == (1, ["noise_multiplier"])

    keys.write_text(json.dumps({"0" * 16: "00" * 32}))
    code, out, _ = ran(capsys, path, "--json", "--policy-keys", str(keys))
    assert (code, json.loads(out)["steps"][0]["differs"]) == (1, ["signature"])
    code, _, err = ran(capsys, path, "--policy-keys", str(tmp_path / "none.json"))
    assert (code, err.count("\n")) == (4, 1)


def test_ledger_that_was_altered_ends_with_code_5(capsys, path):
    ledger_path(path).write_text(ledger_path(path).read_text().replace('"index":2', '"index":1'))
    code, out, _ = ran(capsys, path)
    assert code == 5
    assert out.splitlines()[2].startswith("ACHTUNG: Auf das Konto ist kein Verlass")
    code, out, _ = ran(capsys, path, "--json")
    assert (code, json.loads(out)["state"]) == (5, "ledger_broken")


def test_ledger_of_an_erased_device_is_still_told(capsys, path):
    erase_device(path, now=NOW)
    code, out, _ = ran(capsys, path)
    assert code == 0
    assert "data was erased. It never takes part again" in out
    assert "Participations so far: 2." in out
    code, out, _ = ran(capsys, path, "--json")
    data = json.loads(out)
    assert (data["is_erased"], data["participations_left"], data["store_asked"]) == (True, 0, False)


def test_device_that_never_agreed_has_nothing_to_tell(capsys, tmp_path):
    new_store(tmp_path).close()
    code, out, _ = ran(capsys, tmp_path / "device.db")
    assert code == 0
    assert "its owner has never agreed to training" in out
    code, _, err = ran(capsys, tmp_path / "nowhere.db")
    assert (code, err.count("\n")) == (4, 1)


@pytest.mark.slow
def test_rows_have_a_statement_of_their_own_over_all_participations(tmp_path):
    with agreeing_store(tmp_path) as store:
        for index in (0, 2):
            take_part(store, index)
        record = account_of(store.path, store).record
    assert (record.steps, record.unprotected, record.missing) == (10, 0, None)
    assert record.epsilon == pytest.approx(2.85452, abs=1e-4)
    account = LedgerAccount(state="sound", epsilon=0.5, delta=1e-8, record=record)
    lines = "\n".join(owner_lines(account, language="en"))
    assert "epsilon 2.85 at delta 1e-05, over 10 steps" in lines
    without = replace(account, record=RecordAccount(steps=10, missing="dp_accounting"))
    lines = "\n".join(owner_lines(without, language="en"))
    assert "pip install 'fedcell[train]' (dp_accounting is missing)" in lines


def test_ledger_of_a_sealed_store_is_read_without_its_key(capsys, tmp_path):
    with agreeing_store(tmp_path, key=lambda: bytes(32)) as store:
        take_part(store, 0, policy=COUNTING)
    code, out, _ = ran(capsys, store.path)
    assert code == 0
    assert "The store could not be opened" in out
    assert "Participations so far: 1." in out


def test_budget_in_one_line_says_what_status_needs(path):
    with TelemetryStore(path) as store:
        account = account_of(path, store, is_brief=True)
    words = budget_words(account)
    assert words.startswith("Participations so far: 2.")
    assert "epsilon" in words
    assert "delta 1e-08" in words
    assert "Counted: this device, its whole life" in words
    assert "Compared with: a world in which it had sent zeros" in words
    assert words.endswith("The assumptions: fedcell-device ledger.")
    broken = LedgerAccount(state="ledger_broken", problem="x: is damaged")
    assert budget_words(broken) == "ledger_broken: x: is damaged"


def test_status_tells_machines_the_unit_beside_the_epsilon(path):
    with TelemetryStore(path) as store:
        said = training_json(store)
    assert said["epsilon"] > 0
    assert said.items() >= OF_DEVICE.to_json().items()


def test_ledger_is_told_at_the_usual_delta_whatever_a_policy_says(tmp_path):
    lax = stream_policy(stream="lax", epsilon=0.5, delta=1e-5, participations=3, separation=2)
    lax = replace(lax, record=COUNTING.record)
    with agreeing_store(tmp_path) as store:
        take_part(store, 0, policy=lax)
        account = account_of(store.path, store)
    assert account.delta == 1e-8
    assert account.epsilon == gaussian_epsilon(mu=1 / lax.privacy.noise_multiplier, delta=1e-8)
    assert account.epsilon_limit > 0.5


def test_training_without_protection_of_rows_is_said(tmp_path):
    with agreeing_store(tmp_path) as store:
        take_part(store, 0, policy=COUNTING)
        account = account_of(store.path, store)
    assert (account.record.epsilon, account.record.unprotected) == (None, 1)
    lines = owner_lines(account, language="en")
    assert "participations trained without it: 1." in "\n".join(lines)
