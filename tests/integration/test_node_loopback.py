"""A stranger on loopback where a SuperExec looks for its SuperNode: he is asked for nothing."""

import socket
import ssl

import pytest

from edge_client.provisioning.device_certificate import make_loopback_certificate
from edge_client.rounds_node.processes import end, executor_process, free_port, let_begin
from edge_client.rounds_node.supernode import SuperNodePlan

HANDSHAKE = 0x16
SOON_S = 90.0


@pytest.fixture
def plan(tmp_path):
    """What a SuperNode is told; its certificate and its secret are written."""
    made = SuperNodePlan(
        superlink="fleet:9443",
        host="fleet",
        port=9443,
        authorities="ca.pem",
        key="supernode",
        node_config="node.toml",
        api_port=free_port(),
        secret=str(tmp_path / "superexec.secret"),
        home=str(tmp_path),
        kept_pin="kept.json",
        pin_file="",
        pin_keys={},
    )
    (tmp_path / "superexec.secret").write_bytes(bytes(32))
    write_certificate(made.certificate, made.certificate_key)
    return made


def write_certificate(certificate, key):
    content, vouched = make_loopback_certificate()
    key.write_bytes(content)
    certificate.write_bytes(vouched)


def serving(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def first_connection(plan, tmp_path, context):
    """Listen where the SuperNode would, and return the first byte and what came of it."""
    with (
        socket.create_server(("127.0.0.1", plan.api_port)) as listener,
        (tmp_path / "log").open("wb") as log,
    ):
        listener.settimeout(SOON_S)
        executor = executor_process(plan, log=log.fileno(), parent=1)
        let_begin(executor)
        try:
            plain, _ = listener.accept()
            with plain:
                plain.settimeout(SOON_S)
                first = plain.recv(1, socket.MSG_PEEK)[0]
                with context.wrap_socket(plain, server_side=True) as secured:
                    return first, secured.recv(65_536)
        except ssl.SSLError as error:
            return first, error
        finally:
            end(executor)


@pytest.mark.slow
def test_a_superexec_asks_its_own_supernode_and_tells_a_stranger_nothing(plan, tmp_path):
    strange = tmp_path / "strange.pem", tmp_path / "strange.key"
    write_certificate(*strange)

    first, asked = first_connection(plan, tmp_path, serving(*strange))
    assert first == HANDSHAKE
    assert isinstance(asked, ssl.SSLError)

    own = serving(plan.certificate, plan.certificate_key)
    first, asked = first_connection(plan, tmp_path, own)
    assert first == HANDSHAKE
    assert asked.startswith(b"POST /v1/runtime/acquire-task")


def test_a_certificate_of_a_start_is_believed_on_loopback_and_nowhere_else(plan):
    for address, is_believed in (("127.0.0.1", True), ("127.0.0.2", False), ("localhost", False)):
        client = ssl.create_default_context(cafile=str(plan.certificate))
        assert shakes_hands(client, serving(plan.certificate, plan.certificate_key), address) is (
            is_believed
        )


def shakes_hands(client, server, address):
    """Let both ends of a connection in memory greet each other, and tell whether they trust."""
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO())]
    incoming, outgoing = ends[0]
    asking = client.wrap_bio(incoming, outgoing, server_hostname=address)
    answering = server.wrap_bio(outgoing, incoming, server_side=True)
    waiting = [asking, answering]
    for _ in range(20):
        for one in list(waiting):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
            waiting.remove(one)
    return not waiting
