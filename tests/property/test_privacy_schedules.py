"""The ledger's ε against what ran, over random schedules, and the default policy's promise.

The oracle is the norm of the explicit factor over the steps in which a device took part, by mpmath,
and dp-accounting's privacy loss distributions. A participation is charged as soon as it happens,
for the column of the factor that it begins; so the oracle lets every column that was begun become
whole, as it does when the stream goes on. Against the factor cut off at the last step that ran, the
ledger's figure is an upper bound.
"""

from collections import Counter
from dataclasses import replace

import dp_accounting
import mpmath
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import CountChannel, Participation, StreamPolicy, policy_for
from privacy.accountant import (
    device_epsilon,
    mu_of_device,
    mu_of_releases,
    release_epsilon,
)
from privacy.budget import count_refusal, participation_refusal
from privacy.device_history import count_history_of, history_of
from privacy.discrete_accounting import count_noise_multiplier_for
from privacy.events import CountAnswer, CountRelease
from tests.support.examples import examples
from tests.support.random_schedules import (
    DELTA,
    exact_epsilon,
    exact_mu_squared,
    random_fleet,
)
from tests.support.stream_policies import RECORD

SCHEDULES = 1_000


def assert_ledgers_tell_what_ran(seed):
    """One random fleet: exact ≤ ledger ≤ exact · 1.001 for the release ledger and every device."""
    fleet = random_fleet(seed)
    with mpmath.workdps(30):
        whole = [
            exact_mu_squared(fleet, device, ends_now=False) for device in range(len(fleet.devices))
        ]
        begun = [
            exact_mu_squared(fleet, device, ends_now=True) for device in range(len(fleet.devices))
        ]
        exact = exact_epsilon(max(whole))
        derived = release_epsilon(fleet.releases, delta=DELTA)
        assert exact <= derived <= exact * mpmath.mpf("1.001")
        assert mu_of_releases(fleet.releases) ** 2 >= max(begun) * (1 - mpmath.mpf(10) ** -12)
        for ledger, mu_squared in zip(fleet.devices, whole, strict=True):
            assert mu_of_device(ledger) ** 2 == pytest.approx(float(mu_squared), rel=1e-12)
    return fleet, derived


def assert_privacy_loss_distributions_agree(fleet, derived):
    """dp-accounting composes the Gaussian event of each participation of the dearest device."""
    dearest = max(fleet.devices, key=lambda ledger: sum(one.noise_multiplier**-2 for one in ledger))
    if derived == 0.0:
        assert not dearest
        return
    accountant = PLDAccountant(value_discretization_interval=1e-3 * derived)
    for sigma, times in Counter(one.noise_multiplier for one in dearest).items():
        accountant.compose(dp_accounting.GaussianDpEvent(sigma), times)
    assert derived == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-4)


@pytest.mark.parametrize(
    "seeds", [range(20), pytest.param(range(20, SCHEDULES // 10), marks=pytest.mark.slow)]
)
def test_ledgers_tell_what_ran_over_random_schedules(seeds):
    for seed in seeds:
        fleet, derived = assert_ledgers_tell_what_ran(seed)
        assert_privacy_loss_distributions_agree(fleet, derived)


@pytest.mark.soak
@pytest.mark.parametrize("tenth", range(10))
def test_ledgers_tell_what_ran_over_all_random_schedules(tenth):
    for seed in range(tenth, SCHEDULES, 10):
        fleet, derived = assert_ledgers_tell_what_ran(seed)
        assert_privacy_loss_distributions_agree(fleet, derived)


def test_random_schedules_hold_what_they_are_meant_to_hold():
    fleets = [random_fleet(seed) for seed in range(30)]
    assert any(release.noise_only for fleet in fleets for release in fleet.releases)
    assert any(len(fleet.policies) > 1 for fleet in fleets)
    assert any(
        len({policy.noise_multiplier for policy in fleet.policies.values()}) > 1 for fleet in fleets
    )
    assert any(len(ledger) == 24 for fleet in fleets for ledger in fleet.devices)
    assert sum(fleet.releases[-1].most_mu_squared == 0 for fleet in fleets) <= 3


def test_what_is_not_stated_is_bounded_by_the_counts():
    for seed in range(20):
        fleet = random_fleet(seed)
        silent = [replace(one, most_mu_squared=None) for one in fleet.releases]
        assert mu_of_releases(silent) >= mu_of_releases(fleet.releases) * (1 - 1e-12)


def default_policy(*, metrics, similar):
    """The default of the design, with channels that share what updates leave."""
    privacy = policy_for(
        epsilon=2.0,
        delta=DELTA,
        max_participations=24,
        clipping_norm=0.3,
        min_separation=4,
        min_cohort_size=2_000,
        update_share=0.85,
        bands=4,
    )
    half = privacy.mu_squared_for_counts / 2
    channels = tuple(
        CountChannel(
            name=name,
            noise_multiplier=count_noise_multiplier_for(mu_squared=half, answers=answers),
            max_answers=answers,
        )
        for name, answers in (("metrics", metrics), ("similar", similar))
    )
    return StreamPolicy(
        stream="s",
        num_rounds=104,
        cohort_size=2_500,
        privacy=privacy,
        record=RECORD,
        channels=channels,
    )


def take_part(policy, ledger, *, stream, index):
    history = history_of(ledger, stream=stream)
    if participation_refusal(policy.privacy, history=history, index=index) is None:
        ledger.append(
            Participation(
                stream=stream,
                index=index,
                noise_multiplier=policy.privacy.noise_multiplier,
                clipping_norm=policy.privacy.clipping_norm,
                cohort_size=policy.cohort_size,
                policy_digest=policy.digest + stream,
                epsilon=policy.privacy.epsilon,
                delta=policy.privacy.delta,
                update_share=policy.privacy.update_share,
                max_participations=policy.privacy.max_participations,
            )
        )


def answer(policy, ledger, *, channel, index):
    history = count_history_of(ledger, channel=channel, policy_digest=policy.digest)
    if count_refusal(policy, channel=channel, index=index, history=history) is None:
        noise_multiplier = {one.name: one.noise_multiplier for one in policy.channels}[channel]
        ledger.append(
            CountAnswer(
                channel=channel,
                index=index,
                noise_multiplier=noise_multiplier,
                policy_digest=policy.digest,
                epsilon=policy.privacy.epsilon,
                delta=policy.privacy.delta,
                update_share=policy.privacy.update_share,
            )
        )


asked_of_a_device = st.one_of(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 103)),
    st.tuples(st.sampled_from(["metrics", "similar"]), st.integers(0, 30)),
)


@settings(max_examples=examples(40), deadline=None)
@given(
    asked=st.lists(asked_of_a_device, max_size=250),
    in_order=st.booleans(),
    metrics=st.integers(1, 24),
    similar=st.integers(1, 24),
)
def test_default_policy_keeps_two_under_an_adversarial_scheduler(asked, in_order, metrics, similar):
    policy, ledger = default_policy(metrics=metrics, similar=similar), []
    if in_order:
        asked = sorted(asked)
    for name, index in asked:
        if name in {"metrics", "similar"}:
            answer(policy, ledger, channel=name, index=index)
        else:
            take_part(policy, ledger, stream=name, index=index)
    assert device_epsilon(ledger, delta=DELTA) <= 2.0


def test_default_policy_is_worth_its_budget_and_no_more():
    policy, ledger = default_policy(metrics=8, similar=8), []
    for index in range(104):
        take_part(policy, ledger, stream="s", index=index)
        answer(policy, ledger, channel="metrics", index=index)
        answer(policy, ledger, channel="similar", index=index)
    assert Counter(type(event) for event in ledger) == {Participation: 24, CountAnswer: 16}
    assert policy.privacy.noise_multiplier == pytest.approx(14.10, abs=0.005)
    assert 1.99 < device_epsilon(ledger, delta=DELTA) <= 2.0


def test_counts_asked_of_devices_that_never_train_are_no_part_of_those_that_do():
    def counts(channel, *, held_out, answers):
        return CountRelease(
            channel=channel,
            index=answers - 1,
            noise_multiplier=10.0,
            sensitivity=1.0,
            cohort_size=100,
            most_answers=answers,
            policy_digest="p",
            held_out=held_out,
        )

    apart = [
        counts("metrics", held_out=True, answers=4),
        counts("similar", held_out=False, answers=3),
    ]
    assert mu_of_releases(apart) ** 2 == pytest.approx(4 / 99)
    together = [counts("metrics", held_out=False, answers=4), apart[1]]
    assert mu_of_releases(together) ** 2 == pytest.approx(7 / 99)
