"""`run_rounds`: federated rounds over a fleet dataset, from start weights to a bundle."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import DEFAULT, write_bundle
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from privacy import OperatingSystemNoise
from server.flower_app import PlannedRun
from server.rounds import RoundsConfig, RunFolder
from server.server_optimizer import WARM_RATE, ServerRecipe

from .federation import run_planned
from .fleet_rows import fleet_rows
from .held_out import HeldOutPart
from .rounds_bundle import bundle_of_run, weights_of_bundle
from .seeded_noise import SeededNoise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from server.rounds import RoundRecord
    from server.strategy import Metrics

    from .fleet_rows import FleetRows

LARGEST_DEFAULT_COHORT = 2500
CLIPPING_NORM = 0.5
LOG_FILE = "flower.log"
BUNDLE_FILE = "bundle.zip"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsRequest:
    """What decides a run over a fleet dataset.

    Attributes:
        num_rounds: T.
        cohort_size: n, devices invited to each round; None invites all, up to 2,500.
        epsilon: ε_release, or None for a comparison without noise on releases.
        delta: its δ.
        bundle: start from this bundle, "default", or None for random weights.
        trusted_keys: Ed25519 public keys by key id, for a bundle other than the default.
        allow_unsigned: start from a bundle of one's own that carries no signature.
        record_level: whether devices train with record-level DP-SGD.
        seed: repeats the run; its noise is then simulated and can be the basis of no release.
        clipping_norm: C; the default was chosen on simulated fleets.
        recipe: how devices train.
        server: how updates move the weights; None takes FedAdam with the rate for the start.
        evaluate_every: rounds between two looks at the held-out part.
    """

    num_rounds: int
    cohort_size: int | None = None
    epsilon: float | None = 2.0
    delta: float = 1e-8
    bundle: Path | str | None = DEFAULT
    trusted_keys: Mapping[str, bytes] = field(default_factory=dict)
    allow_unsigned: bool = False
    record_level: bool = True
    seed: int | None = None
    clipping_norm: float = CLIPPING_NORM
    recipe: LocalRecipe = field(default_factory=LocalRecipe)
    server: ServerRecipe | None = None
    evaluate_every: int = 1

    def config(self, population_size: int) -> RoundsConfig:
        """Return the configuration of the run over so many enrolled devices.

        Raises:
            ValueError: a number is out of bounds.
        """
        seeded = None if self.seed is None else f"simulated-{self.seed}"
        rate = ServerRecipe().learning_rate if self.bundle is None else WARM_RATE
        recipe = self.recipe
        if not self.record_level:
            recipe = replace(recipe, record_noise_multiplier=0.0)
        config = RoundsConfig(
            stream=seeded or f"rounds-{secrets.token_hex(8)}",
            num_rounds=self.num_rounds,
            cohort_size=self.cohort_size or min(population_size, LARGEST_DEFAULT_COHORT),
            clipping_norm=self.clipping_norm,
            epsilon=self.epsilon,
            delta=self.delta,
            recipe=recipe,
            server=self.server or ServerRecipe(learning_rate=rate),
            evaluate_every=self.evaluate_every,
        )
        config.policy(config.schedule(population_size))
        return config


@dataclass(frozen=True, slots=True)
class RoundsResult:
    """What a run has left.

    Attributes:
        folder: with `run.json`, `ledger.jsonl`, `weights.npz`, `bundle.zip`, `flower.log`.
        weights: float32, shape (n_weights,).
        report: what stands in `run.json`.
        bundle: the exported bundle; None where the fleet holds no device out to calibrate on.
    """

    folder: Path
    weights: NDArray[np.float32]
    report: dict[str, Any]
    bundle: Path | None


def run_rounds(
    fleet: Path | FleetRows,
    *,
    out: Path,
    request: RoundsRequest,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    on_start: Callable[[Metrics | None, float], None] | None = None,
    on_round: Callable[[RoundRecord], None] | None = None,
    num_workers: int | None = None,
) -> RoundsResult:
    """Run federated rounds over a fleet dataset in Flower's simulation engine.

    Args:
        fleet: folder of a fleet dataset with outcomes, or its rows.
        out: folder for the run; it must not hold one.
        request: what decides the run.
        clock: gives now, aware UTC.
        on_start: told the held-out metrics before the first round, and σ (0 without noise).
        on_round: told of each round.
        num_workers: processes that train; None takes one a core.

    Returns:
        What the run has left in `out`.

    Raises:
        DatasetError, FleetRowsError: the fleet cannot be trained on.
        BundleError: the bundle to start from is refused.
        RunFolderError: `out` holds a run already.
        RoundsError, EngineError: the run could not go on; what was released is in the ledger.
        ValueError: a number is out of bounds; nothing was written.
    """
    start, started_from = _start(request)
    rows = fleet_rows(fleet) if isinstance(fleet, Path) else fleet
    config = request.config(len(rows.device_ids))
    run = PlannedRun(
        config=config,
        folder=RunFolder(out),
        start=start,
        source=OperatingSystemNoise()
        if request.seed is None
        else SeededNoise(request.seed, "release", config.stream),
        evaluate=HeldOutPart(rows.held_out).metrics if len(rows.held_out) else None,
        on_start=on_start,
        on_round=on_round,
    )
    run_planned(
        [run],
        rows,
        seed=request.seed,
        clock=clock,
        log_file=out / LOG_FILE,
        num_workers=num_workers,
    )
    weights = run.result()
    bundle_path = None
    if len(rows.held_out):
        bundle_path = out / BUNDLE_FILE
        bundle = bundle_of_run(weights, rows.held_out, report=run.report, started_from=started_from)
        write_bundle(bundle, bundle_path)
    return RoundsResult(folder=out, weights=weights, report=run.report, bundle=bundle_path)


def _start(request: RoundsRequest) -> tuple[NDArray[np.float32], str]:
    if request.bundle is not None:
        return weights_of_bundle(
            request.bundle,
            trusted_keys=request.trusted_keys,
            allow_unsigned=request.allow_unsigned,
        )
    seed = secrets.randbits(32) if request.seed is None else request.seed
    return new_flat_weights(seed=seed), "random weights"
