"""The trail of refused replies: one JSON line each in the run folder, nothing of what they held.

A line says when, in which round, under which name the node stands, and why. The name is the same in
all rounds of a stream, so that a node that lies again and again shows; it is made with the stream's
own key of pseudonyms, so that it leads to nobody once the stream has ended. Lines are appended and
never changed. A fleet that lies in every reply cannot fill the disk: of each round so many lines
are kept, the others are counted in one, and a full file is put aside, of which one is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..privacy_home.privacy_errors import StreamKeyError
from ..streams.stream_key import KEY_FILE, read_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from enum import StrEnum
    from pathlib import Path

    from ..streams.stream_key import OperatorKey, StreamSecrets

logger = logging.getLogger(__name__)

TRAIL_FILE: Final = "refusals.jsonl"
FULL_TRAIL_FILE: Final = "refusals.1.jsonl"
MOST_BYTES: Final = 2_000_000
MOST_A_ROUND: Final = 200
NOBODY: Final = "nobody"
"""Stands for whoever answered what no node was asked."""
_NAME_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class NodeNames:
    """Names of nodes in one stream.

    Attributes:
        key: of the stream's pseudonyms; a comparison, which has none, takes its name.
    """

    key: bytes

    @staticmethod
    def of(stream: str, secrets: StreamSecrets | None) -> NodeNames:
        """Return the names in a stream.

        Args:
            stream: its name.
            secrets: of the stream; None for a comparison.
        """
        return NodeNames(stream.encode() if secrets is None else secrets.pseudonym_key)

    def name(self, node_id: int | None) -> str:
        """Return the name of a node: HMAC-SHA256 of its identifier, 16 hexadecimal digits."""
        if node_id is None:
            return NOBODY
        message = f"node\n{node_id}".encode()
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:_NAME_DIGITS]


def names_in(
    folder: Path, *, stream: str, has_key: bool, operator: OperatorKey | None
) -> NodeNames:
    """Return the names of nodes in the stream of a run's folder, as long as its key is there.

    Args:
        folder: of the run.
        stream: its name.
        has_key: whether the stream has a key of its own; a comparison has none.
        operator: opens a sealed key.

    Raises:
        StreamKeyError: the key is gone with the stream, or does not open.
    """
    path = folder / KEY_FILE
    if not has_key:
        return NodeNames.of(stream, None)
    if not path.exists():
        what = "is gone, as the stream has ended: its names lead to no node any more"
        raise StreamKeyError(path, what, "resolve names while a run goes on")
    return NodeNames.of(stream, read_secrets(path, operator=operator))


@dataclass(slots=True)
class RefusalTrail:
    """Keeps why replies were refused; where the disk refuses, the run goes on without.

    Attributes:
        folder: of the run.
        names: of nodes.
        clock: gives now, aware UTC.
        most_bytes: at which the file is put aside.
        most_a_round: lines that are kept of one round.
    """

    folder: Path
    names: NodeNames
    clock: Callable[[], datetime]
    most_bytes: int = MOST_BYTES
    most_a_round: int = MOST_A_ROUND
    _lines: list[str] = field(init=False, default_factory=list)
    _left_out: dict[str, int] = field(init=False, default_factory=dict)

    def note(self, index: int, node_id: int | None, reason: StrEnum) -> None:
        """Note one refused reply, or a node's refused claim on devices; `end_round` writes it.

        Args:
            index: of the step.
            node_id: that was asked; None where nobody was.
            reason: why the reply counts as zero, or the claim for nothing.
        """
        if len(self._lines) >= self.most_a_round:
            self._left_out[str(reason)] = self._left_out.get(str(reason), 0) + 1
            return
        self._lines.append(
            self._line(index, node=self.names.name(node_id), reason=str(reason)),
        )

    def end_round(self, index: int) -> None:
        """Append what was noted, durably.

        Args:
            index: of the step.
        """
        if self._left_out:
            self._lines.append(self._line(index, more=self._left_out))
        lines, self._lines, self._left_out = self._lines, [], {}
        if not lines:
            return
        content = "".join(lines).encode()
        try:
            self._make_room(len(content))
            with (self.folder / TRAIL_FILE).open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            logger.warning("the trail of refused replies could not be kept: %s", error)

    def _line(self, index: int, **facts: Any) -> str:
        at = self.clock().isoformat(timespec="seconds")
        return json.dumps({"at": at, "round": index, **facts}, separators=(",", ":")) + "\n"

    def _make_room(self, num_bytes: int) -> None:
        path = self.folder / TRAIL_FILE
        if path.exists() and path.stat().st_size + num_bytes > self.most_bytes:
            path.replace(self.folder / FULL_TRAIL_FILE)


def read_trail(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's trail, oldest first; a line that a crash tore is left out.

    A round that a crash interrupted is collected again, so its refusals may stand there twice, each
    with its time.
    """
    for name in (FULL_TRAIL_FILE, TRAIL_FILE):
        path = folder / name
        if not path.exists():
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    read = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(read, dict):
                    yield read
