"""Releases under attack: replay, freeze, rollback, downgrade, wrong keys, expiry; and crashes."""

import json
import shutil
from datetime import timedelta
from itertools import pairwise

import pytest

from edge_client.errors import NoticeRefusedError
from edge_client.link.config_receiver import keep_configuration
from edge_client.link.release_watch import keep_announcement
from edge_client.updates.follower import check_in
from models.bundle import load_bundle, write_bundle
from models.errors import BundleError
from models.wire.announcements import release_topic
from models.wire.envelope import SigningKey
from server.errors import RegistryError
from server.releases import repository as server_repository
from server.releases.admission import Payment
from server.releases.release_errors import ReleaseError
from server.releases.repository import TargetContent, first_root, rotated_root
from server.releases.rings import ReleaseState, Ring
from server.releases.signing import numbered, sign_request
from server.storage.releases import Releases
from tests.support.edge_devices import NOW, new_store
from tests.support.releases import (
    RELEASE_KEY,
    ROOT_KEY,
    SERVER_KEY,
    LightDevice,
    now,
    release_lab,
)
from tests.support.update_bundles import try_out_here
from tests.support.wire_messages import ISSUED, announcement, configuration

STRANGER = SigningKey.from_bytes(bytes([9]) * 32)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    with release_lab(tmp_path) as found:
        yield found


@pytest.fixture
def device(lab, tmp_path):
    """A device that has taken release 1."""
    found = LightDevice(tmp_path, "device-1")
    lab.started(lab.bundle(1))
    found.check_in(lab.source)
    assert found.version == "update-1"
    return found


def refused(device, lab, reason):
    """Look, and expect a refusal that is recorded and leaves the model as it is."""
    before = device.version
    with pytest.raises(BundleError) as refusal:
        check_in(device.models, lab.source, now=now())
    assert refusal.value.reason == reason
    assert device.models.last_refusal().reason == reason
    assert device.version == before


def offer(lab, bundle, *, key=SERVER_KEY, days=0):
    """Publish a bundle to the fleet past the desk, as whoever holds the server's key could."""
    path = lab.folder / "offered.zip"
    write_bundle(bundle, path)
    version = lab.desk.repository.version() + 1
    custom = {"version": str(bundle.version), "least_client_version": "0.1.0"}
    lab.desk.repository.publish(
        {"fleet/1.zip": TargetContent(path.read_bytes(), custom)},
        version=version,
        key=key,
        now=now() - timedelta(days=days),
    )()


def signed_by(lab, number, release, key=RELEASE_KEY):
    from models.bundle import sign_bundle

    bundle = load_bundle(lab.bundle(number), allow_unsigned=True)
    return sign_bundle(
        bundle, key_id=key.verify_key.key_id, private_key=key.to_bytes(), release=release
    )


def test_a_frozen_repository_is_refused_and_a_fresh_one_recovers(device, lab):
    offer(lab, signed_by(lab, 2, 9), days=8)
    refused(device, lab, "repository")

    offer(lab, signed_by(lab, 2, 9))
    device.check_in(lab.source)
    assert device.version == "update-2"


def test_metadata_of_an_earlier_day_are_refused(device, lab, tmp_path):
    folder = lab.desk.repository.folder
    shutil.copytree(folder, tmp_path / "earlier")
    offer(lab, signed_by(lab, 2, 9))
    device.check_in(lab.source)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "earlier", folder)

    refused(device, lab, "repository")


def test_an_older_release_is_refused_though_its_metadata_are_fresh(device, lab):
    offer(lab, signed_by(lab, 2, 9))
    device.check_in(lab.source)
    offer(lab, signed_by(lab, 3, 8))

    refused(device, lab, "older_release")


def test_a_bundle_of_a_strangers_key_is_refused_though_the_server_offers_it(device, lab):
    offer(lab, signed_by(lab, 2, 9, key=STRANGER))
    refused(device, lab, "untrusted")

    forged = signed_by(lab, 2, 9, key=STRANGER)
    claims_ours = numbered(
        forged,
        number=9,
        key_id=RELEASE_KEY.verify_key.key_id,
        signature=forged.manifest["signature"]["value"],
    )
    offer(lab, claims_ours)
    refused(device, lab, "untrusted")


def test_metadata_of_a_strangers_key_are_refused(device, lab, monkeypatch):
    with pytest.raises(ReleaseError, match="is not the root's"):
        offer(lab, signed_by(lab, 2, 9), key=STRANGER)
    strange = server_repository.tuf_key(STRANGER.verify_key)
    ours = server_repository.tuf_key(SERVER_KEY.verify_key)

    class Liar(server_repository._Ed25519Signer):
        """Signs with its own key under our key's name."""

        def __init__(self, _key):
            super().__init__(STRANGER)
            self._public = ours

    assert strange.keyid != ours.keyid
    monkeypatch.setattr(server_repository, "_Ed25519Signer", Liar)
    offer(lab, signed_by(lab, 2, 9))
    refused(device, lab, "repository")


def rotated(lab, folder, **choices):
    """Make the next root in a folder."""
    values = {
        "old_root_keys": [ROOT_KEY],
        "root_keys": [ROOT_KEY],
        "release_key": RELEASE_KEY,
        "online_key": SERVER_KEY.verify_key,
        "now": now(),
    }
    current = lab.desk.repository.folder / "metadata"
    newest = max(current.glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0]))
    root, targets = rotated_root(
        lab.desk.repository.root(), newest.read_bytes(), **(values | choices)
    )
    folder.mkdir()
    (folder / "root.json").write_bytes(root)
    (folder / "targets.json").write_bytes(targets)
    return folder


def test_keys_rotate_through_a_chain_of_roots_and_old_ones_end(device, lab, tmp_path):
    new_root, new_release = (SigningKey.from_bytes(bytes([n]) * 32) for n in (11, 12))
    lab.desk.accept_root(rotated(lab, tmp_path / "r2", root_keys=[new_root]), now=now())
    lab.desk.accept_root(
        rotated(
            lab,
            tmp_path / "r3",
            old_root_keys=[new_root],
            root_keys=[new_root],
            release_key=new_release,
        ),
        now=now(),
    )

    offer(lab, signed_by(lab, 2, 9))
    refused(device, lab, "untrusted")
    offer(lab, signed_by(lab, 2, 9, key=new_release))
    device.check_in(lab.source)
    assert device.version == "update-2"


def test_a_root_that_the_old_keys_did_not_sign_is_refused_by_server_and_device(
    device, lab, tmp_path
):
    with pytest.raises(ReleaseError, match="not signed by the keys in force"):
        rotated(lab, tmp_path / "r2", old_root_keys=[STRANGER], root_keys=[STRANGER])
    root, _ = first_root(
        root_keys=[STRANGER],
        release_key=STRANGER,
        online_key=STRANGER.verify_key,
        now=now(),
    )
    content = json.loads(root)
    (lab.desk.repository.folder / "metadata" / "2.root.json").write_text(json.dumps(content))

    refused(device, lab, "repository")


def test_a_device_that_was_away_for_long_keeps_its_model_and_recovers(device, lab, tmp_path):
    keys = [ROOT_KEY, *(SigningKey.from_bytes(bytes([n]) * 32) for n in range(20, 25))]
    for old, new in pairwise(keys):
        folder = tmp_path / f"root-{new.verify_key.key_id}"
        lab.desk.accept_root(rotated(lab, folder, old_root_keys=[old], root_keys=[new]), now=now())
    offer(lab, signed_by(lab, 2, 9), days=200)
    refused(device, lab, "repository")

    offer(lab, signed_by(lab, 3, 11))
    device.check_in(lab.source)
    assert device.version == "update-3"


# --- announcements ------------------------------------------------------------------------------


def test_announcements_are_heard_once_in_order_in_time_and_for_ones_own_ring(tmp_path):
    with new_store(tmp_path) as store:

        def hear(topic=None, at=ISSUED, **changes):
            told = announcement(**changes)
            return keep_announcement(store, told, topic=topic or release_topic(told.ring), now=at)

        assert hear(sequence=3) is False
        keep_configuration(store, configuration(ring="canary"), now=NOW)
        assert hear(sequence=3) is True
        assert hear(sequence=3) is False
        assert hear(sequence=4) is True
        for reason, again in (
            ("replayed", {"sequence": 2}),
            ("expired", {"sequence": 5, "at": ISSUED + timedelta(days=92)}),
            ("foreign_ring", {"sequence": 5, "topic": release_topic("fleet")}),
        ):
            with pytest.raises(NoticeRefusedError) as refusal:
                hear(**again)
            assert refusal.value.reason == reason
        assert hear(sequence=9, ring="fleet") is False


# --- what the server refuses --------------------------------------------------------------------


def test_an_answer_of_a_strangers_key_or_of_another_release_is_refused(lab):
    _, request = lab.propose(lab.bundle(1))
    with pytest.raises(ReleaseError, match="unknown key"):
        lab.desk.accept(sign_request(request, STRANGER), now=now())
    answer = sign_request(request, RELEASE_KEY)
    told = json.loads(answer.read_bytes())
    answer.write_text(json.dumps(told | {"candidate": told["back"]}))
    with pytest.raises(ReleaseError, match="not of this content"):
        lab.desk.accept(answer, now=now())
    assert lab.desk.accept(sign_request(request, RELEASE_KEY), now=now()).rollout.state is (
        ReleaseState.SIGNED
    )


def test_what_has_no_ledger_entry_no_card_no_audit_does_not_enter(lab, tmp_path):
    stream = {"kind": "stream", "index": 0, "hash": "ab" * 32}
    cases = (
        ("quotes no ledger entry", lab.bundle(1, manifest={"ledger_entry": {}})),
        (
            "which this ledger does not hold",
            lab.bundle(2, manifest={"ledger_entry": stream | {"kind": "public"}}),
        ),
        ("has no audit", lab.bundle(3, manifest={"ledger_entry": stream})),
        ("has no model card", lab.bundle(4, files={"model_card.json": b"{}"})),
    )
    for says, path in cases:
        with pytest.raises(RegistryError, match=says):
            lab.propose(path)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(lab.bundle(5), run / "bundle.zip")
    with pytest.raises(RegistryError, match=r"has no proposal\.json"):
        lab.desk.propose(run, Payment(home=lab.home), policy=None, now=now())
    candidate = load_bundle(run / "bundle.zip", allow_unsigned=True)
    decision = {"candidate": {"digest": candidate.digest}, "passed": False}
    (run / "proposal.json").write_text(json.dumps(decision))
    with pytest.raises(RegistryError, match="not passed by the quality gate"):
        lab.desk.propose(run, Payment(home=lab.home), policy=None, now=now())


def test_a_crash_at_any_write_leaves_one_side(lab, tmp_path, monkeypatch):
    """Each write of a start fails once: nothing is offered, or all of it; then it goes on."""
    lab.rings(Ring("canary", devices=frozenset({"device-1"})))
    number = lab.signed(lab.bundle(1)).rollout.number
    real, left = server_repository.write_durably, [0]

    def write(path, content):
        if left[0] == 0:
            raise OSError(28, "no space left")
        left[0] -= 1
        real(path, content)

    monkeypatch.setattr(server_repository, "write_durably", write)
    for allowed in range(3):
        left[0] = allowed
        with pytest.raises(OSError, match="no space left"):
            lab.desk.start(number, now=now())
        device = LightDevice(tmp_path, f"device-at-{allowed}", ring="canary")
        device.check_in(lab.source)
        assert device.version.startswith("default")
        with lab.database.transaction() as connection:
            state = Releases(connection).get(number).rollout.state
        # The last write follows the commit: the database goes ahead, and the next step finishes.
        assert state is (ReleaseState.SIGNED if allowed < 2 else ReleaseState.ROLLING)
        if allowed < 2:
            assert lab.desk.repository.current() == {}
    left[0] = 10
    lab.desk.advance(now=now())
    device = LightDevice(tmp_path, "device-1", ring="canary")
    device.check_in(lab.source)
    assert device.version == "update-1"
