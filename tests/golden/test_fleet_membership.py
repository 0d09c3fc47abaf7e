"""A fleet's folder and a device's membership of version 1 load, and the device renews."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta

from edge_client.provisioning.membership import read_membership
from models.wire.envelope import SigningKey
from models.wire.link_settings import LinkTls
from models.wire.link_tls import tls_context
from server.storage.database import open_database
from tests.golden.make_fleet_membership import FOLDER, SERVICE
from tests.support.secured_fleets import NOW, DeviceOnPaper, SecuredFleet


def test_a_device_that_joined_then_renews_now(tmp_path):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    # A repository keeps no modes.
    for key in (tmp_path / "authority").glob("*.key"):
        key.chmod(0o600)
    with closing(sqlite3.connect(tmp_path / "hub.db")) as connection:
        connection.executescript((tmp_path / "hub.sql").read_text())
    membership = read_membership(tmp_path / "device.db")
    signing_key = SigningKey.from_bytes(bytes.fromhex((tmp_path / "identity.hex").read_text()))
    device = DeviceOnPaper("device-1", signing_key=signing_key)

    with open_database(f"sqlite:///{tmp_path / 'hub.db'}") as database:
        fleet = SecuredFleet(tmp_path, database)
        renewed = fleet.renew(device, membership.serial, now=NOW + timedelta(days=100))

    assert (membership.device_id, membership.service) == ("device-1", SERVICE)
    assert membership.broker_address() == ("127.0.0.1", 8883)
    assert membership.superlink == "", "memberships of then named none"
    assert renewed.broker == membership.broker
    tls_context(LinkTls(authorities=membership.authorities, certificate=membership.certificate))
