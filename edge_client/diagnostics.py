"""An archive for support that tells how a device is, and nothing of its battery or owner.

What goes in is chosen name by name: versions, settings without their paths and keys, counts,
states, sizes, times taken. No reading, no figure, no key, no identifier; whole days, so that no
pattern of use shows. At the end every text is searched for the device's identifier once more.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import time
import zipfile
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .errors import EdgeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .client import EdgeClient
    from .config import DeviceConfig

    Part = dict[str, Any]

FORMAT = 1
LIBRARIES = ("fedcell", "numpy", "onnxruntime", "cryptography", "paho-mqtt", "tuf")
SHOWN_SETTINGS = ("bytes_per_day", "sample_every_h", "look_every_min", "backend", "gateway_rounds")
"""Settings whose values are told; of all others only whether they are set."""
TRAFFIC_DAYS = 14
README = """\
What this archive holds: versions, settings (not their paths, not keys), counts, states, sizes and
times taken, as JSON in diagnostics.json. It holds no reading, no figure of the battery, no key, no
identifier of the device and no message. Ages are in whole days. `fedcell-device diagnostics` makes
it; nothing sends it anywhere.
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def diagnose(config: DeviceConfig, *, now: datetime) -> Part:
    """Look at a device; a part that cannot be looked at says why.

    Args:
        config: its settings.
        now: aware time.
    """
    parts: Part = {
        "format": FORMAT,
        "versions": _versions(),
        "machine": _machine(config.store),
        "settings": _settings(config),
        "files": _files(config.store),
    }
    took: dict[str, float] = {}
    device_id = None
    with _caught(parts, "store"):
        from .client import EdgeClient

        with _timed(took, "open_store"):
            client = EdgeClient.of_config(config)
        with client:
            device_id = str(client.profile.device_id)
            parts["store"] = _store(client, now, took)
            with _caught(parts, "link"):
                parts["link"] = _link(client, now)
            with _caught(parts, "model"):
                parts["model"] = _model(client, took)
            with _caught(parts, "gateway_rounds"):
                parts["gateway_rounds"] = _gateway_rounds(client, config, now)
            with _caught(parts, "prediction"):
                parts["prediction"] = _prediction(client, now, took)
    with _caught(parts, "sensors"):
        parts["sensors"] = _sensors()
    parts["took_ms"] = {name: round(ms, 1) for name, ms in took.items()}
    found: Part = _without(parts, device_id)
    return found


def archive_of(parts: Part) -> bytes:
    """Return the archive as bytes; the same parts give the same bytes."""
    text = json.dumps(parts, indent=1, sort_keys=True, ensure_ascii=False)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("README.txt", README), ("diagnostics.json", f"{text}\n")):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _versions() -> Part:
    from models.bundle import CLIENT_VERSION
    from models.feature_spec import FEATURE_SPEC_VERSION, digest

    found: Part = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = None
    return found | {
        "client": ".".join(map(str, CLIENT_VERSION)),
        "feature_spec": FEATURE_SPEC_VERSION,
        "feature_spec_digest": digest()[:12],
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()).strip() or "musl or unknown",
    }


def _machine(store: Path) -> Part:
    found: Part = {
        "machine": platform.machine(),
        "system": platform.system(),
        "release": platform.release(),
        "cores": os.cpu_count(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
    }
    if hasattr(os, "sysconf"):
        found["memory_mb"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    try:
        disk = os.statvfs(store.parent)
    except OSError:
        return found
    found["disk_free_mb"] = disk.f_bavail * disk.f_frsize >> 20
    found["disk_is_read_only"] = bool(disk.f_flag & os.ST_RDONLY)
    return found


def _settings(config: DeviceConfig) -> Part:
    found: Part = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        found[entry.name] = value if entry.name in SHOWN_SETTINGS else {"is_set": value is not None}
    found["bundle"] = config.bundle if config.bundle in {"installed", "default"} else "a path"
    with _caught(found, "broker"):
        host, port = config.broker_address()
        is_local = host in {"127.0.0.1", "::1", "localhost"}
        found["broker"] = {"is_this_machine": is_local, "port": port}
    return found


def _files(store: Path) -> Part:
    """Return sizes and modes of what lies beside the store, by what follows its name."""
    found: Part = {}
    try:
        beside = sorted(store.parent.glob(f"*{store.name}*"))
    except OSError as error:
        return {"error": error.strerror}
    for path in beside:
        status = path.lstat()
        name = path.name.replace(store.name, "STORE")
        found[name] = {
            "bytes": _size_of(path) if path.is_dir() else status.st_size,
            "mode": f"{status.st_mode & 0o7777:04o}",
        }
    return found


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _store(client: EdgeClient, now: datetime, took: dict[str, float]) -> Part:
    from .store.recovery import recoveries

    store = client.store
    first = store.first_reading_at()
    last = store.rows("SELECT max(at_s) FROM reading")[0][0]
    with _timed(took, "check_store"):
        store.check()
    profile = client.profile
    return {
        "is_sealed": store.is_sealed,
        "schema_version": store.rows("SELECT max(version) FROM schema_version")[0][0],
        "sqlite": _sqlite_version(),
        "readings": store.num_readings(),
        "refusals": store.refusals(),
        "retention_days": store.retention_days,
        "first_reading_days_ago": _days(first, now),
        "last_reading_days_ago": None if last is None else int(now.timestamp() - last) // 86_400,
        "age_days": _days(profile.manufactured_at, now),
        "gauge_status": (store.fact("gauge_history") or {}).get("status"),
        "recoveries": recoveries(store)[0],
        "consents": {purpose.value: said.granted for purpose, said in store.consents().items()},
        "language": store.language,
        "has_quiet_hours": store.quiet_hours is not None,
    }


def _sqlite_version() -> str:
    import sqlite3

    return sqlite3.sqlite_version


def _link(client: EdgeClient, now: datetime) -> Part:
    store = client.store
    waiting: dict[str, int] = {}
    for message in store.outbox():
        waiting[message.purpose.value] = waiting.get(message.purpose.value, 0) + 1
    states: dict[str, int] = {}
    for notice in store.notices():
        states[notice.state.value] = states.get(notice.state.value, 0) + 1
    today = int(now.timestamp()) // 86_400
    traffic = [
        {
            "days_ago": today - entry.day,
            "direction": str(entry.direction),
            "kind": str(entry.kind),
            "messages": entry.messages,
            "bytes": entry.num_bytes,
        }
        for entry in store.traffic(today - TRAFFIC_DAYS)
    ]
    refused = dict(store.fact("refused_messages") or {})
    return {"waiting": waiting, "notices": states, "refused": refused, "traffic": traffic}


def _gateway_rounds(client: EdgeClient, config: DeviceConfig, now: datetime) -> Part:
    """Return what keeps the device from taking part, and how far the last step came."""
    from .site_rounds.kept_step import kept_step
    from .site_rounds.telling import what_lacks

    found: Part = {"lacking": [one.value for one in what_lacks(client.store, config)]}
    kept = kept_step(client.store)
    if kept is not None:
        days_ago = int(now.timestamp() - kept.received.wall_s) // 86_400
        ending = None if kept.ending is None else kept.ending.value
        found["last_step"] = {"state": kept.state.value, "ending": ending, "days_ago": days_ago}
    return found


def _model(client: EdgeClient, took: dict[str, float]) -> Part:
    from .model_store import ModelStore

    models = ModelStore.beside(client.store.path)
    installed, refusal = models.installed(), models.last_refusal()
    with _timed(took, "load_model"):
        bundle = client.predictor.bundle
    return {
        "version": str(bundle.version),
        "digest": bundle.digest[:16],
        "is_installed": installed is not None,
        "is_signed": installed is not None and installed.signed_by is not None,
        "last_refusal": None if refusal is None else str(refusal.reason),
    }


def _prediction(client: EdgeClient, now: datetime, took: dict[str, float]) -> Part:
    with _timed(took, "first_prediction"):
        report = client.predict(now)
    with _timed(took, "second_prediction"):
        client.predict(now)
    is_corrected = report.model_days_to_failure_p50 is not None
    return {"status": str(report.status), "is_corrected": is_corrected}


def _sensors() -> Part:
    from .sensing.drivers.power_supply import ROOT, attributes_of, batteries_in
    from .sensing.gauge_mapping import map_gauge

    found: Part = {}
    for number, facts in enumerate(batteries_in(ROOT).values()):
        mapping = map_gauge(facts)
        found[f"battery_{number}"] = {
            "status": mapping.status.value,
            "rule": mapping.rule,
            "attributes": list(attributes_of(facts)),
        }
    return found


def _days(at: datetime | None, now: datetime) -> int | None:
    return None if at is None else (now.astimezone(UTC) - at) // timedelta(days=1)


@contextmanager
def _timed(took: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    took[name] = 1000 * (time.perf_counter() - start)


@contextmanager
def _caught(parts: Part, name: str) -> Iterator[None]:
    """Put what went wrong in place of a part: the kind of error alone, its text may tell more."""
    try:
        yield
    except (EdgeError, OSError, ValueError) as error:
        parts[name] = {"error": type(error).__name__}
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        parts[name] = {"error": type(error).__name__}


def _without(value: Any, secret: str | None) -> Any:
    """Replace a text wherever it stands, in names too."""
    if secret is None:
        return value
    if isinstance(value, str):
        return value.replace(secret, "DEVICE")
    if isinstance(value, dict):
        return {_without(name, secret): _without(part, secret) for name, part in value.items()}
    if isinstance(value, list):
        return [_without(part, secret) for part in value]
    return value
