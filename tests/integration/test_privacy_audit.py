"""The audit on the real aggregation: honest parts pass, every planted defect is caught.

Nothing is seeded: coins, keys and noise come from the operating system, as in production. False
alarms: a bound above an honest claim, about 2e-6 a run (both rates would have to be off by 3.3
standard errors); noise, 1e-6; a median ratio below 0.75, 8e-5 at μ = 1 (a single run is below it 2
times in 100, and three of five would have to be).
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

import numpy as np
import pytest

import server.audits.privacy_audit
import server.audits.release_audit
from privacy import CorrelatedRelease, CountChannel, OperatingSystemNoise, UpdateGrid, next_entry
from privacy.audit.findings import AuditCheck, Held
from privacy.audit.planted import ScaledNoise
from privacy.audit.release_gate import (
    AuditRefusal,
    AuditRefusedError,
    MechanismAudit,
    audit_refusal,
)
from privacy.banded_factor import band_coefficients, factor_matrix, sensitivity
from privacy.counts import noised
from privacy.streams import CorrelatedNoise, new_stream_key
from server.audits.canary_audit import audit_stream, audited_policy
from server.audits.canary_streams import (
    honest_parts,
    num_beyond_rules,
    run_stream,
    steps_by_device,
    steps_by_schedule,
)
from server.audits.count_audit import audit_counts, audited_channel
from server.audits.inversion_audit import Protection, Victims, recovered_records
from server.audits.planted_homes import PLANTED
from server.audits.privacy_audit import (
    production_policy,
    sensitivity_check,
)
from server.audits.release_audit import audit_policy, audit_release
from server.privacy_home import participation_counts as counts
from server.privacy_home import privacy_ledger
from server.privacy_home.privacy_errors import StreamRefusedError
from server.server_optimizer import OptimizerState
from server.streams import stream_state
from server.streams.release_witness import WITNESS_FILE
from server.streams.stream_files import read_checkpoint
from server.streams.stream_state import begin_stream
from server.streams.stream_terms import OperatingSystemKeys, StreamTerms
from tests.support.command_line import fedcell

CANARIES = 10_000
CLAIMS = (1.0, 2.0, 4.0)
NOW = datetime(2027, 1, 1, tzinfo=UTC)


def finding_of(mu, parts=None, *, canaries=CANARIES, **shape):
    policy = audited_policy(mu, cohort_size=canaries, **shape)
    return audit_stream(policy, parts or honest_parts(), canaries=canaries)


def assert_honest(findings):
    ratios = [finding.excess for finding in findings]
    assert max(ratios) <= 1.0
    assert median(ratios) >= 0.75
    for finding in findings:
        assert finding.one_run.epsilon <= finding.claimed_epsilon


@pytest.mark.parametrize(("mu", "runs"), [(1.0, 5), (2.0, 1), (4.0, 1)])
def test_bounds_of_the_honest_mechanism_stay_below_the_claim_and_near_it(mu, runs):
    findings = [finding_of(mu) for _ in range(runs)]

    assert_honest(findings)
    assert [finding.reuse for finding in findings if finding.reuse >= 1.0] == []
    assert min(finding.noise_ratio for finding in findings) > 0.99


@pytest.mark.soak
@pytest.mark.parametrize("mu", CLAIMS)
def test_thirty_bounds_of_the_honest_mechanism_stay_below_the_claim_and_near_it(mu):
    assert_honest([finding_of(mu) for _ in range(30)])


@pytest.mark.parametrize("bands", [1, 2, 4, 8])
def test_noise_of_a_stream_is_white_once_it_is_whitened(bands):
    finding = finding_of(1.0, canaries=4_000, num_rounds=40, max_participations=4, separation=bands)

    assert finding.reuse < 1.0
    assert finding.noise_ratio == pytest.approx(1.0, abs=0.02)


@pytest.mark.soak
@pytest.mark.parametrize("name", PLANTED)
def test_planted_defect_is_caught(name):
    finding = finding_of(2.0, PLANTED[name](honest_parts()))

    assert max(finding.excess, finding.reuse) > 1.0
    expected = "reuse" if name == "reused noise" else "excess"
    assert getattr(finding, expected) > 1.0


def test_one_key_for_two_streams_is_caught_where_their_sums_do_not_bind_the_noise():
    key = new_stream_key()

    def unbound(policy):
        return ScaledNoise(CorrelatedNoise(key, policy), factor=1.0)

    careless = replace(honest_parts(), open_noise=unbound)

    assert finding_of(2.0, careless, canaries=2_000).reuse > 1.0


class ForgetfulNoise:
    """Noise of a stream whose recursion keeps the last step alone, whatever its bands."""

    mechanism = "banded_matrix_factorisation"
    entry_kind = "stream"

    def __init__(self, policy):
        self.policy = policy
        self.noise_multiplier = policy.privacy.noise_multiplier
        self.source = OperatingSystemNoise()
        self.last = 0.0

    def noise(self, index, size):
        privacy = self.policy.privacy
        first, second, *_ = band_coefficients(privacy.bands)
        fresh = self.source.gaussian(size, std=privacy.noise_multiplier)
        self.last = (fresh - second * self.last) / first
        return self.last * privacy.clipping_norm


def test_noise_that_forgets_all_but_the_last_step_is_caught():
    forgetful = replace(honest_parts(), open_noise=ForgetfulNoise)

    assert finding_of(1.0, forgetful, canaries=4_000, separation=4).reuse > 1.0


def test_schedule_that_the_rules_admit_has_the_sensitivity_that_is_claimed():
    policy = audited_policy(2.0, cohort_size=40)

    stream = run_stream(policy, honest_parts(), canaries=20, coins=OperatingSystemNoise())

    run = stream.run
    assert (stream.broken_off, stream.claim) == ("", pytest.approx(2.0))
    taken = set(np.flatnonzero(run.admitted).tolist())
    matrix = factor_matrix(policy.num_rounds, policy.privacy.bands)
    assert taken == {0, 3, 6, 9}
    assert sensitivity(matrix, taken) == pytest.approx(2.0)
    assert len(band_coefficients(policy.privacy.bands)) == 3


def test_schedule_and_device_admit_by_themselves_what_the_home_admits():
    policy = audited_policy(2.0, cohort_size=40)

    assert steps_by_schedule(policy) == steps_by_device(policy) == (0, 3, 6, 9)
    assert num_beyond_rules(policy, (0, 3, 6, 9)) == 0
    assert num_beyond_rules(policy, (0, 1, 6, 9, 12)) == 2


def unnoised(self):
    grid = UpdateGrid(clipping_norm=self.terms.clipping_norm)
    return grid.restore(self._committed().total) / self.terms.cohort_size


def invite_uncounted(self, stream, index, *, device_ids, choose, cost):
    with self._turn() as connection:
        found = self._life_counts(connection, device_ids)
        cohort = tuple(device_ids[int(position)] for position in choose(found))
        others = tuple(device for device in cohort if device != "canary")
        return cohort, counts.add_invitations(connection, stream, index, others, cost)


@pytest.mark.parametrize(
    ("where", "name", "broken"),
    [
        (stream_state.StreamState, "release", unnoised),
        (privacy_ledger.PrivacyHome, "invite", invite_uncounted),
        (privacy_ledger, "require_budget", lambda *_args: None),
        (privacy_ledger, "require_separation", lambda *_args: None),
    ],
    ids=["release", "invite", "budget", "separation"],
)
def test_defect_in_the_code_that_production_releases_with_is_caught(
    monkeypatch, where, name, broken
):
    monkeypatch.setattr(where, name, broken)

    finding = finding_of(2.0, canaries=2_000)

    checks = server.audits.privacy_audit.honest_checks("patched", finding)
    assert [check.name for check in checks if not check.ok]


def test_canary_moves_its_own_coordinate_alone():
    policy = audited_policy(1e6, cohort_size=40)

    run = run_stream(policy, honest_parts(), canaries=20, coins=OperatingSystemNoise()).run

    first = run.releases[0]
    assert first == pytest.approx(run.included.astype(float), abs=1e-3)


def test_no_update_moves_a_release_by_more_than_its_norm():
    check = sensitivity_check()

    assert check.ok
    assert check.value > 0.999


def test_records_are_recovered_unless_noise_stands_between():
    victims = Victims.drawn(100, source=OperatingSystemNoise())
    recovered = {
        protection: recovered_records(
            victims,
            protection,
            policy=production_policy(),
            recipe=server.audits.privacy_audit.ATTACKED_RECIPE,
        )
        for protection in Protection
    }

    assert recovered[Protection.NONE] >= 95
    assert recovered[Protection.CLIPPING] >= 95
    assert recovered[Protection.RECORD_NOISE] <= 1
    assert recovered[Protection.RELEASE_NOISE] <= 1
    assert recovered[Protection.BOTH] <= 1


@pytest.mark.parametrize(("noise_multiplier", "least", "most"), [(1e-5, 95, 100), (0.05, 0, 1)])
def test_inversion_needs_far_less_noise_than_a_policy_has(noise_multiplier, least, most):
    mu = 2.0 / noise_multiplier
    policy = audited_policy(mu, cohort_size=10)
    assert policy.privacy.noise_multiplier == pytest.approx(noise_multiplier)

    recovered = recovered_records(
        Victims.drawn(100, source=OperatingSystemNoise()),
        Protection.RELEASE_NOISE,
        policy=policy,
        recipe=server.audits.privacy_audit.ATTACKED_RECIPE,
    )

    assert least <= recovered <= most


def test_counts_reveal_no_more_than_is_charged_and_half_their_noise_is_caught():
    channel = audited_channel(1.0)

    def half_the_noise(total, real, **facts):
        weak = replace(real, noise_multiplier=real.noise_multiplier / 2)
        return noised(total, weak, **facts)

    honest, claim = audit_counts(channel, canaries=4_000)
    broken, _ = audit_counts(channel, canaries=4_000, release=half_the_noise)

    assert claim == pytest.approx(1.0)
    assert 0.2 < honest.mu <= claim < broken.mu


def test_gate_lets_the_honest_aggregation_pass_and_no_other_policy():
    policy = production_policy()
    audit = audit_policy(policy, canaries=2_000)
    claimed = np.sqrt(24) / policy.privacy.noise_multiplier
    other = replace(
        policy, channels=(CountChannel(name="metrics", noise_multiplier=99.0, max_answers=1),)
    )

    assert audit.participations == 24
    assert audit_refusal(audit, claimed_mu=claimed, policy_digest=policy.digest) is None
    assert (
        audit_refusal(audit, claimed_mu=claimed, policy_digest=other.digest)
        is AuditRefusal.OTHER_POLICY
    )


def test_gate_refuses_a_claim_that_the_audit_refutes():
    policy = audited_policy(4.0, cohort_size=10)

    audit = audit_policy(policy, canaries=4_000)

    refusal = audit_refusal(audit, claimed_mu=2.0, policy_digest=policy.digest)
    assert refusal is AuditRefusal.EXCEEDS_CLAIM
    assert audit_policy(policy, participations=1, canaries=4_000).lower_bound <= 2.0


def ledger_of(policy, *, steps, digest=None):
    """Entries of a stream that invites one device as often as it may."""
    privacy, entries = policy.privacy, []
    for index in range(steps):
        event = CorrelatedRelease(
            stream=policy.stream,
            index=index,
            noise_multiplier=privacy.noise_multiplier,
            clipping_norm=privacy.clipping_norm,
            cohort_size=policy.cohort_size,
            bands=privacy.bands,
            min_separation=privacy.min_separation,
            most_participations=min(
                index // privacy.min_separation + 1, privacy.max_participations
            ),
            policy_digest=digest or policy.digest,
        )
        last = entries[-1] if entries else None
        entries.append(next_entry(last, event, kind="stream", at=NOW))
    return entries


def test_release_is_audited_as_far_as_its_stream_went():
    policy = audited_policy(2.0, cohort_size=10)

    audit = audit_release(policy, ledger_of(policy, steps=5), canaries=4_000)

    assert audit.participations == 2
    assert 0.6 * np.sqrt(2) < audit.lower_bound < np.sqrt(2)
    assert audit.policy_digest == policy.digest


def test_release_under_a_ledger_that_claims_too_little_is_refused():
    policy = audited_policy(2.0, cohort_size=10)
    honest = ledger_of(policy, steps=10)
    softened = []
    for entry in honest:
        event = replace(entry.event, noise_multiplier=3 * entry.event.noise_multiplier)
        last = softened[-1] if softened else None
        softened.append(next_entry(last, event, kind="stream", at=NOW))

    with pytest.raises(AuditRefusedError) as refused:
        audit_release(policy, softened, canaries=4_000)

    assert refused.value.reason is AuditRefusal.EXCEEDS_CLAIM
    assert refused.value.lower_bound > refused.value.claimed_mu


@pytest.mark.parametrize("steps", [0, 3])
def test_release_whose_ledger_does_not_name_the_policy_is_refused(steps):
    policy = audited_policy(2.0, cohort_size=10)

    with pytest.raises(AuditRefusedError) as refused:
        audit_release(policy, ledger_of(policy, steps=steps, digest="ab" * 32))

    assert refused.value.reason is AuditRefusal.NOT_AUDITED


def test_broken_aggregation_releases_nothing(monkeypatch):
    broken = PLANTED["reused noise"](honest_parts())
    monkeypatch.setattr(server.audits.release_audit, "honest_parts", lambda: broken)
    policy = audited_policy(2.0, cohort_size=10)

    with pytest.raises(AuditRefusedError) as refused:
        audit_release(policy, ledger_of(policy, steps=12), canaries=2_000)

    assert refused.value.reason is AuditRefusal.NOISE_REPEATS


def run_folder(folder, policy, entries, *, told=None):
    """A run's folder that is its own privacy home, with the report that a run leaves."""
    folder.mkdir()
    lines = "".join(f"{entry.to_line()}\n" for entry in entries)
    (folder / "ledger.jsonl").write_text(lines, encoding="ascii")
    head = entries[-1].reference() if entries else None
    privacy = {"policy": policy.to_json(), "ledger_head": head} | (told or {})
    (folder / "run.json").write_text(json.dumps({"privacy": privacy}))
    seen = {entry.hash: "ab" * 32 for entry in entries}
    (folder / WITNESS_FILE).write_text(json.dumps(seen))
    return folder


def test_command_refuses_a_run_of_which_a_step_was_not_seen_to_carry_noise(tmp_path):
    policy = audited_policy(2.0, cohort_size=10)
    entries = ledger_of(policy, steps=5)
    run = run_folder(tmp_path / "run", policy, entries)
    seen = {entry.hash: "ab" * 32 for entry in entries[:-1]}
    (run / WITNESS_FILE).write_text(json.dumps(seen))

    ran = fedcell("privacy", "audit", "--run", run)

    assert ran.is_refused(5, "not_witnessed")
    assert not (run / "audit.json").exists()


def test_stream_whose_release_adds_no_noise_keeps_no_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_state.StreamState, "release", unnoised)
    policy = audited_policy(2.0, cohort_size=2)
    start = OptimizerState.start(np.zeros(100))
    stream = begin_stream(
        tmp_path,
        privacy_ledger.open_home(tmp_path / "home"),
        StreamTerms.under(policy),
        start=start,
        keys=OperatingSystemKeys(),
        source=OperatingSystemNoise(),
    )
    stream.invite(device_ids=["a", "b"], choose=lambda _counts: [0, 1])
    stream.commit(np.full(100, 10**8, np.int64))
    stream.charge(NOW)

    with pytest.raises(StreamRefusedError, match="less noise"):
        stream.checkpoint(start, released=stream.release())

    assert read_checkpoint(tmp_path).index == -1
    stream.close()


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
    assert sum(check["name"].startswith("planted: ") for check in answer["checks"]) == 8
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
