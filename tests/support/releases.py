"""A release's places for tests: offline keys, a desk, a served repository, and light devices."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edge_client.model_store import ModelStore
from edge_client.updates.download import DownloadLimits
from edge_client.updates.follower import ReleaseSource, check_in, running_version
from models.bundle import canonical_json, load_bundle, write_bundle
from models.errors import BundleError
from models.feature_spec import NUM_FEATURES
from models.inference import Backend, Predictor
from models.prediction import Confidence, Urgency
from models.wire.announcements import FLEET_RING
from models.wire.bands import days_band, probability_band
from models.wire.envelope import SigningKey
from models.wire.messages import Birth, ModelRefusal, Summary
from privacy import PublicData, next_entry
from server.releases.admission import Payment
from server.releases.desk import ReleaseDesk
from server.releases.repository import first_root
from server.releases.rings import Ring, RingPolicy
from server.releases.signing import sign_request
from server.storage.database import open_database
from server.storage.devices import Devices
from tests.support.file_server import serving
from tests.support.line_bundle import LINE
from tests.support.update_bundles import variant
from tests.support.wire_messages import numbered_id, summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.bundle import Bundle
    from server.releases.file_server import FileServer
    from server.storage.database import Database
    from server.storage.releases import KeptRelease
    from tests.support.file_server import Served

ROOT_KEY, RELEASE_KEY, SERVER_KEY = (SigningKey.from_bytes(bytes([n]) * 32) for n in (1, 2, 3))
QUICK = DownloadLimits(silence_s=2.0, total_s=10.0, attempts=1)
AT_ONCE = RingPolicy(soak=timedelta(0), least_summaries=0)


def now() -> datetime:
    """The time: metadata expire by the machine's clock."""
    return datetime.now(UTC)


@dataclass
class Lab:
    """A server with its releases, and where devices fetch."""

    folder: Path
    database: Database
    served: Served | FileServer
    desk: ReleaseDesk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = ReleaseDesk(self.database, self.folder / "releases", key=SERVER_KEY)
        self.home = self.folder / "home"
        self.entry = public_home(self.home)
        trust = self.folder / "trust"
        trust.mkdir()
        root, targets = first_root(
            root_keys=[ROOT_KEY],
            release_key=RELEASE_KEY,
            online_key=SERVER_KEY.verify_key,
            now=now(),
        )
        (trust / "root.json").write_bytes(root)
        (trust / "targets.json").write_bytes(targets)
        self.root = trust / "root.json"
        self.desk.accept_root(trust, now=now())

    @property
    def source(self) -> ReleaseSource:
        return ReleaseSource(url=self.served.address, first_root=self.root, limits=QUICK)

    def rings(self, *rings: Ring) -> None:
        self.desk.keep_rings(rings)

    def bundle(self, number: int, **choices: object) -> Path:
        """Write an unsigned bundle whose ledger entry stands in the home."""
        manifest = {"ledger_entry": self.entry, **choices.pop("manifest", {})}
        path = self.folder / f"bundle-{number}.zip"
        write_bundle(variant(number, manifest=manifest, **choices), path)
        return path

    def public(self, bundle: Bundle) -> Path:
        """Write a bundle with a whole card, whose ledger entry stands in the home."""
        card = load_bundle().files["model_card.json"]
        files = {**bundle.files, "model_card.json": card}
        manifest = {
            **bundle.manifest,
            "ledger_entry": self.entry,
            "files": {**bundle.manifest["files"], "model_card.json": sha256(card).hexdigest()},
        }
        files["manifest.json"] = canonical_json(manifest)
        path = self.folder / f"{bundle.version}.zip"
        write_bundle(replace(bundle, files=files, manifest=manifest), path)
        return path

    def propose(self, source: Path, policy: RingPolicy = AT_ONCE) -> tuple[KeptRelease, Path]:
        payment = Payment(home=self.home)
        return self.desk.propose(source, payment, policy=policy, now=now())

    def signed(self, source: Path, policy: RingPolicy = AT_ONCE) -> KeptRelease:
        """Propose, sign and accept."""
        _, request = self.propose(source, policy)
        return self.desk.accept(sign_request(request, RELEASE_KEY), now=now())

    def started(self, source: Path, policy: RingPolicy = AT_ONCE) -> int:
        number = self.signed(source, policy).rollout.number
        self.desk.start(number, now=now())
        return number

    def hear(self, *messages: Birth | Summary) -> None:
        """Keep what devices say, as the hub does."""
        with self.database.transaction() as connection:
            devices = Devices(connection)
            for message in messages:
                devices.seen(message.device, now=now())
                if isinstance(message, Birth):
                    devices.keep_birth(message)
                else:
                    devices.keep_summary(message, now=now())


@contextmanager
def release_lab(folder: Path) -> Iterator[Lab]:
    """Give a lab whose repository is served over HTTP until the block ends."""
    repository = folder / "releases" / "repository"

    def find(path: str) -> bytes | None:
        file = repository / path.lstrip("/")
        return file.read_bytes() if file.is_file() else None

    url = f"sqlite:///{folder / 'server.db'}"
    with open_database(url) as database, serving(find=find) as served:
        yield Lab(folder, database, served)


class LightDevice:
    """A device with real bundles, slots and updates; one row of features in place of a store."""

    _predictors: ClassVar[dict[str, Predictor]] = {}

    def __init__(
        self, folder: Path, name: str, *, ring: str = FLEET_RING, days: float = 400.0
    ) -> None:
        self.name = name
        self.ring = ring
        self.models = ModelStore.beside(folder / f"{name}.db")
        self.features = np.full((1, NUM_FEATURES), np.nan, np.float32)
        self.features[0, LINE] = days
        self.crashes_with: set[str] = set()
        self._sequence = 0

    @property
    def version(self) -> str:
        return running_version(self.models)

    def check_in(self, source: ReleaseSource) -> None:
        """Ask for what is offered, start it, and predict; a refusal leaves what runs."""
        try:
            found = check_in(
                self.models, source, ring=self.ring, now=now(), backend=Backend.NUMPY.value
            )
        except BundleError:
            return
        while found is not None and self.models.is_on_trial():
            starting = ModelStore(self.models.folder)
            starting.begin_boot(now())
            if self.crashes_with and str(starting.open().version) in self.crashes_with:
                continue
            starting.commit(now())

    def birth(self) -> Birth:
        refusal = self.models.last_refusal()
        self._sequence += 1
        return Birth(
            id=numbered_id(self._sequence),
            device=self.name,
            sequence=self._sequence,
            issued=now().replace(microsecond=0),
            client_version="0.1.0",
            model_version=self.version,
            feature_spec_version="1",
            refused_model=None if refusal is None else refusal.version or "unnamed",
            refused_because=None if refusal is None else ModelRefusal(refusal.reason),
        )

    def summary(self) -> Summary:
        # Devices of one process share what they load, not what they have in their slots.
        predictor = self._predictors.get(self.version)
        if predictor is None:
            predictor = Predictor(self.models.open(), backend=Backend.NUMPY)
            self._predictors[self.version] = predictor
        bundle, found = predictor.bundle, predictor.outputs(self.features)
        probability = float(found["failure_probability_30d"][0])
        self._sequence += 1
        return summary(
            id=numbered_id(self._sequence),
            device=self.name,
            sequence=self._sequence,
            model_version=str(bundle.version),
            flagged=probability >= bundle.threshold,
            days_band=days_band(float(found["days_to_failure"][0][1])),
            probability_band=probability_band(probability),
            urgency=Urgency.LOW,
            confidence=Confidence.HIGH,
        )


def public_home(folder: Path) -> dict[str, object]:
    """Make a privacy home whose ledger names public data; return its entry as cards quote it."""
    entry = next_entry(None, PublicData(sources=("made up",)), kind="public", at=now())
    folder.mkdir()
    (folder / "ledger.jsonl").write_text(f"{entry.to_line()}\n", encoding="ascii")
    return entry.reference()


def publicly_entered(folder: Path, number: int) -> tuple[Path, Path]:
    """Write an unsigned bundle and the privacy home of its entry."""
    home, path = folder / "home", folder / f"bundle-{number}.zip"
    write_bundle(variant(number, manifest={"ledger_entry": public_home(home)}), path)
    return path, home
