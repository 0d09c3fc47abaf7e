"""One device process: store, prediction, notices, and private local training.

The names below are loaded when they are first used, so that `import edge_client` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.quiet_hours import QuietHours

    from .client import EdgeClient
    from .errors import (
        EdgeError,
        ReadingRefusedError,
        StoreBusyError,
        StoreError,
        StoreMissingError,
    )
    from .model_store import ModelStore
    from .notices import ShownNotice
    from .store.mailbox import GivenConsent, Purpose
    from .telemetry_store import Recording, TelemetryStore, readings_of
    from .updates.slots import InstalledBundle

__all__ = [
    "EdgeClient",
    "EdgeError",
    "GivenConsent",
    "InstalledBundle",
    "ModelStore",
    "Purpose",
    "QuietHours",
    "ReadingRefusedError",
    "Recording",
    "ShownNotice",
    "StoreBusyError",
    "StoreError",
    "StoreMissingError",
    "TelemetryStore",
    "readings_of",
]

_MODULES = {
    "EdgeClient": ".client",
    "EdgeError": ".errors",
    "GivenConsent": ".store.mailbox",
    "InstalledBundle": ".updates.slots",
    "ModelStore": ".model_store",
    "Purpose": ".store.mailbox",
    "QuietHours": "models.quiet_hours",
    "ReadingRefusedError": ".errors",
    "Recording": ".telemetry_store",
    "ShownNotice": ".notices",
    "StoreBusyError": ".errors",
    "StoreError": ".errors",
    "StoreMissingError": ".errors",
    "TelemetryStore": ".telemetry_store",
    "readings_of": ".telemetry_store",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module, __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
