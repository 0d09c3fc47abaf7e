"""What is carried to the offline key and back: a request in a folder, an answer in one file.

`request.json` names the bundle that is proposed and the one that devices go back to, the numbers
that both get, and what the card says of privacy; beside it lie both bundles. Whoever holds the key
checks the bundles against their hashes and signs their digests, each with its number. The answer
holds two signatures. The way back is signed together with the way forward, under a higher number:
so going back needs no key, and devices never take a release with a lower number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from models.bundle import (
    MANIFEST,
    canonical_json,
    load_bundle,
    manifest_digest,
    sign_bundle,
    write_bundle,
)
from models.durable_file import write_durably
from models.errors import BundleError
from models.onnx_gate import check_model

from .release_errors import ReleaseError, ReleaseInputError, ReleaseMissingError

if TYPE_CHECKING:
    from pathlib import Path

    from models.bundle import Bundle
    from models.wire.envelope import SigningKey

SCHEMA: Final = 1
REQUEST, ANSWER = "request.json", "answer.json"
CANDIDATE, BACK = "candidate.zip", "back.zip"
_REMEDY = "carry the request's folder again as propose wrote it"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRequest:
    """What shall be signed.

    Attributes:
        number: of the release; the way back gets the next one.
        candidate: digest of the bundle that is proposed, unsigned and without a number.
        back: digest of the bundle that devices go back to, likewise.
    """

    number: int
    candidate: str
    back: str


def unnumbered(bundle: Bundle) -> Bundle:
    """Return a bundle without signature and release number: the same for every release of it."""
    manifest = {
        name: value
        for name, value in bundle.manifest.items()
        if name not in {"signature", "release"}
    }
    files = {**bundle.files, MANIFEST: canonical_json(manifest)}
    return replace(bundle, files=files, manifest=manifest, digest=manifest_digest(manifest))


def write_request(folder: Path, candidate: Bundle, back: Bundle, *, number: int) -> Path:
    """Write a request, which is complete once `request.json` is there.

    Args:
        folder: made where it is not there.
        candidate: the bundle that is proposed.
        back: the bundle that devices go back to.
        number: of the release.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_bundle(unnumbered(candidate), folder / CANDIDATE)
    write_bundle(unnumbered(back), folder / BACK)
    told = {
        "schema": SCHEMA,
        "release": number,
        "candidate": {"version": candidate.version, "digest": unnumbered(candidate).digest},
        "back": {"version": back.version, "digest": unnumbered(back).digest},
        "privacy": candidate.card["privacy"],
    }
    path = folder / REQUEST
    write_durably(path, f"{json.dumps(told, indent=2, ensure_ascii=False)}\n".encode())
    return path


def read_request(folder: Path) -> tuple[SigningRequest, Bundle, Bundle]:
    """Read a request and both bundles, checked against it.

    Raises:
        ReleaseMissingError: there is none.
        ReleaseInputError: it is not what propose wrote.
    """
    told = _read(folder / REQUEST)
    try:
        request = SigningRequest(
            number=int(told["release"]),
            candidate=str(told["candidate"]["digest"]),
            back=str(told["back"]["digest"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ReleaseInputError(folder / REQUEST, f"is no request ({error!r})", _REMEDY) from error
    found = []
    for name, digest in ((CANDIDATE, request.candidate), (BACK, request.back)):
        bundle = load_bundle(folder / name, expected_digest=digest)
        check_model(bundle.model_bytes)
        found.append(bundle)
    return request, found[0], found[1]


def sign_request(folder: Path, key: SigningKey) -> Path:
    """Sign what a request asks for; neither database nor network is needed.

    Args:
        folder: of the request.
        key: the offline key.

    Returns:
        The answer, to be carried back.
    """
    request, candidate, back = read_request(folder)
    answer = {
        "schema": SCHEMA,
        "release": request.number,
        "key_id": key.verify_key.key_id,
        "candidate": _signed(candidate, key, request.number).manifest["signature"]["value"],
        "back": _signed(back, key, request.number + 1).manifest["signature"]["value"],
    }
    path = folder / ANSWER
    write_durably(path, f"{json.dumps(answer, indent=2)}\n".encode())
    return path


def read_answer(path: Path) -> dict[str, Any]:
    """Read an answer; what it holds is not believed before `numbered` has checked it.

    Raises:
        ReleaseMissingError: there is none.
        ReleaseInputError: it is none.
    """
    told = _read(path)
    wanted = {"release": int, "key_id": str, "candidate": str, "back": str}
    for name, kind in wanted.items():
        if type(told.get(name)) is not kind:
            raise ReleaseInputError(path, f"is no answer ({name})", "sign the request again")
    return told


def numbered(bundle: Bundle, *, number: int, key_id: str, signature: str) -> Bundle:
    """Put a number and a signature into a bundle; whether it holds is for the reader to check."""
    unsigned = {**unnumbered(bundle).manifest, "release": number}
    manifest = {**unsigned, "signature": {"key_id": key_id, "value": signature}}
    files = {**bundle.files, MANIFEST: canonical_json(manifest)}
    return replace(bundle, files=files, manifest=manifest, digest=manifest_digest(unsigned))


def checked(path: Path, *, trusted: dict[str, bytes]) -> Bundle:
    """Load a signed bundle as a device would, but for its features and its client.

    Raises:
        ReleaseError: no key in force signed it, or it is altered.
    """
    try:
        return load_bundle(path, trusted_keys=trusted)
    except BundleError as error:
        raise ReleaseError(
            path.name, str(error), "sign the request with the key in force"
        ) from error


def _signed(bundle: Bundle, key: SigningKey, number: int) -> Bundle:
    return sign_bundle(
        bundle, key_id=key.verify_key.key_id, private_key=key.to_bytes(), release=number
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ReleaseMissingError(path, "there is no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise ReleaseInputError(path, f"cannot be read ({error})", _REMEDY) from error
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise ReleaseInputError(path, f"is not of schema {SCHEMA}", _REMEDY)
    return told
