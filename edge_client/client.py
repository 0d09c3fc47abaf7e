"""The client that firmware and scripts use: record, predict, sum up, show a notice."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import StoreBusyError
from .model_store import INSTALLED, ModelStore
from .store.mailbox import Purpose
from .telemetry_store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from fractions import Fraction
    from types import TracebackType
    from typing import Self

    from models.device_report import DeviceFigures, DeviceReport, Personal
    from models.featurize import FeatureTable
    from models.inference import Backend, Predictor
    from models.prediction import Report
    from models.telemetry import DeviceProfile, Reading
    from models.wire.messages import Notice, Summary

    from .config import DeviceConfig
    from .errors import ReadingRefusedError
    from .notices import ShownNotice
    from .store.row_cipher import KeySource
    from .telemetry_store import Recording


class EdgeClient:
    """One device: its store, its model, and what may be said of it.

    Use it as a context manager, from one thread. Moments (`now`) are aware times; None takes the
    system's clock.

    Args:
        store_path: an existing store; `fedcell-device init` or `TelemetryStore.create` makes one.
        bundle: `installed` for the model that was installed on this device (the one that ships
            with the package where none was), `default` for the latter in any case, or the path of
            a bundle.
        trusted_keys: for a path: Ed25519 public keys (32 raw bytes) by key id.
        key: returns the 32 bytes that the store is sealed under; None: it is in the clear.
        backend: what runs the model; None takes ONNX Runtime where it is installed, else NumPy.
        band_epsilon: ε of the noise on each band that a summary tells; None tells them as they are.
        personalise: whether the device corrects days to failure by what its forecasts were worth.

    Raises:
        StoreError: the store cannot be used.
    """

    def __init__(
        self,
        store_path: Path | str,
        bundle: str | Path = INSTALLED,
        *,
        trusted_keys: Mapping[str, bytes] | None = None,
        key: KeySource | None = None,
        backend: Backend | None = None,
        band_epsilon: Fraction | None = None,
        personalise: bool = True,
    ) -> None:
        self.store = TelemetryStore(Path(store_path), key=key)
        self.models = ModelStore.beside(self.store.path)
        self._bundle = str(bundle)
        self._trusted_keys = trusted_keys
        self._backend = backend
        self.band_epsilon = band_epsilon
        self._personalise = personalise
        self._predictor: Predictor | None = None
        self._is_start_counted = False
        self._latest: DeviceReport | None = None

    @classmethod
    def of_config(cls, config: DeviceConfig) -> Self:
        """Open the client that a process is configured for."""
        from models.trusted_keys import read_trusted_keys

        keys = None if config.trusted_keys is None else read_trusted_keys(config.trusted_keys)
        return cls(
            config.store,
            config.bundle,
            trusted_keys=keys,
            key=config.key_source(),
            backend=config.chosen_backend(),
            band_epsilon=config.noise_epsilon(),
            personalise=config.is_personal(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store; a second call does nothing."""
        self.store.close()

    @property
    def profile(self) -> DeviceProfile:
        """The device."""
        return self.store.profile

    @property
    def predictor(self) -> Predictor:
        """The model, loaded and verified at first use.

        That of a path passes what an update passes but the child process: signature, structure and
        golden vectors. A start of one on trial is not counted here but in `predict`.

        Raises:
            models.errors.BundleError: the bundle is refused.
        """
        if self._predictor is None:
            from models.bundle import DEFAULT
            from models.inference import Predictor

            bundle = self.models.open(self._bundle, trusted_keys=self._trusted_keys)
            predictor = Predictor(bundle, backend=self._backend)
            if self._bundle not in {INSTALLED, DEFAULT}:
                from .updates.bundle_trial import check_golden

                check_golden(bundle, predictor.outputs)
            self._predictor = predictor
        return self._predictor

    def reload_model(self) -> None:
        """Have the next prediction run what is installed by then, its start counted anew."""
        self._predictor = None
        self._is_start_counted = False

    def _count_start(self, now: datetime) -> None:
        """Count a start of the bundle on trial, once a process, and load what it leaves to run."""
        if self._bundle != INSTALLED or self._is_start_counted:
            return
        self.models.begin_boot(now)
        self._is_start_counted = True
        self._predictor = None

    def record(self, reading: Reading, *, now: datetime | None = None) -> None:
        """Store one reading; once this returns, a power cut does not lose it.

        Raises:
            ReadingRefusedError: it breaks a rule; it was counted.
        """
        self.store.record(reading, now=_moment(now))

    def record_many(
        self, readings: Iterable[Reading | ReadingRefusedError], *, now: datetime | None = None
    ) -> Recording:
        """Store many readings in one transaction, and count those that break a rule."""
        return self.store.record_many(readings, now=_moment(now))

    def predict(
        self,
        now: datetime | None = None,
        *,
        explain: bool = True,
        log_factor: float | None = None,
    ) -> Report:
        """Predict from the readings up to `now`.

        An installed model on trial is kept from its first prediction on. Only what runs it counts:
        where the readings allow no prediction, the trial goes on as it was.

        Args:
            now: the moment; later readings are not used.
            explain: whether to compute the top reasons.
            log_factor: predict with this correction, as an earlier report was made, and learn
                nothing; None takes the device's own and lets it learn.

        Returns:
            The report; its status says why where there is no prediction.

        Raises:
            StoppedError: the server's configuration stops predictions.
            models.errors.BundleError: the model is refused.
        """
        from models.device_report import device_report

        from .incremental_features import current_features
        from .link.configuration import require_prediction

        require_prediction(self.store)
        moment = _moment(now)
        table, is_pack_told_anew = current_features(self.store, now=moment)
        runs_model = _allows_prediction(table)
        if runs_model:
            self._count_start(moment)
        latest = device_report(
            profile=self.store.profile,
            table=table,
            predictor=self.predictor,
            now=moment,
            explain=explain,
            personal=self._personal(moment, log_factor),
        )
        if latest.references is not None and is_pack_told_anew:
            # Told anew the next time where the disk refuses: a prediction does not depend on it.
            with suppress(StoreBusyError):
                self.store.keep_references(latest.references)
        if runs_model and self._bundle == INSTALLED:
            self.models.commit(moment, digest=self.predictor.bundle.digest)
        self._latest = latest
        return latest.report

    def _personal(self, now: datetime, log_factor: float | None) -> Personal | None:
        """Return what tells the device's own correction for a prediction."""
        if log_factor is not None:
            return lambda _table, _days: log_factor
        if not self._personalise:
            return None

        def own(table: FeatureTable, days: float) -> float:
            from .personalisation.in_force import own_log_factor

            digest = self.predictor.bundle.digest
            return own_log_factor(self.store, table, days, model_digest=digest, now=now)

        return own

    @property
    def log_factor(self) -> float:
        """Logarithm of the factor that corrected the latest report's days, 0 = none.

        Raises:
            ValueError: nothing was predicted yet.
        """
        return self._prediction().log_factor

    @property
    def model_report(self) -> Report:
        """What the model alone says in the latest report's place; summaries are made of it.

        Raises:
            ValueError: nothing was predicted yet.
        """
        return self._prediction().model_report

    @property
    def report(self) -> Report:
        """The latest report.

        Raises:
            ValueError: nothing was predicted yet.
        """
        return self._prediction().report

    @property
    def figures(self) -> DeviceFigures:
        """The device's own figures behind the latest report; they never leave the device.

        Raises:
            ValueError: nothing was predicted yet.
        """
        return self._prediction().figures

    @property
    def pack_since(self) -> datetime | None:
        """Since when the pack in use is in the device, as of the latest prediction, if known."""
        references = self.store.references()
        return None if references is None else datetime.fromtimestamp(references.since_s, UTC)

    def reasons(self, language: str | None = None) -> tuple[str, ...]:
        """Return the latest report's reasons as sentences.

        Args:
            language: None takes the owner's.

        Raises:
            ValueError: nothing was predicted yet.
        """
        from .notices import reason_sentences
        from .wording import load_wording

        wording = load_wording(language or self.store.language)
        return reason_sentences(self.report.reasons, self._fields(wording.language), wording)

    def summary(self, now: datetime | None = None) -> Summary | None:
        """Make the message that tells the server the latest report in bands.

        Returns:
            The message with its own identifier and sequence number, or None: without the owner's
            consent to summaries, while they are stopped, or without a prediction, there is nothing
            to send.

        Raises:
            ValueError: nothing was predicted yet.
        """
        if not self._may_summarise():
            return None
        moment = _moment(now)
        return self._summary(
            message_id=os.urandom(16).hex(),
            sequence=self.store.next_sequence("summary", now=moment),
            now=moment,
        )

    def preview_summary(self, now: datetime | None = None) -> Summary | None:
        """Make what `summary` would make, for the owner to read; it counts as no message.

        Raises:
            ValueError: nothing was predicted yet.
        """
        if not self._may_summarise():
            return None
        return self._summary(message_id="0" * 32, sequence=0, now=_moment(now))

    def handle_notice(self, notice: Notice, now: datetime | None = None) -> ShownNotice:
        """Fill a genuine notice with the device's own figures, as its owner reads it.

        Args:
            notice: from the server, its signature already verified.
            now: the moment of the figures, where nothing was predicted yet.
        """
        from .notices import render_notice
        from .wording import load_wording

        if self._latest is None:
            self.predict(now)
        wording = load_wording(notice.language)
        return render_notice(notice, self._fields(wording.language), wording)

    def _may_summarise(self) -> bool:
        from models.prediction import Status

        from .link.configuration import allowed

        return allowed(self.store, Purpose.SUMMARIES) and self.report.status is Status.OK

    def _summary(self, *, message_id: str, sequence: int, now: datetime) -> Summary:
        from .link.configuration import allowed
        from .summaries import bands_of, summary_of

        bands = None
        if self.band_epsilon is not None:
            from .band_noise import noised_bands

            bands = noised_bands(
                self.store,
                bands_of(self.model_report),
                threshold=self.predictor.bundle.threshold,
                epsilon=self.band_epsilon,
                now=now,
            )
        return summary_of(
            self.model_report,
            bands=bands,
            profile=self.store.profile,
            language=self.store.language,
            notices_wanted=allowed(self.store, Purpose.NOTICES),
            quiet_hours=self.store.quiet_hours,
            message_id=message_id,
            sequence=sequence,
            now=now,
        )

    def _prediction(self) -> DeviceReport:
        if self._latest is None:
            raise ValueError("nothing was predicted yet; call predict() first")
        return self._latest

    def _fields(self, language: str) -> dict[str, str]:
        from .notices import own_fields
        from .wording import load_wording

        latest = self._prediction()
        return own_fields(
            report=latest.report,
            figures=latest.figures,
            profile=self.store.profile,
            wording=load_wording(language),
        )


def _allows_prediction(table: FeatureTable) -> bool:
    from models.prediction import STATUSES, Status

    return len(table.status) > 0 and STATUSES[int(table.status[0])] is Status.OK


def _moment(now: datetime | None) -> datetime:
    if now is None:
        return datetime.now(UTC)
    if now.tzinfo is None:
        raise ValueError(f"now must carry a time zone, got {now!r}")
    return now.astimezone(UTC)
