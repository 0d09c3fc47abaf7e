"""The report of a run for machines: what `report.json` holds, and how it is read back.

Keys of the file equal the field names. Every ε stands beside its δ; the private model stands beside
every baseline, all measured on the same windows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from models.durable_file import write_durably
from models.metrics import Quality

from .dataclass_json import from_plain, to_plain
from .errors import SimulationsError
from .run_report_parts import (
    BrokerKind,
    BundleInUse,
    FleetDescription,
    FleetHealth,
    LabelScore,
    LearningPoint,
    Life,
    Notices,
    RealCells,
    require_counts,
    require_finite,
    require_names,
    require_one_of,
    require_quality,
    require_shares,
)

SCHEMA_VERSION: Final = 1
REPORT_FILE: Final = "report.json"

MODEL_NAMES: Final = (
    "do_nothing",
    "capacity_rule",
    "linear_extrapolation",
    "logistic_regression",
    "gradient_boosting",
    "default_bundle",
    "federated_private",
    "federated_no_noise",
)
CURVE_NAMES: Final = ("federated_private", "federated_no_noise")


class RunReportError(SimulationsError):
    """A run report cannot be read.

    Attributes:
        where: the file.
    """

    def __init__(self, where: object, what: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; run the demo again")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Everything that a run has to say of itself.

    Attributes:
        started_at: aware time, UTC.
        seconds: how long the run took.
        seed: of fleet, devices and simulated noise.
        versions: of fedcell, Python and the libraries that ran, by name.
        fleet: the simulated fleet.
        devices: devices that may take part in rounds.
        rounds: private rounds done.
        epsilon_release: ε against whoever receives the private model; None = unbounded.
        delta: δ of `epsilon_release`, and of `epsilon_server` where that is bounded.
        epsilon_server: ε against the server's operator; None = unbounded.
        record_epsilon: ε of one training row, by DP-SGD on the device; None = off.
        record_delta: δ of `record_epsilon`; None = off.
        unit_of_privacy: whose contribution `epsilon_release` and `epsilon_server` protect.
        record_unit: what `record_epsilon` protects.
        neighboring_relation: which two worlds are compared.
        assumptions: what must hold for the figures, a sentence each.
        noise_statement: one plain sentence with figures: what the noise costs over this fleet.
        metrics: quality of each of `MODEL_NAMES`, all on the same windows.
        learning_curve: looks at the weights in the order of the rounds, for `CURVE_NAMES`.
        calibration: by model name, bins of (mean probability, frequency, windows), as
            `models.metrics.reliability` returns them.
        bundle_in_use: what the devices of the demo ran.
        notices: what became of each device's notice.
        broker: who carried them.
        fleet_health: the whole fleet at the end.
        life: one device's life with prediction interval.
        label_score: the devices' labels by rule against the simulated truth.
        real_cells: the default bundle on the development cells.

    Raises:
        ValueError: a figure is not finite, a share lies outside 0 to 1, an ε stands without its δ,
            a model is missing, or two models were measured on different windows.
    """

    started_at: datetime
    seconds: float
    seed: int
    versions: Mapping[str, str]
    fleet: FleetDescription
    devices: int
    rounds: int
    epsilon_release: float | None
    delta: float
    epsilon_server: float | None
    record_epsilon: float | None
    record_delta: float | None
    unit_of_privacy: str
    record_unit: str
    neighboring_relation: str
    assumptions: tuple[str, ...]
    noise_statement: str
    metrics: Mapping[str, Quality]
    learning_curve: Mapping[str, tuple[LearningPoint, ...]]
    calibration: Mapping[str, tuple[tuple[float, float, int], ...]]
    bundle_in_use: BundleInUse
    notices: Notices
    broker: BrokerKind
    fleet_health: FleetHealth
    life: Life
    label_score: LabelScore
    real_cells: RealCells

    def __post_init__(self) -> None:
        """Refuse what cannot be true."""
        require_finite("report", self)
        require_counts(devices=self.devices, rounds=self.rounds)
        if self.started_at.tzinfo is None:
            raise ValueError(f"started_at must be an aware time, got {self.started_at}")
        if self.seconds < 0:
            raise ValueError(f"seconds must be at least 0, got {self.seconds}")
        require_one_of("broker", self.broker, tuple(BrokerKind))
        self._require_private_figures()
        self._require_comparable_models()
        require_names("learning_curve", self.learning_curve, CURVE_NAMES)
        require_names("calibration", self.calibration, MODEL_NAMES)
        for name, bins in self.calibration.items():
            for mean, frequency, count in bins:
                require_shares(
                    **{f"calibration.{name}: mean": mean, f"calibration.{name}: share": frequency}
                )
                require_counts(**{f"calibration.{name}: windows": count})

    def _require_private_figures(self) -> None:
        for name in ("epsilon_release", "epsilon_server", "record_epsilon"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if (self.record_epsilon is None) != (self.record_delta is None):
            raise ValueError(
                "record_epsilon and record_delta come together, "
                f"got {self.record_epsilon} and {self.record_delta}"
            )
        for name in ("delta", "record_delta"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must lie in 0 to 1, below 1, got {value}")
        for name in ("unit_of_privacy", "record_unit", "neighboring_relation", "noise_statement"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} must say something, got an empty text")
        if not self.assumptions:
            raise ValueError("assumptions must name at least one, got none")

    def _require_comparable_models(self) -> None:
        missing = [name for name in MODEL_NAMES if name not in self.metrics]
        if missing:
            raise ValueError(f"metrics must hold every model, missing: {', '.join(missing)}")
        require_names("metrics", self.metrics, MODEL_NAMES)
        for name, quality in self.metrics.items():
            require_quality(f"metrics.{name}", quality)
        on = {(one.num_windows, one.prevalence) for one in self.metrics.values()}
        if len(on) > 1:
            raise ValueError(
                f"metrics must be measured on the same windows, got (windows, prevalence) {on}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values, with the version of its schema."""
        return {"schema_version": SCHEMA_VERSION, **to_plain(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build a report from plain values; keys that are not known are passed over.

        Raises:
            ValueError: a value is missing, of the wrong type or refused, or the schema is another.
        """
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version must be {SCHEMA_VERSION}, got {version!r}")
        return from_plain(cls, dict(values), where="report")


def write_report(report: RunReport, path: Path) -> None:
    """Write `report.json` aside, sync it and rename it into place."""
    text = json.dumps(report.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, text.encode())


def read_report(path: Path) -> RunReport:
    """Read a `report.json`.

    Raises:
        RunReportError: it is not there, not JSON, or not a run report.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise RunReportError(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RunReportError(path, "is not JSON") from error
    if not isinstance(values, dict):
        raise RunReportError(path, "is not a run report")
    try:
        return RunReport.from_json(values)
    except ValueError as error:
        raise RunReportError(path, f"is not a run report: {error}") from error
