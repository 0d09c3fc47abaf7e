"""`fedcell fleet` as it is typed: what it answers, how it ends, what it says when it refuses."""

from datetime import UTC, datetime

import pytest

from server.authority.certificates import certificate_of_pem
from server.authority.services import Service
from tests.support.command_line import fedcell
from tests.support.secured_fleets import DeviceOnPaper, secured_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet with one device, and what every command is told of it."""
    now = datetime.now(UTC)
    with secured_fleet(tmp_path_factory.mktemp("fleet"), now=now) as made:
        made.device = DeviceOnPaper("meter-1")
        made.enrol(made.device, now=now)
        made.settings = (
            *("--db", f"sqlite:///{made.folder / 'hub.db'}"),
            *("--authority", made.home.folder),
        )
        yield made


def run(fleet, *arguments):
    return fedcell("fleet", *arguments, *fleet.settings)


def test_services_are_certified_anew(fleet):
    before = (fleet.home.folder / "hub.pem").read_bytes()

    ran = run(fleet, "certify", "hub", "--json")

    assert ran.code == 0
    assert set(ran.json()["certified"]) == {"hub"}
    after = certificate_of_pem((fleet.home.folder / "hub.pem").read_bytes())
    assert after != certificate_of_pem(before)
    assert after.subject.rfc4514_string() == "CN=fedcell-hub"
    assert run(fleet, "certify", "hubb").is_refused(2, "there is no service 'hubb'")


def test_keys_for_flower_are_one_file_a_device(fleet, tmp_path):
    ran = run(fleet, "supernode-keys", "--out", tmp_path, "--federation", "plant")

    path = tmp_path / "meter-1.pub"
    assert ran.out == f"flwr supernode register {path} plant\n"
    assert path.read_text() == f"{fleet.device.supernode} meter-1\n"


def test_rotation_of_the_server_authority_is_not_finished_over_a_device(fleet):
    begun = run(fleet, "rotate", "server", "--json")
    early = run(fleet, "rotate", "server", "--finish", "--json")
    forced = run(fleet, "rotate", "server", "--finish", "--force", "--json")

    assert begun.json()["generations"] == {"server-ca-1": "issuing", "server-ca-2": "introduced"}
    assert (early.code, early.json()["behind"]) == (1, ["meter-1"])
    assert (forced.code, forced.json()["finished"]) == (0, True)
    assert forced.json()["generations"] == {"server-ca-1": "retired", "server-ca-2": "issuing"}
    assert run(fleet, "rotate", "server", "--finish").is_refused(3, "is not rotated")
    assert run(fleet, "rotate", "fleet").is_refused(2, "there is no authority 'fleet'")


def test_status_tells_what_there_is(fleet):
    told = run(fleet, "status", "--devices", "--json").json()

    assert (told["fleet"], told["enrolled"], told["revoked"]) == ("test", 1, 0)
    assert list(told["devices"]) == ["meter-1"]
    assert set(told["services"]) == set(Service)
    assert told["due"] == []


def test_refusals_are_one_line_with_a_remedy(fleet, tmp_path):
    nowhere = ("--authority", tmp_path / "none", *fleet.settings[:2])

    assert run(fleet, "revoke", "nobody").is_refused(3, "nobody: was never enrolled")
    assert fedcell("fleet", "token", *nowhere).is_refused(4, "fedcell fleet init")
    again = run(fleet, "init", "--broker", "localhost:8883", "--enrolment-host", "localhost")
    assert again.is_refused(3, "holds an authority already")
    several = run(fleet, "token", "--device", "meter-1", "--count", "2")
    assert several.is_refused(2, "more than 1 for one device")
    assert run(fleet, "token", "--device", "a/b").code != 0


def test_tokens_come_with_what_is_typed_on_the_device(fleet):
    ran = run(fleet, "token", "--count", "3")
    lines = ran.out.splitlines()

    assert len({line for line in lines if line.startswith("fct_")}) == 3
    assert f"--ca-fingerprint {fleet.pinned}" in lines[-1]
