import json
import stat

import pytest

from models.wire.envelope import open_signed, trusted_keys
from models.wire.messages import Notice, decode
from server.errors import KeyFileError, KeyFileMissingError
from server.signer import load_signer, make_key_file, public_key_path
from tests.support.wire_messages import notice


def test_a_made_key_signs_what_its_public_half_verifies(tmp_path):
    made = make_key_file(tmp_path / "keys" / "hub.pem")
    signer = load_signer(tmp_path / "keys" / "hub.pem")

    opened = open_signed(signer.signed(notice()), trusted_keys(made))

    assert decode(opened, Notice) == notice()


def test_only_the_owner_may_read_a_key_and_devices_get_the_public_half(tmp_path):
    path = tmp_path / "hub.pem"
    made = make_key_file(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(public_key_path(path).read_text()) == {made.key_id: made.to_bytes().hex()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub.pem", "hub.pem.public.json"]


def test_a_key_is_never_overwritten(tmp_path):
    path = tmp_path / "hub.pem"
    path.write_text("precious")

    with pytest.raises(KeyFileError, match="is there already"):
        make_key_file(path)

    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["hub.pem"]


def test_a_key_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "hub.pem"
    make_key_file(path)
    path.chmod(0o644)

    with pytest.raises(KeyFileError, match=r"others may read it \(mode 0644\); chmod 600") as error:
        load_signer(path)

    assert error.value.exit_code == 5


def test_a_missing_key_says_how_to_make_one(tmp_path):
    with pytest.raises(KeyFileMissingError, match="fedcell server key --out") as missing:
        load_signer(tmp_path / "hub.pem")

    assert missing.value.exit_code == 4


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_without_a_key_is_refused(tmp_path, content):
    path = tmp_path / "hub.pem"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(KeyFileError, match="PEM"):
        load_signer(path)


def test_a_folder_that_cannot_hold_a_key_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(KeyFileError, match="folder cannot be made"):
        make_key_file(tmp_path / "file" / "hub.pem")
