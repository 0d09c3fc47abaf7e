"""Events refuse parameters under which their mechanism is not defined."""

import pytest

from privacy import GaussianRelease, PublicData, RecordLevelSteps
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
STEPS = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "sampling_rate": 0.1, "steps": 5}


@pytest.mark.parametrize(
    "event",
    [GaussianRelease(**RELEASE), RecordLevelSteps(**STEPS), PublicData(sources=("a", "b"))],
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
