"""Records are read back from bare updates and from none that noise covers."""

import pytest

import server.audits.privacy_audit
import server.audits.release_audit
from privacy import OperatingSystemNoise
from server.audits.canary_audit import audited_policy
from server.audits.inversion_audit import Protection, Victims, recovered_records
from server.audits.privacy_audit import (
    production_policy,
)


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
