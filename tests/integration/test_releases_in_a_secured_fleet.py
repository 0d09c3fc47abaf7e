"""A device that joined takes a release: announced over a secured Mosquitto, fetched over HTTPS."""

import threading
from datetime import UTC, datetime

import pytest

from edge_client.cli import main
from edge_client.errors import DownloadError
from edge_client.model_store import ModelStore
from edge_client.provisioning.membership import read_membership
from edge_client.updates.follower import check_in, running_version
from models.wire import topics
from models.wire.announcements import FLEET_RING, decode_announcement, release_topic
from models.wire.envelope import open_signed, trusted_keys
from models.wire.link_settings import LinkTls
from server.authority.serving import running_service
from server.broker import LOOPBACK
from server.releases.desk import REPOSITORY
from server.releases.file_server import FileServer
from server.signer import load_signer, make_key_file
from tests.support.brokers import Heard, wait_until
from tests.support.command_line import fedcell
from tests.support.edge_devices import new_store
from tests.support.releases import SERVER_KEY, Lab, now
from tests.support.secured_fleets import secured_broker, secured_fleet
from tests.support.update_bundles import try_out_here

pytestmark = pytest.mark.broker
NAME = "device-1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A secured broker of a fleet."""
    folder = tmp_path_factory.mktemp("secured")
    with secured_fleet(folder, now=datetime.now(UTC)) as fleet, secured_broker(fleet) as running:
        yield running


def settings_file(broker, folder, **more):
    """Write the settings of a server: by the hub's certificate, as the guide has it."""
    authority = broker.fleet.home.folder
    told = {
        "broker": f"{LOOPBACK}:{broker.port}",
        "db": f"sqlite:///{broker.fleet.folder / 'hub.db'}",
        "releases": str(folder / "releases"),
        "release_key": str(folder / "releases-key.pem"),
        "key": str(folder / "server.pem"),
        "tls_ca": str(authority / "server-ca-1.pem"),
        "tls_certificate": str(authority / "hub.pem"),
        "tls_key": str(authority / "hub.key"),
        **more,
    }
    path = folder / f"settings-{len(more)}.toml"
    path.write_text("".join(f'{name} = "{value}"\n' for name, value in told.items()))
    return path


def joined_device(fleet, folder, capsys):
    """Have a device join over HTTPS, and return its store's path."""
    new_store(folder).close()
    store = folder / "device.db"
    token = fleet.token(device_id=NAME, now=datetime.now(UTC))
    with running_service(
        fleet.database, fleet.home, host=LOOPBACK, port=0, clock=lambda: datetime.now(UTC)
    ) as port:
        pin = ("--token", token, "--ca-fingerprint", fleet.pinned)
        code = main(["join", f"https://{LOOPBACK}:{port}", "--store", str(store), *pin])
    assert code == 0, capsys.readouterr().err
    return store


def test_a_joined_device_takes_a_release_of_a_secured_fleet(broker, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    fleet, authority = broker.fleet, broker.fleet.home.folder
    store = joined_device(fleet, tmp_path, capsys)
    membership = read_membership(store)
    device_tls = LinkTls(authorities=membership.authorities, certificate=membership.certificate)
    make_key_file(tmp_path / "server.pem")
    (tmp_path / "releases-key.pem").write_bytes(SERVER_KEY.to_pem())
    (tmp_path / "releases-key.pem").chmod(0o600)
    config = settings_file(
        *(broker, tmp_path),
        release_tls_certificate=authority / "releases.pem",
        release_tls_key=authority / "releases.key",
    )
    files = FileServer(
        tmp_path / "releases" / REPOSITORY,
        host=LOOPBACK,
        port=0,
        certificate=authority / "release-files.pem",
        key=authority / "release-files.key",
    )
    serving = threading.Thread(target=files.serve_forever, args=(0.02,))
    serving.start()
    lab = Lab(tmp_path, fleet.database, files)
    heard, device = Heard(), broker.link(NAME, device_tls)
    device.subscribe(release_topic(FLEET_RING), heard)
    hub = broker.link(topics.HUB_CLIENT_ID, fleet.hub)
    try:
        lab.started(lab.bundle(1))
        with device, hub:
            ran = fedcell("release", "serve", "--once", "--config", config)
            (payload,) = heard.wait_for(1)
            lost = hub.counters.losses
        models = ModelStore.beside(store)
        found = check_in(models, lab.source, now=now(), backend="numpy")
        with pytest.raises(DownloadError, match="certificate verify failed"):
            check_in(ModelStore.beside(tmp_path / "stranger.db"), lab.source, now=now())
    finally:
        files.shutdown()
        serving.join()
        files.server_close()

    trusted = trusted_keys(load_signer(tmp_path / "server.pem").verify_key)
    assert (ran.code, lost) == (0, 0), ran.err
    assert decode_announcement(open_signed(payload, trusted)).version == "update-1"
    assert lab.source.url.startswith("https://")
    assert found.version == "update-1"
    models.begin_boot(now())
    models.commit(now())
    assert running_version(models) == "update-1"


def test_releases_are_not_announced_under_the_hubs_name(broker, tmp_path):
    make_key_file(tmp_path / "server.pem")
    hub = broker.link(topics.HUB_CLIENT_ID, broker.fleet.hub)
    with hub:
        ran = fedcell("release", "serve", "--once", "--config", settings_file(broker, tmp_path))
        wait_until(lambda: hub.counters.losses, 0.2)

    assert ran.is_refused(2, "is the certificate of fedcell-hub, not of fedcell-hub-releases")
    assert hub.counters.losses == 0


def test_half_of_a_certificate_is_refused(broker, tmp_path):
    make_key_file(tmp_path / "server.pem")
    config = settings_file(broker, tmp_path, release_tls_key=tmp_path / "releases.key")

    ran = fedcell("release", "serve", "--once", "--config", config)

    assert ran.is_refused(2, "release_tls_certificate: is missing")


def test_files_are_not_served_by_a_certificate_without_its_key(broker, tmp_path):
    authority = broker.fleet.home.folder
    told = ("--releases", tmp_path, "--port", "0")

    ran = fedcell("release", "files", *told, "--certificate", authority / "release-files.pem")

    assert ran.is_refused(2, "certificate: ", "fedcell fleet certify release-files")
