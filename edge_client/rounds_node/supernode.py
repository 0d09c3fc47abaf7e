"""The process that is the SuperNode: Flower's own, with the pin between it and every bundle.

Flower runs nothing that `--trusted-entities` do not vouch for, and what a self-run SuperLink hands
out carries no such word. So this process makes a key that lives as long as it does, is told to
Flower as the one trusted entity, and signs for the one bundle that is pinned. Whatever reaches
Flower by another way, because a server lies or a later Flower asks elsewhere, has no signature of
this key, and Flower itself refuses it. ADR 0043.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.wire.envelope import SigningKey

from ..errors import EdgeError
from ..provisioning.device_certificate import make_loopback_certificate
from .node_folder import write_private
from .pin_source import PinSource
from .pinning import WORDS, OfferedBundle, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ENTITY = "fpk_this_node"
APPS = "apps"
"""Folder of Flower's home that holds installed bundles."""
PARENT_POLL_S = 0.5
FLOWER_IS_ANOTHER = 3
"""Exit code: this Flower hands bundles out in a way that is not known here."""
CONNECTION_FUNCTION = "http_request_response"
STUCK_POLL_S = 1.0
_PARTS_OF_A_CONNECTION = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperNodePlan:
    """What the process is told, in a file.

    Attributes:
        superlink: `host:port`.
        host: of it.
        port: of it.
        authorities: PEM file of who may speak for it.
        key: file of the node's private key, OpenSSH form.
        node_config: TOML file of the node's configuration.
        api_port: TCP port on loopback for the processes of apps.
        secret: file that whoever asks for tasks must know.
        home: Flower's home.
        kept_pin: file of the newest pin that was seen.
        pin_file: of a pin that came with the device, empty for none.
        pin_keys: that may sign pins, Ed25519 in hex, by key id.
    """

    superlink: str
    host: str
    port: int
    authorities: str
    key: str
    node_config: str
    api_port: int
    secret: str
    home: str
    kept_pin: str
    pin_file: str
    pin_keys: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Return it as the process reads it."""
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self)}).encode()

    @staticmethod
    def from_bytes(content: bytes) -> SuperNodePlan:
        """Read what the starting process wrote."""
        return SuperNodePlan(**json.loads(content))

    def pins(self) -> PinSource:
        """Return where its pins come from."""
        return PinSource(
            host=self.host,
            port=self.port,
            authorities=Path(self.authorities),
            kept=Path(self.kept_pin),
            file=Path(self.pin_file) if self.pin_file else None,
            keys=self.pin_keys,
        )

    @property
    def certificate(self) -> Path:
        """By which SuperExec and apps know this start's SuperNode; its key lies beside it."""
        return Path(self.home) / "loopback.pem"

    @property
    def certificate_key(self) -> Path:
        """Private key of the certificate."""
        return Path(self.home) / "loopback.key"

    def words(self) -> list[str]:
        """Return the command line of `flower-supernode`."""
        return [
            *("flower-supernode", "--superlink", self.superlink),
            *("--root-certificates", self.authorities),
            *("--auth-supernode-private-key", self.key),
            *("--node-config", self.node_config),
            *("--host", "127.0.0.1", "--port", str(self.api_port)),
            *("--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(self.certificate_key)),
            *("--ssl-ca-certfile", str(self.certificate)),
            *("--isolation", "process", "--superexec-auth-secret-file", self.secret),
            *("--trusted-entities", str(Path(self.home) / "trusted-entities.yaml")),
        ]


@dataclass(slots=True)
class Unanswered:
    """The message that is being answered; Flower would wait for ever for an app that gave up.

    Attributes:
        due_s: until when its answer is of use, on a clock that never jumps; None: there is none.
    """

    due_s: float | None = None

    def came(self, message: Any | None) -> None:
        """Note what was asked for, None for nothing."""
        left_s = None if message is None else float(message.metadata.ttl)
        self.due_s = None if left_s is None else time.monotonic() + left_s

    def is_stuck(self) -> bool:
        """Tell whether the time of the message is over."""
        due_s = self.due_s
        return due_s is not None and time.monotonic() > due_s


@dataclass(slots=True)
class PinnedBundles:
    """Stands between Flower and the bundles that a SuperLink hands out.

    Attributes:
        pins: where pins come from.
        home: Flower's home.
        tell: says what happened to the starting process.
        unanswered: the message that is being answered.
    """

    pins: PinSource
    home: Path
    tell: Callable[..., None]
    unanswered: Unanswered = field(default_factory=Unanswered)
    _key: SigningKey = field(default_factory=SigningKey.generate)
    _runs: dict[int, Any] = field(default_factory=dict)

    def trusted_entities(self) -> bytes:
        """Return the file of entities that Flower shall trust: this process alone."""
        name = b"ssh-ed25519"
        parts = (name, self._key.verify_key.to_bytes())
        blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        # A JSON object is one of YAML, too.
        return json.dumps({ENTITY: f"ssh-ed25519 {base64.b64encode(blob).decode()}"}).encode()

    def connection(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a connection of Flower's whose bundles pass by the pin.

        Raises:
            ValueError: it is not made up as Flower 1.41 makes it.
        """
        if len(parts) != _PARTS_OF_A_CONNECTION:
            raise ValueError(f"a connection of {len(parts)} parts is not known here")
        node_id, receive, send, get_run, get_fab, *others = parts

        def received() -> Any:
            came = receive()
            self.unanswered.came(None if came is None else came[0])
            return came

        def sent(*arguments: Any) -> Any:
            self.unanswered.came(None)
            return send(*arguments)

        def run_of(run_id: int) -> Any:
            self._runs[run_id] = get_run(run_id)
            return self._runs[run_id]

        def bundle_of(fab_hash: str, run_id: int) -> Any:
            return self.judged(get_fab(fab_hash, run_id), self._runs.get(run_id))

        return (node_id, received, sent, run_of, bundle_of, *others)

    def judged(self, fab: Any, run: Any) -> Any:
        """Return a bundle with this process's word for it, or without any."""
        digest = hashlib.sha256(fab.content)
        offered = OfferedBundle(
            app="" if run is None else str(run.fab_id),
            version="" if run is None else str(run.fab_version),
            named_sha256="" if run is None else str(run.fab_hash),
            sha256=digest.hexdigest(),
        )
        pin = self.pins.newest(self._handed_out())
        refusal = refusal_of(offered, pin)
        if refusal is not None:
            pinned = None if pin is None else pin.fab_sha256
            sys.stderr.write(f"bundle {offered.sha256} is refused: {WORDS[refusal]}\n")
            self.tell("refused", sha256=offered.sha256, reason=refusal.value, pinned=pinned)
            return replace(fab, verifications={})
        self._install(fab.content)
        self.tell("pinned", sha256=offered.sha256)
        return replace(fab, verifications=self._vouched(digest.digest()))

    def _handed_out(self) -> bytes | None:
        try:
            return self.pins.look()
        except EdgeError as error:
            sys.stderr.write(f"no pin was fetched: {error}\n")
            return None

    def _vouched(self, digest: bytes) -> dict[str, str]:
        signed_at = int(time.time())
        signature = self._key.sign(signed_at.to_bytes(8, "big") + digest)
        told = {
            "signed_at": signed_at,
            "signature": base64.urlsafe_b64encode(signature).decode().rstrip("="),
        }
        return {"valid_license": "pinned", ENTITY: json.dumps(told)}

    def _install(self, content: bytes) -> None:
        """Install a bundle whole or not at all: Flower takes a folder that is there for whole."""
        from flwr.cli.install import install_from_fab

        aside = self.home / "aside"
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.redirect_stdout(sys.stderr):
            made = Path(install_from_fab(content, install_dir=aside, skip_prompt=True))
        target = self.home / APPS / made.name
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            made.replace(target)
        shutil.rmtree(aside, ignore_errors=True)


def main() -> None:
    """Run the SuperNode until it ends; the arguments are a plan's file and a descriptor to tell."""
    plan = SuperNodePlan.from_bytes(Path(sys.argv[1]).read_bytes())
    told = os.fdopen(int(sys.argv[2]), "w", encoding="ascii", buffering=1)

    def tell(event: str, **facts: object) -> None:
        with contextlib.suppress(OSError):
            told.write(json.dumps({"event": event, **facts}) + "\n")

    _end_with_parent()
    home = Path(plan.home)
    # What a process that was killed has left half-written, or what somebody changed since.
    shutil.rmtree(home / APPS, ignore_errors=True)
    bundles = PinnedBundles(plan.pins(), home, tell)
    (home / "trusted-entities.yaml").write_bytes(bundles.trusted_entities())
    key, certificate = make_loopback_certificate()
    write_private(plan.certificate_key, key)
    write_private(plan.certificate, certificate)
    sys.argv = plan.words()
    code = 1
    try:
        run_flower(bundles)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except FlowerIsAnotherError as error:
        tell("flower_is_another", what=str(error))
        code = FLOWER_IS_ANOTHER
    # Flower's HTTP server keeps a thread that would let a SuperNode live on without its loop.
    sys.stderr.flush()
    os._exit(code)


class FlowerIsAnotherError(Exception):
    """This Flower is not made as the pin needs it; nothing was run."""


def run_flower(bundles: PinnedBundles) -> None:
    """Run Flower's SuperNode with bundles that pass by the pin.

    Raises:
        FlowerIsAnotherError: this Flower has no place to put the pin.
        SystemExit: it ended.
    """
    from flwr.supernode import fleet_http_connection, start_client_internal
    from flwr.supernode.cli.flower_supernode import flower_supernode

    for module, name in (
        (start_client_internal, CONNECTION_FUNCTION),
        (fleet_http_connection, "flwr_exit"),
    ):
        if not hasattr(module, name):
            raise FlowerIsAnotherError(f"{module.__name__} has no {name}")
    connect, leave = start_client_internal.http_request_response, fleet_http_connection.flwr_exit

    @contextlib.contextmanager
    def pinned(*arguments: Any, **named: Any) -> Iterator[tuple[Any, ...]]:
        # Flower gives up before it connects where it cannot listen: the port is its own.
        bundles.tell("listening")
        with connect(*arguments, **named) as parts:
            try:
                judged = bundles.connection(parts)
            except ValueError as error:
                # Flower's own frame swallows what is an Exception, and would go on without a pin.
                bundles.tell("flower_is_another", what=str(error))
                sys.exit(FLOWER_IS_ANOTHER)
            bundles.tell("connected", node_id=str(parts[0]))
            yield judged

    def tell_and_leave(code: int, message: str = "", *arguments: Any, **named: Any) -> None:
        bundles.tell("refused_connection", code=code, what=str(message)[:400])
        leave(code, message, *arguments, **named)

    start_client_internal.http_request_response = pinned
    fleet_http_connection.flwr_exit = tell_and_leave
    _end_when_stuck(bundles)
    flower_supernode()


def _end_when_stuck(bundles: PinnedBundles) -> None:
    """Sign off where an app gave no answer in its message's time: it is started anew."""

    def watch() -> None:
        while not bundles.unanswered.is_stuck():
            time.sleep(STUCK_POLL_S)
        bundles.tell("stuck")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="fedcell-stuck", daemon=True).start()


def _end_with_parent() -> None:
    """Sign off as soon as the starting process is gone: an orphan would hold the session."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="fedcell-parent", daemon=True).start()


if __name__ == "__main__":
    main()
