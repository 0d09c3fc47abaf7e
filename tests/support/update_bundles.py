"""Bundles as updates of a device: variations of the default model, signed with the test key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from edge_client.updates.bundle_trial import NUMPY, check_golden, outputs_of
from models.bundle import (
    GOLDEN,
    MANIFEST,
    MODEL,
    Bundle,
    load_bundle,
    manifest_digest,
    sign_bundle,
    write_bundle,
)
from models.onnx_structure import StructureError, read_onnx
from tests.support.line_bundle import KEY_ID, PRIVATE_KEY, trusted_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "KEY_ID",
    "PRIVATE_KEY",
    "resigned",
    "trusted_keys",
    "try_out_here",
    "variant",
    "write_variant",
]


def variant(
    number: int = 1,
    *,
    release: int | None = None,
    files: Mapping[str, bytes] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Bundle:
    """Return the default bundle as version `update-<number>`, with whatever was exchanged."""
    default = _default()
    content = {**default.files, **(files or {})}
    fields = {
        **default.manifest,
        "version": f"update-{number}",
        "operators": _operators(content[MODEL]),
        **({} if release is None else {"release": release}),
        **(manifest or {}),
        "files": {
            name: hashlib.sha256(data).hexdigest()
            for name, data in content.items()
            if name != MANIFEST
        },
    }
    content[MANIFEST] = json.dumps(fields).encode()
    return Bundle(content, fields, manifest_digest(fields), f"update-{number}")


def resigned(bundle: Bundle) -> Bundle:
    """Sign a bundle with the test key, whatever it holds."""
    return sign_bundle(bundle, key_id=KEY_ID, private_key=PRIVATE_KEY)


def write_variant(path: Path, number: int = 1, **choices: Any) -> Path:
    """Write a signed variant as a zip."""
    write_bundle(resigned(variant(number, **choices)), path)
    return path


def with_golden(bundle: Bundle, **outputs: Any) -> Bundle:
    """Exchange golden outputs; the hashes stay as they were."""
    vectors = json.loads(bundle.files[GOLDEN]) | outputs
    return replace(bundle, files={**bundle.files, GOLDEN: json.dumps(vectors).encode()})


def try_out_here(bundle: Bundle, **_: object) -> None:
    """Run a bundle's golden vectors as the child process does, without the process."""
    check_golden(bundle, outputs_of(bundle, NUMPY))


@cache
def _default() -> Bundle:
    return load_bundle()


@cache
def _operators(content: bytes) -> list[str]:
    try:
        return list(read_onnx(content).operators)
    except StructureError:
        return list(_default().manifest["operators"])
