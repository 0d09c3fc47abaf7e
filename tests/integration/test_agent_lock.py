"""The lock of a running agent: nobody takes it away, nor the store from under it."""

import pytest

from edge_client.errors import IdentityError, StoreBusyError
from edge_client.link.agent_lock import agent_lock, lock_path
from edge_client.provisioning.first_boot import retire
from edge_client.provisioning.identity import make_identity
from edge_client.store.erasure import erase_device
from edge_client.store.quarantine import FORMER
from tests.support.edge_devices import NOW, new_store

HERE = b"3d1219c7c4c5404aaa1f6d2a48adfda4"


@pytest.fixture
def path(tmp_path):
    new_store(tmp_path).close()
    return tmp_path / "device.db"


@pytest.mark.parametrize(
    "take_away",
    [
        lambda path: erase_device(path, now=NOW),
        lambda path: retire(path, device_id="device-2", erase=False),
        lambda path: retire(path, device_id="device-2", erase=True),
    ],
    ids=["erase", "aside", "new device"],
)
def test_a_store_is_not_taken_away_while_its_agent_runs(path, take_away):
    before = {file: file.stat().st_ino for file in path.parent.iterdir()}
    with agent_lock(path):
        held = lock_path(path).stat().st_ino
        with pytest.raises(StoreBusyError, match="its agent runs; nothing was removed") as caught:
            take_away(path)
        assert caught.value.exit_code == 6
        assert lock_path(path).stat().st_ino == held
    assert {file: file.stat().st_ino for file in path.parent.iterdir()} == before
    take_away(path)
    assert not path.exists()
    assert not lock_path(path).exists()


def test_an_agent_whose_lock_was_replaced_leaves_the_new_one_alone(path):
    first, second = agent_lock(path), agent_lock(path)
    first.__enter__()
    lock_path(path).unlink()
    second.__enter__()
    held = lock_path(path).stat().st_ino
    first.__exit__(None, None, None)
    assert lock_path(path).stat().st_ino == held
    with pytest.raises(StoreBusyError, match="another agent holds it"), agent_lock(path):
        pass
    second.__exit__(None, None, None)
    assert not lock_path(path).exists()


def test_a_file_that_is_named_as_a_folder_of_a_former_device_stays(path):
    stranger = path.with_name(f"{path.name}{FORMER}3")
    stranger.write_text("somebody's")
    erase_device(path, now=NOW)
    assert not path.exists()
    assert stranger.read_text() == "somebody's"


def test_another_name_on_the_same_hardware_is_not_told_to_give_the_same_again(path):
    make_identity(path, device_id="device-1", hardware_id=HERE)
    erase_device(path, now=NOW)
    with pytest.raises(IdentityError, match="is that of device-1, not of device-2") as caught:
        make_identity(path, device_id="device-2", hardware_id=HERE)
    assert "give that device id: this hardware keeps its name" in str(caught.value)
    assert "--new-device" not in str(caught.value)
