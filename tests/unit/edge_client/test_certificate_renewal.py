"""When a certificate is renewed, and what time it is where the clock may be wrong."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from edge_client.errors import JoinError
from edge_client.provisioning.enrolment_client import address_of
from edge_client.provisioning.membership import Membership
from edge_client.provisioning.renewal import (
    LOST_FOR_S,
    CertificateKeeper,
    KnownTime,
    fleet_time,
    is_renewal_due,
)

BORN = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MEMBERSHIP = Membership(
    folder=Path("device.db.fleet"),
    device_id="device-1",
    service="https://fleet:8443",
    broker="[::1]:8883",
    server_keys={},
    number=1,
    serial="00" * 20,
    not_before=BORN - DAY,
    not_after=BORN + 30 * DAY,
    server_time=BORN,
)


@pytest.mark.parametrize(
    ("days", "due"), [(0, False), (19.9, False), (20.1, True), (30, True), (400, True)]
)
def test_renewal_is_due_in_the_last_third(days, due):
    assert is_renewal_due(MEMBERSHIP, BORN + days * DAY) is due


def test_time_is_what_the_service_said_or_at_least_what_it_said_then():
    known = KnownTime(BORN + 5 * DAY, elapsed_s=100.0)
    clock = datetime(1970, 1, 1, tzinfo=UTC)

    told = fleet_time(known, floor=BORN, now=clock, elapsed_s=100.0 + 3600)
    assert told == BORN + 5 * DAY + timedelta(hours=1)
    assert fleet_time(None, floor=BORN, now=clock, elapsed_s=0.0) == BORN
    assert fleet_time(None, floor=BORN, now=BORN + DAY, elapsed_s=0.0) == BORN + DAY


class Keeper(CertificateKeeper):
    """Counts what would be asked, instead of asking."""

    asked = 0

    def _ask(self):
        self.asked += 1


def keeper(now):
    return Keeper(
        Path("device.db"),
        None,
        MEMBERSHIP,
        clock=lambda: now,
        elapsed_s=lambda: 0.0,
        jitter=Random(1),
    )


def polled(device, now, elapsed_s, *, is_connected):
    device.poll(now=now, elapsed_s=elapsed_s, is_connected=is_connected)
    while device.is_busy():
        pass
    return device.asked


def test_nothing_is_asked_while_all_is_well():
    device = keeper(BORN + DAY)

    assert polled(device, BORN + DAY, 1e6, is_connected=True) == 0
    assert polled(device, BORN + DAY, 1e6 + LOST_FOR_S - 1, is_connected=False) == 0


def test_device_that_is_not_let_in_asks_and_asks_more_rarely():
    device = keeper(BORN + DAY)
    at = []
    for minute in range(24 * 60):
        before = device.asked
        if polled(device, BORN + DAY, minute * 60.0, is_connected=False) > before:
            at.append(minute)

    assert at[0] == 15
    assert 6 <= len(at) <= 14
    assert at[-1] - at[-2] > 90


def test_clock_before_the_certificate_came_is_wrong():
    assert keeper(datetime(1970, 1, 1, tzinfo=UTC)).clock_is_wrong()
    assert not keeper(BORN).clock_is_wrong()
    assert keeper(BORN).link_tls().looks_at_time


def test_time_is_never_before_what_the_service_said_when_the_certificate_came():
    late = BORN + 40 * DAY
    assert keeper(datetime(1970, 1, 1, tzinfo=UTC)).time() == BORN
    assert keeper(late).time() == late


def test_addresses_of_brokers_and_services():
    assert MEMBERSHIP.broker_address() == ("::1", 8883)
    assert address_of("https://fleet.example") == ("fleet.example", 8443)
    assert address_of("https://[::1]:9000/") == ("::1", 9000)
    for wrong in ("http://fleet", "fleet:8443", "https://", "https://a/b", "https://a:x"):
        with pytest.raises(JoinError):
            address_of(wrong)
