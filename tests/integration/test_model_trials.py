"""Bundles on trial in real folders: starts, reports, damage, refusals, disks that refuse."""

import errno
import json
import logging
import os
import stat
from datetime import UTC, datetime

import pytest

from edge_client.errors import SlotError
from edge_client.model_store import ModelStore
from edge_client.updates.slot_file import SlotFile, _check
from edge_client.updates.slots import InstalledBundle, SlotName, SlotState, to_json
from models.bundle import load_bundle, write_bundle
from models.errors import BundleError
from tests.support.update_bundles import (
    resigned,
    trusted_keys,
    try_out_here,
    variant,
    write_variant,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A store of models that tries bundles out without a process of their own."""
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    return ModelStore.beside(tmp_path / "device.db")


def install(models, number=1, **choices):
    leave = {name: choices.pop(name) for name in tuple(choices) if name.startswith("allow_")}
    path = write_variant(models.folder.parent / f"{number}.zip", number, **choices)
    return models.install(path, trusted_keys=trusted_keys(), now=NOW, **leave)


def install_and_commit(models, number=1, **choices):
    installed = install(models, number, **choices)
    models.open()
    assert models.commit(NOW)
    return installed


def restarted(models):
    return ModelStore(models.folder)


def test_new_bundle_is_on_trial_until_it_made_a_report(models):
    installed = install(models, release=7)
    assert (models.installed(), models.committed()) == (installed, None)
    assert models.is_on_trial()
    assert installed.release == 7
    assert models.open().version == "update-1"
    assert models.commit(NOW)
    assert restarted(models).committed() == installed
    assert not models.is_on_trial()
    assert models.state().committed_at == "2026-06-01T12:00:00+00:00"
    assert models.commit(NOW) is False


def test_fourth_start_without_a_report_goes_back_and_says_so(models):
    install_and_commit(models, 1)
    install(models, 2)
    for _ in range(3):
        started = restarted(models)
        assert started.begin_boot(NOW) is None
        assert started.open().version == "update-2"
    back = restarted(models)
    assert (back.begin_boot(NOW).version, back.last_refusal().reason) == ("update-2", "no_report")
    assert back.last_refusal().at == "2026-06-01T12:00:00+00:00"
    assert back.open().version == "update-1"
    assert back.begin_boot(NOW) is None


def test_one_object_counts_one_start_of_a_bundle(models):
    """The client and the agent of one process may both say that it starts."""
    install(models, 1)
    for _ in range(5):
        assert models.begin_boot(NOW) is None
    assert models.state().starts == 1
    install(models, 2)
    models.begin_boot(NOW)
    assert models.state().starts == 1


def test_first_bundle_of_a_device_goes_back_to_the_default_one(models):
    install(models)
    for _ in range(4):
        restarted(models).begin_boot(NOW)
    assert models.open().digest == load_bundle().digest
    assert models.installed() is None


def test_nothing_goes_back_after_a_commit(models):
    install_and_commit(models, 1)
    for _ in range(10):
        assert restarted(models).begin_boot(NOW) is None
    assert models.open().version == "update-1"


def test_version_that_was_rolled_back_is_refused_recorded_and_taken_with_leave(models):
    install(models, 1)
    for _ in range(4):
        restarted(models).begin_boot(NOW)
    with pytest.raises(BundleError, match=r"failed its trial .*--allow-rolled-back"):
        install(models, 1)
    assert models.last_refusal().reason == "rolled_back_before"
    assert install(models, 1, allow_rolled_back=True).version == "update-1"


def test_older_release_is_refused_recorded_and_taken_with_leave(models):
    install_and_commit(models, 5, release=5)
    with pytest.raises(BundleError, match="release 4 is older than 5") as refusal:
        install(models, 4, release=4)
    assert refusal.value.exit_code == 5
    assert (models.last_refusal().version, models.last_refusal().reason) == (
        "update-4",
        "older_release",
    )
    assert models.open().version == "update-5"
    assert install(models, 4, release=4, allow_older=True).release == 4


def test_bundle_without_release_is_no_way_back_past_the_committed_one(models):
    """Whatever was once signed without a number could be offered again for ever."""
    install_and_commit(models, 5, release=5)
    with pytest.raises(BundleError, match=r"no release number, and release 5 runs here.*--allow"):
        install(models, 6)
    assert models.last_refusal().reason == "older_release"
    assert install(models, 6, allow_older=True).release is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"feature_spec_digest": "0" * 64}, "unsupported_spec"),
        ({"least_client_version": "99.0"}, "client_too_old"),
    ],
)
def test_bundle_that_this_client_cannot_serve_is_refused_and_recorded(models, change, reason):
    with pytest.raises(BundleError):
        install(models, 3, manifest=change)
    refusal = restarted(models).last_refusal()
    assert (refusal.version, refusal.reason) == ("update-3", reason)
    assert models.open().digest == load_bundle().digest


def test_report_of_another_bundle_commits_nothing(models):
    """A process that still runs the old model reports while a new one was installed."""
    install_and_commit(models, 1)
    running = restarted(models)
    running.open()
    second = install(models, 2)
    assert running.commit(NOW) is False
    assert running.is_on_trial()
    assert running.commit(NOW, digest=second.digest)


def test_damaged_trial_is_rolled_back_at_once_and_may_come_again(models, caplog):
    install_and_commit(models, 1)
    damaged = install(models, 2)
    path = models.folder / damaged.file
    path.write_bytes(path.read_bytes()[:300])
    with caplog.at_level(logging.WARNING):
        assert models.open(now=NOW).version == "update-1"
    assert models.last_refusal().reason == "slot_damaged"
    assert "given up" in caplog.text
    assert install(models, 2).version == "update-2"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [flip_a_bit, lambda path: path.write_bytes(b""), os.unlink])
def test_damaged_committed_slot_gives_way_to_the_default_and_installing_again_mends(
    models, harm, caplog
):
    installed = install_and_commit(models, 1)
    harm(models.folder / installed.file)
    for at in (NOW, datetime.now(UTC)):
        starting = restarted(models)
        with caplog.at_level(logging.WARNING):
            assert starting.begin_boot(at) is None
            assert starting.open(now=at).digest == load_bundle().digest
        assert starting.commit(at) is False
    assert "update-1 is not run" in caplog.text
    refusal = models.last_refusal()
    assert (refusal.version, refusal.reason) == ("update-1", "slot_damaged")
    assert refusal.at == "2026-06-01T12:00:00+00:00"
    assert install(models, 1) == installed
    assert models.open().version == "update-1"


def test_damaged_committed_slot_gives_way_to_the_one_before_it(models):
    install_and_commit(models, 1)
    second = install_and_commit(models, 2)
    flip_a_bit(models.folder / second.file)
    assert restarted(models).open(now=NOW).version == "update-1"
    assert models.last_refusal().version == "update-2"
    install(models, 3)
    assert restarted(models).open().version == "update-3"


def test_damage_of_both_slots_leaves_the_default(models):
    install_and_commit(models, 1)
    committed = install_and_commit(models, 2)
    trial = install(models, 3)
    for held in (committed, trial):
        flip_a_bit(models.folder / held.file)
    assert restarted(models).open(now=NOW).digest == load_bundle().digest
    assert models.last_refusal().version == "update-2"
    assert not models.is_on_trial()


def test_slot_with_a_foreign_manifest_is_damage_whatever_it_calls_itself(models):
    installed = install_and_commit(models, 1)
    foreign = variant(9, manifest={"format": 2, "version": "call 555-0100"})
    write_bundle(foreign, models.folder / installed.file)
    assert restarted(models).open(now=NOW).digest == load_bundle().digest
    refusal = models.last_refusal()
    assert (refusal.version, refusal.reason) == ("update-1", "slot_damaged")


def test_committed_bundle_that_a_changed_client_cannot_serve_gives_way_to_the_default(models):
    """After fedcell itself was changed, its own model fits, whatever was installed before."""
    stranger = variant(9, manifest={"feature_spec_digest": "0" * 64})
    write_bundle(stranger, models.folder / "a-stranger.zip")
    held = InstalledBundle("update-9", stranger.digest, "test", file="a-stranger.zip")
    state = SlotState(committed=SlotName.A, a=held)
    (models.folder / "slots.json").write_text(json.dumps(to_json(state) | {"schema": 1}))
    for at in (NOW, datetime.now(UTC)):
        assert models.open(now=at).digest == load_bundle().digest
    assert models.last_refusal().reason == "unsupported_spec"
    assert models.last_refusal().at == "2026-06-01T12:00:00+00:00"
    assert models.committed() == held


def test_folder_holds_no_more_than_two_bundles_and_the_state(models):
    for number in (1, 2, 3):
        install_and_commit(models, number)
    (models.folder / ".slots.json.99999.part").write_bytes(b"half")
    install(models, 4)
    kept = {path.name for path in models.folder.iterdir()}
    assert len([name for name in kept if name.endswith(".zip")]) == 2
    assert kept - {name for name in kept if name.endswith(".zip")} == {
        "slots.json",
        "slots.copy.json",
        ".lock",
    }
    assert stat.S_IMODE(models.folder.stat().st_mode) == 0o700


def test_state_is_json_that_people_can_read(models):
    install(models, 1, release=3)
    state = json.loads((models.folder / "slots.json").read_text())
    assert (state["schema"], state["trial"], state["starts"]) == (2, "a", 0)
    assert (state["a"]["version"], state["a"]["release"]) == ("update-1", 3)


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"schema": 1}', b"\xff\x00", b"[" * 9999, b'{"schema": 3}']
)
def test_damaged_state_gives_way_to_its_copy(models, content, caplog):
    installed = install_and_commit(models, 7, release=7)
    (models.folder / "slots.json").write_bytes(content)
    assert models.committed() == installed
    starting = restarted(models)
    with caplog.at_level(logging.WARNING):
        assert starting.open(now=NOW).version == "update-7"
    assert "written anew: slots.json is damaged" in caplog.text
    assert (models.folder / "slots.json.damaged").read_bytes() == content
    assert models.last_refusal().reason == "slot_damaged"
    assert models.mend_record() is None
    with pytest.raises(BundleError, match="older"):
        install(models, 6, release=6)


def test_every_flipped_bit_of_a_record_is_noticed(models):
    install_and_commit(models, 7, release=7)
    install_and_commit(models, 8, release=8)
    path, state = models.folder / "slots.json", models.state()
    content = path.read_bytes()
    (models.folder / "slots.copy.json").unlink()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert models.state() in {state, SlotState()}, bytes(flipped)
        assert models.state() == state or SlotFile(models.folder).damage() is not None


def test_commit_that_a_power_cut_halved_holds_though_one_record_is_damaged(models):
    install_and_commit(models, 7, release=7)
    install(models, 8, release=8)
    before = (models.folder / "slots.json").read_bytes()
    for _ in range(3):
        restarted(models).begin_boot(NOW)
    starting = restarted(models)
    starting.open(now=NOW)
    assert starting.commit(NOW)
    (models.folder / "slots.json").write_bytes(before)
    assert restarted(models).committed().version == "update-8"
    assert restarted(models).open(now=NOW).version == "update-8"
    for name in ("slots.json", "slots.copy.json"):
        kept = (models.folder / name).read_bytes()
        (models.folder / name).write_bytes(b"{")
        assert restarted(models).begin_boot(NOW) is None
        assert restarted(models).committed().version == "update-8"
        (models.folder / name).write_bytes(kept)


def test_record_of_a_newer_fedcell_is_left_alone(models, caplog):
    install_and_commit(models, 1)
    newer = {"schema": 3, "number": 9, "something": "else"}
    content = json.dumps(newer | {"check": _check(newer)})
    for name in ("slots.json", "slots.copy.json"):
        (models.folder / name).write_text(content)
    starting = restarted(models)
    with caplog.at_level(logging.WARNING):
        assert starting.open(now=NOW).digest == load_bundle().digest
    assert starting.commit(NOW) is False
    assert "was written by a newer fedcell" in caplog.text
    with pytest.raises(SlotError, match="newer fedcell"):
        install(models, 2)
    assert (models.folder / "slots.json").read_text() == content
    assert len(list(models.folder.glob("*.zip"))) == 1


def test_passing_read_error_does_not_end_a_trial(models, monkeypatch, caplog):
    install_and_commit(models, 1)
    on_trial = install(models, 2)
    starting = restarted(models)

    def too_many(*_arguments, **_choices):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as now_and_then, caplog.at_level(logging.WARNING):
        real = ModelStore._load
        now_and_then.setattr(
            ModelStore,
            "_load",
            lambda self, held: too_many() if held == on_trial else real(self, held),
        )
        assert starting.open(now=NOW).version == "update-1"
    assert "not run this time" in caplog.text
    assert restarted(models).open(now=NOW).version == "update-2"


@pytest.mark.parametrize("version", ["v" * 65, "", "-v", "v 1", "v\n1", "vé", 7])
def test_bundle_whose_version_no_message_can_name_is_refused(models, version):
    with pytest.raises(BundleError, match="values that cannot be"):
        install(models, 1, manifest={"version": version})
    assert models.installed() is None


def test_state_and_copy_both_damaged_leave_the_default(models):
    install_and_commit(models, 1)
    for name in ("slots.json", "slots.copy.json"):
        (models.folder / name).write_bytes(b"{")
    starting = restarted(models)
    assert starting.open(now=NOW).digest == load_bundle().digest
    assert starting.commit(NOW) is False
    assert models.last_refusal().reason == "slot_damaged"
    assert install(models, 1).version == "update-1"


def test_update_on_a_damaged_state_begins_it_anew(models):
    models.folder.mkdir()
    (models.folder / "slots.json").write_text("{")
    installed = install_and_commit(models, 1)
    assert restarted(models).committed() == installed


def test_disk_that_refuses_to_read_the_state_leaves_the_default_and_the_state(
    models, monkeypatch, caplog
):
    install_and_commit(models, 1)
    install(models, 2)
    (models.folder / "slots.json").rename(models.folder / "kept")
    (models.folder / "slots.json").mkdir()
    starting = restarted(models)
    with caplog.at_level(logging.WARNING):
        assert starting.begin_boot(NOW) is None
        assert starting.open(now=NOW).digest == load_bundle().digest
        assert starting.commit(NOW) is False
    assert "cannot be read (Is a directory)" in caplog.text
    with pytest.raises(SlotError, match="check the disk"):
        install(models, 3)
    (models.folder / "slots.json").rmdir()
    (models.folder / "kept").rename(models.folder / "slots.json")
    assert restarted(models).open().version == "update-2"


def test_trial_that_another_process_committed_was_not_given_up(models, monkeypatch, caplog):
    install(models, 1)
    for _ in range(4):
        restarted(models).begin_boot(NOW)
    install(models, 2)
    starting = restarted(models)
    earlier = starting.state()
    models.open()
    assert models.commit(NOW)
    monkeypatch.setattr(starting, "_on_trial", lambda: earlier.running)
    caplog.clear()
    assert starting.begin_boot(NOW) is None
    assert "given up" not in caplog.text


def test_disk_that_refuses_the_state_changes_nothing(models, monkeypatch, caplog):
    install_and_commit(models, 1)
    install(models, 2)
    third = write_variant(models.folder.parent / "3.zip", 3)

    def refuse(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.durable_file.write_durably", refuse)
    starting = restarted(models)
    with caplog.at_level(logging.WARNING):
        assert starting.begin_boot(NOW) is None
    assert starting.open().version == "update-1"
    assert "stays as it was" in caplog.text
    assert starting.commit(NOW, digest=models.installed().digest) is False
    monkeypatch.setattr("models.bundle.write_durably", refuse)
    with pytest.raises(SlotError, match="No space left on device"):
        models.install(third, trusted_keys=trusted_keys())
    monkeypatch.undo()
    assert restarted(models).open().version == "update-2"


def test_refusal_is_recorded_for_a_device_that_never_had_a_bundle(models, tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"not a zip")
    with pytest.raises(BundleError):
        models.install(tmp_path / "bad.zip", trusted_keys={}, now=NOW)
    refusal = models.last_refusal()
    assert (refusal.version, refusal.reason) == ("", "altered")
    assert models.open().digest == load_bundle().digest


def test_signature_is_not_kept_and_its_digest_is(models):
    installed = install(models)
    assert installed.digest == resigned(variant(1)).digest
    assert "signature" not in models.open().manifest


def test_default_bundle_that_ran_commits_no_trial(models):
    """What was installed after the model was loaded has made no report."""
    running = restarted(models)
    running.open()
    install(models, 1)
    assert running.commit(NOW) is False
    assert models.is_on_trial()


def test_bundle_that_vanished_while_it_was_looked_up_is_looked_up_again(models, monkeypatch):
    """Another process may install and commit between the state and the file."""
    first = install_and_commit(models, 1)
    reading = restarted(models)
    earlier = reading.state()
    install_and_commit(models, 2)
    install_and_commit(models, 3)
    assert not (models.folder / first.file).exists()
    states = [earlier]
    real = reading._file.read
    monkeypatch.setattr(reading._file, "read", lambda: states.pop() if states else real())
    assert reading.open().version == "update-3"
