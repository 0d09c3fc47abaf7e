"""What a bundle must be to be loaded, and that everything else is refused with one error."""

import io
import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from models import bundle as bundles
from models.bundle import (
    CARD_JSON,
    CLIENT_VERSION,
    FILES,
    GOLDEN,
    MANIFEST,
    MAX_FILE_BYTES,
    MODEL,
    Bundle,
    canonical_json,
    load_bundle,
    manifest_digest,
    sign_bundle,
    write_bundle,
)
from models.errors import ArtefactMissingError, BundleError, UnsupportedSpecError
from tests.support.line_bundle import KEY_ID, PRIVATE_KEY, line_bundle, trusted_keys


@pytest.fixture(scope="module")
def signed():
    return sign_bundle(line_bundle(), key_id=KEY_ID, private_key=PRIVATE_KEY)


@pytest.fixture(scope="module")
def zipped(signed, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    write_bundle(signed, path)
    return path


def load(path):
    return load_bundle(path, trusted_keys=trusted_keys())


def with_manifest(bundle: Bundle, manifest) -> Bundle:
    content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return replace(bundle, files={**bundle.files, MANIFEST: content})


def with_signed_manifest(bundle: Bundle, change) -> Bundle:
    changed = replace(bundle, manifest={**bundle.manifest, **change})
    return sign_bundle(changed, key_id=KEY_ID, private_key=PRIVATE_KEY)


def test_what_was_written_is_loaded(signed, zipped):
    loaded = load(zipped)

    assert loaded.files == signed.files
    assert (loaded.digest, loaded.version) == (signed.digest, signed.version)
    assert loaded.threshold == 0.5
    assert np.isnan(loaded.golden()["features"]).sum() == 1
    assert loaded.card["version"] == signed.version


def test_zips_of_the_same_content_are_the_same_bytes_and_leave_nothing_beside(signed, tmp_path):
    for name in ("a.zip", "sub/b.zip"):
        write_bundle(signed, tmp_path / name)

    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "sub/b.zip").read_bytes()
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["b.zip"]


def test_a_folder_is_as_good_as_a_zip(signed, zipped, tmp_path):
    shutil.unpack_archive(zipped, tmp_path)

    assert load(tmp_path).files == signed.files
    (tmp_path / GOLDEN).unlink()
    with pytest.raises(BundleError, match="golden"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"\xff\xfe" * 32, BundleError, "is not the pinned one"),
        (None, ArtefactMissingError, "bundle.sha256, which pins it, cannot be read"),
    ],
)
def test_a_pin_that_is_no_text_or_missing_says_to_install_again(
    tmp_path, monkeypatch, content, error, says
):
    shutil.copytree(bundles.DEFAULT_FOLDER, tmp_path / "folder")
    monkeypatch.setattr(bundles, "DEFAULT_FOLDER", tmp_path / "folder")
    pin = tmp_path / "folder" / "bundle.sha256"
    pin.unlink()
    if content is not None:
        pin.write_bytes(content)

    with pytest.raises(error, match=f"^default: .*{says}.*; pip install --force-reinstall fedcell"):
        load_bundle()


def test_the_default_bundle_is_pinned_by_its_digest(tmp_path, monkeypatch):
    default = load_bundle()
    pinned = (bundles.DEFAULT_FOLDER / "bundle.sha256").read_text().strip()
    assert default.digest == pinned == manifest_digest(default.manifest)
    assert default.manifest["ledger_entry"]["kind"] == "public"

    shutil.copytree(bundles.DEFAULT_FOLDER, tmp_path / "folder")
    (tmp_path / "folder" / "bundle.sha256").write_text("0" * 64)
    monkeypatch.setattr(bundles, "DEFAULT_FOLDER", tmp_path / "folder")
    with pytest.raises(BundleError, match="not the pinned one"):
        load_bundle()


# Trust


def test_a_bundle_without_signature_needs_leave(tmp_path):
    write_bundle(line_bundle(), tmp_path / "b.zip")

    with pytest.raises(BundleError, match="carries no signature"):
        load(tmp_path / "b.zip")
    assert load_bundle(tmp_path / "b.zip", allow_unsigned=True).version == line_bundle().version


def test_a_key_that_is_not_trusted_is_named(zipped):
    with pytest.raises(BundleError, match="unknown key 'test'"):
        load_bundle(zipped)


def test_a_signature_of_other_content_is_refused_even_where_unsigned_bundles_are_allowed(
    signed, tmp_path
):
    other = sign_bundle(line_bundle(scale=2.0), key_id=KEY_ID, private_key=PRIVATE_KEY)
    stolen = {**signed.manifest, "signature": other.manifest["signature"]}
    write_bundle(with_manifest(signed, stolen), tmp_path / "b.zip")

    for allow_unsigned in (False, True):
        with pytest.raises(BundleError, match="not of this content"):
            load_bundle(
                tmp_path / "b.zip", trusted_keys=trusted_keys(), allow_unsigned=allow_unsigned
            )


@pytest.mark.parametrize(
    "signature",
    ["", [], 7, {}, {"key_id": KEY_ID}, {"key_id": KEY_ID, "value": "xyz"}, {"value": "00"}],
)
def test_signatures_that_cannot_be_read_are_refused(signed, tmp_path, signature):
    write_bundle(with_manifest(signed, {**signed.manifest, "signature": signature}), tmp_path / "b")

    with pytest.raises(BundleError):
        load(tmp_path / "b")


# What does not fit this client


def test_features_that_this_client_does_not_compute_are_another_error(signed, tmp_path):
    change = {"feature_spec_digest": "0" * 64, "feature_spec_version": "2"}
    write_bundle(with_signed_manifest(signed, change), tmp_path / "b.zip")

    with pytest.raises(UnsupportedSpecError, match="needs feature specification 2"):
        load(tmp_path / "b.zip")


@pytest.mark.parametrize(
    "newer",
    [{"format": 2}, {"format": 2, "files": 7, "thresholds": None}, {"least_client_version": "9"}],
)
def test_a_newer_bundle_asks_for_an_update(signed, tmp_path, newer):
    write_bundle(with_signed_manifest(signed, newer), tmp_path / "b.zip")

    with pytest.raises(BundleError, match="update fedcell") as refusal:
        load(tmp_path / "b.zip")
    assert refusal.value.version == signed.version


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"least_client_version": "9"},
        {"feature_spec_digest": "0" * 64, "feature_spec_version": "install evil.example"},
        {"files": {}},
        {"thresholds": None},
    ],
)
@pytest.mark.parametrize("signed_by", ["nobody", "a stranger", "other content"])
def test_a_manifest_is_not_believed_before_its_signature(signed, tmp_path, change, signed_by):
    """What a stranger wrote is neither judged nor told on: its version could say anything."""
    manifest = {**signed.manifest, "version": "call 555-0100", **change}
    if signed_by == "nobody":
        del manifest["signature"]
    bundle = with_manifest(signed, manifest)
    if signed_by == "a stranger":
        bundle = sign_bundle(
            replace(bundle, manifest=manifest), key_id="x" * 999, private_key=bytes(32)
        )
    write_bundle(bundle, tmp_path / "b.zip")

    with pytest.raises(BundleError) as refusal:
        load(tmp_path / "b.zip")
    assert (refusal.value.reason, refusal.value.version) == ("untrusted", "")
    assert not [said for said in ("555-0100", "evil", "x" * 65) if said in str(refusal.value)]


def test_an_expected_digest_takes_the_place_of_a_signature(signed, zipped, tmp_path):
    assert load_bundle(zipped, expected_digest=signed.digest).files == signed.files

    write_bundle(with_manifest(signed, {**signed.manifest, "format": 2}), tmp_path / "b.zip")
    with pytest.raises(BundleError, match="its digest differs") as refusal:
        load_bundle(tmp_path / "b.zip", expected_digest=signed.digest, allow_unsigned=True)
    assert (refusal.value.reason, refusal.value.version) == ("untrusted", "")


def test_the_client_version_is_that_of_the_package():
    from importlib.metadata import version

    assert ".".join(map(str, CLIENT_VERSION)) == version("fedcell")


# Damage


def test_a_file_that_was_altered_is_named(signed, tmp_path):
    for name in FILES:
        if name == MANIFEST:
            continue
        altered = replace(signed, files={**signed.files, name: signed.files[name] + b" "})
        write_bundle(altered, tmp_path / "b.zip")
        with pytest.raises(BundleError, match=f"{name} was altered"):
            load(tmp_path / "b.zip")


HOSTILE = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "not a number": b'{"format": NaN}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "long number": b'{"format": ' + b"9" * 10_000 + b"}",
}
CHANGES = {
    "files a list": {"files": [1, 2]},
    "files null": {"files": None},
    "files short": {"files": {}},
    "no format": {"format": None},
    "version a number": {"version": 3},
    "least a number": {"least_client_version": 1},
    "least words": {"least_client_version": "one.two"},
    "threshold a word": {"thresholds": {"flag": "high"}},
    "threshold beyond": {"thresholds": {"flag": 1.5}},
    "threshold missing": {"thresholds": {}},
    "threshold NaN": {"thresholds": {"flag": float("nan")}},
    "thresholds a list": {"thresholds": [0.5]},
    "reference short": {"explanation_reference": [0.0]},
    "reference huge": {"explanation_reference": [10**400] * 28},
    "reference infinite": {"explanation_reference": [float("inf")] * 28},
    "reference null": {"explanation_reference": None},
    "NaN somewhere": {"calibration": {"scale": float("nan")}},
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_manifests_that_are_none_are_refused(signed, tmp_path, content):
    write_bundle(with_manifest(signed, content), tmp_path / "b.zip")

    with pytest.raises(BundleError, match="manifest"):
        load(tmp_path / "b.zip")


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_manifests_of_wrong_values_are_refused_even_from_oneself(tmp_path, change):
    plain = line_bundle()
    write_bundle(with_manifest(plain, {**plain.manifest, **change}), tmp_path / "b.zip")
    with pytest.raises(BundleError):
        load_bundle(tmp_path / "b.zip", allow_unsigned=True)


def test_a_bundle_cut_off_anywhere_is_refused(zipped, tmp_path):
    whole = zipped.read_bytes()
    cuts = [
        *range(0, 60, 7),
        *range(60, len(whole) - 200, 97),
        *range(len(whole) - 200, len(whole)),
    ]
    for length in cuts:
        (tmp_path / "cut.zip").write_bytes(whole[:length])
        with pytest.raises(BundleError):
            load(tmp_path / "cut.zip")


@pytest.mark.slow
def test_a_bundle_with_any_changed_byte_is_refused_or_unchanged_in_content(
    signed, zipped, tmp_path
):
    """A zip has bytes that say nothing of its content, such as a date: those may differ."""
    whole = bytearray(zipped.read_bytes())
    rng = np.random.default_rng(0)
    directory = whole.index(b"PK\x01\x02")
    headers = [i for i in range(directory) if whole[i : i + 4] == b"PK\x03\x04"]
    places = {p for h in headers for p in range(h, h + 50)} | set(range(directory, len(whole)))
    places |= set(rng.integers(0, directory, 100).tolist())
    refused = 0
    for place in sorted(places)[::2]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.zip").write_bytes(damaged)
        try:
            loaded = load(tmp_path / "b.zip")
        except BundleError:
            refused += 1
        else:
            assert loaded.files == signed.files
    assert refused > len(places) / 4


def test_other_files_are_no_bundles(tmp_path):
    (tmp_path / "text.zip").write_text("not a zip")
    (tmp_path / "empty.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name in ("text.zip", "empty.zip", "other.zip", "missing.zip"):
        with pytest.raises(BundleError, match=name):
            load(tmp_path / name)


def bomb(name, *, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for file in FILES:
            archive.writestr(file, bytes(48 << 20) if file == name else b"{}")
    return buffer.getvalue()


@pytest.mark.slow
def test_a_member_that_unpacks_to_much_is_refused_without_unpacking_it(tmp_path):
    import tracemalloc

    (tmp_path / "bomb.zip").write_bytes(bomb(MODEL))
    tracemalloc.start()
    with pytest.raises(BundleError, match=f"model.onnx is larger than {MAX_FILE_BYTES}"):
        load(tmp_path / "bomb.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 8 * MAX_FILE_BYTES


def test_a_file_too_large_for_any_bundle_is_not_even_opened(tmp_path):
    with (tmp_path / "large.zip").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleError, match="larger than any bundle"):
        load(tmp_path / "large.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_compression_are_refused(signed, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "b.zip", "w", method) as archive:
        for name in FILES:
            archive.writestr(name, signed.files[name])

    with pytest.raises(BundleError, match="compressed in an unknown way"):
        load(tmp_path / "b.zip")


def test_a_folder_with_a_huge_file_is_refused(signed, tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(signed.files[name])
    with (tmp_path / CARD_JSON).open("wb") as file:
        file.truncate(1 << 30)

    with pytest.raises(BundleError, match="model_card"):
        load(tmp_path)


def test_what_is_hashed_has_one_form():
    assert canonical_json({"b": [1, None], "a": "ü"}) == b'{"a":"\\u00fc","b":[1,null]}'
    with pytest.raises(ValueError):
        canonical_json(float("nan"))
