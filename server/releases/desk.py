"""The releases of one server: each step is one transaction, and what is served follows from it.

The database is the truth. What devices fetch is written from it within the same transaction, all
but the timestamp, which alone makes it current: that follows at once. A failure before leaves both
as they were; after a crash in between the next step finishes what the database says.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from models.bundle import DEFAULT, load_bundle, write_bundle

from ..registry import ModelState, move
from ..storage.model_versions import ModelVersions
from ..storage.releases import Releases
from . import rings as rules
from .admission import Payment, admitted, candidate_of, require_held_against
from .evidence import SET_ASIDE, evidence_of, new_failures, watch_list
from .offers import Offerable, offers_of, target_names
from .release_errors import ReleaseError, ReleaseInputError, ReleaseMissingError
from .repository import Repository, TargetContent, release_keys
from .rings import Evidence, ReleaseState, RingPolicy, Rollout, TransitionError
from .signing import (
    CANDIDATE,
    checked,
    numbered,
    read_answer,
    read_request,
    unnumbered,
    write_request,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from models.bundle import Bundle
    from models.wire.envelope import SigningKey

    from ..storage.database import Database
    from ..storage.releases import KeptRelease
    from .rings import Ring

BUNDLES, REQUESTS, REPOSITORY = "bundles", "requests", "repository"
METADATA_COUNTER: Final = "metadata"
OFFERS_COUNTER: Final = "offers"


class ReleaseDesk:
    """Proposes, accepts, offers, stops and takes back.

    Args:
        database: of the server.
        folder: of releases; its part `repository` is served to devices.
        key: the server's own key, which says what is current; None where nothing is published.
    """

    def __init__(self, database: Database, folder: Path, *, key: SigningKey | None = None) -> None:
        self.database = database
        self.folder = folder
        self.repository = Repository(folder / REPOSITORY)
        self._key = key

    # --- what is proposed and signed --------------------------------------------------------------

    def propose(
        self,
        source: Path,
        payment: Payment,
        *,
        policy: RingPolicy,
        now: datetime,
        least_number: int = 1,
    ) -> tuple[KeptRelease, Path]:
        """Propose a run's candidate or a bundle; nothing is offered yet.

        Args:
            source: folder of a run, or a bundle.
            payment: where it is written what it cost.
            policy: when its rings advance.
            now: aware time.
            least_number: of the release: above what devices have from elsewhere.

        Returns:
            The release, and the folder of the request for the offline key.

        Raises:
            RegistryError: no card, no ledger entry, no audit, or the gate did not pass it, or
                held it against another model than devices have.
            AuditRefusedError: the audit finds more than the ledger claims.
        """
        found, payment = candidate_of(source, payment)
        candidate = unnumbered(found)
        model = admitted(candidate, payment, now=now)
        with self.database.transaction() as connection:
            releases = Releases(connection)
            spec = candidate.manifest["feature_spec_version"]
            back = unnumbered(self._in_use(releases, spec))
            if back.digest == candidate.digest:
                raise ReleaseError(candidate.version, "is what devices have", "propose another one")
            if payment.run is not None:
                require_held_against(payment.run, candidate, in_use=back)
            number = max(releases.next_number(), least_number)
            folder = self.folder / REQUESTS / str(number)
            write_request(folder, candidate, back, number=number)
            registry = ModelVersions(connection)
            registry.add(model)
            known = registry.get(candidate.version)
            if known is not None and known.state is ModelState.RETIRED:
                what = "was withdrawn before"
                raise ReleaseError(candidate.version, what, "train a new one")
            kept = releases.add(
                _offerable(number, candidate, back), digest=candidate.digest, policy=policy, now=now
            )
        return kept, folder

    def accept(self, answer: Path, *, now: datetime) -> KeptRelease:
        """Take in what the offline key signed.

        Args:
            answer: the file that came back.
            now: aware time.

        Raises:
            ReleaseError: no key of the root in force signed it, or it is of another request.
        """
        told = read_answer(answer)
        number, key_id = told["release"], told["key_id"]
        with self.database.transaction() as connection:
            kept = self._get(Releases(connection), number)
            if kept.rollout.state is not ReleaseState.PROPOSED:
                what = f"is {kept.rollout.state} already"
                raise ReleaseError(f"release {number}", what, "see: fedcell release status")
            request, candidate, back = read_request(self.folder / REQUESTS / str(number))
            if request.candidate != kept.digest:
                what = "its request was changed"
                raise ReleaseError(f"release {number}", what, "propose it again")
            trusted = release_keys(self.repository.root())
            for bundle, name, own in (
                (candidate, "candidate", number),
                (back, "back", number + 1),
            ):
                signed = numbered(bundle, number=own, key_id=key_id, signature=told[name])
                path = self._bundle_path(own)
                write_bundle(signed, path)
                try:
                    checked(path, trusted=trusted)
                except ReleaseError:
                    path.unlink()
                    raise
            signed_rollout = replace(kept.rollout, state=ReleaseState.SIGNED)
            Releases(connection).keep(signed_rollout, ring=None, now=now)
            return Releases(connection).get(number)

    def accept_root(self, folder: Path, *, now: datetime) -> int:
        """Take in a root and targets that were made offline, and sign what is current anew.

        Args:
            folder: with `root.json` and `targets.json`.
            now: aware time.

        Returns:
            The root's version.
        """
        try:
            root, targets = (
                (folder / "root.json").read_bytes(),
                (folder / "targets.json").read_bytes(),
            )
        except OSError as error:
            what = f"holds no root and targets ({error.strerror})"
            raise ReleaseMissingError(folder, what, "name what release root wrote") from error
        version = self.repository.take_root(root, targets)
        self.publish(now=now)
        return version

    # --- what is offered --------------------------------------------------------------------------

    def start(self, number: int, *, now: datetime) -> KeptRelease:
        """Offer a signed release to the first ring.

        Raises:
            ReleaseError: it is not signed, another one is on its way, or devices have another model
                by now than the one that it goes back to.
        """

        def begin(releases: Releases, kept: KeptRelease) -> Rollout:
            others = [one for one in releases.all() if one.rollout.state in rules.OPEN]
            if others:
                what = f"release {others[0].rollout.number} is on its way"
                raise ReleaseError(f"release {number}", what, "let it end, or withdraw it")
            in_use = self._in_use(releases, kept.offer.feature_spec_version)
            if in_use.version != kept.offer.back_version:
                what = f"goes back to {kept.offer.back_version}, and devices have {in_use.version}"
                raise ReleaseError(f"release {number}", what, "propose it again")
            return rules.started(kept.rollout, now=now)

        return self._change(number, begin, now=now)

    def advance(self, *, now: datetime) -> tuple[KeptRelease, Evidence] | None:
        """Look at what devices report, and let the release on its way go on, stop or end.

        Returns:
            The release as it is now with the evidence; None where none is on its way.
        """
        with self.database.transaction() as connection:
            releases = Releases(connection)
            found = [one for one in releases.all() if one.rollout.state in rules.OPEN]
            done = None
            if found:
                kept, rings = found[0], releases.rings()
                evidence = self._evidence(releases, kept, rings)
                after = rules.decide(kept.rollout, evidence, kept.policy, rings=len(rings), now=now)
                self._keep(connection, kept, after, now=now)
                done = releases.get(kept.rollout.number), evidence
            make_current = self._prepare(connection, now=now)
        make_current()
        return done

    def halt(self, number: int, *, reason: str, now: datetime) -> KeptRelease:
        """Offer a release to nobody more; who has it keeps it."""
        return self._change(
            number, lambda _, kept: rules.halted(kept.rollout, reason=reason), now=now
        )

    def resume(self, number: int, *, now: datetime) -> KeptRelease:
        """Offer a halted release to its ring again; who failed so far has no more say in it."""

        def go_on(releases: Releases, kept: KeptRelease) -> Rollout:
            after = rules.resumed(kept.rollout, now=now)
            releases.replace_failures(number, reason=SET_ASIDE)
            return after

        return self._change(number, go_on, now=now)

    def withdraw(self, number: int, *, reason: str, now: datetime) -> KeptRelease:
        """Offer every device the model before it.

        Raises:
            ReleaseError: a later release has gone out since.
        """

        def back(releases: Releases, kept: KeptRelease) -> Rollout:
            later = [
                one.rollout.number
                for one in releases.all()
                if one.rollout.number > number
                and one.rollout.state in {*rules.OPEN, ReleaseState.RELEASED}
            ]
            if later and kept.rollout.ring is not None:
                what = f"release {later[-1]} has gone out since"
                raise ReleaseError(f"release {number}", what, f"withdraw {later[-1]} first")
            return rules.withdrawn(kept.rollout, reason=reason)

        return self._change(number, back, now=now)

    def keep_rings(self, rings: Sequence[Ring]) -> None:
        """Keep rings in place of those before.

        Raises:
            ReleaseError: a release is on its way; its rings stay as they are.
        """
        with self.database.transaction() as connection:
            releases = Releases(connection)
            under_way = [one for one in releases.all() if one.rollout.state in rules.OPEN]
            if under_way:
                what = f"release {under_way[0].rollout.number} is on its way through them"
                raise ReleaseError("rings", what, "let it end, or withdraw it")
            releases.keep_rings(rings)

    def publish(self, *, now: datetime) -> None:
        """Write what devices fetch, where it is not what the database says, or soon over."""
        with self.database.transaction() as connection:
            make_current = self._prepare(connection, now=now)
        make_current()

    # --- inside -----------------------------------------------------------------------------------

    def _prepare(self, connection: Connection, *, now: datetime) -> Callable[[], None]:
        """Write what devices shall fetch, and return what makes it current after the commit."""
        releases = Releases(connection)
        wanted = self._targets(releases)
        has_changed = {
            name: (_sha256(target.content), dict(target.custom)) for name, target in wanted.items()
        } != self.repository.current()
        if not has_changed and not self.repository.needs_refresh(now):
            return lambda: None
        if self._key is None:
            what = "is not named"
            raise ReleaseMissingError("the server's release key", what, "name it: --release-key")
        version = releases.count_up(METADATA_COUNTER, at_least=self.repository.version() + 1)
        if has_changed:
            releases.count_up(OFFERS_COUNTER, at_least=version)
        return self.repository.publish(wanted, version=version, key=self._key, now=now)

    def _change(
        self,
        number: int,
        decide: Callable[[Releases, KeptRelease], Rollout],
        *,
        now: datetime,
    ) -> KeptRelease:
        with self.database.transaction() as connection:
            releases = Releases(connection)
            kept = self._get(releases, number)
            try:
                after = decide(releases, kept)
            except TransitionError as error:
                remedy = "see: fedcell release status"
                raise ReleaseError(f"release {number}", str(error), remedy) from error
            self._keep(connection, kept, after, now=now)
            make_current = self._prepare(connection, now=now)
            done = releases.get(number)
        make_current()
        return done

    def _keep(
        self, connection: Connection, kept: KeptRelease, after: Rollout, *, now: datetime
    ) -> None:
        releases, rings = Releases(connection), Releases(connection).rings()
        name = None if after.ring is None else rings[after.ring].name
        releases.keep(after, ring=name, now=now)
        has_moved = (after.state, after.ring) != (kept.rollout.state, kept.rollout.ring)
        if has_moved and after.state is ReleaseState.ROLLING and after.ring is not None:
            _watch(releases, kept, rings, reached=after.ring)
        if after.state in {ReleaseState.RELEASED, ReleaseState.WITHDRAWN}:
            releases.forget_bands(after.number)
        if after.state is ReleaseState.RELEASED:
            self._move(connection, kept.offer.version, ModelState.RELEASED, now=now)
        if after.state is ReleaseState.WITHDRAWN:
            self._move(connection, kept.offer.version, ModelState.RETIRED, now=now)

    @staticmethod
    def _move(connection: Connection, version: str, state: ModelState, *, now: datetime) -> None:
        registry = ModelVersions(connection)
        model = registry.get(version)
        if model is not None and model.state is not state:
            registry.keep_state(move(model, state, now=now))

    @staticmethod
    def _evidence(releases: Releases, kept: KeptRelease, rings: Sequence[Ring]) -> Evidence:
        rollout, version, soak = kept.rollout, kept.offer.version, kept.policy.soak
        if rollout.ring is None or rollout.ring_began_at is None:
            return Evidence()
        if rollout.state in rules.OPEN:
            _watch(releases, kept, rings, reached=rollout.ring)
        watched = releases.watched(rollout.number)
        failed = new_failures(watched, version=version)
        if failed:
            releases.note_failures(rollout.number, failed)
            watched = releases.watched(rollout.number)
        return evidence_of(watched, version=version, since=rollout.ring_began_at, before=soak)

    def in_use(self, spec: str) -> Bundle:
        """Return what devices of a feature specification have, without signature and number."""
        with self.database.transaction() as connection:
            return unnumbered(self._in_use(Releases(connection), spec))

    def evidence(self, number: int) -> Evidence:
        """Return what devices have reported of a release, without deciding anything."""
        with self.database.transaction() as connection:
            releases = Releases(connection)
            return self._evidence(releases, self._get(releases, number), releases.rings())

    def _targets(self, releases: Releases) -> dict[str, TargetContent]:
        offerable = [one.offer for one in releases.all()]
        found: dict[str, TargetContent] = {}
        for index, ring in enumerate(releases.rings()):
            names = target_names(ring.name, offers_of(index, offerable))
            for name, (offer, earlier) in names.items():
                content = self._bundle_path(offer.number).read_bytes()
                custom = {
                    "num_bytes": len(content),
                    "version": offer.version,
                    "release": offer.number,
                    "least_client_version": offer.least_client_version,
                    "earlier": list(earlier),
                }
                found[name] = TargetContent(content, custom)
        return found

    def _in_use(self, releases: Releases, spec: str) -> Bundle:
        """Return what devices of a feature specification have: released last, else the default."""
        done = [
            one
            for one in releases.all()
            if one.rollout.state is ReleaseState.RELEASED and one.offer.feature_spec_version == spec
        ]
        if not done:
            return load_bundle(DEFAULT)
        request = self.folder / REQUESTS / str(done[-1].rollout.number)
        return load_bundle(request / CANDIDATE, expected_digest=done[-1].digest)

    def _bundle_path(self, number: int) -> Path:
        return self.folder / BUNDLES / f"{number}.zip"

    @staticmethod
    def _get(releases: Releases, number: int) -> KeptRelease:
        try:
            return releases.get(number)
        except KeyError:
            remedy = "see: fedcell release status"
            raise ReleaseInputError(f"release {number}", "there is none", remedy) from None


def latest(releases: Sequence[KeptRelease]) -> KeptRelease:
    """Return the release that commands mean where none is named: the one on its way, else the last.

    Raises:
        ReleaseMissingError: nothing was proposed yet.
    """
    under_way = [one for one in releases if one.rollout.state in rules.OPEN]
    if not releases:
        raise ReleaseMissingError("releases", "there are none yet", "see: fedcell release propose")
    return (under_way or list(releases))[-1]


def _watch(releases: Releases, kept: KeptRelease, rings: Sequence[Ring], *, reached: int) -> None:
    """Keep what devices say under the model before; what they say under this one is no before."""
    version = kept.offer.version
    spoken = [
        (device_id, None if (summary or {}).get("model_version") == version else summary)
        for device_id, summary in releases.spoken()
    ]
    releases.watch(kept.rollout.number, watch_list(spoken, rings, reached=reached))


def _offerable(number: int, candidate: Bundle, back: Bundle) -> Offerable:
    return Offerable(
        number=number,
        state=ReleaseState.PROPOSED,
        ring=None,
        version=candidate.version,
        feature_spec_version=candidate.manifest["feature_spec_version"],
        least_client_version=candidate.manifest["least_client_version"],
        back_version=back.version,
        back_feature_spec_version=back.manifest["feature_spec_version"],
        back_least_client_version=back.manifest["least_client_version"],
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
