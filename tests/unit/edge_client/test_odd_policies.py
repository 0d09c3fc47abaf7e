"""Signed policies that no honest server signs: each is a refusal, whatever is in it."""

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.errors import ParticipationRefusedError
from edge_client.privacy.task_policy import verified_policy
from models.wire.envelope import sign_payload
from privacy.canonical_json import canonical_json
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import KEY, KEYS, POLICY

INF, NAN = math.inf, math.nan
CHANNEL = {"name": "m", "noise_multiplier": 60.0, "max_answers": 3, "held_out": False}
ODD = {
    "sigma infinite": ("privacy.noise_multiplier", INF),
    "sigma without a square": ("privacy.noise_multiplier", 1e308),
    "epsilon infinite": ("privacy.epsilon", INF),
    "epsilon beyond reason": ("privacy.epsilon", 1e300),
    "epsilon beyond arithmetic": ("privacy.epsilon", 10**400),
    "epsilon next to nothing": ("privacy.epsilon", 1e-300),
    "delta next to nothing": ("privacy.delta", 1e-320),
    "delta negative": ("privacy.delta", -1e-8),
    "k beyond arithmetic": ("privacy.max_participations", 10**400),
    "k text": ("privacy.max_participations", "3"),
    "k true": ("privacy.max_participations", True),
    "share not a number": ("privacy.update_share", NAN),
    "separation broken": ("privacy.min_separation", 2.5),
    "norm infinite": ("privacy.clipping_norm", INF),
    "norm a list": ("privacy.clipping_norm", [1.0]),
    "privacy a list": ("privacy", []),
    "rounds beyond reason": ("num_rounds", 1e300),
    "rounds beyond arithmetic": ("num_rounds", 10**400),
    "stream a list": ("stream", ["a"]),
    "stream a book": ("stream", "a" * 1500),
    "cohort null": ("cohort_size", None),
    "owners negative": ("max_devices_per_owner", -1),
    "owners none": ("max_devices_per_owner", 0),
    "record noise text": ("record.noise_multiplier", "1"),
    "record noise not a number": ("record.noise_multiplier", NAN),
    "record noise negative": ("record.noise_multiplier", -1.0),
    "record rate none": ("record.sampling_rate", 0.0),
    "record steps for ever": ("record.steps", 10**9),
    "record a number": ("record", 7),
    "channels text": ("channels", "abc"),
    "channel beyond arithmetic": ("channels", [CHANNEL | {"max_answers": 10**400}]),
    "channel held out maybe": ("channels", [CHANNEL | {"held_out": 1}]),
    "adaptive text": ("privacy.adaptive_clipping", "yes"),
}


def changed(path, value):
    policy = json.loads(POLICY.to_bytes())
    *way, name = path.split(".")
    holder = policy
    for step in way:
        holder = holder[step]
    holder[name] = value
    return policy


def envelope_of(value):
    try:
        text = canonical_json(value)
    except ValueError:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sign_payload(text.encode(), KEY).decode("ascii")


@pytest.mark.parametrize("name", ODD)
def test_constant_that_makes_no_sense_is_a_refusal(name):
    with pytest.raises(ParticipationRefusedError) as refused:
        verified_policy(envelope_of(changed(*ODD[name])), KEYS)
    assert refused.value.refusal == "policy_unreadable"


def test_epsilon_that_promises_nothing_is_refused_and_twenty_is_not():
    with pytest.raises(ParticipationRefusedError) as refused:
        verified_policy(envelope_of(changed("privacy.epsilon", 20.5)), KEYS)
    assert refused.value.refusal == "epsilon_too_great"
    greatest = stream_policy(epsilon=20.0)
    assert verified_policy(envelope_of(greatest.to_json()), KEYS) == greatest


def test_deep_text_is_a_refusal():
    envelope = sign_payload(b"[" * 1400 + b"]" * 1400, KEY).decode("ascii")
    with pytest.raises(ParticipationRefusedError, match="policy_unreadable"):
        verified_policy(envelope, KEYS)


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), 1e308]))
VALUES = st.one_of(
    NUMBERS, st.none(), st.booleans(), st.text(max_size=9), st.lists(NUMBERS, max_size=3)
)
PATHS = sorted(
    [name for name in json.loads(POLICY.to_bytes()) if name != "schema_version"]
    + [f"{part}.{name}" for part in ("privacy", "record") for name in POLICY.to_json()[part]]
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.sampled_from(PATHS), VALUES)
def test_any_constant_of_any_kind_is_read_or_refused(path, value):
    with suppress(ParticipationRefusedError):
        policy = verified_policy(envelope_of(changed(path, value)), KEYS)
        assert policy.to_json() == changed(path, value)
        assert 0 < policy.privacy.epsilon <= 20
        assert math.isfinite(policy.privacy.step_mu_squared)
