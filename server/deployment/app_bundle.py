"""The app bundle of this installation: four whole packages, as Flower carries them (ADR 0004)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .run_keys import RUN_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

PUBLISHER, NAME = "fedcell", "fedcell"
PACKAGES = ("server", "edge_client", "models", "privacy")
COMPONENTS = {"serverapp": "server.flower_app:app", "clientapp": "edge_client.flower_app:app"}
LICENCE_FILE = "LICENSE"


@dataclass(frozen=True, slots=True)
class AppBundle:
    """A bundle, and what its pin says of it.

    Attributes:
        content: as Flower carries it.
        version: of the app.
        flwr: version of Flower that made it.
        app: publisher and name.
    """

    content: bytes
    version: str
    flwr: str
    app: str = f"{PUBLISHER}/{NAME}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the content, hex: Flower's `fab_hash`."""
        return hashlib.sha256(self.content).hexdigest()


def build_bundle() -> AppBundle:
    """Make the bundle of the packages that are installed here.

    The same files give the same bytes, so that a bundle is only made anew where code changed.

    Raises:
        ValueError: Flower refuses what is installed.
    """
    from flwr.cli.build import build_fab_from_files

    version = metadata.version(NAME)
    files: dict[str, bytes | Path] = {
        "pyproject.toml": manifest(version, licence=_licence() is not None).encode(),
        **package_files(),
    }
    licence = _licence()
    if licence is not None:
        files[LICENCE_FILE] = licence.encode()
    content, _ = build_fab_from_files(files)
    return AppBundle(bytes(content), version, metadata.version("flwr"))


def manifest(version: str, *, licence: bool) -> str:
    """Return `pyproject.toml` of the bundle: what Flower reads, and nothing else.

    Args:
        version: of the app.
        licence: whether the licence's text goes with it.
    """
    included = [*([f"/{LICENCE_FILE}"] if licence else []), *(f"{p}/**/*.py" for p in PACKAGES)]
    return "\n".join(
        (
            "[project]",
            f"name = {_toml(NAME)}",
            f"version = {_toml(version)}",
            'license = "Apache-2.0"',
            "",
            "[tool.flwr.app]",
            f"publisher = {_toml(PUBLISHER)}",
            f"fab-include = [{', '.join(map(_toml, included))}]",
            "",
            "[tool.flwr.app.components]",
            *_table(COMPONENTS),
            "",
            "[tool.flwr.app.config]",
            *_table(RUN_KEYS),
            "",
        )
    )


def package_files() -> dict[str, Path]:
    """Return the Python files of the four packages as installed, by their names in the bundle."""
    root = Path(__file__).resolve().parents[2]
    return {
        path.relative_to(root).as_posix(): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }


def _licence() -> str | None:
    return metadata.distribution(NAME).read_text(f"licenses/{LICENCE_FILE}")


def _table(entries: Mapping[str, object]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in entries.items()]


def _toml(value: object) -> str:
    # What JSON writes of texts and numbers is TOML too, but for floats without a point.
    return repr(value) if isinstance(value, float) else json.dumps(value)
