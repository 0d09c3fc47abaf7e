"""Events refuse parameters under which their mechanism is not defined."""

import pytest

from privacy import (
    CorrelatedRelease,
    CountAnswer,
    CountRelease,
    GaussianRelease,
    Participation,
    PublicData,
    RecordLevelSteps,
)
from privacy.events import event_from_json, event_to_json

RELEASE = {
    "stream": "s",
    "index": 3,
    "mechanism": "independent_gaussian",
    "noise_multiplier": 13.0,
    "clipping_norm": 0.5,
    "cohort_size": 500,
    "most_participations": 2,
}
CORRELATED = {
    "stream": "s",
    "index": 9,
    "noise_multiplier": 14.1,
    "clipping_norm": 0.3,
    "cohort_size": 2_500,
    "bands": 4,
    "min_separation": 4,
    "most_participations": 3,
    "policy_digest": "d",
}
COUNTS = {
    "channel": "metrics",
    "index": 2,
    "noise_multiplier": 33.6,
    "sensitivity": 2.0,
    "cohort_size": 1_000,
    "most_answers": 3,
    "policy_digest": "d",
}
TAKEN = {
    "stream": "s",
    "index": 9,
    "noise_multiplier": 14.1,
    "clipping_norm": 0.3,
    "cohort_size": 2_500,
    "policy_digest": "d",
}
ANSWER = {"channel": "metrics", "index": 2, "noise_multiplier": 33.6, "policy_digest": "d"}
STEPS = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "sampling_rate": 0.1, "steps": 5}


@pytest.mark.parametrize(
    "event",
    [
        GaussianRelease(**RELEASE),
        RecordLevelSteps(**STEPS),
        PublicData(sources=("a", "b")),
        CorrelatedRelease(**CORRELATED),
        CorrelatedRelease(
            **CORRELATED, noise_only=True, clip_noise_multiplier=50.0, most_mu_squared=0.02
        ),
        CountRelease(**COUNTS),
        CountRelease(**COUNTS, held_out=True, most_mu_squared=0.02),
        Participation(**TAKEN),
        Participation(**TAKEN, clip_noise_multiplier=50.0),
        CountAnswer(**ANSWER),
        CountAnswer(**ANSWER, held_out=True),
    ],
)
def test_every_event_reads_back_as_written(event):
    assert event_from_json(event_to_json(event)) == event


@pytest.mark.parametrize(
    ("event", "parameters", "name", "value"),
    [
        (GaussianRelease, RELEASE, "noise_multiplier", -1.0),
        (GaussianRelease, RELEASE, "noise_multiplier", float("nan")),
        (GaussianRelease, RELEASE, "clipping_norm", 0.0),
        (GaussianRelease, RELEASE, "clipping_norm", float("inf")),
        (GaussianRelease, RELEASE, "index", -1),
        (GaussianRelease, RELEASE, "cohort_size", 0),
        (GaussianRelease, RELEASE, "most_participations", 5),
        (CorrelatedRelease, CORRELATED, "noise_multiplier", 0.0),
        (CorrelatedRelease, CORRELATED, "clipping_norm", float("nan")),
        (CorrelatedRelease, CORRELATED, "index", -1),
        (CorrelatedRelease, CORRELATED, "cohort_size", 0),
        (CorrelatedRelease, CORRELATED, "bands", 5),
        (CorrelatedRelease, CORRELATED, "bands", 0),
        (CorrelatedRelease, CORRELATED, "most_participations", 4),
        (CorrelatedRelease, CORRELATED, "clip_noise_multiplier", 0.0),
        (CorrelatedRelease, CORRELATED, "most_mu_squared", -0.1),
        (CountRelease, COUNTS, "noise_multiplier", 0.0),
        (CountRelease, COUNTS, "sensitivity", 0.0),
        (CountRelease, COUNTS, "index", -1),
        (CountRelease, COUNTS, "cohort_size", 0),
        (CountRelease, COUNTS, "most_answers", 4),
        (CountRelease, COUNTS, "most_mu_squared", float("inf")),
        (Participation, TAKEN, "noise_multiplier", 0.0),
        (Participation, TAKEN, "clipping_norm", -1.0),
        (Participation, TAKEN, "index", -1),
        (Participation, TAKEN, "clip_noise_multiplier", -1.0),
        (CountAnswer, ANSWER, "noise_multiplier", float("inf")),
        (CountAnswer, ANSWER, "index", -1),
        (RecordLevelSteps, STEPS, "noise_multiplier", 0.0),
        (RecordLevelSteps, STEPS, "max_grad_norm", -1.0),
        (RecordLevelSteps, STEPS, "sampling_rate", 0.0),
        (RecordLevelSteps, STEPS, "sampling_rate", 1.5),
        (RecordLevelSteps, STEPS, "steps", 0),
        (PublicData, {}, "sources", ()),
    ],
)
def test_undefined_parameters_are_refused_by_name(event, parameters, name, value):
    with pytest.raises(ValueError, match=name):
        event(**{**parameters, name: value})
