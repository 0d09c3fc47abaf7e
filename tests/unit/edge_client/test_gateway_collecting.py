"""Each answer is judged alone: what counts, what does not, and how little is held meanwhile."""

import hashlib
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.gateway.collecting import MOST_PARTS_OVER, MOST_TRIES, Collection, Invited
from models.wire.contribution import Answer, contribution_parts
from models.wire.parts import split
from models.wire.rounds import DeviceReceipt
from models.wire.site_rounds import update_form
from privacy.adaptive_clipping import grid_of
from tests.support.site_parts import PaperSite, device_key, material_of, one_device_task, seeded

DEVICES = ("device-1", "device-2", "device-3")
SITE = PaperSite(DEVICES)
NUM_WEIGHTS = 1_000
MATERIAL = material_of(NUM_WEIGHTS)
STEP = SITE.offer(one_device_task("device-1"), MATERIAL).step(SITE.gateway)
FORM = update_form(one_device_task("device-1"), num_weights=NUM_WEIGHTS)
GRID = grid_of(0.5, has_norm_bit=False)


def pseudonym(device):
    return seeded(f"pseudonym {device}").hex()[:32]


def receipt(device):
    head = hashlib.sha256(b"head").hexdigest()
    said = DeviceReceipt(pseudonym=pseudonym(device), participations=1, mu_squared=0.1, head=head)
    return said.to_line()


def update(seed=0):
    return GRID.contribution(np.random.default_rng(seed).normal(size=NUM_WEIGHTS))


def collection():
    return Collection(
        step=STEP,
        form=FORM,
        invited={
            one: Invited(key=device_key(one).verify_key, pseudonym=pseudonym(one))
            for one in DEVICES
        },
        opening_key=SITE.opening,
        is_possible=partial(GRID.sum_is_possible, num_devices=1),
    )


def parts_of(device, values=None, *, line=None, key=None):
    return contribution_parts(
        Answer(update() if values is None else values, receipt(device) if line is None else line),
        step=STEP,
        form=FORM,
        device=device,
        key=key or device_key(device),
        seal_key=SITE.opening.seal_key,
    )


def take_all(found, device, parts):
    return [found.take(device, part, now_s=1.0) for part in parts]


@given(st.randoms(use_true_random=False))
def test_the_sum_is_the_devices_alone_whatever_the_order_of_their_parts(shuffling):
    found = collection()
    said = [(device, part) for device in DEVICES for part in parts_of(device, update(len(device)))]
    several = said + shuffling.choices(said, k=4)
    shuffling.shuffle(several)
    for device, part in several:
        found.take(device, part, now_s=0.0)

    assert found.is_complete
    assert (found.total == sum(update(len(device)) for device in DEVICES)).all()
    assert set(found.receipts) == set(DEVICES)
    assert found.heard() == {}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (parts_of("device-1", key=device_key("device-2")), "bad_signature"),
        (parts_of("device-1", np.full(NUM_WEIGHTS, 2**36)), "beyond_bound"),
        (parts_of("device-1", line=receipt("device-2")), "foreign_receipt"),
        (parts_of("device-1", line="{}"), "bad_receipt"),
        (parts_of("device-1", line="[" * 190), "bad_receipt"),
        (parts_of("device-2"), "bad_seal"),
        (split(b"\1" * FORM.sealed_bytes, tag=STEP.tag), "sealed_to_another_key"),
        (split(bytes(FORM.sealed_bytes - 1), tag=STEP.tag), "foreign_part"),
        (split(bytes(FORM.sealed_bytes), tag=bytes(16)), "other_step"),
        ((b"", b"x" * 5000), "oversize"),
    ],
)
def test_an_answer_that_is_none_counts_as_silence_and_keeps_no_other_out(parts, reason):
    found = collection()
    assert not any(take_all(found, "device-1", parts))
    assert found.tally[reason] >= 1
    assert not found.total.any()

    assert take_all(found, "device-2", parts_of("device-2"))[-1]
    assert (found.total == update()).all()


def test_a_device_answers_once_and_a_stranger_never():
    found = collection()
    take_all(found, "device-1", parts_of("device-1"))
    take_all(found, "device-1", parts_of("device-1", update(7)))
    take_all(found, "device-9", parts_of("device-9"))

    assert (found.total == update()).all()
    assert found.tally == {"duplicate": FORM.num_parts, "not_invited": FORM.num_parts}


def test_a_device_that_sent_nonsense_first_may_still_answer():
    found = collection()
    found.take("device-1", split(bytes(FORM.sealed_bytes), tag=STEP.tag)[0], now_s=0.0)
    take_all(found, "device-1", parts_of("device-1", key=device_key("device-2")))

    assert take_all(found, "device-1", parts_of("device-1"))[-1]
    assert found.answered == {"device-1"}


def test_what_one_device_can_make_a_gateway_do_has_an_end():
    found = collection()
    forged = parts_of("device-1", key=device_key("device-2"))
    for _ in range(MOST_TRIES + 1):
        take_all(found, "device-1", forged)
    assert found.tally["bad_signature"] == MOST_TRIES
    assert found.tally["too_many_tries"] == FORM.num_parts
    assert not any(take_all(found, "device-1", parts_of("device-1")))

    flood = split(bytes(FORM.sealed_bytes), tag=STEP.tag)[0]
    for _ in range(MOST_PARTS_OVER * FORM.num_parts + 5):
        found.take("device-2", flood, now_s=0.0)
    assert found.tally["too_many_parts"] == 5
    assert found.heard()["device-2"].missing == tuple(range(1, FORM.num_parts))


def test_what_is_missing_is_known_part_by_part():
    found = collection()
    parts = parts_of("device-1")
    found.take("device-1", parts[-1], now_s=3.0)
    one = found.heard()["device-1"]

    assert one.missing == tuple(range(FORM.num_parts - 1))
    assert (one.last_s, one.num_parts) == (3.0, FORM.num_parts)
