"""The candidate of a deployed run: its weights as an unsigned bundle, fitted on a reference fleet.

A simulated run leaves its `bundle.zip` at its end. A deployed one ends on the server without a look
at any data, so the bundle is made afterwards, by the same steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from models.bundle import write_bundle
from models.calibration import Calibration
from models.training.export_onnx import read_parameters
from models.training.recipe import TrainedModel

from ..engine.proposal import PROPOSAL_FILE
from ..engine.reference_fleet import ReferenceRows
from ..engine.rounds import RoundsError
from ..streams.release_witness import weights_digest
from .export_note import keep_note, require_nobodys
from .federated_bundle import federated_bundle, fitted, quality_on_rows
from .outcome import outcome_of
from .reading import read_report
from .replay_record import folder_digest
from .run_files import BUNDLE_FILE, WEIGHTS_FILE
from .weights_file import read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from models.bundle import Bundle

JUDGED_ON: Final = "Reference fleet, the half on which nothing was fitted"
OVER: Final = frozenset({"finished", "cancelled"})


class RunOpenError(RoundsError):
    """A run has no result that could leave yet."""


class ExportRefusedError(RoundsError):
    """What lies in a run's folder, or what was named beside it, does not belong to the run."""

    exit_code = 3


def export(run: Path, *, start: Bundle, reference: Path, out: Path | None = None) -> Bundle:
    """Write a run's candidate, and note what it was fitted on.

    Args:
        run: folder of the run, which is over.
        start: bundle whose weights the run started from.
        reference: fleet dataset with outcomes, nobody's.
        out: file of the bundle; None writes the run's `bundle.zip`.

    Raises:
        RunMissingError, RunReportError: there is no run, or its report cannot be read.
        RunOpenError: it goes on, or released nothing.
        ExportRefusedError: its weights are not those it reported, or it started from others, or a
            bundle is there already.
        OwnFleetError: the reference fleet is the one that the run trained over.
        DatasetError: the reference fleet cannot be used.
    """
    report = read_report(run)
    path = run / BUNDLE_FILE if out is None else out
    if path.exists():
        what = f"{path}: is there already, and what was decided on it stands in {PROPOSAL_FILE}"
        raise ExportRefusedError(f"{what}; name another file by --out, or put this one elsewhere")
    digest = folder_digest(reference)
    require_nobodys(run, reference, digest)
    weights = _weights_of(run, report)
    shape = read_parameters(start.model_bytes)
    if weights_digest(shape.flat()) != report["record"]["start_sha256"]:
        raise ExportRefusedError(
            f"{run}: started from other weights than {start.version} has; name the bundle that its "
            "start-weights came from"
        )
    rows = ReferenceRows.of(reference)
    model = fitted(shape.with_flat(weights), rows.calibrate)
    before = TrainedModel(shape, Calibration(**start.manifest["calibration"]), start.threshold)
    devices = report["schedule"]["population_size"]
    bundle = federated_bundle(
        model,
        rows.calibrate,
        title="fedcell battery model after federated rounds",
        trained_on=(
            f"starts from {start.version}",
            f"{outcome_of(report)['leaves_round']} federated rounds over {devices:,} devices",
        ),
        metrics={
            JUDGED_ON: {
                "start": quality_on_rows(before, rows.judge),
                "rounds": quality_on_rows(model, rows.judge),
            }
        },
        limits=(f"The reference fleet has the SHA-256 {digest}.",),
        report=report,
        explanation_reference=start.explanation_reference,
    )
    keep_note(run, digest=bundle.digest, reference_sha256=digest)
    write_bundle(bundle, path)
    return bundle


def _weights_of(run: Path, report: Mapping[str, Any]) -> NDArray[np.float32]:
    if report["status"] not in OVER or not report["rounds"]:
        what = "released nothing" if report["status"] in OVER else f"is {report['status']}"
        raise RunOpenError(f"{run}: the run {what}; nothing can be exported of it")
    path = run / WEIGHTS_FILE
    try:
        weights = read_weights(path)
    except (OSError, ValueError) as error:
        remedy = "put a whole copy of the run back"
        raise ExportRefusedError(f"{path}: holds no weights ({error}); {remedy}") from error
    if weights_digest(weights) != report["record"]["end_sha256"]:
        raise ExportRefusedError(
            f"{path}: holds other weights than run.json reports; put a whole copy of the run back"
        )
    return weights
