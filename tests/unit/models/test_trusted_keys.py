import json

import pytest

from models.errors import ArtefactMissingError, BundleError
from models.trusted_keys import read_trusted_keys

KEY = "ab" * 32


def test_keys_are_read_by_their_names(tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps({"release": KEY, "test": "00" * 32}))

    assert read_trusted_keys(tmp_path / "keys.json") == {
        "release": bytes.fromhex(KEY),
        "test": bytes(32),
    }


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"x"', '{"k": 3}', '{"k": "xyz"}', '{"k": "abcd"}', '{"k": null}', "\udcff"],
)
def test_files_that_hold_no_keys_are_refused_with_a_remedy(tmp_path, text):
    (tmp_path / "keys.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(BundleError, match="write \\{") as refused:
        read_trusted_keys(tmp_path / "keys.json")
    assert refused.value.exit_code == 5


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ArtefactMissingError, match="no such key file") as missing:
        read_trusted_keys(tmp_path / "keys.json")
    assert missing.value.exit_code == 4


def test_a_file_that_is_there_and_cannot_be_read_is_not_called_missing(tmp_path):
    with pytest.raises(BundleError, match="cannot be read: Is a directory") as refused:
        read_trusted_keys(tmp_path)
    assert refused.value.exit_code == 5
