"""`predict`, `update`: the report of this device, and the model behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .answers import answer, config_of, moment_flag, now_of, table

if TYPE_CHECKING:
    import argparse

    from models.prediction import Report

    from ..client import EdgeClient


def add_predict(predict: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    predict.add_argument(
        "--explain", action="store_true", help="also say why, in sentences with own figures"
    )
    predict.add_argument("--language", help="of the reasons; default: the owner's")
    predict.add_argument("--now", type=moment_flag, metavar="TIME", help="predict as of this time")


def add_update(update: argparse.ArgumentParser) -> None:
    """Add the arguments of `update`."""
    update.add_argument("source", type=Path, metavar="BUNDLE", help="zip or folder")
    update.add_argument(
        "--allow-unsigned", action="store_true", help="for experiments of one's own"
    )


def run_predict(arguments: argparse.Namespace) -> int:
    """Predict once."""
    from ..client import EdgeClient

    with EdgeClient.of_config(config_of(arguments)) as client:
        report = client.predict(now_of(arguments))
        if getattr(arguments, "json", False):
            data = report_json(report)
            if arguments.explain:
                data |= _explanation_json(client, arguments.language)
            answer(arguments, data, [])
        else:
            reasons = client.reasons(arguments.language) if arguments.explain else ()
            answer(arguments, {}, _lines(client, report, reasons))
    return 0


def report_json(report: Report) -> dict[str, object]:
    """Return a report as JSON can carry it."""
    from dataclasses import asdict

    return asdict(report) | {"as_of": report.as_of.isoformat()}


def _explanation_json(client: EdgeClient, language: str | None) -> dict[str, object]:
    from dataclasses import asdict

    return {"sentences": client.reasons(language), "figures": asdict(client.figures)}


def _lines(client: EdgeClient, report: Report, reasons: tuple[str, ...]) -> list[str]:
    profile = client.profile
    heading = f"{report.device_id} · {profile.device_model} · {report.as_of:%Y-%m-%d %H:%M} UTC"
    if (
        report.state_of_health is None
        or report.days_to_failure_p10 is None
        or report.days_to_failure_p50 is None
        or report.days_to_failure_p90 is None
        or report.failure_probability_30d is None
        or report.confidence is None
    ):
        rows = [("status", _words(report.status)), ("meaning", MEANING[report.status])]
        return [heading, *table(rows)]
    low, middle, high = (
        f"{days:.0f}"
        for days in (
            report.days_to_failure_p10,
            report.days_to_failure_p50,
            report.days_to_failure_p90,
        )
    )
    capacity = profile.design_capacity_mah * report.state_of_health
    of_new = f"({capacity:.0f} of {profile.design_capacity_mah:.0f} mAh)"
    rows = [
        ("battery health", f"{_percent(report.state_of_health)} {of_new}"),
        ("days to failure", f"{middle} (80 % between {low} and {high})"),
        ("failure in 30 days", _percent(report.failure_probability_30d)),
        ("confidence", _percent(report.confidence)),
        ("likely cause", _words(report.primary_issue)),
        ("recommended", f"{_words(report.recommended_action)} (urgency {report.urgency})"),
        *(("why" if index == 0 else "", reason) for index, reason in enumerate(reasons)),
        ("model", report.model_version),
    ]
    return [heading, *table(rows)]


MEANING = {
    "insufficient_history": "28 days of readings are needed, with capacities in the last 30",
    "stale": "the last reading is more than a week old",
    "invalid_data": "most capacities are out of range; check the gauge",
    "unsupported_spec": "the model needs other features; update fedcell",
}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _words(code: str | None) -> str:
    return (code or "").replace("_", " ")


def run_update(arguments: argparse.Namespace) -> int:
    """Install a bundle."""
    from models.trusted_keys import read_trusted_keys

    from ..model_store import ModelStore
    from ..telemetry_store import TelemetryStore

    config = config_of(arguments)
    if config.trusted_keys is None and not arguments.allow_unsigned:
        remedy = "give --trusted-keys FILE, or --allow-unsigned for an experiment"
        raise UsageError("update", "no key is trusted", remedy)
    TelemetryStore(config.store).close()
    keys = {} if config.trusted_keys is None else read_trusted_keys(config.trusted_keys)
    installed = ModelStore.beside(config.store).install(
        arguments.source, trusted_keys=keys, allow_unsigned=arguments.allow_unsigned
    )
    by = f"signed by {installed.signed_by}" if installed.signed_by else "unsigned"
    answer(
        arguments,
        {
            "version": installed.version,
            "digest": installed.digest,
            "signed_by": installed.signed_by,
        },
        [f"runs {installed.version} from now on ({by})"],
    )
    return 0
