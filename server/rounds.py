"""What a run of federated rounds is: its configuration, its report, and its folder on disk.

The folder holds `ledger.jsonl` (written through before anything leaves), `checkpoint.npz` (weights
and optimiser after the last round), `weights.npz` (at the end) and `run.json` (the report so far).
Each file but the ledger is written aside, synced and renamed, so none is ever half there.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.durable_file import sync_folder, write_durably
from models.wire.rounds import LocalRecipe
from privacy import (
    IndependentGaussian,
    LedgerEntry,
    PrivacyPolicy,
    RecordLevelSteps,
    WithoutNoise,
    next_entry,
    policy_for,
)

from .cohorts import Schedule
from .server_optimizer import OptimizerState, ServerRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from models.wire.rounds import NodeFailure
    from privacy import EntryKind, Event, NoiseSource, ReleaseNoise

LEDGER_FILE: Final = "ledger.jsonl"
CHECKPOINT_FILE: Final = "checkpoint.npz"
WEIGHTS_FILE: Final = "weights.npz"
REPORT_FILE: Final = "run.json"

UNIT_OF_PRIVACY: Final = (
    "one device: all that it sends in this stream of releases (one run); "
    "several runs compose, and this figure does not cover them"
)
NEIGHBORING_RELATION: Final = (
    "one device's contributions replaced by zero; the number of invited devices is public"
)
RECORD_UNIT: Final = (
    "one training row (one device and day), added or removed where the device has enough rows to "
    "train with and without it: fewer than the least sit out, a hard rule that looks at the data "
    "and is not covered; not a reading, a day or a failure"
)
ASSUMPTIONS: Final = (
    "the aggregator is trusted to add the noise",
    "invitations depend on stable identifiers, the public schedule and history alone",
    "no amplification by sampling is assumed",
    "noise is independent between releases and drawn in floating point",
)


class RoundsError(Exception):
    """Root of the errors that stop a run of rounds.

    Attributes:
        exit_code: The process exit code a command ends with when this error reaches it.
    """

    exit_code = 1


class RunFolderError(RoundsError):
    """The folder for a run cannot be used; nothing was written.

    Attributes:
        where: the folder.
    """

    exit_code = 3

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")


class NoAnswerError(RoundsError):
    """Not one good reply came to a whole round.

    Attributes:
        index: the round.
        refused: how many replies were refused, by reason.
        first_failure: why the first failing node failed, if any did.
    """

    exit_code = 6

    def __init__(
        self, *, index: int, refused: Mapping[str, int], first_failure: NodeFailure | None
    ) -> None:
        """Keep the facts beside the message."""
        self.index = index
        self.refused = dict(refused)
        self.first_failure = first_failure
        counts = ", ".join(f"{count} {reason}" for reason, count in refused.items()) or "none came"
        said = f": {first_failure}" if first_failure else ""
        super().__init__(f"round {index}: no good reply ({counts}){said}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsConfig:
    """Everything that decides a run of rounds, apart from data and randomness.

    Attributes:
        stream: identifier of the run; a new one for every run.
        num_rounds: T.
        cohort_size: n, devices invited to each round.
        clipping_norm: C.
        epsilon: ε_release, or None for a comparison without noise.
        delta: its δ.
        recipe: how devices train.
        server: how released updates move the weights.
        record_delta: δ of the record-level statement.
        deadline_s: how long a round waits for replies.
        evaluate_every: rounds between two looks at the held-out part; the last round always.
    """

    stream: str
    num_rounds: int
    cohort_size: int
    clipping_norm: float
    epsilon: float | None
    delta: float
    recipe: LocalRecipe = field(default_factory=LocalRecipe)
    server: ServerRecipe = field(default_factory=ServerRecipe)
    record_delta: float = 1e-5
    deadline_s: float = 600.0
    evaluate_every: int = 1

    def schedule(self, population_size: int) -> Schedule:
        """Return the public schedule over so many enrolled devices."""
        return Schedule(
            population_size=population_size,
            cohort_size=self.cohort_size,
            num_rounds=self.num_rounds,
        )

    def policy(self, schedule: Schedule) -> PrivacyPolicy | None:
        """Return the policy of the stream, with σ from (ε, δ, k); None without noise."""
        if self.epsilon is None:
            return None
        return policy_for(
            epsilon=self.epsilon,
            delta=self.delta,
            max_participations=schedule.participations,
            clipping_norm=self.clipping_norm,
            min_separation=schedule.min_separation,
            min_cohort_size=self.cohort_size,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What is kept of one round.

    Attributes:
        index: step of the stream.
        invited: n, the divisor.
        replied: invited devices whose node's reply was good; devices that sit out count too, since
            nobody can tell them apart.
        refused: how many replies were refused, by reason.
        most_participations: greatest number of rounds to which any one device was invited so far.
        epsilon_release: ε at the run's δ so far; None without noise (unbounded).
        metrics: on the held-out part, None where it was not looked at.
        seconds: how long the round took.
    """

    index: int
    invited: int
    replied: int
    refused: dict[str, int]
    most_participations: int
    epsilon_release: float | None
    metrics: dict[str, float | None] | None
    seconds: float


def release_noise(policy: PrivacyPolicy | None, source: NoiseSource) -> ReleaseNoise:
    """Return the noise of a stream: independent Gaussian under a policy, none without."""
    if policy is None:
        return WithoutNoise()
    return IndependentGaussian(
        source,
        noise_multiplier=policy.noise_multiplier,
        clipping_norm=policy.clipping_norm,
    )


def record_epsilon(
    recipe: LocalRecipe, *, participations: int, delta: float
) -> tuple[float | None, float | None]:
    """Return (ε_record, δ_record) of a device that trained so often; None where it is off."""
    if not recipe.is_record_private:
        return None, None
    from privacy.record_accountant import RecordAccountant

    if participations == 0:
        return 0.0, delta
    steps = RecordLevelSteps(
        noise_multiplier=recipe.record_noise_multiplier,
        max_grad_norm=recipe.record_max_grad_norm,
        sampling_rate=recipe.sampling_rate,
        steps=recipe.steps * participations,
    )
    return RecordAccountant([steps]).epsilon(delta=delta), delta


class RunFolder:
    """The folder of one run.

    Args:
        path: where; created if missing.

    Raises:
        RunFolderError: it already holds a run, whose ledger must never be overwritten, or cannot
            be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        held = [name for name in (LEDGER_FILE, REPORT_FILE) if (path / name).exists()]
        if held:
            raise RunFolderError(path, f"already holds a run ({held[0]})", "give another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / LEDGER_FILE).touch(exist_ok=False)
        except OSError as error:
            raise RunFolderError(
                path, f"cannot be written ({error.strerror})", "give another --out"
            ) from error
        sync_folder(path)
        self._last_entry: LedgerEntry | None = None

    @property
    def ledger_head(self) -> LedgerEntry | None:
        """The last entry, None while there is none."""
        return self._last_entry

    def charge(self, event: Event, *, kind: EntryKind, at: datetime) -> LedgerEntry:
        """Append an entry and return once it is durable; only then may anything leave."""
        entry = next_entry(self._last_entry, event, kind=kind, at=at)
        with (self.path / LEDGER_FILE).open("a", encoding="ascii") as ledger:
            ledger.write(entry.to_line() + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        self._last_entry = entry
        return entry

    def discard_unless_charged(self) -> None:
        """Remove the run's files while its ledger is empty: nothing left, so nothing is lost."""
        if self._last_entry is None:
            for name in (LEDGER_FILE, REPORT_FILE, WEIGHTS_FILE, CHECKPOINT_FILE):
                (self.path / name).unlink(missing_ok=True)

    def save_checkpoint(self, state: OptimizerState, *, index: int) -> None:
        """Keep weights and optimiser after round `index`."""
        arrays = {**state.to_arrays(), "index": np.array(index, np.int64)}
        write_durably(self.path / CHECKPOINT_FILE, _npz(arrays))

    def load_checkpoint(self) -> tuple[OptimizerState, int]:
        """Return weights and optimiser after the last round kept, and its index."""
        with np.load(self.path / CHECKPOINT_FILE, allow_pickle=False) as arrays:
            return OptimizerState.from_arrays(arrays), int(arrays["index"].item())

    def save_weights(self, weights: NDArray[np.float32]) -> None:
        """Write the run's result as a plain array, float32, shape (n_weights,)."""
        write_durably(self.path / WEIGHTS_FILE, _npz({"weights": weights}))

    def save_report(self, report: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        write_durably(self.path / REPORT_FILE, text.encode())


def report_of(
    config: RoundsConfig,
    *,
    status: str,
    schedule: Schedule,
    policy: PrivacyPolicy | None,
    noise: ReleaseNoise,
    rounds: list[RoundRecord],
    start_metrics: dict[str, float | None] | None,
    record: tuple[float | None, float | None],
    ledger_head: LedgerEntry | None,
    versions: Mapping[str, str],
    started_at: datetime,
    seconds: float,
) -> dict[str, Any]:
    """Lay out `run.json`: every ε stands beside its δ, unit, relation and assumptions.

    Args:
        config: of the run.
        status: running, finished or interrupted.
        schedule: public.
        policy: of the stream, None without noise.
        noise: what was added.
        rounds: so far.
        start_metrics: on the held-out part before the first round.
        record: (ε_record, δ_record) of the device invited most, so far.
        ledger_head: last entry.
        versions: of the libraries that ran.
        started_at: aware UTC.
        seconds: since then.
    """
    spent = rounds[-1].epsilon_release if rounds else (None if policy is None else 0.0)
    return {
        "schema_version": 1,
        "status": status,
        "started_at": started_at.astimezone(UTC).isoformat(),
        "seconds": round(seconds, 3),
        "config": asdict(config),
        "schedule": {
            **asdict(schedule),
            "participations": schedule.participations,
            "min_separation": schedule.min_separation,
        },
        "privacy": {
            "epsilon_release": spent,
            "delta": config.delta,
            "epsilon_release_unbounded": policy is None,
            "epsilon_server": None,
            "epsilon_server_unbounded": True,
            "unit_of_privacy": UNIT_OF_PRIVACY,
            "neighboring_relation": NEIGHBORING_RELATION,
            "assumptions": list(ASSUMPTIONS),
            "noise_mechanism": noise.mechanism,
            "noise_multiplier": noise.noise_multiplier,
            "entry_kind": noise.entry_kind,
            "max_participations": schedule.participations,
            "record_epsilon": record[0],
            "record_delta": record[1],
            "record_unit": RECORD_UNIT,
            "ledger_head": None if ledger_head is None else ledger_head.reference(),
        },
        "start_metrics": start_metrics,
        "rounds": [asdict(record) for record in rounds],
        "versions": dict(versions),
    }


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type] # numpy's stub takes allow_pickle for a name
    return buffer.getvalue()
