"""The file of a fleet's authorities, as recorded, loads for ever and means the same."""

from dataclasses import replace

from server.authority.home import STATE_FILE, Kind, State, open_home
from server.authority.services import Service, services_of
from tests.golden.make_authority_file import FILE, NOW, recorded_fleet


def test_a_fleet_of_before_superlinks_opens_and_has_none(tmp_path):
    (tmp_path / STATE_FILE).write_bytes(FILE.read_bytes())

    home = open_home(tmp_path)

    assert replace(home.fleet, generations=()) == recorded_fleet()
    assert [one.state for one in home.fleet.generations] == [State.ISSUING] * 2
    assert {one.kind for one in home.fleet.generations} == set(Kind)
    assert {one.since for one in home.fleet.generations} == {NOW}
    assert (home.fleet.superlink, home.fleet.superlink_hosts) == ("", ())
    assert set(services_of(home)) == {
        Service.BROKER,
        Service.ENROLMENT,
        Service.HUB,
        Service.RELEASES,
    }
