import hashlib

import pytest

from models.wire import topics
from models.wire.errors import WireError
from models.wire.topics import Down, Up


def test_topics_are_those_of_the_contract():
    assert hashlib.sha256(b"device-1").hexdigest()[:2] == "03"
    assert topics.up("device-1", Up.SUMMARY) == "fedcell/v1/03/d/device-1/up/summary"
    assert topics.down("device-1", Down.NOTIFY) == "fedcell/v1/03/d/device-1/dn/notify"
    assert topics.from_all_devices(Up.ACK) == "fedcell/v1/+/d/+/up/ack"
    assert topics.from_all_devices(Up.ACK, shard="03") == "fedcell/v1/03/d/+/up/ack"


@pytest.mark.parametrize("kind", [*Up, *Down])
def test_a_device_topic_can_be_taken_apart(kind):
    made = topics.up("b:1_é", kind) if isinstance(kind, Up) else topics.down("b:1_é", kind)

    assert topics.parse(made) == topics.DeviceTopic("b:1_é", kind)


@pytest.mark.parametrize(
    "name",
    ["", "a+b", "a#", "a/b", "a\0b", "a b", "\n", "$SYS", "d" * 65, "é" * 33, "\ud800"],
)
def test_names_that_are_no_device_ids_are_refused(name):
    with pytest.raises(WireError) as refused:
        topics.checked_device_id(name)

    assert refused.value.reason == "bad_device_id"


def test_a_device_cannot_bear_the_name_of_the_hub():
    with pytest.raises(WireError, match="the server's"):
        topics.checked_device_id("fedcell-hub")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fedcell/v1/03/d/device-1/up",
        "fedcell/v2/03/d/device-1/up/summary",
        "fedcell/v1/6b/d/device-1/up/summary",
        "fedcell/v1/03/x/device-1/up/summary",
        "fedcell/v1/03/d/device-1/up/notify",
        "fedcell/v1/03/d/device-1/sideways/summary",
        "fedcell/v1/03/d/device-1/up/summary/more",
    ],
)
def test_other_topics_are_refused(topic):
    with pytest.raises(WireError) as refused:
        topics.parse(topic)

    assert refused.value.reason == "bad_topic"


@pytest.mark.parametrize("shard", ["", "6A", "6", "03a", "#"])
def test_a_shard_is_two_hex_digits(shard):
    with pytest.raises(ValueError, match="shard"):
        topics.from_all_devices(Up.ACK, shard=shard)
