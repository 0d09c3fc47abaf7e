"""Everything behind one report, gathered once: what the three audiences are told from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.counterfactual import Estimate, find_counterfactual
from models.explanation import shapley_values
from models.featurize import featurize_now
from models.prediction import Status
from models.telemetry import DeviceProfiles
from models.tree_path import follow_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.counterfactual import Counterfactual
    from models.device_report import DeviceFigures
    from models.inference import Predictor
    from models.prediction import Report
    from models.telemetry import DeviceProfile
    from models.telemetry_audit import AuditReport
    from models.tree_path import TreePath

    from ..client import EdgeClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a report rests on; it stays on the device.

    Attributes:
        profile: of the device.
        report: what was predicted.
        figures: the device's own figures, for sentences.
        predictor: the model.
        features: float32, shape (n_features,), raw values; None before the first reading.
        contributions: Shapley value of each group in log-odds, shape (n_groups,); this and what
            follows is None without a prediction.
        path: through the bundle's small tree; also None where the bundle has none.
        counterfactual: what the search for a change found.
        audit: of the readings; None before the first one.
        refusals: readings that the store refused, by reason.
        log_factor: logarithm of the device's own factor on days to failure, 0 = none.
    """

    profile: DeviceProfile
    report: Report
    figures: DeviceFigures
    predictor: Predictor
    features: NDArray[np.float32] | None
    contributions: NDArray[np.float64] | None
    path: TreePath | None
    counterfactual: Counterfactual | None
    audit: AuditReport | None
    refusals: Mapping[str, int]
    log_factor: float = 0.0


def gather_evidence(client: EdgeClient) -> Evidence:
    """Gather what the client's latest report rests on.

    Features are computed anew from the stored readings, by the one implementation.

    Raises:
        ValueError: nothing was predicted yet.
    """
    store, report, predictor = client.store, client.report, client.predictor
    profile = store.profile
    table = featurize_now(
        store.telemetry(),
        DeviceProfiles.of([profile]),
        now_s=int(report.as_of.timestamp()),
        references=store.references_beyond_the_ring(),
    )
    features = table.features[0] if len(table.status) else None
    contributions, path, counterfactual = None, None, None
    if features is not None and report.status is Status.OK:
        contributions = shapley_values(predictor, features[None])[0]
        bundle = predictor.bundle
        path = follow_tree(
            bundle.manifest.get("surrogate_tree", {}),
            features,
            reference=bundle.explanation_reference,
        )
        found = find_counterfactual(
            predictor, features, chemistry=profile.chemistry, now=_estimate(client.model_report)
        )
        counterfactual = _corrected(found, client.log_factor)
    return Evidence(
        profile=profile,
        report=report,
        figures=client.figures,
        predictor=predictor,
        features=features,
        contributions=contributions,
        path=path,
        counterfactual=counterfactual,
        audit=table.audit if len(table.status) else None,
        refusals=store.refusals(),
        log_factor=client.log_factor,
    )


def _corrected(found: Counterfactual, log_factor: float) -> Counterfactual:
    """Tell both estimates as the report tells its own; the search went by the model's."""
    if log_factor == 0.0:
        return found
    from models.personal_correction import corrected_days

    def own(estimate: Estimate) -> Estimate:
        days = corrected_days(np.array([estimate.days]), np.array([log_factor]))
        return estimate._replace(days=float(days[0]))

    after = None if found.after is None else own(found.after)
    return replace(found, now=own(found.now), after=after)


def _estimate(report: Report) -> Estimate:
    if report.days_to_failure_p50 is None or report.failure_probability_30d is None:
        raise ValueError("a report whose status is ok must hold every figure")
    return Estimate(report.days_to_failure_p50, report.failure_probability_30d)
