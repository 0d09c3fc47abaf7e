"""A run's metrics for Prometheus: a text file in its folder, and a port where one is asked for.

Everything comes from the run's status and its records, so that a resumed run goes on counting where
it was. No label names a device, a node or an owner. Name by name: docs/reference/rounds-metrics.md.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from .status import METRICS_FILE, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from ..engine.rounds import RoundRecord
    from .status import RunStatus

SECONDS_BOUNDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


class RunMetrics(Collector):
    """What Prometheus reads of one run.

    Args:
        status: of the run as it stands.
        records: of the rounds that a resumed run has behind it.
    """

    def __init__(self, status: RunStatus, records: Sequence[RoundRecord] = ()) -> None:
        self._status = status
        self._records = list(records)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._server: object = None

    def show(self, status: RunStatus) -> None:
        """Take the run's status as it stands now."""
        self._status = status

    def add(self, record: RoundRecord) -> None:
        """Count one more round."""
        self._records.append(record)

    def write(self, folder: Path) -> None:
        """Write the text file, whole or not at all, for node_exporter's textfile collector."""
        write_to_textfile(str(folder / METRICS_FILE), self._registry)

    def serve(self, *, host: str, port: int) -> int:
        """Serve the metrics by HTTP until `close`, and return the port.

        Raises:
            OSError: the port is taken.
        """
        server, _ = start_http_server(port, addr=host, registry=self._registry)
        self._server = server
        return int(server.server_address[1])

    def close(self) -> None:
        """End the server, if there is one."""
        from wsgiref.simple_server import WSGIServer

        if isinstance(self._server, WSGIServer):
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands."""
        yield from self._progress()
        yield from self._counts()
        yield from self._privacy_and_quality()

    def _progress(self) -> Iterator[Metric]:
        now, run = self._status, [self._status.run]
        planned = GaugeMetricFamily("fedcell_rounds_planned", "Rounds planned (T).", labels=["run"])
        planned.add_metric(run, now.num_rounds)
        yield planned
        done = CounterMetricFamily(
            "fedcell_rounds_released", "Rounds whose step was released.", labels=["run"]
        )
        done.add_metric(run, now.rounds_done)
        yield done
        state = GaugeMetricFamily(
            "fedcell_rounds_state", "1 for the state of the run.", labels=["run", "state"]
        )
        for one in RunState:
            state.add_metric([*run, one], float(one is now.state))
        yield state
        beat = GaugeMetricFamily(
            "fedcell_rounds_heartbeat_timestamp_seconds",
            "Last sign of life of the engine.",
            labels=["run"],
        )
        beat.add_metric(run, now.heartbeat_at.timestamp())
        yield beat
        for name, what, value in (
            ("invited", "Devices invited to the round at hand.", now.invited),
            ("replied", "Devices in good replies to the round at hand, so far.", now.replied),
        ):
            gauge = GaugeMetricFamily(f"fedcell_rounds_current_{name}", what, labels=["run"])
            gauge.add_metric(run, value)
            yield gauge

    def _counts(self) -> Iterator[Metric]:
        run, records = [self._status.run], self._records
        for name, what, value in (
            (
                "invited_devices",
                "Devices invited, summed over rounds.",
                sum(r.invited for r in records),
            ),
            (
                "replied_devices",
                "Devices in good replies, summed over rounds.",
                sum(r.replied for r in records),
            ),
            (
                "noise_only",
                "Rounds released as noise alone.",
                sum(r.noise_only for r in records),
            ),
        ):
            counter = CounterMetricFamily(f"fedcell_rounds_{name}", what, labels=["run"])
            counter.add_metric(run, value)
            yield counter
        refused = CounterMetricFamily(
            "fedcell_rounds_refused_replies",
            "Replies that were refused, by reason.",
            labels=["run", "reason"],
        )
        for reason, count in sorted(sum((Counter(r.refused) for r in records), Counter()).items()):
            refused.add_metric([*run, reason], count)
        yield refused
        seconds = [r.seconds for r in records]
        within = [sum(s <= bound for s in seconds) for bound in SECONDS_BOUNDS]
        histogram = HistogramMetricFamily(
            "fedcell_rounds_duration_seconds", "How long rounds took.", labels=["run"]
        )
        buckets = [
            *((str(b), float(n)) for b, n in zip(SECONDS_BOUNDS, within, strict=True)),
            ("+Inf", float(len(seconds))),
        ]
        histogram.add_metric(run, buckets, sum_value=list(accumulate([0.0, *seconds]))[-1])
        yield histogram

    def _privacy_and_quality(self) -> Iterator[Metric]:
        now, run = self._status, [self._status.run]
        delta = f"{now.delta:g}"
        for name, what, value in (
            ("release", "ε of one device over its whole life, so far.", now.epsilon_release),
            ("planned", "ε of one device that the run was planned for.", now.epsilon_planned),
        ):
            gauge = GaugeMetricFamily(
                f"fedcell_rounds_epsilon_{name}", what, labels=["run", "delta"]
            )
            # Unbounded is no number below any alarm's threshold.
            gauge.add_metric([*run, delta], float("inf") if value is None else value)
            yield gauge
        quality = GaugeMetricFamily(
            "fedcell_rounds_quality",
            "Last look at data that is not the devices'.",
            labels=["run", "metric"],
        )
        for name, value in sorted((now.quality or {}).items()):
            if value is not None:
                quality.add_metric([*run, name], value)
        yield quality
