"""`predict`, `update`: the report of this device, and the model behind it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .answers import answer, config_of, moment_flag, now_of, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from models.prediction import Report
    from models.telemetry import DeviceProfile

    from ..wording import Wording

AUDIENCES = ("owner", "support", "compliance")
"""Who an explanation is for; the members of `audiences.Audience`."""


def add_predict(predict: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    predict.add_argument(
        "--explain", action="store_true", help="also say why, in sentences with own figures"
    )
    predict.add_argument(
        "--audience",
        choices=AUDIENCES,
        help="explain to the owner (default), to support with all figures, or as an audit record",
    )
    predict.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="run the prediction of an audit record again, and compare",
    )
    predict.add_argument("--language", help="of the reasons; default: the owner's")
    predict.add_argument("--now", type=moment_flag, metavar="TIME", help="predict as of this time")


def add_update(update: argparse.ArgumentParser) -> None:
    """Add the arguments of `update`."""
    update.add_argument(
        "source",
        metavar="SOURCE",
        help="a bundle (zip or folder), a folder with one zip, an address (https://...), "
        "or with --repository the bundle's name there",
    )
    update.add_argument(
        "--allow-unsigned", action="store_true", help="for experiments of one's own"
    )
    update.add_argument(
        "--allow-older", action="store_true", help="take an older release than the one in use"
    )
    update.add_argument(
        "--allow-rolled-back",
        action="store_true",
        help="take a version that failed its trial on this device",
    )
    update.add_argument("--repository", metavar="URL", help="a repository of The Update Framework")
    update.add_argument(
        "--tuf-root", type=Path, metavar="FILE", help="its first root.json, the first time"
    )


def run_predict(arguments: argparse.Namespace) -> int:
    """Predict once."""
    audience = getattr(arguments, "audience", None)
    if getattr(arguments, "check", None) is not None:
        if audience not in {None, AUDIENCES[-1]}:
            raise UsageError("--check", "checks audit records", "leave --audience out")
        audience = AUDIENCES[-1]
    if audience is not None or arguments.explain:
        from ..explanations.audiences import Audience
        from .explanations import explain

        return explain(arguments, Audience(audience or AUDIENCES[0]))
    from ..client import EdgeClient
    from ..errors import StoreBusyError
    from ..link.books import note_report

    now = now_of(arguments)
    with EdgeClient.of_config(config_of(arguments)) as client:
        report = client.predict(now)
        profile = client.profile
        with suppress(StoreBusyError), client.store.waiting_briefly():
            note_report(client.store, report, now=now)
    answer(arguments, report_json(report), report_lines(profile, report))
    return 0


def report_json(report: Report) -> dict[str, object]:
    """Return a report as JSON can carry it; what the model alone says only where it differs."""
    from dataclasses import asdict

    said = asdict(report) | {"as_of": report.as_of.isoformat()}
    if report.model_days_to_failure_p50 is None:
        del said["model_days_to_failure_p50"]
    return said


def report_lines(
    profile: DeviceProfile,
    report: Report,
    more: Iterable[tuple[str, str]] = (),
    wording: Wording | None = None,
) -> list[str]:
    """Return a report as lines of text.

    Args:
        profile: of the device.
        report: what was predicted.
        more: rows of two columns that belong between the report and the model's name.
        wording: says cause and action in the owner's language; None: by their codes.
    """
    heading = f"{report.device_id} · {profile.device_model} · {report.as_of:%Y-%m-%d %H:%M} UTC"
    if (
        report.state_of_health is None
        or report.days_to_failure_p10 is None
        or report.days_to_failure_p50 is None
        or report.days_to_failure_p90 is None
        or report.failure_probability_30d is None
        or report.confidence is None
    ):
        rows = [("status", _words(report.status)), ("meaning", MEANING[report.status]), *more]
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
        *_correction(report),
        ("failure in 30 days", _percent(report.failure_probability_30d)),
        ("confidence", _percent(report.confidence)),
        *_advice(report, wording),
        *more,
        ("model", report.model_version),
    ]
    return [heading, *table(rows)]


def _correction(report: Report) -> list[tuple[str, str]]:
    model = report.model_days_to_failure_p50
    if model is None:
        return []
    what = f"from {model:.0f}: this battery wore faster than was forecast for it"
    return [("corrected", what)]


def _advice(report: Report, wording: Wording | None) -> list[tuple[str, str]]:
    if wording is None or report.primary_issue is None or report.recommended_action is None:
        recommended = f"{_words(report.recommended_action)} (urgency {report.urgency})"
        return [("likely cause", _words(report.primary_issue)), ("recommended", recommended)]
    from ..explanations.sentences import recommended_words

    cause = wording.explanation["causes"][report.primary_issue]
    said = recommended_words(report.recommended_action, report.urgency, wording)
    return [("likely cause", cause), ("recommended", said)]


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
    """Fetch a bundle, check it, and put it on trial."""
    from models.trusted_keys import read_trusted_keys

    from ..model_store import ModelStore
    from ..telemetry_store import TelemetryStore
    from ..updates.update import Leave, update_model

    config = config_of(arguments)
    if config.trusted_keys is None and not arguments.allow_unsigned:
        remedy = "give --trusted-keys FILE, or --allow-unsigned for an experiment"
        raise UsageError("update", "no key is trusted", remedy)
    if arguments.tuf_root is not None and arguments.repository is None:
        raise UsageError("--tuf-root", "is of a repository", "give --repository URL, too")
    TelemetryStore(config.store, key=config.key_source()).close()
    models = ModelStore.beside(config.store)
    is_shown = sys.stderr.isatty() and not getattr(arguments, "json", False)
    installed = update_model(
        models,
        arguments.source,
        trusted_keys={} if config.trusted_keys is None else read_trusted_keys(config.trusted_keys),
        leave=Leave(
            unsigned=arguments.allow_unsigned,
            older=arguments.allow_older,
            rolled_back=arguments.allow_rolled_back,
        ),
        repository=arguments.repository,
        first_root=arguments.tuf_root,
        progress=_show_progress if is_shown else None,
        backend=config.chosen_backend(),
    )
    by = f"signed by {installed.signed_by}" if installed.signed_by else "unsigned"
    is_on_trial = models.is_on_trial()
    data = {
        "version": installed.version,
        "digest": installed.digest,
        "signed_by": installed.signed_by,
        "release": installed.release,
        "on_trial": is_on_trial,
    }
    what = "on trial: the first prediction made with it keeps it" if is_on_trial else "runs already"
    answer(arguments, data, [f"{installed.version} ({by}) {what}"])
    return 0


def _show_progress(have: int, total: int | None) -> None:
    of_all = "" if total is None else f" of {total / 1024:.0f}"
    end = "\n" if have == total else ""
    sys.stderr.write(f"\r{have / 1024:.0f}{of_all} KiB{end}")
    sys.stderr.flush()
