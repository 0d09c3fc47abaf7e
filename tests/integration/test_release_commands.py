"""The commands of a release, typed one after another as in the guide."""

import contextlib
import io
import json
import threading
import urllib.error
import urllib.request

import click
import pytest
import typer

from edge_client.updates.download import download
from models.bundle import DEFAULT, load_bundle
from models.errors import ModelsError
from models.wire.announcements import decode_announcement, release_topic
from models.wire.envelope import open_signed, trusted_keys
from server.cli import exit_code_of, line_of
from server.commands.release import release
from server.errors import ServerError
from server.releases.file_server import FileServer
from server.releases.signing import ANSWER, write_request
from server.signer import load_signer, make_key_file
from tests.support.brokers import Heard, link_to, mosquitto_in
from tests.support.command_line import fedcell
from tests.support.releases import publicly_entered


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Type a command of the group release in a folder of its own, without loading the others."""
    monkeypatch.chdir(tmp_path)
    command = typer.main.get_command(release)

    def run(*arguments, code=0):
        out, ended, said = io.StringIO(), 0, ""
        words = [str(word) for word in (*arguments, "--json")]
        with contextlib.redirect_stdout(out):
            try:
                command(args=words, prog_name="fedcell release", standalone_mode=False)
            except click.ClickException as error:
                ended, said = error.exit_code, error.message
            except (ServerError, ModelsError) as error:
                ended, said = exit_code_of(error), line_of(error)
        assert ended == code, said
        return said if code else json.loads(out.getvalue())

    return run


@pytest.mark.broker
def test_the_guides_commands_release_a_model_and_take_it_back(typed, tmp_path):
    for name in ("root", "release", "fedcell-releases"):
        typed("key", "--out", f"{name}.pem")
    make_key_file(tmp_path / "fedcell-server.pem")
    online = ("--online-key", "fedcell-releases.pem.public.json")
    typed("root", "--root-key", "root.pem", "--release-key", "release.pem", *online, "--out", "t1")
    assert typed("accept", "t1") == {"root": 1}
    typed("key", "--out", "root-2.pem")
    old = ("--after", "t1", "--old-root-key", "root.pem")
    new = ("--root-key", "root-2.pem", "--release-key", "release.pem")
    typed("root", *old, *new, *online, "--out", "t2")
    assert typed("accept", "t2") == {"root": 2}
    (tmp_path / "canary.txt").write_text("meter-1\n\nmeter-2\n")
    typed("ring", "set", "canary=canary.txt", "groups=0.2")
    assert typed("ring", "show", "meter-1")["meter-1"] == "canary"
    assert [ring["name"] for ring in typed("ring", "show")["rings"]] == [
        "canary",
        "groups",
        "fleet",
    ]

    bundle, home = publicly_entered(tmp_path, 1)
    assert "no ledger is at hand" in typed("propose", bundle, code=5)
    proposed = typed("propose", bundle, "--home", home)
    signed = typed("sign", proposed["request"], "--key", "release.pem")
    assert (signed["version"], signed["release"]) == ("update-1", 1)
    assert typed("accept", signed["answer"])["state"] == "signed"
    assert typed("ring", "start")["ring"] == 0
    assert typed("ring", "advance")["ring"] == "canary"
    assert "is rolling, not halted" in typed("ring", "resume", code=5)
    assert typed("halt", "--reason", "look")["state"] == "halted"
    typed("ring", "resume")

    with mosquitto_in(tmp_path) as broker:
        heard, listener = Heard(), link_to(broker, "listener")
        listener.subscribe(release_topic("canary"), heard)
        with listener:
            typed("serve", "--once", "--config", _config(tmp_path, broker))
            (payload,) = heard.wait_for(1)
    trusted = trusted_keys(load_signer(tmp_path / "fedcell-server.pem").verify_key)
    assert decode_announcement(open_signed(payload, trusted)).version == "update-1"

    assert typed("withdraw", "--reason", "heard of trouble")["state"] == "withdrawn"
    (shown,) = typed("status")["releases"]
    states = [step["state"] for step in shown["trail"]]
    assert states == ["proposed", "signed", "rolling", "halted", "rolling", "withdrawn"]
    assert shown["trail"][-1]["reason"] == "heard of trouble"
    assert fedcell("release", "status", "1").out.startswith("release 1: update-1, withdrawn")


def test_a_number_far_above_the_last_is_not_signed(typed, tmp_path):
    typed("key", "--out", "release.pem")
    default = load_bundle(DEFAULT)
    signing = ("--key", "release.pem")

    def request(number):
        write_request(tmp_path / str(number), default, default, number=number)
        return number

    assert typed("sign", request(7), *signing)["release"] == 7
    assert typed("sign", request(107), *signing)["release"] == 107
    assert typed("sign", 7, *signing)["release"] == 7
    for number in (208, 2**53 - 3, 0):
        refusal = typed("sign", request(number), *signing, code=5)
        assert f"release {number}: is not within 100 above 107" in refusal
        assert not (tmp_path / str(number) / ANSWER).exists()
    assert typed("sign", 208, *signing, "--after", 205)["release"] == 208
    assert typed("sign", request(300), *signing)["release"] == 300
    (tmp_path / "release.pem.signed.json").write_text("{}")
    assert "--after NUMBER" in typed("sign", 7, *signing, code=3)
    assert typed("sign", 7, *signing, "--record", "elsewhere.json")["release"] == 7


def _config(folder, broker):
    path = folder / "release.toml"
    lines = (
        f'broker = "{broker.host}:{broker.port}"',
        'db = "sqlite:///fedcell.db"',
        'releases = "fedcell-releases"',
        'release_key = "fedcell-releases.pem"',
        'key = "fedcell-server.pem"',
    )
    path.write_text("\n".join(lines))
    return path


def test_wrong_words_are_refused(typed):
    assert "no such file" in typed("status", code=4)
    assert "neither a share nor a file" in typed("ring", "set", "canary=none.txt", code=2)
    assert "must differ" in typed("ring", "set", "a=0.1", "a=0.2", code=2)
    assert "there is none" in typed("halt", "7", code=3)
    assert "there are none yet" in typed("withdraw", code=4)


def test_files_are_served_by_ranges_and_nothing_else_is(tmp_path):
    folder = tmp_path / "repository"
    content = bytes(range(256)) * 400
    (folder / "targets" / "fleet").mkdir(parents=True)
    (folder / "targets" / "fleet" / "ab.1.zip").write_bytes(content)
    (tmp_path / "secret.pem").write_text("secret")
    with FileServer(folder, host="127.0.0.1", port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"{server.address}/targets/fleet/ab.1.zip"
        asked = urllib.request.Request(url, headers={"Range": "bytes=100-199"})  # noqa: S310 - ours
        with urllib.request.urlopen(asked) as answer:  # noqa: S310 - ours
            assert (answer.status, answer.read()) == (206, content[100:200])
            assert answer.headers["Content-Range"] == f"bytes 100-199/{len(content)}"
        assert download(url, tmp_path / "down").read_bytes() == content
        for path in ("/../secret.pem", "/%2e%2e/secret.pem", "/targets/", "/metadata/none.json"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{server.address}{path}")  # noqa: S310 - ours
            assert refused.value.code == 404
            refused.value.close()
        server.shutdown()
        thread.join()
