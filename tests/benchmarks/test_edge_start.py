"""What a device pays to start: a report in one shot, and an agent with signatures and MQTT."""

from __future__ import annotations

import statistics
import sys

import pytest

from models.bundle import DEFAULT_FOLDER
from models.feature_spec import NUM_FEATURES
from server.broker import BrokerKind, running_broker
from server.signer import make_key_file, public_key_path
from tests.support.figures import Figures
from tests.support.process_cost import BARE, cost_of

EDGE, MODEL = Figures("edge"), Figures("model")
ROUNDS = 15
AGAINST = "bare onnxruntime + numpy doing one run, interleaved"
DEVICE = [sys.executable, "-m", "edge_client.cli"]
LOADED = """
import edge_client.cli, sys
edge_client.cli._load_little(once=False)
from edge_client.link.light_paho import load_paho
load_paho()
code = edge_client.cli.run(sys.argv[1:])
import edge_client.agent, edge_client.link.config_receiver, edge_client.link.notice_receiver
import models.wire.link, models.wire.sealing
assert code == 0
"""
BARE_PREDICTION = [sys.executable, "-c", BARE, DEFAULT_FOLDER / "model.onnx", NUM_FEATURES]


def compare(ours: list[object]) -> tuple[list[float], list[float], list[float]]:
    """Return ratios by the clock and by the processor, and the memory above bare, MB."""
    for command in (BARE_PREDICTION, ours):
        cost_of(command)
    pairs = [(cost_of(BARE_PREDICTION), cost_of(ours)) for _ in range(ROUNDS)]
    return (
        [our.wall_s / plain.wall_s for plain, our in pairs],
        [our.cpu_s / plain.cpu_s for plain, our in pairs],
        [our.memory_mb - plain.memory_mb for plain, our in pairs],
    )


def add(
    name: str,
    values: list[float],
    *,
    unit: str,
    target: float | None,
    areas: tuple[Figures, ...] = (EDGE,),
) -> None:
    for figures in areas:
        figures.add(
            name,
            statistics.median(values),
            unit=unit,
            target=target,
            better="lower",
            spread=(min(values), max(values)),
            against=AGAINST,
        )


def test_cold_start_to_report_costs_little_more_than_bare_onnxruntime(device_store):
    command = [*DEVICE, "predict", "--json", *device_store]
    by_clock, by_processor, memory = compare(command)
    unit = "x bare onnxruntime + numpy"
    add("cold start to report, processor", by_processor, unit=unit, target=1.15)
    both = (EDGE, MODEL)
    add("cold start to report, by the clock", by_clock, unit=unit, target=1.2, areas=both)
    add("cold start to report, memory above bare", memory, unit="MB", target=8, areas=both)
    assert statistics.median(by_processor) <= 1.15
    assert statistics.median(by_clock) <= 1.2
    assert statistics.median(memory) <= 8


def test_a_first_explanation_is_told_beside_it(device_store):
    command = [*DEVICE, "predict", "--explain", *device_store]
    _, by_processor, memory = compare(command)
    unit = "x bare onnxruntime + numpy"
    add("cold start to an explained report, processor", by_processor, unit=unit, target=None)
    add("cold start to an explained report, memory above bare", memory, unit="MB", target=None)
    assert statistics.median(by_processor) < 2


def test_signatures_and_mqtt_take_little_memory(device_store):
    _, _, memory = compare([sys.executable, "-c", LOADED, "predict", "--json", *device_store])
    add("memory above bare, signatures and MQTT loaded", memory, unit="MB", target=18)
    assert statistics.median(memory) <= 18


@pytest.mark.broker
def test_memory_of_an_agent_at_work_is_told_beside_it(device_store, tmp_path):
    """A whole agent on Mosquitto: its own keys, a sealed-notice reader, a report, a summary."""
    key, hardware = tmp_path / "key.pem", tmp_path / "hardware"
    make_key_file(key)
    hardware.write_text("0123456789abcdef0123456789abcdef\n")
    ours = ("--hardware-id-file", hardware, "--server-key", public_key_path(key))
    with running_broker(tmp_path / "broker", kind=BrokerKind.MOSQUITTO) as broker:
        for words in (["init", "--identity"], ["consent", "grant", "summaries", "notices"]):
            cost_of([*DEVICE, *words, *device_store, *ours])
        where = f"{broker.host}:{broker.port}"
        _, _, memory = compare([*DEVICE, "run", "--once", "--broker", where, *device_store, *ours])
    add("memory above bare, an agent at work", memory, unit="MB", target=None)
    assert statistics.median(memory) <= 25
