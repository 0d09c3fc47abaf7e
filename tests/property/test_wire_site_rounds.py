"""Rounds over MQTT: what was said comes back, in any order; whatever was altered is refused."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.wire.contribution import (
    MOST_OF_UPDATE,
    Answer,
    ContributionForm,
    StepKind,
    contribution_parts,
    open_contribution,
    pack_answer,
    unpack_answer,
)
from models.wire.errors import WireError
from models.wire.parts import CHUNK_BYTES, join, num_parts, read_part, split
from models.wire.round_material import RoundMaterial, read_material
from models.wire.site_rounds import open_from_gateway, signed_by_gateway, update_form
from tests.support.site_parts import PaperSite, device_key, material_of, one_device_task

TAG = bytes(16)
SITE = PaperSite(("device-1", "device-2"))
MATERIAL = material_of(900)
OFFER = SITE.offer(one_device_task("device-1"), MATERIAL)
STEP = OFFER.step(SITE.gateway)
FORM = update_form(OFFER.task, num_weights=900)
ENTRIES = st.integers(-MOST_OF_UPDATE, MOST_OF_UPDATE)


def parts_of(values, *, device="device-1", key=None, step=STEP, seal_key=None):
    return contribution_parts(
        Answer(values, "{}"),
        step=step,
        form=FORM,
        device=device,
        key=key or device_key(device),
        seal_key=seal_key or SITE.opening.seal_key,
    )


def opened(sealed, *, device="device-1", step=STEP):
    return open_contribution(
        sealed,
        step=step,
        form=FORM,
        device=device,
        key=device_key(device).verify_key,
        opening_key=SITE.opening,
    )


def whole_of(payloads):
    parts = list(map(read_part, payloads))
    return join(parts, digest=parts[0].digest, size=FORM.sealed_bytes)


SEALED = whole_of(parts_of(np.arange(900)))


@given(st.binary(min_size=1, max_size=3 * CHUNK_BYTES), st.randoms(use_true_random=False))
def test_parts_join_in_any_order_and_however_often_they_come(content, shuffling):
    parts = list(map(read_part, split(content, tag=TAG)))
    several = parts + shuffling.choices(parts, k=3)
    shuffling.shuffle(several)

    joined = join(several, digest=parts[0].digest, size=len(content))

    assert joined == content
    assert len(parts) == num_parts(len(content))


@given(st.data())
def test_a_part_that_was_altered_joins_nothing(data):
    content = random.Random(1).randbytes(2 * CHUNK_BYTES + 7)
    payloads = list(split(content, tag=TAG))
    which = data.draw(st.integers(0, len(payloads) - 1))
    # The tag says which step it is for; its bytes are compared by who asked.
    place = data.draw(st.sampled_from([0, *range(17, len(payloads[which]))]))
    change = data.draw(st.integers(1, 255))
    altered = bytearray(payloads[which])
    altered[place] ^= change
    payloads[which] = bytes(altered)

    digest = read_part(split(content, tag=TAG)[0]).digest
    with pytest.raises(WireError):
        join(map(read_part, payloads), digest=digest, size=len(content))


@given(st.lists(ENTRIES, min_size=1, max_size=40), st.text("{}:,a1", max_size=192))
def test_packed_answers_have_one_size_and_come_back(values, receipt):
    form = ContributionForm(kind=StepKind.UPDATE, num_entries=len(values))
    payload = pack_answer(Answer(np.array(values, np.int64), receipt), form)
    zeros = pack_answer(Answer(np.zeros(len(values), np.int64), ""), form)
    back = unpack_answer(payload, form)

    assert back.values.tolist() == values
    assert back.receipt == receipt.ljust(192)
    assert len(payload) == len(zeros) == form.payload_bytes


@given(st.integers(MOST_OF_UPDATE + 1, 2**63 - 1), st.booleans())
def test_an_entry_beyond_the_grid_neither_leaves_nor_arrives(size, is_negative):
    form = ContributionForm(kind=StepKind.UPDATE, num_entries=1)
    value = -size if is_negative else size
    with pytest.raises(WireError, match="beyond_bound"):
        pack_answer(Answer(np.array([value], np.int64), ""), form)
    if abs(value) < 2**39:
        payload = value.to_bytes(5, "little", signed=True) + b" " * 192
        with pytest.raises(WireError, match="beyond_bound"):
            unpack_answer(payload, form)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_sealed_answer_with_one_byte_changed_is_refused(place, change):
    altered = bytearray(SEALED)
    altered[place] ^= change
    with pytest.raises(WireError):
        opened(bytes(altered))


def test_an_answer_comes_back_and_is_as_large_as_zeros():
    values = np.random.default_rng(0).integers(-MOST_OF_UPDATE, MOST_OF_UPDATE, 900)
    payloads, zeros = parts_of(values), parts_of(np.zeros(900, np.int64))

    assert (opened(whole_of(payloads)).values == values).all()
    assert [len(one) for one in payloads] == [len(one) for one in zeros]
    assert len(payloads) == FORM.num_parts


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "device-2"}, "bad_seal"),
        ({"key": device_key("device-2")}, "bad_signature"),
        (
            {"seal_key": PaperSite(()).opening.seal_key.__class__.from_bytes(bytes(31) + b"\x09")},
            "sealed_to_another_key",
        ),
        ({"step": OFFER.step("gateway-2")}, "bad_signature"),
        (
            {"step": SITE.offer(one_device_task("device-1", index=1), MATERIAL).step(SITE.gateway)},
            "bad_signature",
        ),
        (
            {"step": SITE.offer(one_device_task("device-1"), material_of(901)).step(SITE.gateway)},
            "bad_signature",
        ),
    ],
)
def test_an_answer_of_another_device_key_step_or_gateway_is_refused(changes, reason):
    sealed = whole_of(parts_of(np.arange(900), **changes))
    with pytest.raises(WireError) as caught:
        opened(sealed)

    assert caught.value.reason == reason


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=50),
    st.text(st.characters(codec="utf-8"), max_size=100),
)
def test_material_comes_back(weights, policy):
    made = RoundMaterial(weights=np.array(weights, np.float32), policy=policy)
    back = read_material(made.to_bytes())

    assert back.weights.tolist() == made.weights.tolist()
    assert back.policy == policy


@given(st.binary(max_size=200))
def test_bytes_from_anybody_raise_nothing_but_wire_errors(content):
    for read in (read_material, read_part, lambda raw: unpack_answer(raw, FORM)):
        try:
            read(content)
        except WireError:
            continue


@given(st.data())
def test_a_message_of_a_gateway_with_one_byte_changed_is_refused(data):
    envelope = signed_by_gateway(OFFER, SITE.key)
    place = data.draw(st.integers(0, len(envelope) - 1))
    altered = bytearray(envelope)
    altered[place] ^= data.draw(st.integers(1, 127))
    try:
        _, found = open_from_gateway(bytes(altered), device="device-1", believe=SITE.believe)
    except WireError:
        return
    # A key id may be spelled in other letters of JSON; what is said stays the same.
    assert found == OFFER
