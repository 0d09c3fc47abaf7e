"""What the programs of a deployment are told."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from models.wire.app_pin import APP_PIN_PATH
from server.deployment.app_bundle import manifest
from server.deployment.flower_commands import (
    environment,
    flower_home,
    proxy,
    superexec,
    superlink,
)
from server.deployment.place import Deployment
from server.deployment.proxy_configuration import NODE_PATHS, proxy_configuration
from server.deployment.run_keys import RUN_KEYS, read_said, whole
from server.deployment.systemd import unit
from server.errors import SettingError
from tests.support.system_parts import REPOSITORY

PLACE = Deployment(
    folder=Path("/srv/rounds"),
    hosts=("rounds.example", "192.0.2.7"),
    policy_key=Path("/etc/fedcell/server.pem"),
    database="sqlite:////var/lib/fedcell/hub.db",
)
PROGRAMS = Path("/opt/fedcell/bin")
FLOWER = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"]


def blocks(text):
    """The `location` blocks of a configuration, by what they match."""
    return dict(re.findall(r"location ([^{]+?) \{\n(.*?)\n\s+\}\n", text, re.DOTALL))


def test_superlink_listens_on_loopback_alone_and_knows_nodes_by_their_keys():
    words = superlink(PLACE, PROGRAMS).words

    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= set(words)
    assert words[words.index("--isolation") + 1] == "process"
    assert "--insecure" not in words


def test_every_path_that_a_part_is_told_lies_in_the_folder():
    parts = (superlink(PLACE, PROGRAMS), superexec(PLACE), proxy(PLACE, Path("/n/nginx")))
    told = [word for part in parts for word in part.words[1:] if word.startswith("/")]
    told += re.findall(r"(?<=[ \"])/[\w./-]+", flower_home(PLACE))

    assert len(told) > 8
    assert all(path.startswith("/srv/rounds/") or path == "/srv/rounds" for path in told)


def test_nothing_that_flower_reads_is_inherited_and_nothing_phones_home():
    inherited = {"PATH": "/bin", "HOME": "/h", "FLWR_DATABASE": "x", "FLWR_TELEMETRY_ENABLED": "1"}

    found = environment(PLACE, inherited, PROGRAMS)

    assert {name: value for name, value in found.items() if name.startswith("FLWR_")} == {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_HOME": "/srv/rounds/flwr",
    }
    assert (found["PATH"], found["HOME"]) == ("/opt/fedcell/bin:/bin", "/h")


def test_apps_see_nothing_of_the_service_that_is_not_on_a_list():
    secrets = ("FEDCELL_DEVICE_TOKEN", "FEDCELL_SERVER_DB", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD")
    kept = {"HOME": "/h", "LANG": "C.UTF-8", "LC_ALL": "C", "TZ": "UTC", "OMP_NUM_THREADS": "1"}

    found = environment(PLACE, kept | dict.fromkeys(secrets, "secret"), PROGRAMS)

    assert {name for name in found if not name.startswith("FLWR_")} == {"PATH", *kept}
    assert kept.items() <= found.items()
    assert found["PATH"].startswith("/opt/fedcell/bin:/")


def test_flower_home_names_the_superlink_and_who_signed_for_it():
    told = tomllib.loads(flower_home(PLACE))["superlink"]

    assert told["fleet"] == {
        "address": "127.0.0.1:9093",
        "root-certificates": "/srv/rounds/inner-authority.pem",
        "insecure": False,
    }
    assert told["default"] == "fleet"


def test_proxy_lets_the_paths_of_a_registered_node_pass_and_nothing_else():
    found = blocks(proxy_configuration(PLACE))

    assert set(found) == {f"= {path}" for path in (*NODE_PATHS, APP_PIN_PATH)} | {"/"}
    assert found["/"].strip() == "return 403;"
    for path in NODE_PATHS:
        assert f"proxy_pass https://superlink{path};" in found[f"= {path}"]
    assert not [path for path in NODE_PATHS if "register" in path or "control" in path]


def test_proxy_speaks_tls_of_today_alone_and_checks_who_the_superlink_is():
    text = proxy_configuration(PLACE)

    assert re.findall(r"ssl_protocols (.+);", text) == ["TLSv1.2 TLSv1.3"]
    assert "proxy_ssl_verify on;" in text
    assert "proxy_ssl_trusted_certificate /srv/rounds/inner-authority.pem;" in text
    assert re.findall(r"^\s+listen (.+);", text, re.MULTILINE) == [
        "9092 ssl",
        "[::]:9092 ssl ipv6only=on",
    ]


def test_proxy_of_a_machine_without_ipv6_listens_at_ipv4_alone():
    text = proxy_configuration(PLACE, with_ipv6=False)

    assert re.findall(r"^\s+listen (.+);", text, re.MULTILINE) == ["9092 ssl"]


@pytest.mark.parametrize(
    ("listen", "line"), [("192.0.2.7", "192.0.2.7:9092 ssl"), ("fd00::7", "[fd00::7]:9092 ssl")]
)
def test_proxy_listens_at_one_address_where_it_is_told_one(listen, line):
    text = proxy_configuration(replace(PLACE, listen=listen))

    assert re.findall(r"^\s+listen (.+);", text, re.MULTILINE) == [line]


def test_proxy_tells_nodes_that_ask_too_much_to_come_back():
    text = proxy_configuration(replace(PLACE, requests_per_s=10))

    assert "rate=10r/s" in text
    assert "burst=80 nodelay" in text
    assert text.count("_status 503;") == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"folder": Path("rounds")},
        {"folder": Path("/srv/my rounds")},
        {"folder": Path('/srv/"; include /etc/passwd')},
        {"hosts": ()},
        {"hosts": ("a;b",)},
        {"listen": "everywhere"},
        {"port": 0},
        {"port": 9093},
        {"requests_per_s": 0},
    ],
)
def test_what_would_break_a_configuration_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(PLACE, **wrong)


def test_bundle_has_the_manifest_of_a_clone():
    app = tomllib.loads(manifest("0.1.0", licence=True))["tool"]["flwr"]["app"]

    assert app == FLOWER
    assert list(app["config"]) == list(FLOWER["config"])
    assert [type(value) for value in app["config"].values()] == [
        type(value) for value in RUN_KEYS.values()
    ]


def test_manifest_names_no_licence_that_is_not_there():
    app = tomllib.loads(manifest("0.1.0", licence=False))["tool"]["flwr"]["app"]

    assert app["fab-include"] == FLOWER["fab-include"][1:]


def test_words_of_an_operator_become_a_runs_configuration():
    said = read_said(
        ["rounds=3", "epsilon=1", "plan=p.json", "start-weights=default", "out=/r/1", "owners="],
        where=Path("/home/op"),
    )

    assert said == {
        "rounds": 3,
        "epsilon": 1.0,
        "plan": "/home/op/p.json",
        "start-weights": "default",
        "out": "/r/1",
        "owners": "",
    }
    assert whole(said) == {**RUN_KEYS, **said}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["rounds"], "is no key=value"),
        (["round=3"], "round: is no key of a run"),
        (["rounds=3", "rounds=4"], "rounds: is said twice"),
        (["rounds=3.5"], "rounds: must be a whole number"),
        (["epsilon=nan"], "epsilon: must be a number"),
        (["deadline-s=soon"], "deadline-s: must be a number"),
    ],
)
def test_words_that_are_no_keys_are_refused(words, what):
    with pytest.raises(SettingError, match=what):
        read_said(words, where=Path("/home/op"))


def test_unit_runs_the_deployment_and_does_not_repeat_what_is_told_wrong():
    text = unit(PLACE, program=Path("/opt/fedcell/bin/fedcell"), user="fedcell")

    assert "ExecStart=/opt/fedcell/bin/fedcell rounds serve --json /srv/rounds\n" in text
    assert "RestartPreventExitStatus=2 3 4 5\n" in text
    assert "ReadWritePaths=/srv/rounds /var/lib/fedcell\n" in text
