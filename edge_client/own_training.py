"""What a real device brings to a round: its store and the rows made from it, ledger, entropy.

The rows are made here, by the same functions as everywhere, and never leave. A device whose owner
has not agreed to training names no device and trains nothing. A step that policy or ledger forbid
is answered with zeros, which look like any other answer; why stays here.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from models.featurize import featurize
from models.labels import label_packs
from models.telemetry import DeviceProfiles
from models.training_rows import training_rows
from privacy import OperatingSystemNoise
from privacy.budget import OwnLimits

from .eligibility import (
    SAT_OUT_FACT,
    Conditions,
    EligibilityRule,
    reasons_to_sit_out,
    wait_until_eligible,
)
from .errors import (
    InputError,
    InputMissingError,
    LedgerError,
    ParticipationRefusedError,
    StoreBusyError,
    TaskRefusedError,
)
from .link.configuration import allowed
from .local_training import TrainingPath
from .node_values import HARDWARE_KEY, POLICY_KEYS_KEY, SEALED_UNDER_KEY, STORE_KEY, path_of
from .own_counts import own_count
from .privacy.ledger_file import DeviceLedger, read_device_ledger
from .privacy.participation import REFUSAL_FACT, Terms, admit, debit, receipt_line
from .privacy.receipts import check_receipt, keep_receipt
from .provisioning.identity import (
    HARDWARE_ID_FILES,
    hardware_id_files,
    own_identity,
    read_hardware_id,
)
from .sensing.conditions import ConditionSources, eligibility_of
from .store.mailbox import Purpose
from .store.row_cipher import key_from_file
from .telemetry_store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from models.wire.counts import CountTask
    from models.wire.rounds import ReleaseReceipt, RoundTask
    from privacy import NoiseSource

    from .eligibility import SittingOut
    from .store.row_cipher import KeySource

logger = logging.getLogger(__name__)

OWN_PARTICIPATIONS_KEY = "own-participations"
"""Key of the most participations that the device allows of itself, where policies allow more."""
OWN_EPSILON_KEY = "own-epsilon"
"""Key of the greatest epsilon that the device allows of all that it gives, updates and counts."""
OWN_MIN_COHORT_KEY = "own-min-cohort"
"""Key of the least number of devices in a step's cohort that the device accepts."""
TRAINING_PATH_KEY = "training-path"
"""Key that names how row gradients are computed: `closed_form`, or `opacus`, the reference, which
needs the extra `train`. Both give the same update."""


@dataclass(frozen=True, slots=True)
class OwnDevice:
    """The one device behind a node of its own.

    Attributes:
        store: path of the device's store.
        now: aware time; what claims to be more than a day later is no reading.
        hardware_id_files: where this hardware says its identifier.
        key: the store is sealed under, None for one in the clear.
        terms: on which the device takes part.
        training_path: how row gradients are computed.
        rule: when the device trains.
        sources: where it looks for its conditions.
        sleep: waits so many seconds, where the rule has it wait.
    """

    store: Path
    now: datetime
    hardware_id_files: tuple[Path, ...] = HARDWARE_ID_FILES
    key: KeySource | None = None
    terms: Terms = field(default_factory=Terms)
    training_path: TrainingPath = TrainingPath.CLOSED_FORM
    rule: EligibilityRule = field(default_factory=EligibilityRule)
    sources: ConditionSources = field(default_factory=ConditionSources)
    sleep: Callable[[float], None] = time.sleep

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The device's identifier; none without its owner's consent, or where training is stopped.

        Raises:
            CloneError: store or identity come from another device.
        """
        with self._open() as store:
            return (str(store.profile.device_id),) if allowed(store, Purpose.TRAINING) else ()

    def rows(self, device_id: str) -> TrainingRows:
        """Training rows from the device's own readings, labelled by rule.

        Raises:
            TaskRefusedError: another device is asked for, its owner does not agree, or training is
                stopped from afar.
            CloneError: store or identity come from another device.
        """
        with self._open() as store:
            _require_consent(store)
            if device_id != store.profile.device_id:
                raise TaskRefusedError(f"this is device {store.profile.device_id}, not {device_id}")
            telemetry = store.telemetry()
            profiles = DeviceProfiles.of([store.profile])
            references = store.references_beyond_the_ring()
            answers = store.owner_answers()
        now_s = int(self.now.timestamp())
        table = featurize(telemetry, profiles, now_s=now_s, references=references)
        packs = label_packs(
            telemetry, profiles, now_s=now_s, answers=answers, references=references
        )
        return training_rows(table, packs)

    def source(self, device_id: str, *, stream: str, index: int) -> NoiseSource:  # noqa: ARG002
        """The operating system's entropy, whatever the step."""
        return OperatingSystemNoise()

    def answer(
        self, task: RoundTask, train: Callable[[], NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
        """Decide, train, debit: only then may the update leave, and never a second time.

        A step that was debited is refused from then on, whoever asks and however often. A device
        that sits out debits the step, too.

        Args:
            task: as the server sent it.
            train: trains this device and returns its clipped update.

        Returns:
            The update, None where zeros are the answer: policy or ledger refuse the step, or the
            device sits out; and a line of the ledger for each pseudonym that the task gives.

        Raises:
            TaskRefusedError: the owner does not agree, or training is stopped from afar.
            CloneError: store or identity come from another device.
        """
        try:
            with self._open() as store:
                _require_consent(store)
                admission = admit(store, task, terms=self.terms, now=self.now)
            update, reasons = self._update_or_why_not(task, train)
            with self._open() as store:
                _require_consent(store)
                ledger = debit(store, admission, terms=self.terms, now=self.now)
                self._keep_why_not(store, task, reasons)
        except (ParticipationRefusedError, LedgerError, StoreBusyError) as error:
            return None, self._receipts(task, self._refused(task, error))
        return update, self._receipts(task, ledger)

    def refuse(self, task: RoundTask, why: ParticipationRefusedError) -> tuple[str, ...]:
        """Keep why a task is answered with zeros; return a line of the ledger for each pseudonym.

        For what no policy and no ledger has to decide; nothing is debited.
        """
        return self._receipts(task, self._refused(task, why))

    def count(self, task: CountTask) -> NDArray[np.int64]:
        """Answer a question for counts; see `own_counts.own_count`."""
        return own_count(self._open, task, terms=self.terms, now=self.now)

    def keep_receipt(self, receipt: ReleaseReceipt) -> None:
        """Hold the server's receipt for a released step against the ledger, and keep it.

        A receipt that none of the keys has signed, or that comes while the ledger cannot be relied
        on, is dropped, and the log says so.

        Raises:
            StoreError: the store cannot be used.
            CloneError: store or identity come from another device.
        """
        with self._open() as store:
            try:
                ledger = read_device_ledger(store.path, store)
                checked = check_receipt(receipt, ledger=ledger, keys=self.terms.policy_keys)
            except (ParticipationRefusedError, LedgerError) as error:
                logger.warning("a receipt of the server was dropped: %s", error)
                return
            keep_receipt(store.path, checked, receipt, now=self.now)

    def _update_or_why_not(
        self, task: RoundTask, train: Callable[[], NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64] | None, tuple[SittingOut, ...]]:
        """Train where the conditions allow it, else say why not; rows are counted where none count.

        A device with too few rows has trained nothing, and its update is zero.
        """
        least_rows = task.recipe.least_rows
        reasons = wait_until_eligible(
            lambda waited_s: self.sources.look(now_s=self.now.timestamp() + waited_s),
            self.rule.within(task.deadline_s),
            least_rows=least_rows,
            sleep=self.sleep,
        )
        if reasons:
            return None, reasons
        update = train()
        if update.any():
            return update, ()
        num_rows = sum(len(self.rows(device_id)) for device_id in task.device_ids)
        found = Conditions(num_rows=num_rows)
        # The device's own rule was asked before training: only the rows are left to judge.
        return update, reasons_to_sit_out(found, EligibilityRule(), least_rows=least_rows)

    def _keep_why_not(
        self, store: TelemetryStore, task: RoundTask, reasons: tuple[SittingOut, ...]
    ) -> None:
        if not reasons:
            if store.fact(SAT_OUT_FACT) is not None:
                store.keep_fact(SAT_OUT_FACT, None)
            return
        words = ", ".join(reasons)
        logger.warning("step %d of stream %s was sat out: %s", task.index, task.stream, words)
        said = {
            "stream": task.stream,
            "index": task.index,
            "reasons": [reason.value for reason in reasons],
            "at": self.now.isoformat(),
        }
        store.keep_fact(SAT_OUT_FACT, said)

    def _refused(self, task: RoundTask, error: Exception) -> DeviceLedger:
        """Say why here, and nowhere else; return the ledger as far as it can be relied on."""
        logger.warning("step %d of stream %s: %s", task.index, task.stream, error)
        said = {
            "stream": task.stream,
            "index": task.index,
            "reason": getattr(error, "refusal", "ledger_unwritable"),
            "what": str(error),
            "at": self.now.isoformat(),
        }
        with suppress(StoreBusyError, LedgerError), self._open() as store:
            store.keep_fact(REFUSAL_FACT, said)
        with suppress(StoreBusyError, LedgerError), self._open() as store:
            return read_device_ledger(store.path, store)
        return DeviceLedger()

    def _receipts(self, task: RoundTask, ledger: DeviceLedger) -> tuple[str, ...]:
        return tuple(receipt_line(ledger, pseudonym=name) for name in task.pseudonyms)

    @contextmanager
    def _open(self) -> Iterator[TelemetryStore]:
        with TelemetryStore(self.store, key=self.key) as store:
            hardware_id = read_hardware_id(self.hardware_id_files)
            own_identity(store, device_id=store.profile.device_id, hardware_id=hardware_id)
            yield store


def own_device(
    node_config: Mapping[str, object],
    *,
    now: datetime,
    policy_keys: Mapping[str, bytes] | None = None,
) -> OwnDevice:
    """Find the device behind a node by the node's configuration.

    Args:
        node_config: of the SuperNode.
        now: aware time.
        policy_keys: Ed25519 public keys (32 raw bytes) that may sign policies and receipts, by key
            id, where the configuration names no file of them.

    Raises:
        InputMissingError: the configuration names no store.
        InputError: a value of it cannot be used.
    """
    path = node_config.get(STORE_KEY)
    if not isinstance(path, str) or not path:
        raise InputMissingError(
            "node configuration",
            f"{STORE_KEY} is missing",
            f"start flower-supernode with --node-config '{STORE_KEY}=\"PATH\"'",
        )
    keys = _policy_keys(node_config, otherwise=policy_keys)
    terms = Terms(policy_keys=keys, own=_own_limits(node_config))
    chosen = path_of(node_config, HARDWARE_KEY)
    sealed_under = path_of(node_config, SEALED_UNDER_KEY)
    key = None if sealed_under is None else key_from_file(sealed_under)
    files, training_path = hardware_id_files(chosen), _training_path(node_config)
    rule, sources = eligibility_of(node_config)
    return OwnDevice(Path(path), now, files, key, terms, training_path, rule, sources)


def _require_consent(store: TelemetryStore) -> None:
    if not store.consents()[Purpose.TRAINING].granted:
        raise TaskRefusedError("the owner does not agree to training")
    if not allowed(store, Purpose.TRAINING):
        raise TaskRefusedError("training is stopped by the server's configuration")


def _policy_keys(
    node_config: Mapping[str, object], *, otherwise: Mapping[str, bytes] | None
) -> Mapping[str, bytes]:
    from models.errors import ModelsError
    from models.trusted_keys import read_trusted_keys

    file = path_of(node_config, POLICY_KEYS_KEY)
    if file is None and otherwise is not None:
        return otherwise
    if file is None:
        logger.warning("no %s in the node's configuration: no policy is believed", POLICY_KEYS_KEY)
        return {}
    try:
        return read_trusted_keys(file)
    except ModelsError as error:
        raise InputError("node configuration", POLICY_KEYS_KEY, str(error)) from error


def _training_path(node_config: Mapping[str, object]) -> TrainingPath:
    named = node_config.get(TRAINING_PATH_KEY, TrainingPath.CLOSED_FORM.value)
    try:
        return TrainingPath(str(named))
    except ValueError:
        known = " or ".join(path.value for path in TrainingPath)
        what = f"{TRAINING_PATH_KEY} must be {known}, got {named!r}"
        raise InputError("node configuration", what, "correct it") from None


def _own_limits(node_config: Mapping[str, object]) -> OwnLimits:
    most, epsilon = node_config.get(OWN_PARTICIPATIONS_KEY), node_config.get(OWN_EPSILON_KEY)
    if most is not None and (type(most) is not int or most < 0):
        what = f"{OWN_PARTICIPATIONS_KEY} must be a whole number, got {most!r}"
        raise InputError("node configuration", what, "correct it")
    least = node_config.get(OWN_MIN_COHORT_KEY, 1)
    if type(least) is not int or least < 1:
        what = f"{OWN_MIN_COHORT_KEY} must be a whole number of at least 1, got {least!r}"
        raise InputError("node configuration", what, "correct it")
    if epsilon is None:
        return OwnLimits(max_participations=most, min_cohort_size=least)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not epsilon >= 0:
        what = f"{OWN_EPSILON_KEY} must be a number of at least 0, got {epsilon!r}"
        raise InputError("node configuration", what, "correct it")
    limit = float(epsilon)
    return OwnLimits(max_participations=most, max_epsilon=limit, min_cohort_size=least)
