"""Model bundles: one zip or folder with graph, manifest, golden outputs and model card.

The manifest lists the SHA-256 of every other file; the bundle's digest is that of the canonical
manifest without its signature, so one digest (or one Ed25519 signature over it) covers everything.
The default bundle is pinned by digest in this package; any other needs a trusted key.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import feature_spec
from .durable_file import write_durably
from .errors import ArtefactMissingError, BundleError, UnsupportedSpecError
from .prediction import ACTIONS, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

FORMAT = 1
CLIENT_VERSION = (0, 1, 0)
MAX_VERSION = 64
MAX_FILE_BYTES = 1 << 20
MAX_RELEASE = (1 << 53) - 1
MAX_KEY_ID = 64
MODEL, MANIFEST, GOLDEN = "model.onnx", "manifest.json", "golden.json"
CARD_JSON, CARD_TEXT = "model_card.json", "model_card.md"
DIGEST = "bundle.sha256"
FILES = (MODEL, MANIFEST, GOLDEN, CARD_JSON, CARD_TEXT)
OUTPUTS = (
    "failure_probability_30d",
    "days_to_failure",
    "action_probabilities",
    "cause_probabilities",
)
SCALES = "confidence_scales"
EVEN_SCALES = (1.0,) * len(ACTIONS)
DEFAULT = "default"
DEFAULT_FOLDER = Path(__file__).with_name("default_bundle")
UNTRUSTED, TOO_LARGE, CLIENT_TOO_OLD = "untrusted", "too_large", "client_too_old"
"""Reasons of a refusal, beside those that `models.errors` names."""
_REMEDY = "copy it again from where it was released"
_REINSTALL = "pip install --force-reinstall fedcell"
_UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What a manifest of any JSON may cause while it is read."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        files: content of every file, by name.
        manifest: the manifest, parsed.
        digest: hex SHA-256 of the canonical manifest without its signature.
        where: what it was loaded from, for messages.
    """

    files: Mapping[str, bytes]
    manifest: Mapping[str, Any]
    digest: str
    where: str

    @property
    def version(self) -> ModelVersion:
        """Return the model's version."""
        return ModelVersion(self.manifest["version"])

    @property
    def model_bytes(self) -> bytes:
        """Return the ONNX file."""
        return self.files[MODEL]

    @property
    def threshold(self) -> float:
        """Return the 30-day probability from which a device is flagged."""
        return float(self.manifest["thresholds"]["flag"])

    @property
    def release(self) -> int | None:
        """Return the number of its release, which grows with each; None where it has none."""
        number = self.manifest.get("release")
        return None if number is None else int(number)

    @property
    def confidence_scales(self) -> tuple[float, ...]:
        """Return the factor for each action by which its confidence comes true; 1 if not said."""
        return tuple(float(scale) for scale in self.manifest.get(SCALES, EVEN_SCALES))

    @property
    def explanation_reference(self) -> NDArray[np.float32]:
        """Return the public reference features, shape (n_features,)."""
        return np.array(self.manifest["explanation_reference"], dtype=np.float32)

    @property
    def card(self) -> dict[str, Any]:
        """Return the model card."""
        card: dict[str, Any] = json.loads(self.files[CARD_JSON])
        return card

    def golden(self) -> dict[str, NDArray[np.float32]]:
        """Return the golden inputs (`features`) and expected outputs, by name."""
        vectors = json.loads(self.files[GOLDEN])
        return {
            name: np.array(_with_nan(values) if name == "features" else values, dtype=np.float32)
            for name, values in vectors.items()
        }


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys and no spaces: the bytes that are hashed and signed."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the hex SHA-256 that stands for the whole bundle."""
    unsigned = {name: value for name, value in manifest.items() if name != "signature"}
    return hashlib.sha256(canonical_json(unsigned)).hexdigest()


def build_bundle(
    *,
    name: str,
    model_bytes: bytes,
    operators: Iterable[str],
    flag_threshold: float,
    calibration: Mapping[str, float],
    explanation_reference: NDArray[np.float32],
    surrogate_tree: Mapping[str, Any],
    confidence_scales: Sequence[float] = EVEN_SCALES,
    golden: Mapping[str, NDArray[np.float32]],
    card: Mapping[str, Any],
    card_text: str,
    ledger_entry: Mapping[str, Any],
    release: int | None = None,
) -> Bundle:
    """Put a bundle together, unsigned.

    Args:
        name: what the version begins with; the rest is the model's digest.
        model_bytes: the ONNX graph.
        operators: ONNX operators that it uses.
        flag_threshold: 30-day probability from which a device is flagged.
        calibration: scale and shift of the hazards, for the record.
        explanation_reference: public reference features, shape (n_features,).
        surrogate_tree: a small decision tree that approximates the model.
        confidence_scales: factor for each action by which its confidence comes true, 0 to 1.
        golden: `features` and the expected outputs.
        card: the model card without `version`, which is added.
        card_text: the same for people; `{version}` is filled in.
        ledger_entry: what pays for it: kind `public`, or an entry of a privacy ledger.
        release: a number that grows with each release: devices refuse to go back to a smaller
            one. None leaves the bundle out of that order.
    """
    version = f"{name}-{hashlib.sha256(model_bytes).hexdigest()[:12]}"
    files = {
        MODEL: model_bytes,
        GOLDEN: _golden_json(golden),
        CARD_JSON: canonical_json({**card, "version": version}),
        CARD_TEXT: card_text.replace("{version}", version).encode(),
    }
    manifest = {
        "format": FORMAT,
        "version": version,
        "feature_spec_version": feature_spec.FEATURE_SPEC_VERSION,
        "feature_spec_digest": feature_spec.digest(),
        "features": list(feature_spec.FEATURE_NAMES),
        "least_client_version": "0.1.0",
        "operators": sorted(operators),
        "thresholds": {"flag": flag_threshold},
        "calibration": dict(calibration),
        "explanation_reference": [float(value) for value in explanation_reference],
        "surrogate_tree": dict(surrogate_tree),
        SCALES: [float(scale) for scale in confidence_scales],
        "ledger_entry": dict(ledger_entry),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        **_release_field(release),
    }
    files[MANIFEST] = canonical_json(manifest)
    return Bundle(files, manifest, manifest_digest(manifest), version)


def sign_bundle(
    bundle: Bundle, *, key_id: str, private_key: bytes, release: int | None = None
) -> Bundle:
    """Return the bundle signed with an Ed25519 key.

    Args:
        bundle: as it was built.
        key_id: by which devices know the key.
        private_key: 32 raw bytes.
        release: put this number into the manifest before signing; None leaves what it has.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
    )

    unsigned = {**bundle.manifest, **_release_field(release)}
    digest = manifest_digest(unsigned)
    key = Ed25519PrivateKey.from_private_bytes(private_key)
    value = key.sign(_signed_bytes(digest)).hex()
    manifest = {**unsigned, "signature": {"key_id": key_id, "value": value}}
    files = {**bundle.files, MANIFEST: canonical_json(manifest)}
    return replace(bundle, files=files, manifest=manifest, digest=digest)


def without_signature(bundle: Bundle) -> Bundle:
    """Return the bundle as it is kept once its signature was verified: the same digest."""
    manifest = {name: value for name, value in bundle.manifest.items() if name != "signature"}
    files = {**bundle.files, MANIFEST: canonical_json(manifest)}
    return replace(bundle, files=files, manifest=manifest)


def _release_field(release: int | None) -> dict[str, int]:
    if release is None:
        return {}
    if not 0 <= release <= MAX_RELEASE:
        raise ValueError(f"release must lie in 0 to {MAX_RELEASE}, got {release}")
    return {"release": release}


def write_bundle(bundle: Bundle, path: Path) -> None:
    """Write a bundle as one zip, byte-identical for the same content; whole or not at all."""
    from .bundle_archive import archive_of

    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, archive_of({name: bundle.files[name] for name in FILES}))


def write_default_bundle(bundle: Bundle, folder: Path = DEFAULT_FOLDER) -> None:
    """Write the bundle that ships with the package: a folder, with the digest that pins it.

    The digest is written last: until then a half-written folder is refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        write_durably(folder / name, bundle.files[name])
    write_durably(folder / DIGEST, f"{bundle.digest}\n".encode())


def load_bundle(
    source: Path | str = DEFAULT,
    *,
    trusted_keys: Mapping[str, bytes] | None = None,
    allow_unsigned: bool = False,
    expected_digest: str | None = None,
) -> Bundle:
    """Load and verify a bundle; its manifest is not believed before it is known whose it is.

    Args:
        source: a zip, a folder, or "default" for the model that ships with the package.
        trusted_keys: Ed25519 public keys (32 raw bytes) by key id.
        allow_unsigned: accept a bundle that carries no signature (for experiments of one's own).
        expected_digest: hex SHA-256 of the one bundle that is accepted, in place of a signature.

    Raises:
        ArtefactMissingError: there is no such file or folder.
        BundleError: when it is truncated, altered, untrusted or too new.
        UnsupportedSpecError: when this client computes other features than it was trained on.
    """
    if source == DEFAULT:
        bundle = _unverified(_read_folder(DEFAULT_FOLDER), DEFAULT)
        if bundle.digest.encode() != _pinned_digest(DEFAULT_FOLDER / DIGEST):
            raise BundleError(DEFAULT, "its digest is not the pinned one", _REINSTALL)
    else:
        path = Path(source)
        bundle = _unverified(_read_files(path), str(path))
        if expected_digest is not None:
            if bundle.digest != expected_digest:
                what = "is not the bundle that was expected here (its digest differs)"
                raise BundleError(path, what, _REMEDY, reason=UNTRUSTED)
        elif bundle.manifest.get("signature") is not None or not allow_unsigned:
            _verify_signature(bundle, trusted_keys or {})
    _check_manifest(bundle)
    return bundle


def _pinned_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).strip()
    except OSError as error:
        what = f"{DIGEST}, which pins it, cannot be read ({error.strerror})"
        raise ArtefactMissingError(DEFAULT, what, _REINSTALL) from error


def _read_files(path: Path) -> dict[str, bytes]:
    if not path.exists():
        raise ArtefactMissingError(path, "no such bundle", "check the path, or use 'default'")
    if path.is_dir():
        return _read_folder(path)
    if path.stat().st_size > len(FILES) * MAX_FILE_BYTES:
        raise BundleError(path, "larger than any bundle", _REMEDY, reason=TOO_LARGE)
    from .bundle_archive import read_archive

    return _within_cap(path, read_archive(path, FILES, max_file_bytes=MAX_FILE_BYTES))


def _read_folder(path: Path) -> dict[str, bytes]:
    content = {}
    for name in FILES:
        try:
            with (path / name).open("rb") as file:
                content[name] = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise BundleError(path, f"{name} is missing", _REMEDY) from error
    return _within_cap(path, content)


def _within_cap(path: Path, content: dict[str, bytes]) -> dict[str, bytes]:
    for name, data in content.items():
        if len(data) > MAX_FILE_BYTES:
            what = f"{name} is larger than {MAX_FILE_BYTES} bytes"
            raise BundleError(path, what, _REMEDY, reason=TOO_LARGE)
    return content


def _unverified(files: dict[str, bytes], where: str) -> Bundle:
    """Return a bundle of which nothing is known but its digest."""
    try:
        manifest = json.loads(files[MANIFEST])
        digest = manifest_digest(manifest)
    except _UNREADABLE as error:
        what = f"the manifest is not readable ({type(error).__name__})"
        raise BundleError(where, what, _REMEDY) from error
    return Bundle(files, manifest, digest, where)


def _check_manifest(bundle: Bundle) -> None:
    """Refuse what a trusted manifest says that is not so, or that this client cannot serve."""
    try:
        _check_fields(bundle.files, bundle.manifest, bundle.where)
    except BundleError as error:
        error.version = str(bundle.manifest.get("version", ""))
        raise


def _check_fields(files: Mapping[str, bytes], manifest: Mapping[str, Any], where: str) -> None:
    try:
        format_number = manifest["format"]
        least = tuple(int(part) for part in manifest["least_client_version"].split("."))
    except _UNREADABLE as error:
        raise BundleError(where, f"the manifest is not readable ({error!r})", _REMEDY) from error
    if format_number != FORMAT or least > CLIENT_VERSION:
        what = f"needs format {format_number} and client {'.'.join(map(str, least))}"
        remedy = "update fedcell on this device"
        raise BundleError(where, what, remedy, reason=CLIENT_TOO_OLD)
    try:
        hashes = dict(manifest["files"])
        spec_digest, spec_version = (
            manifest["feature_spec_digest"],
            manifest["feature_spec_version"],
        )
        threshold = float(manifest["thresholds"]["flag"])
        reference = [float(value) for value in manifest["explanation_reference"]]
        version, release = manifest["version"], manifest.get("release", 0)
        scales = [float(scale) for scale in manifest.get(SCALES, EVEN_SCALES)]
    except _UNREADABLE as error:
        raise BundleError(where, f"the manifest is not readable ({error!r})", _REMEDY) from error
    for name in FILES:
        if name == MANIFEST:
            continue
        if hashes.get(name) != hashlib.sha256(files[name]).hexdigest():
            raise BundleError(where, f"{name} was altered (its hash differs)", _REMEDY)
    if spec_digest != feature_spec.digest():
        what = f"needs feature specification {spec_version} ({str(spec_digest)[:12]})"
        remedy = f"this client computes {feature_spec.FEATURE_SPEC_VERSION}; update one of them"
        raise UnsupportedSpecError(where, what, remedy)
    usable = [math.isfinite(value) for value in reference] == [True] * feature_spec.NUM_FEATURES
    usable = usable and len(scales) == len(ACTIONS) and all(0 <= scale <= 1 for scale in scales)
    usable = usable and type(release) is int and 0 <= release <= MAX_RELEASE
    if not (_is_version(version) and 0 <= threshold <= 1 and usable):
        raise BundleError(where, "the manifest holds values that cannot be", _REMEDY)


def _is_version(value: object) -> bool:
    """Whether a text can name a model on the wire: letters, digits and `._+-`, at most 64."""
    if not (isinstance(value, str) and value.isascii() and 1 <= len(value) <= MAX_VERSION):
        return False
    return value[0].isalnum() and all(sign.isalnum() or sign in "._+-" for sign in value)


def _signed_bytes(digest: str) -> bytes:
    return b"fedcell-bundle-v1:" + bytes.fromhex(digest)


def _verify_signature(bundle: Bundle, trusted_keys: Mapping[str, bytes]) -> None:
    signature, where = bundle.manifest.get("signature"), bundle.where
    if signature is None:
        remedy = "sign it, or allow unsigned bundles for an experiment"
        raise BundleError(where, "carries no signature", remedy, reason=UNTRUSTED)
    try:
        key_id, value = str(signature["key_id"]), bytes.fromhex(signature["value"])
    except (TypeError, KeyError, ValueError) as error:
        what = "the signature is not readable"
        raise BundleError(where, what, _REMEDY, reason=UNTRUSTED) from error
    if key_id not in trusted_keys:
        what = f"signed by the unknown key {key_id[:MAX_KEY_ID]!r}"
        remedy = "add the key to the trusted ones if you know whose it is"
        raise BundleError(where, what, remedy, reason=UNTRUSTED)
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PublicKey,
    )

    try:
        Ed25519PublicKey.from_public_bytes(trusted_keys[key_id]).verify(
            value, _signed_bytes(bundle.digest)
        )
    except InvalidSignature as error:
        what = "the signature is not of this content"
        raise BundleError(where, what, _REMEDY, reason=UNTRUSTED) from error


def _golden_json(golden: Mapping[str, NDArray[np.float32]]) -> bytes:
    vectors = {
        name: [
            [None if math.isnan(value) else value for value in row]
            if isinstance(row, list)
            else row
            for row in values.astype(float).tolist()
        ]
        for name, values in golden.items()
    }
    return canonical_json(vectors)


def _with_nan(rows: list[list[float | None]]) -> list[list[float]]:
    return [[math.nan if value is None else value for value in row] for row in rows]
