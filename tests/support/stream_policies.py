"""Policies of streams for tests: small, and honest about what they keep."""

from privacy import PrivacyPolicy, RecordPolicy, StreamPolicy, policy_for

RECORD = RecordPolicy(
    noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5, least_rows=180
)


def privacy_policy(
    *, separation=4, bands=None, participations=24, clipping_norm=0.3, epsilon=2.0, delta=1e-8
) -> PrivacyPolicy:
    """A policy with as many bands as the separation bears, unless told otherwise."""
    return policy_for(
        epsilon=epsilon,
        delta=delta,
        max_participations=participations,
        clipping_norm=clipping_norm,
        min_separation=separation,
        update_share=0.85,
        bands=separation if bands is None else bands,
    )


def stream_policy(*, stream="s", num_rounds=104, cohort_size=100, **privacy) -> StreamPolicy:
    """The constants of one stream, without channels of counts."""
    return StreamPolicy(
        stream=stream,
        num_rounds=num_rounds,
        cohort_size=cohort_size,
        privacy=privacy_policy(**privacy),
        record=RECORD,
    )
