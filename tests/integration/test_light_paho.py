"""paho loaded without TLS, as a device loads it: what its socket refuses is not passed over."""

import subprocess
import sys

import pytest

from tests.support.system_parts import REPOSITORY

LOAD = "from edge_client.link.light_paho import load_paho; load_paho();"
SEND = """
import socket, paho.mqtt.client as mqtt
from models.wire.bounded_client import make_client
from models.wire.link_settings import LinkSettings
client = make_client(LinkSettings(host="h", port=1, client_id="a"), mqtt.MQTTv5)
client._sock, other = socket.socketpair()
client._sock.setblocking(False)
client._send_pingreq()
print(client._packet_write().name)
try:
    while True:
        client._sock.send(bytes(65_536))
except BlockingIOError:
    client._send_pingreq()
    print(client._packet_write().name, len(client._out_packet))
other.close()
print(client._packet_write().name, len(client._out_packet))
"""


def python(program):
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("load", ["", LOAD], ids=["whole", "light"])
def test_a_send_that_fails_is_no_send_that_succeeded(load):
    done = python(load + SEND)
    assert (done.stdout.split("\n")[:3], done.stderr) == (
        ["MQTT_ERR_SUCCESS", "MQTT_ERR_AGAIN 1", "MQTT_ERR_CONN_LOST 1"],
        "",
    )


@pytest.mark.broker
@pytest.mark.soak
def test_a_link_survives_every_fault_without_tls_loaded():
    where = "tests/integration/test_link_faults.py"
    done = python(
        f"{LOAD} import sys, pytest;"
        f"code = pytest.main(['-q', '-p', 'no:cacheprovider', '{where}']);"
        "import paho.mqtt.client as mqtt;"
        "sys.exit(code or (3 if mqtt.ssl is not None else 0))"
    )
    assert done.returncode == 0, done.stdout
