"""`serve`: requests of firmware in other languages, on standard input or a Unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .answers import config_of, moment_flag

if TYPE_CHECKING:
    import argparse

    from ..request_server import RequestServer


def add_serve(serve: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve`."""
    serve.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="listen on a Unix socket (mode 0660); default: standard input and output",
    )
    serve.add_argument(
        "--now", type=moment_flag, metavar="TIME", help="start the device's clock here"
    )


def run_serve(arguments: argparse.Namespace) -> int:
    """Answer requests until the input ends, or SIGTERM or Ctrl-C comes."""
    import logging
    import os
    import sys
    import time

    from ..client import EdgeClient
    from ..link.watchdog import Watchdog
    from ..request_server import RequestServer
    from ..requests import answer_line
    from .connection import clock_from

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    clock = clock_from(getattr(arguments, "now", None))
    watchdog = Watchdog.of_environment(os.environ, pid=os.getpid())
    counts: dict[str, int] = {}
    with EdgeClient.of_config(config_of(arguments)) as client:
        server = RequestServer(
            lambda line: answer_line(client, line, now=clock, counts=counts),
            counts=counts,
            on_turn=watchdog.ping,
            turn_s=min(5.0, watchdog.every_s or 5.0),
        )
        _stop_on_signals(server)
        watchdog.ready()
        watchdog.ping(time.monotonic())
        if arguments.socket is None:
            sys.stdout.flush()
            server.serve_stream(sys.stdin.fileno(), sys.stdout.fileno())
        else:
            server.serve_socket(arguments.socket)
        watchdog.stopping()
    said = ", ".join(f"{count} {code}" for code, count in sorted(counts.items()))
    logging.getLogger(__name__).info("answered %d requests; errors: %s", server.answered, said)
    return 0


def _stop_on_signals(server: RequestServer) -> None:
    # They stay in place until the process ends, and with them what they write to.
    import signal

    signal.set_wakeup_fd(server.wakeup_fd, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
