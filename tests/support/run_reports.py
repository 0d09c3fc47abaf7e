"""A run report as a demo would make it, for tests of the contract and of the page."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from models.metrics import Quality
from models.prediction import STATUSES
from simulations.run_report import RunReport
from simulations.run_report_parts import (
    BrokerKind,
    BundleInUse,
    BundleRole,
    CauseFound,
    DeviceNotice,
    Expectation,
    FleetDescription,
    FleetHealth,
    LabelScore,
    LearningPoint,
    Life,
    Notices,
    RealCells,
)

NUM_WINDOWS = 41_208
PREVALENCE = 0.0182

URGENT_TEXT = """The battery of your Ranger 2 needs to be replaced soon

What we found
  The battery now holds 2361 mAh, 68 % of its capacity when new.
  Charging takes 14 % longer than a month ago.
  Of 210 similar devices, 64 % failed within 7 days.
  It will probably last 2 to 6 more days.

What happens next
  You can request a free replacement, book a service appointment, or look at the battery's \
details first.

If you would rather talk to a person
  You reach us here: support@example.org

[ Request a free replacement ]
[ Book a service appointment ]
[ View battery details ]
[ Talk to a person ]"""

SOON_TEXT = """Ihr Ranger 2 braucht in den nächsten Wochen vielleicht einen neuen Akku

Das Gerät arbeitet, im Moment ist nichts zu tun
  Ihr Ranger 2 arbeitet weiterhin. Der Akku muss in den nächsten Wochen möglicherweise ersetzt \
werden.

Was wir wissen
  Zustand des Akkus: 74 % seiner Kapazität im Neuzustand.
  Geschätzte Zeit: 9 bis 34 Tage.
  Wie sicher wir sind: nicht sehr sicher; es kann früher oder später sein.

Was Sie tun können
  Sie können einen Ersatz einplanen, den ausführlichen Bericht lesen oder sich nächste Woche \
erinnern lassen.
  Einen Menschen erreichen Sie hier: support@example.org

[ Ersatz einplanen ]
[ Ausführlichen Bericht lesen ]
[ Nächste Woche erinnern ]
[ Mit einem Menschen sprechen ]"""


def run_report(**changes: object) -> RunReport:
    """Build a realistic report; keyword arguments replace fields."""
    report = RunReport(
        started_at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC),
        seconds=203.4,
        seed=7,
        versions={"fedcell": "0.1.0", "Python": "3.11.2", "torch": "2.13.0", "flwr": "1.42.0"},
        fleet=FleetDescription(
            description="2,000 devices in warmer places and with faster wear than the fleets "
            "that the default bundle learnt from",
            days=420,
            judged_devices=400,
        ),
        devices=1600,
        rounds=20,
        epsilon_release=2.0,
        delta=1e-5,
        epsilon_server=None,
        record_epsilon=3.41,
        record_delta=1e-5,
        unit_of_privacy="one device: all that it sends in this stream of releases (one run)",
        record_unit="one training row (one device and day), added or removed; "
        "not a reading, a day or a failure",
        neighboring_relation="one device's contributions replaced by zero; "
        "the number of invited devices is public",
        assumptions=(
            "the aggregator is trusted to add the noise",
            "invitations depend on stable identifiers, the public schedule and history alone",
            "no amplification by sampling is assumed",
            "noise is independent between releases and drawn in floating point",
        ),
        noise_statement="Noise wins over a fleet of 1,600 devices: average precision fell from "
        "0.41 to 0.37 in the private rounds, while the same rounds without noise reached 0.47.",
        metrics=qualities(),
        learning_curve=learning_curves(),
        calibration=calibration(),
        bundle_in_use=BundleInUse(
            version="default-3f9a1c20",
            role=BundleRole.DEFAULT_BUNDLE,
            why="The private bundle did not pass the gate: its average precision lies 0.04 below "
            "that of the default bundle.",
        ),
        notices=notices(),
        broker=BrokerKind.MOSQUITTO,
        fleet_health=fleet_health(),
        life=life(),
        label_score=LabelScore(
            by_cause={
                "capacity_fade": CauseFound(found=118, total=141),
                "resistance_growth": CauseFound(found=39, total=58),
                "swelling": CauseFound(found=4, total=30),
                "charger_fault": CauseFound(found=2, total=31),
                "sudden_death": CauseFound(found=0, total=27),
            },
            false_labels=11,
        ),
        real_cells=RealCells(
            cells=None,
            metrics=None,
            reason="the ageing cells are not here (FEDCELL_CELLS is not set)",
        ),
    )
    return replace(report, **changes)


def quality(**changes: object) -> Quality:
    """Build the figures of one model."""
    base = Quality(
        num_windows=NUM_WINDOWS,
        prevalence=PREVALENCE,
        auc=0.5,
        average_precision=PREVALENCE,
        threshold=0.2,
        precision=0.0,
        recall=0.0,
        f1=0.0,
        ece=0.02,
        mae_days_when_90_or_less=None,
        coverage_p10_p90=None,
        precision_at_prevalence={"0.003": None, "0.01": None, "0.03": None},
    )
    return replace(base, **changes)


def qualities() -> dict[str, Quality]:
    """Build the figures of every model."""

    def model(auc, average_precision, precision, recall, **more):
        f1 = 2 * precision * recall / (precision + recall)
        shares = {"auc": auc, "average_precision": average_precision, "precision": precision}
        return quality(**shares, recall=recall, f1=f1, **{"ece": None, **more})

    def network(*figures, ece, days, coverage):
        more = {"mae_days_when_90_or_less": days, "coverage_p10_p90": coverage}
        return model(*figures, ece=ece, **more)

    return {
        "do_nothing": quality(threshold=None),
        "capacity_rule": model(0.81, 0.22, 0.19, 0.52),
        "linear_extrapolation": model(0.83, 0.26, 0.24, 0.47, mae_days_when_90_or_less=41.2),
        "logistic_regression": model(0.91, 0.44, 0.45, 0.49, ece=0.006),
        "gradient_boosting": model(0.93, 0.52, 0.51, 0.53, ece=0.004),
        "default_bundle": network(0.90, 0.412, 0.43, 0.46, ece=0.009, days=21.4, coverage=0.74),
        "federated_private": network(0.88, 0.371, 0.40, 0.42, ece=0.013, days=24.9, coverage=0.7),
        "federated_no_noise": network(0.92, 0.473, 0.47, 0.5, ece=0.007, days=18.8, coverage=0.78),
    }


def learning_curves() -> dict[str, tuple[LearningPoint, ...]]:
    """Build 20 rounds with noise and without, from the same start."""
    random = np.random.default_rng(4)
    rounds = np.arange(21)
    rise = 1 - np.exp(-rounds / 7)
    private = 0.41 - 0.035 * rise + np.append(0, random.normal(0, 0.012, 20))
    clear = 0.41 + 0.06 * rise + np.append(0, random.normal(0, 0.004, 20))

    def points(values, epsilon):
        return tuple(
            LearningPoint(
                round=int(number),
                average_precision=float(value),
                auc=float(0.88 + value / 12),
                loss=float(0.31 - value / 4),
                epsilon=epsilon(number),
            )
            for number, value in zip(rounds, values, strict=True)
        )

    return {
        "federated_private": points(private, lambda number: 2.0 * float(number / 20) ** 0.5),
        "federated_no_noise": points(clear, lambda _: None),
    }


def calibration() -> dict[str, tuple[tuple[float, float, int], ...]]:
    """Build reliability bins: the private model is too sure of itself."""
    mean = np.array([0.004, 0.03, 0.08, 0.15, 0.23, 0.33, 0.44, 0.56, 0.69, 0.84])
    count = NUM_WINDOWS * np.array([0.9, 0.04, 0.02, 0.01, 0.01, 0.006, 0.005, 0.004, 0.003, 0.002])

    def bins(frequency):
        return tuple(
            (float(m), float(f), int(c)) for m, f, c in zip(mean, frequency, count, strict=True)
        )

    return {
        "default_bundle": bins(mean * 0.92),
        "federated_private": bins(mean * 0.75 + 0.01),
        "federated_no_noise": bins(np.minimum(mean * 1.03, 0.95)),
    }


def notices() -> Notices:
    """Build six devices: two urgent, two soon, one healthy, one in quiet hours."""

    def device(number, expectation, template, state, text=None, language=None):
        return DeviceNotice(
            device=f"demo-{number:04d}",
            expectation=expectation,
            template=template,
            state=state,
            text=text,
            language=language,
        )

    urgent, soon = "battery.under_7", "battery.7_to_30"
    english_soon = SOON_TEXT_ENGLISH
    return Notices(
        sent=4,
        acknowledged=4,
        suppressed={"quiet_hours": 1},
        per_device=(
            device(12, Expectation.URGENT, urgent, "acknowledged", URGENT_TEXT, "en"),
            device(87, Expectation.URGENT, urgent, "acknowledged", URGENT_TEXT, "en"),
            device(203, Expectation.SOON, soon, "acknowledged", english_soon, "en"),
            device(411, Expectation.SOON, soon, "acknowledged", SOON_TEXT, "de"),
            device(530, Expectation.HEALTHY, None, "no_notice_due"),
            device(618, Expectation.QUIET_HOURS, urgent, "suppressed"),
        ),
    )


SOON_TEXT_ENGLISH = """Your Ranger 2 may need a new battery in the next weeks

Still working, no action needed right now
  Your Ranger 2 still works. Its battery may need to be replaced in the next weeks.

What we know
  Battery health: 74 % of its capacity when new.
  Estimated time: 9 to 34 days.
  How sure we are: not very sure; it may be earlier or later.

What you can do
  You can schedule a replacement, read the detailed report, or be reminded next week.
  You reach a person here: support@example.org

[ Schedule a replacement ]
[ Read the detailed report ]
[ Remind me next week ]
[ Talk to a person ]"""


def fleet_health() -> FleetHealth:
    """Build the last predictions of 1,960 devices of 2,000."""
    random = np.random.default_rng(2)
    health = np.clip(random.normal(0.86, 0.08, 1960), 0.45, 1.02)
    urgency = np.where(health < 0.69, "critical", "low").astype(object)
    urgency[(health >= 0.69) & (health < 0.72)] = "high"
    urgency[(health >= 0.72) & (health < 0.78)] = "standard"
    status = [str(STATUSES[0])] * 1960 + ["insufficient_history"] * 22 + ["stale"] * 18
    return FleetHealth.of_predictions(
        status=status, urgency=urgency.tolist(), state_of_health=health
    )


def life() -> Life:
    """Build a device that fails on day 371, daily from its 28th day."""
    random = np.random.default_rng(1)
    days = np.arange(28.0, 372.0)
    health = 99 - 0.045 * days - 14 * (days / 371) ** 6 + random.normal(0, 0.35, len(days))
    health[100:106] = np.nan
    left = 371 - days
    p50 = np.maximum(left * (0.8 + 0.25 * np.sin(days / 60)) + 260 * np.exp(-days / 90), 0.5)
    spread = 0.35 + 0.5 * np.exp(-days / 200)
    quantiles = np.stack([p50 * (1 - spread * 0.7), p50, p50 * (1 + spread * 1.4)], axis=1)
    quantiles[:6] = np.nan
    return Life.of_arrays(
        device_id="sim-000412",
        as_of_days=days,
        capacity_health_pct=health,
        days_to_failure=quantiles,
        failed_at_days=371.0,
        end_of_life_health_pct=70.0,
    )
