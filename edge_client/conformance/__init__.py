"""Vectors that say what a device of this version computes; README.md tells how to use them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import InputError, InputMissingError

FOLDER = Path(__file__).parent
MANIFEST = "manifest.json"
FILES = (
    "readings.json",
    "outputs.json",
    "messages.json",
    "signatures.json",
    "sealing.json",
    "site_rounds.json",
)


def read_vectors(folder: Path = FOLDER) -> dict[str, Any]:
    """Read all vectors, each file checked against the manifest.

    Returns:
        The manifest under `manifest.json`, and the content of each file by its name.

    Raises:
        InputMissingError: a file is not there.
        InputError: a file is not what the manifest lists.
    """
    remedy = "pip install --force-reinstall fedcell"
    found: dict[str, Any] = {}
    try:
        found[MANIFEST] = manifest = json.loads((folder / MANIFEST).read_bytes())
        for name in FILES:
            content = (folder / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != manifest["files"][name]:
                raise InputError(folder / name, "is not the file that was released", remedy)
            found[name] = json.loads(content)
    except FileNotFoundError as error:
        raise InputMissingError(error.filename, "there is no such file", remedy) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(folder, f"cannot be read ({error})", remedy) from error
    return found
