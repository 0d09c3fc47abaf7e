"""Does this device compute what was released? Every set of vectors, run by the real code.

A set that fails names its first differences. Nothing of the device's own store is read.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .conformance import MANIFEST, read_vectors
from .conformance.comparing import difference
from .conformance.site_rounds import check_site_rounds
from .conformance.wire import check_messages, check_sealing, check_signatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.inference import Predictor
    from models.telemetry import DeviceProfile, Reading

    Vectors = Mapping[str, Any]

MOST_FAILURES_NAMED = 5
TIMED_RUNS = 20


@dataclass(frozen=True, slots=True)
class SetResult:
    """What became of one set of vectors.

    Attributes:
        name: of the set.
        checked: vectors that were run.
        failures: what differs, the first few; empty where all agree.
        skipped: why the set was not run, None where it was.
    """

    name: str
    checked: int = 0
    failures: tuple[str, ...] = ()
    skipped: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every vector agrees; a set that was not run says nothing, and passes."""
        return not self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What a self-test has found.

    Attributes:
        vectors: version of the vectors, with the feature specification that they are for.
        sets: result of each set.
        backends: which of `onnxruntime` and `numpy` this device has.
        timings_ms: medians: `features_and_model` and `explained` of a warm prediction from a store
            of some months, and `model` by backend; with the name of the backend in each.
    """

    vectors: Mapping[str, str]
    sets: tuple[SetResult, ...]
    backends: tuple[str, ...]
    timings_ms: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether no set has failed, and at least one backend was there."""
        return bool(self.backends) and all(result.passed for result in self.sets)


def run_selftest(folder: Path | None = None) -> SelfTest:
    """Run every set of vectors on this device.

    Args:
        folder: of the vectors; None takes those of the package.

    Raises:
        InputError: the vectors cannot be read.
        models.errors.BundleError: the default bundle is refused.
    """
    from models.bundle import load_bundle
    from models.inference import Backend

    vectors = read_vectors() if folder is None else read_vectors(folder)
    bundle = load_bundle()
    predictors = dict(predictors_of(bundle))
    sets = [_collected("readings", check_readings(vectors["readings.json"]))]
    for backend in Backend:
        name = f"outputs ({backend})"
        if backend not in predictors:
            sets.append(SetResult(name, skipped=f"{backend} is not installed here"))
        else:
            found = check_outputs(vectors["outputs.json"], predictors[backend])
            sets.append(_collected(name, found))
    sets += [
        _collected("messages", check_messages(vectors["messages.json"])),
        _collected("signatures", check_signatures(vectors["signatures.json"])),
        _collected("sealing", check_sealing(vectors["sealing.json"])),
        _collected("rounds over MQTT", check_site_rounds(vectors["site_rounds.json"])),
    ]
    manifest = vectors[MANIFEST]
    return SelfTest(
        vectors={
            name: str(manifest[name])
            for name in ("conformance_version", "feature_spec_version", "model_version")
        },
        sets=tuple(sets),
        backends=tuple(predictors),
        timings_ms=timings_of(vectors, predictors),
    )


# Readings -> features -> report


def profile_of(fields: Mapping[str, Any]) -> DeviceProfile:
    """Return the profile of a vector."""
    from models.telemetry import DeviceProfile

    made_at = datetime.fromisoformat(fields["manufactured_at"])
    return DeviceProfile(**{**fields, "manufactured_at": made_at})


def readings_of_vector(table: Mapping[str, Any]) -> list[Reading]:
    """Return the readings of a vector, in the order in which they were recorded."""
    from models.telemetry import Reading

    names = table["columns"][1:]
    return [
        Reading(
            at=datetime.fromtimestamp(row[0], UTC),
            **{n: v for n, v in zip(names, row[1:], strict=True) if v is not None},
        )
        for row in table["rows"]
    ]


def computed(case: Mapping[str, Any], *, folder: Path) -> dict[str, Any]:
    """Compute what a device computes of a vector's readings: record them, then predict.

    Args:
        case: profile, readings and moments of a vector.
        folder: an empty one; a store is made in it.

    Returns:
        The refusals, and for each moment status, features and report, as JSON carries them.
    """
    from models.featurize import featurize_now
    from models.prediction import STATUSES
    from models.telemetry import DeviceProfiles

    from .client import EdgeClient
    from .commands.prediction import report_json
    from .telemetry_store import TelemetryStore

    profile = profile_of(case["profile"])
    path = folder / "device.db"
    TelemetryStore.create(path, profile=profile).close()
    moments = []
    # What a device learns of itself is no part of what was released.
    with EdgeClient(path, "default", personalise=False) as client:
        end = datetime.fromtimestamp(case["recorded_at_s"], UTC)
        done = client.record_many(readings_of_vector(case["readings"]), now=end)
        for now_s in case["moments_s"]:
            table = featurize_now(
                client.store.telemetry(), DeviceProfiles.of([profile]), now_s=now_s
            )
            report = client.predict(datetime.fromtimestamp(now_s, UTC))
            moments.append(
                {
                    "now_s": now_s,
                    "status": STATUSES[int(table.status[0])].value,
                    "features": with_none(table.features[0]),
                    "report": _rounded(report_json(report)),
                }
            )
    return {"refused": dict(done.refused), "moments": moments}


def check_readings(vectors: Vectors) -> Iterator[str | None]:
    """Compare refusals, statuses, features and reports of each vector; yields what differs."""
    tolerance = vectors["tolerance"]
    for case in vectors["cases"]:
        with tempfile.TemporaryDirectory() as folder:
            found = json.loads(json.dumps(computed(case, folder=Path(folder))))
        yield difference(found, case["expected"], tolerance, case["name"])


# Features -> outputs


def predictors_of(bundle: Bundle) -> Iterator[tuple[str, Predictor]]:
    """Yield each backend that this device has, with what runs the model on it."""
    from models.inference import Backend, Predictor

    for backend in Backend:
        if backend is not Backend.ONNX_RUNTIME or find_spec("onnxruntime") is not None:
            yield backend.value, Predictor(bundle, backend=backend)


def check_outputs(vectors: Vectors, predictor: Predictor) -> Iterator[str | None]:
    """Compare the outputs of the default bundle, and what is decided by them, row by row."""
    found_version, wanted = predictor.bundle.version, vectors["model_version"]
    if wanted != found_version:
        yield f"the default bundle is {found_version}, the vectors are of {wanted}"
        return
    rows = np.array(
        [[math.nan if value is None else value for value in row] for row in vectors["features"]],
        np.float32,
    )
    outputs, decided = predictor.outputs(rows), decisions(predictor, rows)
    for number in range(len(rows)):
        found = {name: outputs[name][number].tolist() for name in vectors["outputs"]}
        expected = {name: values[number] for name, values in vectors["outputs"].items()}
        found["decisions"], expected["decisions"] = decided[number], vectors["decisions"][number]
        yield difference(found, expected, vectors["tolerance"], f"row {number}")


def decisions(predictor: Predictor, features: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return what a report says of each row of features, as JSON carries it."""
    from models.prediction import ACTIONS, URGENCIES
    from models.telemetry import CAUSES

    found = predictor.predict(features)
    return [
        {
            "recommended_action": ACTIONS[int(found.action[row])].value,
            "urgency": URGENCIES[int(found.urgency[row])].value,
            "flagged": bool(found.flagged[row]),
            "primary_issue": CAUSES[int(found.cause[row])],
            "confidence": float(f"{float(found.confidence[row]):.7g}"),
        }
        for row in range(len(features))
    ]


# Timing


def timings_of(vectors: Vectors, predictors: Mapping[str, Predictor]) -> dict[str, float]:
    """Measure a warm prediction from a store, and the model alone, in milliseconds."""
    from .client import EdgeClient
    from .telemetry_store import TelemetryStore

    case = vectors["readings.json"]["cases"][0]
    now = datetime.fromtimestamp(case["moments_s"][0], UTC)
    timings = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "device.db"
        TelemetryStore.create(path, profile=profile_of(case["profile"])).close()
        with EdgeClient(path, "default") as client:
            client.record_many(readings_of_vector(case["readings"]), now=now)
            timings["features_and_model"] = median_ms(lambda: client.predict(now, explain=False))
            timings["explained"] = median_ms(lambda: client.predict(now))
    row = np.full((1, len(vectors["outputs.json"]["features"][0])), 1.0, np.float32)
    for backend, predictor in predictors.items():
        timings[f"model ({backend})"] = median_ms(partial(predictor.outputs, row))
    return timings


def median_ms(work: Callable[[], object], *, runs: int = TIMED_RUNS) -> float:
    """Return the median time of some runs after a first one, milliseconds."""
    work()
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - start))
    return statistics.median(took)


def with_none(values: NDArray[np.float32]) -> list[float | None]:
    """Return numbers as JSON carries them, to seven digits, None for NaN."""
    return [
        None if math.isnan(value) else float(f"{value:.7g}")
        for value in values.astype(float).tolist()
    ]


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.7g}") if isinstance(value, float) else value
        for name, value in fields.items()
    }


def _collected(name: str, found: Iterator[str | None]) -> SetResult:
    """Run a set; an error that no vector expects is a failure of the set, not of the test."""
    checked = 0
    failures: list[str] = []
    try:
        for failure in found:
            checked += 1
            if failure is not None:
                failures.append(failure)
    except ModuleNotFoundError as error:
        return SetResult(name, checked, tuple(failures), f"{error.name} is not installed here")
    except Exception as error:  # noqa: BLE001 - whatever it is, the device does not pass
        failures.append(f"{type(error).__name__}: {error}")
    return SetResult(name, checked, tuple(failures[:MOST_FAILURES_NAMED]))
