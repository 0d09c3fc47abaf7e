"""The node of a device, kept running: starts Flower's processes, hears what they say, starts anew.

Two processes: the SuperNode, and the SuperExec that starts the app for each task. They end with
this one, whichever way it ends. Only this process decides whether to try again.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import FlowerError, SuperLinkUnreachableError
from .endings import WORDS, Ending, ending_of, told_ending
from .node_folder import (
    PIN_FILE,
    POLICY_KEYS_FILE,
    NodeState,
    RefusedBundle,
    open_log,
    write_private,
    write_state,
)
from .processes import end, executor_process, free_port, let_begin, supernode_process
from .settings import as_toml
from .supernode import SuperNodePlan

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from ..link.watchdog import Watchdog
    from .endings import Patience
    from .processes import Events
    from .settings import NodeValue

TURN_S = 0.5
PLAN_FILE = "supernode.json"
_CODE = re.compile(r"\[code: (\d+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInputs:
    """What a node is started from; read anew at each start, for a membership is renewed.

    Attributes:
        superlink: `host:port`.
        host: of it.
        port: of it.
        authorities: PEM file of who may speak for it.
        key: file of the node's private key.
        server_keys: that sign pins and policies, Ed25519 in hex, by key id.
        pin_file: of a pin that came with the device, None for none.
        values: of the node's configuration.
    """

    superlink: str
    host: str
    port: int
    authorities: Path
    key: Path
    server_keys: Mapping[str, str]
    pin_file: Path | None
    values: Mapping[str, NodeValue]


@dataclass(slots=True)
class DeviceNode:
    """Runs a device's SuperNode until it is stopped.

    Attributes:
        folder: the node's own; held by this process.
        inputs: read at each start.
        patience: how long to wait after an ending.
        tell: hears each event, a name and its facts.
        clock: the device's time.
        elapsed_s: seconds on a clock that never jumps.
        watchdog: of the service manager.
    """

    folder: Path
    inputs: Callable[[], NodeInputs]
    patience: Patience
    tell: Callable[[str, Mapping[str, object]], None]
    clock: Callable[[], datetime]
    elapsed_s: Callable[[], float]
    watchdog: Watchdog
    _stopping: threading.Event = field(default_factory=threading.Event)
    _state: NodeState = field(default_factory=NodeState)
    _waits_for: str = ""

    def stop(self) -> None:
        """End the node in order; safe to call from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Run the node until it is stopped.

        Raises:
            SuperLinkUnknownError: who answers is not the fleet's.
            NodeRefusedError: the SuperLink does not know the device's key.
            FlowerError: Flower is missing, or in a version that is not known here.
            EdgeError: membership or settings cannot be used.
        """
        what = "it was stopped"
        try:
            while not self._stopping.is_set():
                self._try_once()
        except Exception as error:
            what = " ".join(str(error).split())
            raise
        finally:
            self._keep(state="stopped", what=what)

    def _try_once(self) -> None:
        inputs = self.inputs()
        self._keep(state="starting", what="", superlink=inputs.superlink)
        plan = self._plan(inputs)
        pins = plan.pins()
        try:
            pin = pins.newest(pins.look())
        except SuperLinkUnreachableError as error:
            self._wait(Ending.UNREACHABLE, " ".join(str(error).split()))
            return
        if pin is None:
            self._say("unpinned")
        ending = self._run_once(plan)
        if ending is not None:
            self._wait(ending, WORDS[ending])

    def _plan(self, inputs: NodeInputs) -> SuperNodePlan:
        """Write what Flower's processes read, and return where it is."""
        folder = self.folder.absolute()
        write_private(folder / "node.toml", as_toml(inputs.values))
        keys = json.dumps(dict(inputs.server_keys)).encode()
        write_private(folder / POLICY_KEYS_FILE, keys)
        write_private(folder / "superexec.secret", secrets.token_bytes(32))
        plan = SuperNodePlan(
            superlink=inputs.superlink,
            host=inputs.host,
            port=inputs.port,
            authorities=str(inputs.authorities.absolute()),
            key=str(inputs.key.absolute()),
            node_config=str(folder / "node.toml"),
            api_port=free_port(),
            secret=str(folder / "superexec.secret"),
            home=str(folder / "flwr"),
            kept_pin=str(folder / PIN_FILE),
            pin_file="" if inputs.pin_file is None else str(inputs.pin_file.absolute()),
            pin_keys=dict(inputs.server_keys),
        )
        write_private(folder / PLAN_FILE, plan.to_bytes())
        return plan

    def _run_once(self, plan: SuperNodePlan) -> Ending | None:
        log = open_log(self.folder)
        try:
            file = self.folder.absolute() / PLAN_FILE
            with supernode_process(plan, file, log=log) as (process, events):
                return self._attend(process, events, plan, log)
        finally:
            os.close(log)

    def _attend(
        self, process: subprocess.Popen[bytes], events: Events, plan: SuperNodePlan, log: int
    ) -> Ending | None:
        """Hear the SuperNode and its SuperExec until one ends; None where they are stopped.

        Raises:
            FlowerError: this Flower has no place for the pin.
        """
        told: Ending | None = None
        executor = executor_process(plan, log=log, parent=process.pid)
        try:
            while not self._stopping.is_set():
                has_ended = process.poll() is not None
                for event in events.within(0.0 if has_ended else TURN_S):
                    told = self._heard(event, told)
                    if event["event"] == "listening":
                        let_begin(executor)
                if has_ended:
                    return ending_of(told, exit_code=process.returncode)
                if executor.poll() is not None:
                    return Ending.EXECUTOR_LOST
                self.watchdog.ping(self.elapsed_s())
        finally:
            end(executor)
        return None

    def _heard(self, event: Mapping[str, Any], told: Ending | None) -> Ending | None:
        """Take in what the SuperNode said; return why it will have ended, as far as it said."""
        match event["event"]:
            case "connected":
                node_id, superlink = str(event["node_id"]), self._state.superlink
                self.patience.connected(self.elapsed_s())
                self._keep(state="connected", what="", node_id=node_id)
                self._say("connected", node_id=node_id, superlink=superlink)
                self.watchdog.status(f"connected to {superlink}")
                return None
            case "refused_connection":
                code = _CODE.search(str(event["what"]))
                return told_ending(None if code is None else int(code[1]))
            case "stuck":
                return Ending.STUCK
            case "refused":
                refused = RefusedBundle(
                    sha256=str(event["sha256"]),
                    reason=str(event["reason"]),
                    pinned=event["pinned"],
                    at=self.clock().isoformat(),
                )
                self._keep(refused=refused)
                self._say("refused", sha256=refused.sha256, reason=refused.reason)
            case "pinned":
                self._keep(refused=None)
                self._say("pinned", sha256=event["sha256"])
            case "flower_is_another":
                what = f"starts SuperNodes in a way that is not known here ({event['what']})"
                raise FlowerError("flwr", what, "pip install 'flwr==1.41.*'")
        return told

    def _wait(self, ending: Ending, what: str) -> None:
        wait_s = self.patience.wait_after(ending, elapsed_s=self.elapsed_s())
        self._keep(state="waiting", what=what)
        if what != self._waits_for:
            self._say("waiting", reason=ending.value, what=what)
        self._waits_for = what
        until_s = self.elapsed_s() + wait_s
        while (left_s := until_s - self.elapsed_s()) > 0:
            self.watchdog.ping(self.elapsed_s())
            if self._stopping.wait(min(TURN_S, left_s)):
                return

    def _keep(self, **changes: Any) -> None:
        """Write the state down; a disk that refuses does not stop a node."""
        if changes.get("state", self._state.state) != self._state.state:
            changes["since"] = self.clock().isoformat()
        self._state = replace(self._state, **changes)
        with suppress(OSError):
            write_state(self.folder, self._state)

    def _say(self, event: str, **facts: object) -> None:
        self._waits_for = ""
        self.tell(event, facts)
