"""The command line in this process: answers, errors and exit codes."""

import json
from importlib import metadata

import pytest

from edge_client.cli import exit_code_of, main, make_parser
from edge_client.commands.device import MEASUREMENT_FLAGS
from edge_client.commands.owner import PURPOSES
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import CAUSES, MEASUREMENTS
from tests.support.edge_devices import NOW, PROFILE

MADE = [
    *("--device-id", "device-1", "--device-model", "Meter 3", "--chemistry", "NMC111"),
    *("--design-capacity-mah", "3000", "--end-of-life-capacity-mah", "2400"),
    *("--manufactured-at", "2024-01-01"),
]
AT_NOW = ["--now", NOW.isoformat()]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command on a store of its own; returns exit code, answer and error line."""
    for name in ("STORE", "CONFIG", "BUNDLE", "TRUSTED_KEYS"):
        monkeypatch.delenv(f"FEDCELL_DEVICE_{name}", raising=False)
    store = str(tmp_path / "device.db")

    def call(*arguments):
        code = main([*arguments, "--store", store])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_version_is_printed_and_nothing_else_done(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])

    assert left.value.code == 0
    assert capsys.readouterr().out == f"fedcell {metadata.version('fedcell')}\n"


@pytest.fixture
def made(run):
    assert run("init", *MADE)[0] == 0
    return run


def test_init_makes_the_store_of_the_device(run, tmp_path):
    code, out, err = run("init", *MADE, "--quiet-hours", "22-7", "--zone", "Europe/Berlin")
    assert (code, err) == (0, "")
    assert "until its owner agrees" in out
    with TelemetryStore(tmp_path / "device.db") as store:
        assert store.profile == PROFILE
        assert store.quiet_hours.span() == "22-7"


def test_owners_word_that_the_battery_failed_is_kept_exported_and_taken_back(made, tmp_path):
    at = "2026-05-20T00:00:00+00:00"
    assert made("failed", "--at", at, "--cause", "swelling", *AT_NOW)[0] == 0
    with TelemetryStore(tmp_path / "device.db") as store:
        answers = store.owner_answers()
    assert answers.cause.tolist() == [CAUSES.index("swelling")]
    assert answers.failed_at_s.tolist() == [1_779_235_200]
    exported = json.loads(made("export")[1])
    assert exported["facts"]["owner_failures"] == [[1_779_235_200, "swelling"]]

    assert made("failed", "--take-back")[0] == 0
    with TelemetryStore(tmp_path / "device.db") as store:
        assert len(store.owner_answers().device) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cause", "gremlins"], "cause must be one of capacity_fade"),
        (["--at", "2026-06-02"], "between manufacture and now"),
        (["--at", "2023-12-31"], "between manufacture and now"),
    ],
)
def test_owners_word_that_cannot_be_is_refused(made, arguments, says):
    code, _, err = made("failed", *arguments, *AT_NOW)
    assert (code, says in err) == (2, True)


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_init_reads_a_profile_and_flags_win(run, tmp_path, suffix):
    fields = {
        "device_id": "device-1",
        "device_model": "Old name",
        "chemistry": "NMC111",
        "design_capacity_mah": 3000,
        "end_of_life_capacity_mah": 2400,
        "manufactured_at": "2024-01-01T00:00:00Z",
    }
    file = tmp_path / f"profile.{suffix}"
    toml = "\n".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
    file.write_text(json.dumps(fields) if suffix == "json" else toml)
    assert run("init", "--profile", str(file), "--device-model", "Meter 3")[0] == 0
    with TelemetryStore(tmp_path / "device.db") as store:
        assert store.profile == PROFILE


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--device-id", "x"], 2, "also give --chemistry"),
        ([*MADE, "--device-id", "a/b"], 3, "fedcell-device: --device-id: bad_device_id"),
        ([*MADE, "--end-of-life-capacity-mah", "9000"], 3, "--end-of-life-capacity-mah: end_of"),
        (
            [*MADE, "--design-capacity-mah", "-3000"],
            3,
            "--design-capacity-mah: must be a number above 0, got -3000.0; give it in mAh",
        ),
        ([*MADE, "--design-capacity-mah", "inf"], 3, "--design-capacity-mah: must be a number"),
        ([*MADE, "--end-of-life-capacity-mah", "nan"], 3, "--end-of-life-capacity-mah: must be"),
        (
            [*MADE, "--manufactured-at", "2026-06-03", *AT_NOW],
            3,
            "--manufactured-at: 2026-06-03T00:00:00+00:00 is after now, 2026-06-01T12:00:00+00:00;",
        ),
        ([*MADE, "--manufactured-at", "2999-01-01"], 3, "is after now"),
        ([*MADE, "--manufactured-at", "long ago"], 3, "long ago"),
        ([*MADE, "--manufactured-at", "0001-01-01T00:00:00+14:00"], 3, "1971 to 8999"),
        ([*MADE, "--manufactured-at", "2024-01-01T00:00:00"], 3, "no time zone"),
        ([*MADE, "--criticality", "huge"], 3, "criticality"),
        ([*MADE, "--language", "fr"], 2, "language must be one of"),
        ([*MADE, "--quiet-hours", "22-7"], 2, "unknown time zone"),
        ([*MADE, "--quiet-hours", "late", "--zone", "UTC"], 2, "22-7"),
        ([*MADE, "--retention-days", "0"], 2, "retention_days"),
        (["--profile", "/nowhere/p.json"], 4, "no such file"),
    ],
)
def test_init_says_what_is_wrong_and_makes_nothing(run, tmp_path, arguments, code, says):
    found, out, err = run("init", *arguments)
    assert (found, out) == (code, "")
    assert says in err
    assert err.count("\n") == 1
    assert list(tmp_path.glob("device.db*")) == []


def test_a_wrong_value_of_a_profile_is_named_with_its_file(run, tmp_path):
    file = tmp_path / "p.json"
    file.write_text('{"design_capacity_mah": "much"}')
    flags = [*MADE[:6], "--end-of-life-capacity-mah", "2400", "--manufactured-at", "2024-01-01"]
    code, _, err = run("init", "--profile", str(file), *flags)

    assert code == 3
    assert f"{file}: design_capacity_mah: must be a number above 0, got much; give it" in err


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "is no JSON"), ("[]", "JSON list"), ('{"colour": 1}', "unknown field colour")],
)
def test_wrong_profile_is_named(run, tmp_path, content, says):
    file = tmp_path / "p.json"
    file.write_text(content)
    code, _, err = run("init", "--profile", str(file), *MADE)
    assert code == 3
    assert says in err


def test_init_twice_is_refused(made):
    code, _, err = made("init", *MADE)
    assert code == 3
    assert "exists already" in err


def test_record_by_flags(made, tmp_path):
    at = ["--at", "2026-06-01T06:00:00Z", *AT_NOW]
    code, out, _ = made("record", "--usage-hours", "1.5", *at, "--json")
    assert code == 0
    assert json.loads(out) == {"stored": 1, "refused": {}, "readings": 1}
    with TelemetryStore(tmp_path / "device.db") as store:
        assert store.telemetry().values[0][6] == 1.5


def test_record_from_standard_input(made, monkeypatch):
    import io

    text = json.dumps({"at": "2026-06-01T06:00:00Z", "battery_temp_max_c": 31})
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert made("record", "-", *AT_NOW)[0] == 0


def test_record_a_file_counts_what_it_refuses(made, tmp_path):
    file = tmp_path / "r.csv"
    file.write_text(
        "at,usage_hours\n2026-06-01T06:00:00Z,1\n2026-06-01T12:00:00Z,-1\n2026-06-01T12:00:00,1\n"
    )
    code, out, _ = made("record", str(file), *AT_NOW)
    assert code == 0
    assert out.splitlines() == [
        "stored 1 readings (1 in all)",
        (
            f"refused 1: naive_time, first in {file}:4: at 2026-06-01T12:00:00 has no time zone;"
            " give it as 2026-01-31T08:00:00Z"
        ),
        (
            f"refused 1: out_of_range:usage_hours, first in {file}:3: usage_hours must be 0 to 744"
            " hours in the interval, got -1; correct it, or leave it out"
        ),
    ]
    answer = json.loads(made("record", str(file), *AT_NOW, "--json")[1])
    assert {reason: first["line"] for reason, first in answer["first_refused"].items()} == {
        "naive_time": 4,
        "out_of_range:usage_hours": 3,
    }


def test_file_that_breaks_off_stores_nothing(made, tmp_path):
    file = tmp_path / "r.jsonl"
    file.write_text('{"at": "2026-06-01T06:00:00Z", "usage_hours": 1}\n{"at": \n')
    code, _, err = made("record", str(file), *AT_NOW)
    assert code == 3
    assert "r.jsonl:2" in err
    with TelemetryStore(tmp_path / "device.db") as store:
        assert store.num_readings() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--full-charge-capacity-mah", "-4"], 3, "out_of_range:full_charge_capacity_mah"),
        (["--usage-hours", "lots"], 3, "usage_hours is no number"),
        (["--usage-hours", "1", "--at", "2026-06-01T06:00:00"], 3, "naive_time"),
        (["--usage-hours", "1", "--at", "2027-06-01T06:00:00Z", *AT_NOW], 3, "in_the_future"),
        ([], 2, "got no reading"),
        (["file.csv", "--usage-hours", "1"], 2, "give one of them"),
        (["/nowhere/file.csv"], 4, "no such file"),
    ],
)
def test_record_says_what_is_wrong(made, arguments, code, says):
    found, out, err = made("record", *arguments)
    assert (found, out) == (code, "")
    assert says in err
    assert err.count("\n") == 1


def test_refused_readings_are_counted(made, tmp_path):
    made("record", "--usage-hours", "-4")
    made("record", "--usage-hours", "1", "--at", "2026-06-01T06:00:00")
    with TelemetryStore(tmp_path / "device.db") as store:
        assert store.refusals() == {"naive_time": 1, "out_of_range:usage_hours": 1}


def test_consent_is_given_and_withdrawn_by_purpose(made):
    assert json.loads(made("consent", "--json")[1])["training"] == {
        "granted": False,
        "changed_at": None,
        "stopped": False,
    }
    made("consent", "grant", "summaries", "notices", *AT_NOW)
    code, out, _ = made("consent", "withdraw", "notices", *AT_NOW)
    assert code == 0
    assert out.splitlines() == [
        "training   not granted",
        "summaries  granted, 2026-06-01 12:00 UTC",
        "notices    not granted, 2026-06-01 12:00 UTC",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["grant"], "grant what"), (["grant", "everything"], "unknown purpose everything")],
)
def test_consent_needs_a_known_purpose(made, arguments, says):
    code, _, err = made("consent", *arguments)
    assert code == 2
    assert says in err


def test_consent_to_all(made):
    said = json.loads(made("consent", "grant", "all", "--json")[1])
    assert all(said[purpose]["granted"] for purpose in PURPOSES)


def test_owner_wishes_are_shown_and_set(made):
    assert json.loads(made("owner", "--json")[1]) == {
        "language": "en",
        "quiet_hours": None,
        "zone": None,
    }
    code, out, _ = made(
        "owner", "--language", "de", "--quiet-hours", "21-6", "--zone", "Asia/Tokyo"
    )
    assert code == 0
    assert out.splitlines() == ["language     de", "quiet hours  21-6 Asia/Tokyo"]
    assert "none" in made("owner", "--quiet-hours", "none")[1]
    assert made("owner", "--zone", "Asia/Tokyo")[0] == 2


def test_export_holds_everything_and_erase_removes_it(made, tmp_path):
    made("record", "--usage-hours", "1.5", "--at", NOW.isoformat(), *AT_NOW)
    out = tmp_path / "mine.json"
    assert made("export", "--out", str(out))[0] == 0
    mine = json.loads(out.read_text())
    assert mine["facts"]["profile"]["device_id"] == "device-1"
    assert mine["readings"] == [{"at": "2026-06-01T12:00:00+00:00", "usage_hours": 1.5}]
    assert json.loads(made("export")[1]) == mine

    code, _, err = made("erase")
    assert code == 2
    assert "--yes" in err
    assert made("erase", "--yes")[0] == 0
    left = {path.name for path in tmp_path.iterdir()} - {"device.db.identity.json"}
    ledger = {"device.db.ledger", "device.db.ledger.head"}
    assert left == {"mine.json", "device.db.erased.json"} | ledger


def test_export_keeps_the_former_file_where_the_disk_refuses(made, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    out = tmp_path / "mine.json"
    out.write_text("before")
    monkeypatch.setattr("models.durable_file.os.fsync", full)
    code, _, err = made("export", "--out", str(out))

    assert (code, err) == (6, "fedcell-device: no space left on device\n")
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.glob("*mine*")] == ["mine.json"]


def test_erase_touches_no_file_that_is_not_ours(run, tmp_path):
    (tmp_path / "device.db").write_text("precious")
    code, _, err = run("erase", "--yes")
    assert code == 3
    assert "no SQLite database" in err
    assert (tmp_path / "device.db").read_text() == "precious"


@pytest.mark.parametrize(
    "command", [["record", "--usage-hours", "1"], ["predict"], ["consent"], ["outbox"], ["export"]]
)
def test_command_without_a_store_says_how_to_make_one(run, command):
    code, out, err = run(*command)
    assert (code, out) == (4, "")
    assert "init" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["update", "none.zip", "--allow-unsigned"], "none.zip: no such bundle"),
        (["update", "none.zip", "--trusted-keys", "none.json"], "none.json: no such key file"),
        (["predict", "--bundle", "none.zip"], "none.zip: no such bundle"),
        (["predict", "--trusted-keys", "none.json"], "none.json: no such key file"),
        (["run", "--broker", "h:1", "--server-key", "none.json"], "none.json: no such key file"),
    ],
)
def test_a_bundle_or_key_file_that_is_not_there_is_a_missing_part(made, command, says):
    code, out, err = made(*command)
    assert (code, out) == (4, "")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", ["", "{", '{"key": "00"}'])
def test_a_key_file_that_is_there_and_holds_no_key_is_refused(made, tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_text(content)
    code, _, err = made("update", "bundle.zip", "--trusted-keys", str(path))
    assert code == 5
    assert f"{path}: " in err


def test_update_needs_a_key(made):
    code, _, err = made("update", "bundle.zip")
    assert code == 2
    assert "--trusted-keys" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "--colour", "red"], "unrecognized arguments: --colour red"),
        (["predict", "--now", "tomorrow"], "give one as 2026-01-31T08:00:00Z"),
        (["predict", "--now", "2026-01-01T00:00:00"], "has no time zone"),
        (["predict", "--now", "9999-12-31"], "1971 to 8999"),
        (["run", "--timeout", "-1"], "above 0"),
        (["run", "--timeout", "1e30"], "at most 31622400, got '1e30'"),
        (["run", "--predict-every", "1e30"], "at most 8784, got '1e30'"),
        (["run", "--once", "--until-acked"], "not allowed with"),
        (["answer", "x", "perhaps"], "invalid choice: 'perhaps'"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_wrong_usage_is_one_line_and_ends_with_two(run, capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert says in said
    assert "--help" in said
    assert said.count("\n") == 1


def test_flags_for_measurements_are_the_measurements():
    assert tuple((each.name, each.unit) for each in MEASUREMENTS) == MEASUREMENT_FLAGS
    assert tuple(PURPOSES) == tuple(Purpose)


def test_settings_stand_before_or_after_the_command():
    parser = make_parser()
    assert parser.parse_args(["--store", "a", "predict"]).store == "a"
    assert parser.parse_args(["predict", "--store", "b"]).store == "b"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModuleNotFoundError("x", name="onnxruntime"), 4),
        (FileNotFoundError(2, "No such file or directory", "x"), 4),
        (PermissionError(13, "Permission denied", "x"), 6),
        (KeyError("defect"), None),
        (ValueError("a library's"), None),
    ],
)
def test_other_errors_have_their_code_or_their_traceback(error, code):
    assert exit_code_of(error) == code
