"""The measured gain of correlated noise, beside closed forms and the figures known before."""

import pytest

from privacy import RecordPolicy, StreamPolicy, policy_for
from privacy.banded_factor import prefix_errors, prefix_sum_error
from server.engine.optimizer_gain import measure_gain
from server.engine.server_optimizer import OPTIMIZER_NAMES, ServerRecipe

WEIGHTS = 2842


def policy_of(*, rounds=200, cohort=500, bands=20, participations=10, **changes):
    privacy = policy_for(
        epsilon=2.0,
        delta=1e-6,
        max_participations=participations,
        clipping_norm=0.3,
        min_separation=20,
        min_cohort_size=cohort,
        bands=bands,
        **changes,
    )
    return StreamPolicy(
        stream="measured",
        num_rounds=rounds,
        cohort_size=cohort,
        privacy=privacy,
        record=RecordPolicy(
            noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=1, least_rows=180
        ),
    )


def constant(name, *, rate=1.0):
    return ServerRecipe(optimizer=name, learning_rate=rate, final_rate=1.0)


def agreement_for(step_snr, policy):
    """How far devices must agree for so much signal in one step."""
    return step_snr * policy.privacy.noise_multiplier * WEIGHTS**0.5 / policy.cohort_size


def test_averaging_at_a_constant_rate_gains_what_prefix_sums_do():
    gain = measure_gain(policy_of(), constant("fedavg"), num_weights=WEIGHTS)

    assert gain.over_run == pytest.approx(3.06, rel=0.03)
    assert gain.over_run == pytest.approx(
        prefix_sum_error(200, 1) / prefix_sum_error(200, 20), rel=0.03
    )
    assert gain.at_end == pytest.approx(
        prefix_errors(200, 1)[-1] / prefix_errors(200, 20)[-1], rel=0.08
    )


def test_adam_gains_less_and_the_known_figures_come_out():
    """PRIVACY: with Adam on the server the end signal to noise is 9.4 against 13.8."""
    policy = policy_of()
    gain = measure_gain(
        policy,
        constant("fedadam", rate=0.06),
        num_weights=WEIGHTS,
        agreement=agreement_for(0.6, policy),
    )

    assert gain.independent_snr == pytest.approx(9.4, rel=0.1)
    assert gain.correlated_snr == pytest.approx(13.8, rel=0.1)
    assert 1.2 < gain.at_end < 1.6


@pytest.mark.slow
def test_adam_loses_where_updates_stand_out_of_the_noise():
    policy = policy_of()
    weak, strong = (
        measure_gain(
            policy,
            constant("fedadam", rate=0.06),
            num_weights=WEIGHTS,
            agreement=agreement_for(snr, policy),
        )
        for snr in (0.1, 1.5)
    )

    assert weak.at_end > 2.0
    assert strong.at_end < 1.0


def test_one_band_gains_nothing():
    for name in OPTIMIZER_NAMES:
        gain = measure_gain(policy_of(bands=1), constant(name), num_weights=WEIGHTS)
        assert gain.at_end == 1.0
        assert "none" in gain.to_line()


@pytest.mark.slow
def test_the_signal_does_not_matter_to_linear_optimisers():
    for name in ("fedavg", "fedavgm"):
        one, other = (
            measure_gain(policy_of(), constant(name), num_weights=WEIGHTS, agreement=share)
            for share in (0.1, 1.0)
        )
        assert one.at_end == pytest.approx(other.at_end, rel=0.1)


def test_a_norm_that_adapts_is_measured_alike():
    policy = policy_of(target_quantile=0.5)

    gain = measure_gain(policy, constant("fedavg"), num_weights=WEIGHTS)

    assert gain.over_run == pytest.approx(3.06, rel=0.03)


@pytest.mark.slow
def test_a_policy_measured_twice_gives_near_figures_with_their_assumption_beside():
    first, again = (
        measure_gain(policy_of(), ServerRecipe(), num_weights=WEIGHTS).to_json() for _ in range(2)
    )

    assert first.pop("at_end") == pytest.approx(again["at_end"], rel=0.15)
    assert "constant" in first["assumes"]
