"""`fedcell privacy audit`: what it tells people and machines, and with which code it ends."""

import json
from dataclasses import replace

import pytest

import server.audits.privacy_audit
import server.audits.release_audit
from privacy.audit.findings import AuditCheck, Held
from privacy.audit.release_gate import (
    MechanismAudit,
)
from server.audits.canary_audit import audited_policy
from server.streams.release_witness import WITNESS_FILE
from tests.support.audited_streams import ledger_of, run_folder
from tests.support.command_line import fedcell


def test_command_refuses_a_run_of_which_a_step_was_not_seen_to_carry_noise(tmp_path):
    policy = audited_policy(2.0, cohort_size=10)
    entries = ledger_of(policy, steps=5)
    run = run_folder(tmp_path / "run", policy, entries)
    seen = {entry.hash: "ab" * 32 for entry in entries[:-1]}
    (run / WITNESS_FILE).write_text(json.dumps(seen))

    ran = fedcell("privacy", "audit", "--run", run)

    assert ran.is_refused(5, "not_witnessed")
    assert not (run / "audit.json").exists()


def test_command_audits_a_run_for_release_and_keeps_what_it_found(tmp_path):
    policy = audited_policy(2.0, cohort_size=10)
    entries = ledger_of(policy, steps=5)
    run = run_folder(tmp_path / "run", policy, entries)

    ran = fedcell("privacy", "audit", "--run", run, "--json")
    shown = fedcell("privacy", "audit", "--run", run)

    assert ran.code == 0
    kept = json.loads((run / "audit.json").read_text())
    assert kept["ledger_entry"] == entries[-1].reference()
    assert ran.json()["participations"] == MechanismAudit.from_json(kept).participations == 2
    assert "may leave: after 2 participations" in shown.out


def test_command_refuses_a_run_whose_ledger_claims_too_little(tmp_path):
    policy = audited_policy(4.0, cohort_size=10)
    claimed = replace(policy, privacy=audited_policy(1.0, cohort_size=10).privacy)
    entries = ledger_of(claimed, steps=10, digest=policy.digest)
    run = run_folder(tmp_path / "run", policy, entries)

    ran = fedcell("privacy", "audit", "--run", run)

    assert ran.is_refused(5, "exceeds_claim", "μ claimed 1")
    assert not (run / "audit.json").exists()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"policy": None}, "ran to compare with"),
        ({"policy": {"schema_version": 1}}, "no policy of a stream"),
        ({"ledger_head": {"index": 7, "hash": "ab" * 32}}, "does not hold"),
        ({"ledger_head": {"index": 0, "hash": "ab" * 32}}, "does not hold"),
    ],
)
def test_command_says_why_a_run_cannot_be_audited(tmp_path, told, said):
    policy = audited_policy(2.0, cohort_size=10)
    run = run_folder(tmp_path / "run", policy, ledger_of(policy, steps=2), told=told)

    assert fedcell("privacy", "audit", "--run", run).is_refused(3, said)


def test_command_needs_a_run_and_a_home_that_are_there(tmp_path):
    policy = audited_policy(2.0, cohort_size=10)
    run = run_folder(tmp_path / "run", policy, ledger_of(policy, steps=2))

    assert fedcell("privacy", "audit", "--run", tmp_path).is_refused(3, "run.json")
    ran = fedcell("privacy", "audit", "--run", run, "--home", tmp_path)
    assert ran.is_refused(4, "ledger.jsonl")
    assert fedcell("privacy", "audit", "--home", tmp_path).is_refused(2, "--run")


def test_command_says_what_it_found_to_machines():
    ran = fedcell("privacy", "audit", "--quick", "--json")

    answer = ran.json()
    assert [check["name"] for check in answer["checks"] if not check["ok"]] == []
    assert (ran.code, answer["ok"]) == (0, True)
    assert sum(check["name"].startswith("planted: ") for check in answer["checks"]) == 9
    assert answer["canaries"] == 6_000
    assert all({"name", "value", "bound", "ok"} <= set(check) for check in answer["checks"])
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_command_ends_with_one_when_a_check_fails(monkeypatch):
    def one_bad_check(_scale):
        return (
            AuditCheck(name="good", value=0.5, bound=1.0, held=Held.AT_MOST, note="small"),
            AuditCheck(name="bad", value=2.0, bound=1.0, held=Held.AT_MOST, note="large"),
        )

    monkeypatch.setattr(server.audits.privacy_audit, "run_audit", one_bad_check)

    ran = fedcell("privacy", "audit")

    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].split()[:4] == ["ok", "good", "0.5", "≤"]
    assert lines[1].startswith("NO  bad")
    assert lines[2].startswith("1 of 2 checks failed")
