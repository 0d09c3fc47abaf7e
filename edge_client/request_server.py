"""Lines in, lines out, over standard input or a Unix socket: one thread, and bounds on everything.

A client that sends without end, reads slowly, closes half or hangs costs the others nothing: each
has at most one request in work, one answer waiting and one line's worth of buffer.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import selectors
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import ServiceError
from .requests import MAX_REQUEST_BYTES, overlong_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

MAX_CLIENTS = 8
STALLED_S = 30.0
IDLE_S = 60.0
FLUSH_S = 2.0
SOCKET_MODE = 0o660
_CHUNK_BYTES = 16_384
_PIPE_CHUNK_BYTES = 4_096
_BACKLOG = 16


class LineBuffer:
    """Cuts a stream of bytes into lines; a line that is too long is dropped up to its end.

    Args:
        limit: the most bytes of a line, its line feed not counted.
    """

    def __init__(self, limit: int = MAX_REQUEST_BYTES) -> None:
        self._limit = limit
        self._waiting = bytearray()
        self._is_dropping = False

    def __len__(self) -> int:
        """Return how many bytes wait for the end of their line."""
        return len(self._waiting)

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield the lines that end in `data`, None in place of one that was too long."""
        *ends, rest = data.split(b"\n")
        for part in ends:
            yield self._line(part)
        self._keep(rest)

    def rest(self) -> bytes:
        """Return what stands behind the last line feed, at the end of the stream."""
        rest, self._waiting = bytes(self._waiting), bytearray()
        return b"" if self._is_dropping else rest

    def _line(self, part: bytes) -> bytes | None:
        self._keep(part)
        line = None if self._is_dropping else bytes(self._waiting)
        self._waiting.clear()
        self._is_dropping = False
        return line

    def _keep(self, part: bytes) -> None:
        if self._is_dropping:
            return
        self._waiting += part
        if len(self._waiting) > self._limit:
            self._waiting.clear()
            self._is_dropping = True


@dataclass(slots=True)
class _Client:
    """One side that asks: descriptors, the lines that it has sent, the answer that it waits for."""

    reads: int
    writes: int
    connection: socket.socket | None
    moved_at_s: float
    buffer: LineBuffer = field(default_factory=LineBuffer)
    lines: list[bytes | None] = field(default_factory=list)
    out: bytearray = field(default_factory=bytearray)
    has_ended: bool = False

    def receive(self) -> None:
        """Take in what has come; raises OSError where the other side is gone."""
        data = os.read(self.reads, _CHUNK_BYTES)
        if data:
            self.lines += self.buffer.feed(data)
            return
        self.has_ended = True
        rest = self.buffer.rest()
        if rest.strip():
            self.lines.append(rest)

    def send(self) -> None:
        """Hand out a part of the answer; raises OSError where the other side is gone."""
        size = _PIPE_CHUNK_BYTES if self.connection is None else _CHUNK_BYTES
        del self.out[: os.write(self.writes, self.out[:size])]

    def is_finished(self) -> bool:
        """Return whether it has sent everything and got everything."""
        return self.has_ended and not self.lines and not self.out

    def close(self) -> None:
        """Let it go; standard input and output stay open."""
        if self.connection is not None:
            self.connection.close()


class RequestServer:
    """Answers the requests of all clients, a line of each in turn.

    Args:
        answer: makes the answer to a line.
        counts: how often each error code was given.
        on_turn: called at each turn of the loop with the monotonic time, such as a watchdog's ping.
        turn_s: the longest time between two turns, seconds.
        clock_s: a monotonic clock.
    """

    def __init__(
        self,
        answer: Callable[[bytes], bytes],
        *,
        counts: dict[str, int],
        on_turn: Callable[[float], None] = lambda _elapsed_s: None,
        turn_s: float = 5.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer = answer
        self._counts = counts
        self._on_turn = on_turn
        self._turn_s = turn_s
        self._clock_s = clock_s
        self._clients: list[_Client] = []
        self._wake_reads, self._wake_writes = os.pipe()
        os.set_blocking(self._wake_writes, False)
        self._is_stopped = False
        self.answered = 0

    @property
    def wakeup_fd(self) -> int:
        """For `signal.set_wakeup_fd`: a signal then ends the wait of a turn."""
        return self._wake_writes

    def stop(self) -> None:
        """Have the loop end soon; may be called from a signal handler or another thread."""
        self._is_stopped = True
        with suppress(OSError):
            os.write(self._wake_writes, b"\0")

    def close(self) -> None:
        """Close what wakes the loop; no signal may write to it afterwards."""
        os.close(self._wake_reads)
        os.close(self._wake_writes)

    def serve_stream(self, reads: int, writes: int) -> None:
        """Answer what comes in on one descriptor on another, until it ends or `stop` is called."""
        self._clients.append(_Client(reads, writes, None, self._clock_s()))
        self._loop(None)

    def serve_socket(self, path: Path) -> None:
        """Listen on a Unix socket until `stop` is called.

        A socket that a killed server left is replaced; one that somebody listens on is not.

        Raises:
            ServiceError: the path is taken, or the folder cannot be written.
        """
        with _Lock(path), _listening(path) as listener:
            self._loop(listener)

    def _loop(self, listener: socket.socket | None) -> None:
        try:
            while not self._is_stopped and (listener is not None or self._clients):
                self._turn(listener)
            self._flush()
        finally:
            for client in self._clients:
                client.close()
            self._clients.clear()

    def _turn(self, listener: socket.socket | None) -> None:
        can_work = [client for client in self._clients if client.lines and not client.out]
        for client in can_work:
            self._answer_one(client)
        is_busy = any(client.lines and not client.out for client in self._clients)
        for ready in self._wait(listener, 0.0 if is_busy else self._turn_s):
            if isinstance(ready, _Client):
                self._move(ready)
            elif ready == "listener" and listener is not None:
                self._accept(listener)
        self._drop()
        self._on_turn(self._clock_s())

    def _answer_one(self, client: _Client) -> None:
        line = client.lines.pop(0)
        if line is not None and not line.strip():
            return
        client.out += overlong_answer(self._counts) if line is None else self._answer(line)
        client.moved_at_s = self._clock_s()
        self.answered += 1

    def _wait(self, listener: socket.socket | None, timeout_s: float) -> Iterator[_Client | str]:
        # poll takes regular files too; epoll refuses them as standard input.
        with selectors.PollSelector() as selector:
            selector.register(self._wake_reads, selectors.EVENT_READ, "wake")
            if listener is not None:
                selector.register(listener, selectors.EVENT_READ, "listener")
            for client in self._clients:
                if client.out:
                    selector.register(client.writes, selectors.EVENT_WRITE, client)
                elif not client.lines and not client.has_ended:
                    selector.register(client.reads, selectors.EVENT_READ, client)
            found = selector.select(timeout_s)
        for key, _ in found:
            if key.data == "wake":
                os.read(self._wake_reads, _CHUNK_BYTES)
            else:
                yield key.data

    def _move(self, client: _Client) -> None:
        try:
            if client.out:
                client.send()
            else:
                client.receive()
            client.moved_at_s = self._clock_s()
        except BlockingIOError:
            return
        except OSError:
            # Gone: what it asked for is done, nobody waits for the answer.
            client.out.clear()
            client.lines.clear()
            client.has_ended = True

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                logger.warning("a client was not taken: %s", error.strerror)
                time.sleep(0.05)
            return
        if len(self._clients) >= MAX_CLIENTS and not self._drop_idle():
            text = '{"ok":false,"id":null,"error":{"code":"too_many_clients",'
            text += f'"message":"at most {MAX_CLIENTS} clients","exit_code":6}}}}\n'
            with connection, suppress(OSError):
                connection.setblocking(False)
                connection.send(text.encode())
            self._counts["too_many_clients"] = self._counts.get("too_many_clients", 0) + 1
            return
        connection.setblocking(False)
        number = connection.fileno()
        self._clients.append(_Client(number, number, connection, self._clock_s()))

    def _drop_idle(self) -> bool:
        idle = [
            client
            for client in self._clients
            if not client.out and not client.lines and self._is_still(client, IDLE_S)
        ]
        if not idle:
            return False
        self._let_go(min(idle, key=lambda client: client.moved_at_s))
        return True

    def _drop(self) -> None:
        for client in list(self._clients):
            if client.out and self._is_still(client, STALLED_S):
                self._counts["stalled_client"] = self._counts.get("stalled_client", 0) + 1
                self._let_go(client)
            elif client.is_finished():
                self._let_go(client)

    def _is_still(self, client: _Client, longest_s: float) -> bool:
        return self._clock_s() - client.moved_at_s > longest_s

    def _let_go(self, client: _Client) -> None:
        client.close()
        self._clients.remove(client)

    def _flush(self) -> None:
        """Hand out answers that are made already, for a moment; new requests are not begun."""
        until_s = self._clock_s() + FLUSH_S
        while any(client.out for client in self._clients) and self._clock_s() < until_s:
            for client in self._clients:
                client.lines.clear()
                client.has_ended = True
            for ready in self._wait(None, 0.1):
                if isinstance(ready, _Client):
                    self._move(ready)
            self._drop()


class _Lock:
    """Beside a socket: of two servers that start at once, one stays."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._handle = -1

    def __enter__(self) -> None:
        try:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise ServiceError(
                self._path, "another server holds it", "stop that one, or choose another path"
            ) from None
        except OSError as error:
            raise _not_writable(self._path, error) from error

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


class _listening:  # noqa: N801 - used as a function of `with`
    """A socket that listens at a path, and is removed at the end if it is still ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0

    def __enter__(self) -> socket.socket:
        path = self._path
        _make_room(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            self._socket.bind(str(path))
            self._inode = path.stat().st_ino
            self._socket.listen(_BACKLOG)
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise _not_writable(path, error) from error
        finally:
            os.umask(mask)
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def _make_room(path: Path) -> None:
    """Remove a socket that nobody listens on.

    Raises:
        ServiceError: something else is there, or somebody listens.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_writable(path, error) from error
    if not stat.S_ISSOCK(mode):
        raise ServiceError(path, "is no socket, and stays", "choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise _not_writable(path, error) from error
    raise ServiceError(path, "somebody listens there", "stop that one, or choose another path")


def _not_writable(path: Path, error: OSError) -> ServiceError:
    what = f"cannot be used: {error.strerror or error}"
    return ServiceError(path, what, "check the folder, and that the path is short")
