"""`selftest`, `sensors`, `diagnostics`, `systemd`: what people in the field ask a device for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .answers import answer, config_of, moment_flag, now_of, table

if TYPE_CHECKING:
    import argparse

    from ..selftest import SetResult

NOT_AS_RELEASED = 1
NO_USABLE_SENSOR = 1


def add_selftest(selftest: argparse.ArgumentParser) -> None:
    """Add the arguments of `selftest`."""
    selftest.add_argument(
        "--vectors", type=Path, metavar="DIR", help="default: those of this package"
    )


def add_sensors(sensors: argparse.ArgumentParser) -> None:
    """Add the arguments of `sensors`."""
    sensors.add_argument(
        "--root", type=Path, metavar="DIR", help="default: /sys/class/power_supply"
    )
    sensors.add_argument(
        "--design-capacity-mah", type=float, metavar="X", help="default: of the store's profile"
    )


def add_diagnostics(diagnostics: argparse.ArgumentParser) -> None:
    """Add the arguments of `diagnostics`."""
    diagnostics.add_argument(
        "--out", type=Path, required=True, metavar="FILE.zip", help="the archive to write"
    )
    diagnostics.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def add_systemd(systemd: argparse.ArgumentParser) -> None:
    """Add the arguments of `systemd`."""
    systemd.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the unit files"
    )
    systemd.add_argument(
        "--program", metavar="PATH", help="of fedcell-device; default: the one that runs"
    )


def run_selftest(arguments: argparse.Namespace) -> int:
    """Run the conformance vectors on this device."""
    from dataclasses import asdict

    from ..selftest import run_selftest as run

    found = run(arguments.vectors)
    data = asdict(found) | {"passed": found.passed}
    for shown, result in zip(data["sets"], found.sets, strict=True):
        shown["passed"] = result.passed
    lines = table((result.name, _words_of(result)) for result in found.sets)
    lines += [f"    {failure}" for result in found.sets for failure in result.failures]
    lines += table((f"time: {name}", f"{ms:.3f} ms") for name, ms in found.timings_ms.items())
    version = found.vectors
    lines += [
        ("passed" if found.passed else "FAILED")
        + f": vectors {version['conformance_version']}, features {version['feature_spec_version']},"
        f" model {version['model_version']}"
    ]
    answer(arguments, data, lines)
    return 0 if found.passed else NOT_AS_RELEASED


def _words_of(result: SetResult) -> str:
    if result.skipped is not None:
        return f"not run: {result.skipped}"
    verdict = "pass" if result.passed else "FAIL"
    return f"{verdict} ({result.checked} checked)"


def run_sensors(arguments: argparse.Namespace) -> int:
    """Show the batteries of this machine, and what of a reading each gives."""
    from ..sensing.drivers.power_supply import ROOT, attributes_of, batteries_in
    from ..sensing.gauge_mapping import MEANING, GaugeStatus, map_gauge

    design = arguments.design_capacity_mah or _design_capacity(arguments)
    root = arguments.root or ROOT
    found = []
    lines = []
    usable = 0
    for name, facts in batteries_in(root).items():
        mapping = map_gauge(facts, design_capacity_mah=design)
        usable += mapping.status in {GaugeStatus.OK, GaugeStatus.NOT_YET_KNOWN}
        gives = {key: round(value, 3) for key, value in mapping.measurements.items()}
        found.append(
            {
                "battery": name,
                "status": mapping.status.value,
                "rule": mapping.rule,
                "measurements": gives,
                "refused": mapping.refused,
                "attributes": list(attributes_of(facts)),
            }
        )
        lines += [f"{name}: {mapping.status.value} ({MEANING[mapping.status]})"]
        rows = [("  rule", mapping.rule or "none")]
        rows += [(f"  {key}", f"{value:g}") for key, value in gives.items()]
        rows += [(f"  {key}", f"refused: {value}") for key, value in mapping.refused.items()]
        lines += table([*rows, ("  attributes", ", ".join(attributes_of(facts)))])
    lines = lines or [f"no battery of this machine in {root}"]
    answer(arguments, {"batteries": found, "design_capacity_mah": design}, lines)
    return 0 if usable else NO_USABLE_SENSOR


def _design_capacity(arguments: argparse.Namespace) -> float | None:
    from ..errors import StoreMissingError
    from ..telemetry_store import TelemetryStore

    config = config_of(arguments)
    try:
        with TelemetryStore(config.store, key=config.key_source()) as store:
            return store.profile.design_capacity_mah
    except StoreMissingError:
        return None


def run_diagnostics(arguments: argparse.Namespace) -> int:
    """Write the archive for support; it holds no reading, figure, key or identifier."""
    from models.durable_file import write_durably

    from ..diagnostics import archive_of, diagnose

    content = archive_of(diagnose(config_of(arguments), now=now_of(arguments)))
    write_durably(arguments.out, content)
    answer(
        arguments,
        {"out": str(arguments.out), "bytes": len(content)},
        [f"wrote {arguments.out}; look into it before you send it: it is text"],
    )
    return 0


def run_systemd(arguments: argparse.Namespace) -> int:
    """Write the unit files."""
    from ..systemd import write_units

    written = write_units(arguments.out, program=arguments.program)
    answer(
        arguments,
        {"files": [str(path) for path in written]},
        [*(f"wrote {path}" for path in written), "what to do with them: README.md there"],
    )
    return 0
