"""Who is invited follows from the enrolment record, whoever can be reached, and stays so."""

import threading
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from models.wire.envelope import SigningKey
from models.wire.rounds import DEVICES_RECORD, DeviceReceipt
from privacy.statement import REACHED_AT_START
from server.engine.device_claims import ClaimRule
from server.engine.enrolment import Enrolment, read_enrolment
from server.engine.flower_messages import ask_for_devices
from server.errors import SettingError
from server.flower_app import PlannedRun, carry_out
from server.privacy_home.counts_file import transaction
from server.privacy_home.enrolment_record import EnrolmentSource
from server.privacy_home.home_files import COUNTS_FILE
from server.privacy_home.ledger_report import home_report
from server.privacy_home.participation_counts import StreamRecord
from server.privacy_home.privacy_ledger import open_home
from server.runs.folder import RunFolder
from server.runs.refusal_trail import read_trail
from tests.support.federated_rounds import (
    GRID,
    NUM_WEIGHTS,
    config_of,
    contribution,
    honest,
    task_of,
)
from tests.support.flower_grid import GridInMemory

NOW = datetime(2026, 5, 1, tzinfo=UTC)
START = np.zeros(NUM_WEIGHTS, np.float32)
FLEET = {number: [f"BT-{number}"] for number in range(1, 9)}
DEVICES = [device for devices in FLEET.values() for device in devices]


def node(own, answers=honest):
    def answer(message):
        if message.metadata.message_type == "query":
            return [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": own})})]
        return answers(message) if message.metadata.message_type == "train" else [RecordDict()]

    return answer


def asleep(_message):
    return []


def run_of(folder, *, enrolment=None, is_resumed=False, num_rounds=4, **changes):
    rule = ClaimRule.of(None if enrolment is None else enrolment.nodes)
    config = config_of(epsilon=2.0, num_rounds=num_rounds, cohort_size=2, deadline_s=0.05)
    return PlannedRun(
        config=config,
        folder=RunFolder(folder, is_resumed=is_resumed, home=changes.pop("home", None)),
        start=START,
        enrolment=enrolment,
        claims=rule,
        is_resumed=is_resumed,
        **changes,
    )


def carried(run, grid, *, stop=None):
    stop = stop or threading.Event()
    roster = ask_for_devices(
        grid, num_nodes=1, deadline_s=0.05, stop=threading.Event(), rule=run.claims
    )
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: NOW)
    return run


def cohorts(run, num_rounds=4):
    return [sorted(run.folder.home.cohort("test", index)) for index in range(num_rounds)]


def fleet(**asleep_ones):
    silent = set(asleep_ones.get("silent", ()))
    return GridInMemory({n: asleep if n in silent else node(own) for n, own in FLEET.items()})


RECORD = Enrolment(dict.fromkeys(DEVICES), EnrolmentSource.FILE)


@pytest.mark.parametrize("silent", [{3}, {1, 2, 4, 5, 6, 7, 8}])
def test_whom_a_run_invites_is_the_same_whoever_sleeps_at_its_start(tmp_path, silent):
    here = carried(run_of(tmp_path / "here", enrolment=RECORD), fleet())
    away = carried(run_of(tmp_path / "away", enrolment=RECORD), fleet(silent=silent))
    assert cohorts(away) == cohorts(here)
    assert {device for cohort in cohorts(here) for device in cohort} == set(DEVICES)
    replied = [record["replied"] for record in away.report["rounds"]]
    assert sum(replied) == len(DEVICES) - len(silent)


def test_who_wakes_up_is_asked_and_who_is_enrolled_later_waits_for_the_next_stream(tmp_path):
    grid = fleet(silent={3})

    def wakes(_record):
        grid.nodes.update({3: node(["BT-3"]), 99: node(["BT-99"])})

    run = carried(run_of(tmp_path / "run", enrolment=RECORD, on_round=wakes), grid)
    asked = {task_of(m).device_ids for m in grid.pushed if m.metadata.message_type == "train"}
    first = next(i for i, cohort in enumerate(cohorts(run)) if "BT-3" in cohort)
    assert ("BT-3",) in asked or first == 0
    assert "BT-99" not in {device for ids in asked for device in ids}


@pytest.mark.parametrize("record", [None, RECORD])
def test_a_resumed_run_keeps_its_record_whoever_is_here_by_then(tmp_path, record):
    whole = carried(run_of(tmp_path / "whole", enrolment=record), fleet())
    stop = threading.Event()
    carried(
        run_of(tmp_path / "run", enrolment=record, on_round=lambda _: stop.set()),
        fleet(),
        stop=stop,
    )
    grid = GridInMemory({n: node([f"BT-{n}"]) for n in (2, 5, 7, 50)})
    more = None if record is None else Enrolment({**record.nodes, "BT-50": None}, record.source)
    again = carried(run_of(tmp_path / "run", enrolment=more, is_resumed=True), grid)
    assert cohorts(again) == cohorts(whole)


def test_without_a_record_an_assumption_stands_beside_epsilon(tmp_path):
    home = tmp_path / "home"
    run = carried(run_of(tmp_path / "run", home=home), fleet(silent={3}))
    assert REACHED_AT_START in run.report["privacy"]["assumptions"]
    assert REACHED_AT_START in home_report(home, delta=1e-6)["assumptions"]
    assert all("BT-3" not in cohort for cohort in cohorts(run))

    record = carried(run_of(tmp_path / "other", enrolment=RECORD), fleet())
    assert REACHED_AT_START not in record.report["privacy"]["assumptions"]
    kept = open_home(record.folder.path).keep_enrolment("test", [], EnrolmentSource.FLEET)
    assert (kept.device_ids, kept.source) == (tuple(sorted(DEVICES)), EnrolmentSource.FILE)
    assert len(kept.sha256) == 64


def test_a_node_that_claims_everybody_gets_nothing_and_stands_in_the_trail(tmp_path):
    """It would get all tasks, make the whole sum and retire every device for life by its word."""

    def lies(message):
        task = task_of(message)
        number = len(task.device_ids)
        lines = tuple(
            DeviceReceipt(
                pseudonym=name, participations=2**62, mu_squared=1e300, head="0" * 64
            ).to_line()
            for name in task.pseudonyms
        )
        evil = number * GRID.quantise(np.array([1.0, 0, 0]) * (1 - 1e-6))
        return [contribution(evil, index=task.index, num_devices=number, receipts=lines)]

    bound = Enrolment({own[0]: n for n, own in FLEET.items()}, EnrolmentSource.FILE)
    grid = GridInMemory({0: node(DEVICES, lies), **{n: node(own) for n, own in FLEET.items()}})
    run = carried(
        run_of(tmp_path / "run", enrolment=bound, signing_key=SigningKey.generate()), grid
    )
    trained = {m.metadata.dst_node_id for m in grid.pushed if m.metadata.message_type == "train"}
    assert trained == set(FLEET)
    assert [record["replied"] for record in run.report["rounds"]] == [2] * 4
    assert run.folder.home.life_counts(DEVICES).participations.tolist() == [1] * 8
    reasons = {line["reason"] for line in read_trail(run.folder.path)}
    assert reasons == {"names_a_device_bound_to_another_node"}


def test_a_record_is_kept_anew_until_its_stream_is_opened(tmp_path):
    """A process that was killed before it chose anybody left a record that decided nothing."""
    home = open_home(tmp_path)
    home.keep_enrolment("s", ["a"], EnrolmentSource.FIRST_ROSTER)
    assert home.keep_enrolment("s", ["b"], EnrolmentSource.FILE).device_ids == ("b",)
    home.open_stream("s", StreamRecord(policy_digest="", anchor="", max_participations=1))
    assert home.keep_enrolment("s", ["c"], EnrolmentSource.FILE).device_ids == ("b",)


def test_a_stream_of_yesterday_takes_whom_it_has_invited_and_says_what_is_not_known(tmp_path):
    stop = threading.Event()
    run = carried(
        run_of(tmp_path / "run", enrolment=RECORD, on_round=lambda _: stop.set()),
        fleet(),
        stop=stop,
    )
    with transaction(tmp_path / "run" / COUNTS_FILE) as connection:
        connection.execute("DELETE FROM facts WHERE name LIKE 'enrolment%'")
    first = cohorts(run, 1)[0]
    assert REACHED_AT_START in home_report(tmp_path / "run", delta=1e-6)["assumptions"]
    others = [device for device in DEVICES if device not in first]
    kept = open_home(tmp_path / "run").keep_enrolment("test", others, EnrolmentSource.FIRST_ROSTER)
    assert kept.device_ids == tuple(sorted(DEVICES))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("device\nBT-1\n", "line 2"),
        ("device_id\n", "names no device"),
        ("device_id\nBT-1\nBT-1\n", "a second time"),
        ("device_id\na b\n", "line 2"),
        ("device_id,node_id\nBT-1,node\n", "whole number"),
    ],
)
def test_an_enrolment_that_cannot_be_read_says_where(tmp_path, text, what):
    path = tmp_path / "enrolled.csv"
    path.write_text(text)
    with pytest.raises(SettingError, match=what):
        read_enrolment(path)
    with pytest.raises(SettingError, match="cannot be read"):
        read_enrolment(tmp_path / "missing.csv")


def test_an_enrolment_binds_only_where_it_names_a_node(tmp_path):
    path = tmp_path / "enrolled.csv"
    path.write_text("device_id,node_id\nBT-1,7\nBT-2,\n")
    assert read_enrolment(path).nodes == {"BT-1": 7, "BT-2": None}
