"""What a gateway says to a device: bounds of every field, and who is believed."""

import json
from dataclasses import replace

import jsonschema
import pytest

from models.feature_spec import FEATURE_NAMES
from models.wire.codec import canonical_json, encode
from models.wire.contribution import MOST_OF_UPDATE, ContributionForm, StepKind
from models.wire.counts import Bins, CountKind, CountQuestion
from models.wire.envelope import sign_payload
from models.wire.errors import SignatureError, WireError
from models.wire.parts import CHUNK_BYTES, MOST_PARTS, num_parts, split
from models.wire.round_material import RoundMaterial
from models.wire.rounds import ReleaseReceipt
from models.wire.site_credential import grant_for
from models.wire.site_rounds import (
    CountOffer,
    MissingParts,
    StepRelease,
    count_form,
    open_from_gateway,
    signed_by_gateway,
    site_schemas,
    update_form,
)
from privacy.clipping import UpdateGrid
from tests.support.site_parts import PaperSite, material_of, one_device_task

SITE = PaperSite(("device-1", "device-2"))
MATERIAL = material_of(100, policy="an envelope")
OFFER = SITE.offer(one_device_task("device-1"), MATERIAL)
QUESTION = CountQuestion(
    kind=CountKind.DRIFT, as_of_s=86_400, bins=(Bins(FEATURE_NAMES[0], (0.0, 1.0)),)
)
COUNT_OFFER = CountOffer(
    grant=OFFER.grant,
    device="device-1",
    material=OFFER.material,
    material_bytes=10,
    deadline_s=60,
    channel="drift",
    index=2,
    cohort_size=9,
)
MISSING = MissingParts(grant=OFFER.grant, device="device-1", tag="0" * 32, parts=(0, 3, 9))
RELEASE = StepRelease(grant=OFFER.grant, device="device-1", stream="run-1", index=0, entry="{}")


def opened(envelope, device="device-1"):
    return open_from_gateway(envelope, device=device, believe=SITE.believe)


@pytest.mark.parametrize("message", [OFFER, COUNT_OFFER, MISSING, RELEASE], ids=lambda m: m.TYPE)
def test_what_a_gateway_says_comes_back_and_fits_its_schema(message):
    grant, found = opened(signed_by_gateway(message, SITE.key))

    assert found == message
    assert grant == grant_for(SITE.credential(), "device-1")
    jsonschema.Draft202012Validator(site_schemas()[message.TYPE]).validate(
        json.loads(encode(message))
    )


def test_a_device_puts_the_whole_task_together_from_offer_and_material():
    task = OFFER.task_with(MATERIAL)
    count = COUNT_OFFER.task_with(replace(MATERIAL, question=QUESTION.to_text()))

    assert task == replace(OFFER.task, policy="an envelope", deadline_s=60.0)
    assert (count.channel, count.index, count.device_ids) == ("drift", 2, ("device-1",))
    assert count.question == QUESTION
    assert RELEASE.receipt == ReleaseReceipt(stream="run-1", index=0, entry="{}")


def test_a_question_that_is_none_is_refused_with_a_reason():
    with pytest.raises(WireError, match="bad_material"):
        COUNT_OFFER.task_with(replace(MATERIAL, question="{}"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deadline_s": 0}, "bad_field"),
        ({"deadline_s": 8 * 86_400}, "bad_field"),
        ({"material": "0" * 63}, "bad_field"),
        ({"material_bytes": 2**31}, "bad_field"),
        ({"device": "a/b"}, "bad_field"),
        ({"device": "device-2"}, "bad_field"),
        ({"grant": "x" * 4097}, "bad_field"),
    ],
)
def test_an_offer_out_of_bounds_is_refused(changes, reason):
    body = {**json.loads(encode(OFFER)), **changes}
    with pytest.raises(WireError) as caught:
        opened(sign_payload(canonical_json(body), SITE.key))

    # A grant that is none is met before the offer's own fields.
    assert caught.value.reason in {reason, "not_json", "oversize"}


@pytest.mark.parametrize(
    "changes",
    [
        {"device_ids": ["device-1", "device-2"]},
        {"device_ids": []},
        {"device_ids": [{}]},
        {"pseudonyms": ["short"]},
        {"pseudonyms": [7]},
        {"stream": "x" * 129},
        {"stream": "a b"},
        {"index": 2**53},
        {"clipping_norm": -1.0},
        {"cohort_size": 2**27},
        {"steps": 10_001},
        {"least_rows": 10**7},
        {"sampling_rate": 2.0},
        {"deadline_s": 1e9},
    ],
)
def test_a_task_out_of_bounds_is_refused(changes):
    body = json.loads(encode(OFFER))
    body["task"] |= changes
    with pytest.raises(WireError, match="bad_field"):
        opened(sign_payload(canonical_json(body), SITE.key))


@pytest.mark.parametrize("parts", [[3, 1], [0, 0], [512], [-1], [True], "0", list(range(513))])
def test_numbers_of_missing_parts_ascend_within_bounds(parts):
    body = {**json.loads(encode(MISSING)), "parts": parts}
    with pytest.raises(WireError, match="bad_field"):
        opened(sign_payload(canonical_json(body), SITE.key))


def test_a_task_with_its_policy_is_no_offer():
    with pytest.raises(WireError, match="policy"):
        SITE.offer(one_device_task("device-1", policy="{}"), MATERIAL)


def test_nobody_but_the_gateway_that_the_server_named_is_believed():
    rogue = PaperSite(("device-1",), server=SITE.key, key=SITE.server)
    forged = SITE.offer(OFFER.task, MATERIAL, grant=rogue.grant("device-1"))

    with pytest.raises(SignatureError, match="unknown_key"):
        opened(signed_by_gateway(forged, rogue.key))
    with pytest.raises(SignatureError, match="unknown_key"):
        opened(signed_by_gateway(OFFER, rogue.key))
    with pytest.raises(SignatureError, match="foreign_grant"):
        opened(signed_by_gateway(OFFER, SITE.key), device="device-2")
    other = replace(MISSING, device="device-2")
    with pytest.raises(WireError, match="foreign_device"):
        opened(signed_by_gateway(other, SITE.key))


def test_width_and_number_of_parts_follow_from_the_task():
    form = update_form(OFFER.task, num_weights=2493)
    grid = UpdateGrid(clipping_norm=OFFER.task.clipping_norm)

    assert round(grid.clipping_norm / grid.step) == MOST_OF_UPDATE
    assert form.entry_bytes == 5
    assert (form.sealed_bytes, form.num_parts) == (1 + 8 + 32 + 64 + 2493 * 5 + 192 + 16, 4)
    with_bit = update_form(replace(OFFER.task, has_norm_bit=True), num_weights=2493)
    assert with_bit.num_entries == 2494
    assert count_form(QUESTION) == ContributionForm(kind=StepKind.COUNT, num_entries=4)
    assert count_form(QUESTION).payload_bytes == 4


@pytest.mark.parametrize("size", [0, MOST_PARTS * CHUNK_BYTES + 1])
def test_nothing_and_too_much_are_not_cut(size):
    with pytest.raises(WireError, match="oversize"):
        num_parts(size)


def test_a_tag_has_sixteen_bytes():
    with pytest.raises(ValueError, match="tag"):
        split(b"x", tag=b"short")


@pytest.mark.parametrize("entries", [0, 2**18 + 1])
def test_a_vector_has_bounds(entries):
    with pytest.raises(WireError, match="bad_form"):
        ContributionForm(kind=StepKind.UPDATE, num_entries=entries)


def test_material_is_weights_or_a_question():
    with pytest.raises(WireError, match="bad_material"):
        RoundMaterial(weights=MATERIAL.weights[:0]).to_bytes()
    with pytest.raises(WireError, match="bad_material"):
        replace(MATERIAL, question="{}").to_bytes()
