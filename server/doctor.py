"""What a machine has and lacks for fedcell; each check says what it found and what to do."""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .extras import BASE_LIBRARIES, LIBRARIES_OF_EXTRA, is_installed, missing_libraries
from .mosquitto import INSTALL, find_mosquitto

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

OLDEST_PYTHON = (3, 11)
RELEASED_AT = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that is right shows an earlier time than the month in which this version was made."""

OUR_PACKAGES = ("edge_client", "models", "privacy", "server", "simulations")
PORTS = ((1883, "MQTT on this machine"),)


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at, one word or two.
        verdict: ok; note (something optional is missing, or worth knowing); failed.
        found: what is there, in one line.
        remedy: what to do, empty where nothing needs doing.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(*, now: datetime, cells: Path, host: str = "127.0.0.1") -> tuple[Check, ...]:
    """Look at everything that fedcell needs from this machine.

    Args:
        now: the machine's idea of the time, timezone-aware.
        cells: folder where real ageing cells would be.
        host: address whose ports are tried.
    """
    return (
        check_python(sys.version_info[:3]),
        *check_libraries({extra: missing_libraries(extra) for extra in LIBRARIES_OF_EXTRA}),
        check_names(metadata.packages_distributions(), package_folders(OUR_PACKAGES)),
        *(check_port(host, port, purpose) for port, purpose in PORTS),
        check_clock(now),
        check_broker(find_mosquitto(), has_embedded=is_installed("iotcore")),
        check_cells(cells),
    )


def has_failed(checks: Iterable[Check]) -> bool:
    """Tell whether any check failed; notes do not count."""
    return any(check.verdict is Verdict.FAILED for check in checks)


def check_python(version: tuple[int, ...]) -> Check:
    """Check that the interpreter is new enough."""
    found = "Python " + ".".join(map(str, version))
    if version[:2] >= OLDEST_PYTHON:
        return Check("python", Verdict.OK, found)
    return Check("python", Verdict.FAILED, found, "install Python 3.11 or newer")


def check_libraries(missing: Mapping[str, Collection[str]]) -> tuple[Check, ...]:
    """Check the base libraries, then each extra.

    Args:
        missing: for each extra the libraries that are not installed.
    """
    lost = [name for name in BASE_LIBRARIES if not is_installed(name)]
    base = (
        Check("base", Verdict.FAILED, f"missing: {', '.join(lost)}", "pip install fedcell")
        if lost
        else Check("base", Verdict.OK, ", ".join(BASE_LIBRARIES))
    )
    return (base, *(_check_extra(extra, lacking) for extra, lacking in missing.items()))


def _check_extra(extra: str, missing: Collection[str]) -> Check:
    name = f"extra {extra}"
    if not missing:
        return Check(name, Verdict.OK, "installed")
    return Check(
        name,
        Verdict.NOTE,
        f"missing: {', '.join(missing)}",
        f'where it is needed: pip install "fedcell[{extra}]"',
    )


def check_names(
    providers: Mapping[str, Collection[str]], folders: Mapping[str, Path | None]
) -> Check:
    """Check that no other distribution owns one of our top-level package names.

    Args:
        providers: for each importable name the distributions that install it.
        folders: for each of our packages the folder that an import finds, None where none.
    """
    for name in (*OUR_PACKAGES, "tests"):
        strangers = sorted(set(providers.get(name, ())) - {"fedcell"})
        if strangers:
            return Check(
                "names",
                Verdict.FAILED,
                f"the package '{name}' is also installed by {', '.join(strangers)}",
                f"pip uninstall {' '.join(strangers)}, or install fedcell in an environment alone",
            )
    parents = {name: folder.parent for name, folder in folders.items() if folder is not None}
    if len(parents) == len(folders) and len(set(parents.values())) == 1:
        return Check("names", Verdict.OK, f"all packages from {next(iter(parents.values()))}")
    where = ", ".join(f"{name}: {folder or 'not found'}" for name, folder in folders.items())
    return Check(
        "names",
        Verdict.FAILED,
        f"the packages do not come from one place ({where})",
        "start from another folder, or unset PYTHONPATH",
    )


def package_folders(names: Iterable[str]) -> dict[str, Path | None]:
    """Find the folder that an import of each name would take, without importing it."""
    folders: dict[str, Path | None] = {}
    for name in names:
        spec = find_spec(name)
        origin = None if spec is None else spec.origin
        folders[name] = None if origin is None else Path(origin).parent
    return folders


def check_port(host: str, port: int, purpose: str) -> Check:
    """Check whether a port can be listened on; one that is in use may be our own server.

    Args:
        host: address to listen on.
        port: port to try; it is let go at once.
        purpose: what fedcell would use it for.
    """
    name = f"port {port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as refused:
            if refused.errno == errno.EADDRINUSE:
                return Check(
                    name,
                    Verdict.NOTE,
                    f"in use ({purpose})",
                    f"if that is not fedcell or its broker: see ss -ltnp 'sport = :{port}'",
                )
            return Check(
                name,
                Verdict.NOTE,
                f"cannot be used: {refused.strerror} ({purpose})",
                "choose a port above 1023 on an address of this machine",
            )
    return Check(name, Verdict.OK, f"free ({purpose})")


def check_clock(now: datetime) -> Check:
    """Check that the clock is not behind this version's release; its time zone does not matter."""
    found = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now >= RELEASED_AT:
        return Check("clock", Verdict.OK, found)
    return Check(
        "clock",
        Verdict.FAILED,
        f"{found} is before this version was released",
        "set the clock: timedatectl set-ntp true",
    )


def check_broker(mosquitto: Path | None, *, has_embedded: bool) -> Check:
    """Check that there is an MQTT broker to run with.

    Args:
        mosquitto: path of Mosquitto, None where it is not installed.
        has_embedded: whether the embedded broker's library is installed.
    """
    if mosquitto is not None:
        return Check("broker", Verdict.OK, f"Mosquitto at {mosquitto}")
    if has_embedded:
        return Check(
            "broker",
            Verdict.NOTE,
            "no Mosquitto; the embedded broker serves demos on this machine, and keeps no sessions",
            INSTALL,
        )
    return Check("broker", Verdict.FAILED, "neither Mosquitto nor an embedded broker", INSTALL)


def check_cells(folder: Path) -> Check:
    """Check whether the real ageing cells are here; without them the fleet is simulated alone."""
    count = len(list(folder.glob("*.parquet")))
    if count:
        return Check("cells", Verdict.OK, f"{count} files in {folder}")
    return Check(
        "cells",
        Verdict.NOTE,
        f"no cells in {folder}; everything goes on with simulated fleets",
        "to use real cells, set FEDCELL_CELLS to the folder of their Parquet files",
    )
