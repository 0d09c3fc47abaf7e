"""Where a device's node keeps what is its own, and what it tells of itself.

<store>.node/            mode 0700: nobody else's
<store>.node/flwr/       Flower's home: the bundle that is pinned, installed whole or not at all
<store>.node/app-pin.json   the newest pin that was seen
<store>.node/node.json   what the node does, for `status`
<store>.node/flower.log  what Flower and the app said
<store>.node/*.toml, policy-keys.json, superexec.secret   written anew at each start
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from models.durable_file import write_durably

from ..errors import StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATE_FILE, LOG_FILE, PIN_FILE = "node.json", "flower.log", "app-pin.json"
POLICY_KEYS_FILE = "policy-keys.json"
MOST_LOG_BYTES = 1_000_000
_LOCK = ".lock"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedBundle:
    """A bundle of which nothing was run.

    Attributes:
        sha256: of its bytes.
        reason: a value of `pinning.BundleRefusal`.
        pinned: SHA-256 of the one that is pinned, None where there is no pin.
        at: when, ISO 8601.
    """

    sha256: str
    reason: str
    pinned: str | None
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What a node says of itself.

    Attributes:
        state: `starting`, `connected`, `waiting` or `stopped`; empty before it began.
        superlink: `host:port`.
        since: of the state, ISO 8601.
        what: in words, why it waits or stopped.
        node_id: its number at the SuperLink, None before it was let in.
        refused: the last bundle that was refused, None where none was since the pinned one ran.
    """

    state: str = ""
    superlink: str = ""
    since: str = ""
    what: str = ""
    node_id: str | None = None
    refused: RefusedBundle | None = None


def node_folder(store: Path) -> Path:
    """Return where the node of a store's device keeps what is its own."""
    return store.with_name(store.name + ".node")


def write_state(folder: Path, state: NodeState) -> None:
    """Keep what a node says of itself.

    Raises:
        OSError: the folder or the disk refuses.
    """
    content = {"format": _FORMAT, **asdict(state)}
    write_durably(folder / STATE_FILE, json.dumps(content, indent=1).encode())


def read_state_of_node(store: Path) -> NodeState | None:
    """Return what a device's node said last, None where it never ran; one that died is stopped."""
    folder = node_folder(store)
    try:
        content: dict[str, Any] = json.loads((folder / STATE_FILE).read_bytes())
        if content.pop("format") != _FORMAT:
            return None
        refused = content.pop("refused")
        known = {name: content[name] for name in ("state", "superlink", "since", "what", "node_id")}
        bundle = None if refused is None else RefusedBundle(**refused)
        state = NodeState(**known, refused=bundle)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if state.state == "stopped" or _is_held(folder):
        return state
    return replace(state, state="stopped", what="it ended without saying so")


@contextmanager
def held_folder(store: Path) -> Iterator[Path]:
    """Make a node's folder where there is none, and keep a second node of the device from it.

    Raises:
        StoreBusyError: a node of this device runs, or the folder cannot be made.
    """
    folder = node_folder(store)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        (folder / "flwr").mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise StoreBusyError(folder, what, "check the folder and the disk") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = "a node of this device runs"
            raise StoreBusyError(folder, what, "stop that one first; a device has one") from None
        yield folder
    finally:
        os.close(handle)


def refuse_running_node(store: Path) -> None:
    """Refuse to take a store away from a node that runs.

    Raises:
        StoreBusyError: a node of this device runs.
    """
    if _is_held(node_folder(store)):
        what = "its node runs"
        raise StoreBusyError(store, what, "nothing was removed; stop the node first")


def write_private(path: Path, content: bytes) -> None:
    """Write a file that the device alone may read.

    Raises:
        OSError: the folder or the disk refuses.
    """
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    aside.replace(path)


def open_log(folder: Path) -> int:
    """Return a descriptor that appends to the log; one that has grown long is begun anew."""
    path = folder / LOG_FILE
    if path.exists() and path.stat().st_size > MOST_LOG_BYTES:
        path.replace(path.with_name(f"{LOG_FILE}.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _is_held(folder: Path) -> bool:
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
