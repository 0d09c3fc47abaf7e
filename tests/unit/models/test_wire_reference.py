from dataclasses import fields
from pathlib import Path

import pytest
from flwr.proto.message_pb2 import Metadata

from models.wire import rounds
from models.wire.enrolment import EnrolmentRequest, RenewalRequest
from models.wire.reference import (
    ENROLMENT_FIELDS,
    ENVELOPE_FIELDS,
    ROUND_FIELDS,
    generated_files,
)
from tests.support.system_parts import REPOSITORY


@pytest.mark.parametrize("path", sorted(generated_files()), ids=str)
def test_a_generated_file_is_in_step_with_the_messages(path):
    remedy = "run: python -m models.wire.reference"

    assert (REPOSITORY / path).read_text() == generated_files()[path], remedy


def test_no_schema_is_left_over():
    committed = {p.relative_to(REPOSITORY) for p in (REPOSITORY / "models/wire/schemas").iterdir()}

    assert committed == {path for path in generated_files() if path.suffix == ".json"}


def test_the_page_lists_every_field_that_rounds_send_up():
    reply = rounds.Contribution(stream="s", index=0, num_devices=1).to_plain()

    assert set(ROUND_FIELDS) == {rounds.FLAT_ARRAY, "device_ids", "failure", *reply}


def test_the_page_lists_every_field_that_flower_writes_around_an_answer():
    assert set(ENVELOPE_FIELDS) == {field.name for field in Metadata.DESCRIPTOR.fields} | {"code"}


def test_the_page_lists_every_field_that_enrolment_and_renewal_send():
    sent = {entry.name for kind in (EnrolmentRequest, RenewalRequest) for entry in fields(kind)}

    assert set(ENROLMENT_FIELDS) == sent | {"signature"}


def test_the_page_says_whose_consent_covers_what():
    page = generated_files()[Path("docs/reference/what-leaves.md")]

    assert "| `days_band` | estimated days to failure, in bands | no |" in page
    assert "| summaries | no | no |" in page
    assert "| `zone` |" in page
    assert "| notices | no | indirect |" in page
    assert "| training | yes | no |" in page
