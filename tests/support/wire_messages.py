"""Messages for tests, each with all its fields."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from models.prediction import Confidence, Urgency
from models.telemetry import DeviceId
from models.wire.announcements import ReleaseAnnouncement
from models.wire.bands import DaysBand, HealthBand, ProbabilityBand
from models.wire.messages import (
    Ack,
    Birth,
    Configuration,
    Criticality,
    Notice,
    NoticeState,
    Presence,
    PrimaryIssue,
    Status,
    Summary,
    Template,
)

ISSUED = datetime(2026, 6, 1, 12, tzinfo=UTC)
DEVICE = DeviceId("device-1")


def numbered_id(number: int) -> str:
    """Return a message id that is easy to read."""
    return f"{number:032x}"


def summary(**changes: object) -> Summary:
    """Make a summary that calls for the more urgent notice."""
    values: dict[str, object] = {
        "id": numbered_id(1),
        "device": DEVICE,
        "sequence": 1,
        "issued": ISSUED,
        "urgency": Urgency.CRITICAL,
        "flagged": True,
        "days_band": DaysBand.UNDER_7,
        "probability_band": ProbabilityBand.FROM_80,
        "health_band": HealthBand.FROM_70_TO_80,
        "confidence": Confidence.HIGH,
        "primary_issue": PrimaryIssue.CAPACITY_FADE,
        "criticality": Criticality.MEDIUM,
        "model_version": "1.0.0+abc",
        "language": "en",
        "notices_wanted": True,
    }
    return Summary(**(values | changes))  # type: ignore[arg-type]


def soon_summary(**changes: object) -> Summary:
    """Make a summary that calls for the less urgent notice."""
    soon: dict[str, object] = {
        "urgency": Urgency.HIGH,
        "flagged": False,
        "days_band": DaysBand.FROM_7_TO_30,
        "probability_band": ProbabilityBand.FROM_50_TO_80,
    }
    return summary(**(soon | changes))


def healthy_summary(**changes: object) -> Summary:
    """Make a summary that calls for nothing."""
    healthy: dict[str, object] = {
        "urgency": Urgency.LOW,
        "flagged": False,
        "days_band": DaysBand.FROM_90,
        "probability_band": ProbabilityBand.UNDER_1,
        "health_band": HealthBand.FROM_90,
    }
    return summary(**(healthy | changes))


def notice(**changes: object) -> Notice:
    """Make a notice."""
    values: dict[str, object] = {
        "id": numbered_id(2),
        "device": DEVICE,
        "sequence": 1,
        "issued": ISSUED,
        "expires": ISSUED + timedelta(days=14),
        "correlation": numbered_id(1),
        "template": Template.UNDER_7,
        "language": "de",
        "urgency": Urgency.CRITICAL,
        "days_band": DaysBand.UNDER_7,
        "probability_band": ProbabilityBand.FROM_80,
        "health_band": HealthBand.FROM_70_TO_80,
        "confidence": Confidence.HIGH,
        "human_contact": "Grüße: +49 30 1234567",
        "version": 1,
    }
    return Notice(**(values | changes))  # type: ignore[arg-type]


def ack(**changes: object) -> Ack:
    """Make an acknowledgement of the notice above."""
    values: dict[str, object] = {
        "id": numbered_id(3),
        "device": DEVICE,
        "sequence": 1,
        "issued": ISSUED,
        "correlation": numbered_id(2),
        "state": NoticeState.RECEIVED,
        "version": 2,
    }
    return Ack(**(values | changes))  # type: ignore[arg-type]


def birth(**changes: object) -> Birth:
    """Make what a device says after connecting."""
    values: dict[str, object] = {
        "id": numbered_id(4),
        "device": DEVICE,
        "sequence": 1,
        "issued": ISSUED,
        "client_version": "0.1.0",
        "model_version": "1.0.0+abc",
        "feature_spec_version": "1",
    }
    return Birth(**(values | changes))  # type: ignore[arg-type]


def status(**changes: object) -> Status:
    """Make a last will."""
    values: dict[str, object] = {
        "id": numbered_id(5),
        "device": DEVICE,
        "sequence": 1,
        "issued": ISSUED,
        "presence": Presence.OFFLINE,
    }
    return Status(**(values | changes))  # type: ignore[arg-type]


def configuration(**changes: object) -> Configuration:
    """Make a configuration that stops training."""
    values: dict[str, object] = {
        "id": numbered_id(6),
        "device": DEVICE,
        "sequence": 1,
        "issued": ISSUED,
        "expires": ISSUED + timedelta(days=90),
        "training": False,
    }
    return Configuration(**(values | changes))  # type: ignore[arg-type]


def announcement(**changes: object) -> ReleaseAnnouncement:
    """Make the announcement of a release to the canary ring."""
    values: dict[str, object] = {
        "id": numbered_id(7),
        "sequence": 3,
        "issued": ISSUED,
        "expires": ISSUED + timedelta(days=90),
        "ring": "canary",
        "release": 5,
        "version": "battery-abc",
        "feature_spec_version": "1",
        "least_client_version": "0.1.0",
        "sha256": "ab" * 32,
        "num_bytes": 60_000,
        "spread_s": 0,
    }
    return ReleaseAnnouncement(**(values | changes))  # type: ignore[arg-type]


def one_of_each() -> tuple[Summary, Notice, Ack, Birth, Status, Configuration]:
    """Return one message of each type."""
    quiet = {"quiet_from_hour": 22, "quiet_until_hour": 7, "zone": "Europe/Berlin"}
    return summary(**quiet), notice(), ack(), birth(), status(), configuration()
