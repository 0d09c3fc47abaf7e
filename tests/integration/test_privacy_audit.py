"""The audit on the real aggregation: honest parts pass, every planted defect is caught.

Nothing is seeded: coins, keys and noise come from the operating system, as in production. False
alarms: a bound above an honest claim, about 2e-6 a run (both rates would have to be off by 3.3
standard errors); noise, 1e-6; a median ratio below 0.75, 8e-5 at μ = 1 (a single run is below it 2
times in 100, and three of five would have to be).
"""

from dataclasses import replace
from statistics import median

import numpy as np
import pytest

import server.audits.privacy_audit
import server.audits.release_audit
from privacy import OperatingSystemNoise
from privacy.audit.planted import ScaledNoise
from privacy.banded_factor import band_coefficients, factor_matrix, sensitivity
from privacy.counts import noised
from privacy.streams import CorrelatedNoise, new_stream_key
from server.audits.canary_audit import audited_policy
from server.audits.canary_streams import (
    honest_parts,
    num_beyond_rules,
    run_stream,
    steps_by_device,
    steps_by_schedule,
)
from server.audits.count_audit import audit_counts, audited_channel
from server.audits.planted_homes import PLANTED
from server.audits.privacy_audit import (
    sensitivity_check,
)
from server.privacy_home import participation_counts as counts
from server.privacy_home import privacy_ledger
from server.streams import stream_state
from tests.support.audited_streams import finding_of, unnoised

CLAIMS = (1.0, 2.0, 4.0)


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
    expected = "reuse" if name in {"reused noise", "folder put back"} else "excess"
    assert getattr(finding, expected) > 1.0


def test_one_key_for_two_streams_is_caught_where_their_sums_do_not_bind_the_noise():
    key = new_stream_key()

    def unbound(policy):
        return ScaledNoise(CorrelatedNoise(key, policy), factor=1.0)

    careless = replace(honest_parts(), open_noise=unbound)

    assert finding_of(2.0, careless, canaries=2_000).reuse > 1.0


def test_stream_that_is_put_back_and_played_again_is_sound_and_seen_whole():
    finding = finding_of(2.0, replace(honest_parts(), is_put_back=True), canaries=2_000)

    assert (finding.broken_off, finding.reuse < 1.0, finding.excess < 1.0) == ("", True, True)
    policy = audited_policy(2.0, cohort_size=40)
    parts = replace(honest_parts(), is_put_back=True)
    stream = run_stream(policy, parts, canaries=20, coins=OperatingSystemNoise())
    assert np.flatnonzero(stream.forgotten.admitted).tolist() == [0, 3, 6]
    # The home invites the canary to step 6 again, and it does not answer a second time.
    assert np.flatnonzero(stream.run.admitted).tolist() == [0, 3, 9]
    assert stream.invited == (0, 3, 6, 9)
    assert (len(stream.forgotten.releases), len(stream.run.releases)) == (9, policy.num_rounds)


def test_stream_that_is_put_back_is_caught_where_noise_belongs_to_a_sum_alone():
    finding = finding_of(2.0, PLANTED["folder put back"](honest_parts()), canaries=2_000)

    assert finding.broken_off == ""
    assert finding.correlation == pytest.approx(1.0, abs=1e-6)
    assert finding.reuse > 1.0


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


def test_counts_reveal_no_more_than_is_charged_and_half_their_noise_is_caught():
    channel = audited_channel(1.0)

    def half_the_noise(total, real, **facts):
        weak = replace(real, noise_multiplier=real.noise_multiplier / 2)
        return noised(total, weak, **facts)

    honest, claim = audit_counts(channel, canaries=4_000)
    broken, _ = audit_counts(channel, canaries=4_000, release=half_the_noise)

    assert claim == pytest.approx(1.0)
    assert 0.2 < honest.mu <= claim < broken.mu
