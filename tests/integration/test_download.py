"""Downloads from a server that breaks off, changes its mind, drips, redirects, and never ends."""

import ipaddress
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_client.errors import DownloadError, InputError
from edge_client.updates.download import DownloadLimits, discard, download, local_bundle
from models.errors import BundleError
from tests.support.brokers import wait_until
from tests.support.file_server import serving
from tests.support.system_parts import REPOSITORY

CONTENT = random.Random(1).randbytes(200_000)
QUICK = DownloadLimits(attempts=3, pause_s=0.01, silence_s=2.0, total_s=20.0)
ONCE = DownloadLimits(attempts=1, silence_s=2.0, total_s=20.0)


@pytest.fixture
def server():
    with serving(files={"/b.zip": CONTENT}) as served:
        yield served


def fetch(server, folder, limits=QUICK, path="/b.zip", **choices):
    return download(server.address + path, folder, limits=limits, **choices)


def test_file_arrives_whole_and_alone(server, tmp_path):
    told = []
    path = fetch(server, tmp_path / "d", progress=lambda have, total: told.append((have, total)))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in (tmp_path / "d").iterdir()] == ["download.zip"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    discard(tmp_path / "d")
    assert list((tmp_path / "d").iterdir()) == []


def test_broken_connection_is_resumed_where_it_broke_off(server, tmp_path):
    server.break_after = [70_000, 50_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [
        (None, 70_000),
        ("bytes=70000-", 50_000),
        ("bytes=120000-", 80_000),
    ]


def test_what_arrived_waits_for_the_next_process(server, tmp_path):
    server.break_after = [70_000]
    with pytest.raises(DownloadError, match=r"70000 of 200000 bytes; run the same command again"):
        fetch(server, tmp_path, ONCE)
    assert fetch(server, tmp_path, ONCE).read_bytes() == CONTENT
    assert server.asked[-1] == ("bytes=70000-", 130_000)


def test_file_that_the_server_changed_is_fetched_anew(server, tmp_path):
    server.break_after = [70_000]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, ONCE)
    server.files["/b.zip"] = CONTENT[::-1]
    assert fetch(server, tmp_path, ONCE).read_bytes() == CONTENT[::-1]
    assert server.asked[-1] == ("bytes=70000-", 200_000)


def test_part_of_another_address_is_not_taken(server, tmp_path):
    server.files["/c.zip"] = CONTENT[::-1]
    server.break_after = [70_000]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, ONCE)
    assert fetch(server, tmp_path, ONCE, path="/c.zip").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("tag", ["weak", "none"])
def test_file_without_a_name_for_its_content_is_fetched_anew(server, tmp_path, tag):
    server.has_tag = tag
    server.break_after = [70_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [(None, 70_000), (None, 200_000)]


def test_date_serves_where_there_is_no_tag(server, tmp_path):
    server.has_tag = "none"
    server.extra = {"Last-Modified": "Mon, 01 Jun 2026 12:00:00 GMT"}
    server.break_after = [70_000]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, ONCE)
    assert "Jun 2026" in (tmp_path / "download.zip.part.json").read_text()


def test_server_that_ignores_ranges_sends_all_again(server, tmp_path):
    server.ignores_ranges = True
    server.break_after = [70_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_part_that_is_complete_already_is_kept(server, tmp_path):
    server.break_after = [70_000]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, ONCE)
    (tmp_path / "download.zip.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path, ONCE).read_bytes() == CONTENT
    assert server.asked[-1] == ("bytes=200000-", 0)


def test_part_that_is_too_long_is_thrown_away(server, tmp_path):
    server.break_after = [70_000]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, ONCE)
    (tmp_path / "download.zip.part").write_bytes(CONTENT + b"more")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("record", [b"", b"[]", b"{", b'{"url": 1}', b"\xff" * 99])
def test_damaged_record_of_a_part_is_passed_over(server, tmp_path, record):
    (tmp_path / "download.zip.part").write_bytes(b"something")
    (tmp_path / "download.zip.part.json").write_bytes(record)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("says_length", [True, False])
def test_file_larger_than_any_bundle_is_refused(server, tmp_path, says_length):
    server.says_length = says_length
    with pytest.raises(BundleError, match="larger than 100000 bytes") as refusal:
        fetch(server, tmp_path, DownloadLimits(max_bytes=100_000))
    assert refusal.value.reason == "too_large"
    assert list(tmp_path.iterdir()) == []
    assert wait_until(lambda: len(server.asked) == 1)


def test_endless_answer_is_cut_off(server, tmp_path):
    server.is_endless = True
    with pytest.raises(BundleError, match="larger than"):
        fetch(server, tmp_path, DownloadLimits(max_bytes=1_000_000))
    deadline = time.monotonic() + 10
    while not server.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.asked[0][1] < 20_000_000


def test_dripping_answer_is_ended_after_the_whole_time(server, tmp_path):
    server.pause_s = 0.05
    before = time.monotonic()
    with pytest.raises(DownloadError, match=r"bytes|took too long"):
        fetch(server, tmp_path, DownloadLimits(total_s=0.4, silence_s=5.0, pause_s=0.01))
    assert time.monotonic() - before < 2.0
    have = (tmp_path / "download.zip.part").stat().st_size
    assert 0 < have < len(CONTENT)


def test_silent_server_is_given_up(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/b.zip"
        with pytest.raises(DownloadError, match="timed out"):
            download(address, tmp_path, limits=DownloadLimits(attempts=1, silence_s=0.2))


def test_server_that_is_not_there_is_named(tmp_path):
    limits = DownloadLimits(attempts=2, pause_s=0.01)
    with pytest.raises(DownloadError, match="Connection refused") as failure:
        download("http://127.0.0.1:9/b.zip", tmp_path, limits=limits)
    assert failure.value.exit_code == 6


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (500, 3), (429, 3)])
def test_refusals_of_the_server_are_told_and_only_passing_ones_asked_again(
    server, tmp_path, status, tries
):
    count = []
    server.find = lambda path: count.append(path) or b"x"
    server.status = status
    with pytest.raises(DownloadError, match=f"answers {status}"):
        fetch(server, tmp_path)
    assert len(count) == tries


def test_redirect_within_the_server_is_followed(server, tmp_path):
    server.redirects = {"/latest": "/b.zip"}
    assert fetch(server, tmp_path, path="/latest").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:1/b.zip", "file:///etc/passwd", "ftp://127.0.0.1/b.zip"]
)
def test_redirect_elsewhere_without_https_is_refused(server, tmp_path, target):
    server.redirects = {"/latest": target}
    with pytest.raises(DownloadError, match=r"redirects to|not allowed"):
        fetch(server, tmp_path, path="/latest")


def test_redirects_in_a_circle_end(server, tmp_path):
    server.redirects = {"/latest": "/b", "/b": "/latest"}
    with pytest.raises(DownloadError, match="answers 302"):
        fetch(server, tmp_path, path="/latest")


def test_encoded_answers_are_refused(server, tmp_path):
    server.extra = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadError, match="encoded as 'gzip'"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://h/b.zip", "http://", "b.zip"])
def test_other_addresses_are_refused(tmp_path, address):
    with pytest.raises(DownloadError):
        download(address, tmp_path, limits=ONCE)


def test_disk_that_refuses_is_named(server, tmp_path):
    (tmp_path / "d").write_text("a file")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(server, tmp_path / "d")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of this machine that nobody signed."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(pem)
    )
    return path


def test_https_verifies_the_server_and_resumes(certificate, tmp_path, monkeypatch):
    with serving(files={"/b.zip": CONTENT}, certificate=certificate) as server:
        with pytest.raises(DownloadError, match="certificate is not trusted"):
            fetch(server, tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        server.break_after = [70_000]
        assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("bytes=70000-", 130_000)


def test_redirect_from_https_to_http_is_refused(certificate, server, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(certificate=certificate) as secure:
        secure.redirects = {"/latest": server.address + "/b.zip"}
        with pytest.raises(DownloadError, match="neither https nor the same server"):
            fetch(secure, tmp_path, path="/latest")
        server.redirects = {"/up": secure.address + "/b.zip"}
        secure.files["/b.zip"] = CONTENT
        assert fetch(server, tmp_path, path="/up").read_bytes() == CONTENT


PROGRAM = """
import sys
from pathlib import Path
from edge_client.updates.download import DownloadLimits, download
download(sys.argv[1], Path(sys.argv[2]), limits=DownloadLimits(attempts=1))
print("done")
"""


def test_killed_download_goes_on_in_the_next_process(server, tmp_path):
    server.pause_s = 0.002
    words = [sys.executable, "-c", PROGRAM, server.address + "/b.zip", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=REPOSITORY)
    part = tmp_path / "download.zip.part"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size > 50_000):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    have = part.stat().st_size
    assert 50_000 < have < len(CONTENT)
    assert json.loads((tmp_path / "download.zip.part.json").read_text())["url"].endswith("/b.zip")

    server.pause_s = 0.0
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == (f"bytes={have}-", len(CONTENT) - have)


# Local folders


def test_folder_with_one_zip_gives_it(tmp_path):
    assert local_bundle(tmp_path) == tmp_path
    (tmp_path / "b.zip").write_bytes(b"")
    assert local_bundle(tmp_path) == tmp_path / "b.zip"
    assert local_bundle(tmp_path / "b.zip") == tmp_path / "b.zip"


def test_folder_with_several_zips_asks_which(tmp_path):
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"2 bundles \(a.zip, b.zip\); name one"):
        local_bundle(tmp_path)


def test_folder_that_is_a_bundle_is_one_whatever_else_lies_there(tmp_path):
    for name in ("manifest.json", "a.zip", "b.zip"):
        (tmp_path / name).write_bytes(b"")
    assert local_bundle(tmp_path) == tmp_path
