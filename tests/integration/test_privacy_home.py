"""Backups put back, torn lines, full disks and several writers: refused, or nothing is lost."""

import json
import multiprocessing
import os
import shutil
import sqlite3
import stat
from datetime import UTC, datetime

import numpy as np
import pytest

from privacy import BudgetExceededError, OperatingSystemNoise
from privacy.accountant import mu_of_releases
from server.cli import main
from server.commands.privacy_ledger import ledger_lines
from server.privacy_home import ledger_file
from server.privacy_home.home_repair import charge_everyone, cut_torn_line
from server.privacy_home.ledger_file import LEDGER_FILE
from server.privacy_home.ledger_report import home_report
from server.privacy_home.participation_counts import StepCost, StreamRecord
from server.privacy_home.privacy_errors import (
    HomeBrokenError,
    HomeMissingError,
    HomeUnavailableError,
    StreamKeyError,
    StreamRefusedError,
)
from server.privacy_home.privacy_ledger import COUNTS_FILE, open_home, read_home
from server.streams.stream_files import AGGREGATE_FILE, CHECKPOINT_FILE, STEP_FILE
from server.streams.stream_key import KEY_FILE, read_operator_key
from server.streams.stream_state import StepPhase, begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys
from simulations.seeded_streams import SeededKeys
from tests.support.stream_crashes import DEVICES, start, terms_of, total_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TERMS = terms_of("stream", 6)


def opened(folder, *, terms=TERMS, operator=None, keys=None):
    run = folder / terms.stream
    run.mkdir()
    return begin_stream(
        run,
        open_home(folder / "home"),
        terms,
        start=start(),
        keys=keys or OperatingSystemKeys(),
        source=OperatingSystemNoise(),
        operator=operator,
    )


def resumed(folder, *, terms=TERMS, operator=None, keys=None):
    stream, _ = resume_stream(
        folder / terms.stream,
        open_home(folder / "home"),
        terms,
        keys=keys or OperatingSystemKeys(),
        operator=operator,
    )
    return stream


def code_of(*arguments):
    """The exit code that a command ends with."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return left.value.code


def cohort_of(index):
    return [(3 * index + number) % len(DEVICES) for number in range(3)]


def step(stream, *, until=None):
    index = stream.next_index
    stream.invite(device_ids=DEVICES, choose=lambda _: cohort_of(index))
    if until is StepPhase.INVITED:
        return None
    stream.commit(total_of(index))
    if until is StepPhase.COMMITTED:
        return None
    stream.charge(NOW)
    update = stream.release()
    if until is StepPhase.CHARGED:
        return update
    stream.checkpoint(start())
    return update


def end_of_process(stream):
    stream.close()


def put_back(old, path):
    """Put a file or folder back as a backup does: the content, in a new file."""
    if path.is_dir():
        shutil.rmtree(path)
        shutil.copytree(old, path)
    else:
        path.unlink(missing_ok=True)
        shutil.copy2(old, path)


PUT_BACK = {
    "all": ("home", "stream"),
    "the run": ("stream",),
    "the home": ("home",),
    "the ledger": (f"home/{LEDGER_FILE}",),
    "the counts": (f"home/{COUNTS_FILE}",),
    "ledger and counts": (f"home/{LEDGER_FILE}", f"home/{COUNTS_FILE}"),
    "the checkpoint": (f"stream/{CHECKPOINT_FILE}",),
    "the checkpoint and the step": (f"stream/{CHECKPOINT_FILE}", f"stream/{STEP_FILE}"),
    "the key": (f"stream/{KEY_FILE}",),
    "all but key and home.json": (
        f"home/{LEDGER_FILE}",
        f"home/{COUNTS_FILE}",
        f"stream/{CHECKPOINT_FILE}",
    ),
}


@pytest.mark.parametrize("what", PUT_BACK)
@pytest.mark.parametrize("later", [StepPhase.INVITED, StepPhase.CHARGED, None])
def test_stream_whose_files_were_put_back_never_goes_on(tmp_path, what, later):
    folder = tmp_path / "now"
    folder.mkdir()
    stream = opened(folder)
    step(stream)
    shutil.copytree(folder, tmp_path / "backup")
    step(stream)
    step(stream, until=later)
    end_of_process(stream)
    for name in PUT_BACK[what]:
        put_back(tmp_path / "backup" / name, folder / name)

    with pytest.raises(
        (StreamRefusedError, HomeBrokenError), match=r"new stream|newest"
    ) as refused:
        resumed(folder)
    assert refused.value.exit_code == 5


def test_stream_goes_on_where_nothing_was_put_back(tmp_path):
    stream = opened(tmp_path)
    first = step(stream, until=StepPhase.CHARGED)
    end_of_process(stream)
    again = resumed(tmp_path)

    assert again.phase is StepPhase.CHARGED
    assert np.array_equal(again.release(), first)
    again.checkpoint(start())
    assert step(again) is not None


def test_another_process_cannot_take_a_stream_that_runs(tmp_path):
    stream = opened(tmp_path)
    with pytest.raises(HomeUnavailableError, match="run by another process"):
        resumed(tmp_path)
    stream.close()
    assert resumed(tmp_path).next_index == 0


def test_name_of_a_stream_is_never_used_twice(tmp_path):
    step(opened(tmp_path))
    shutil.rmtree(tmp_path / "stream")
    with pytest.raises(StreamRefusedError, match="under a new name"):
        opened(tmp_path)


def test_step_in_another_order_is_refused(tmp_path):
    stream = opened(tmp_path)
    with pytest.raises(RuntimeError, match="must be invited"):
        stream.commit(total_of(0))
    step(stream)
    with pytest.raises(StreamRefusedError, match="offered 1 steps"):
        stream.home.invite("stream", 0, device_ids=DEVICES, choose=lambda _: [0], cost=TERMS.cost)
    with pytest.raises(StreamRefusedError, match="has an aggregate already"):
        stream.home.commit("stream", 0, digest="ab" * 32, noise_only=False)
    event = TERMS.event(0, noise=stream.noise, most_participations=1, noise_only=False)
    with pytest.raises(StreamRefusedError, match="not what comes next"):
        stream.home.charge(event, kind="stream", at=NOW)


def test_sum_that_is_not_the_committed_one_meets_no_noise(tmp_path):
    stream = opened(tmp_path)
    step(stream, until=StepPhase.COMMITTED)
    end_of_process(stream)
    path = tmp_path / "stream" / AGGREGATE_FILE
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StreamRefusedError, match="not the sum that was committed"):
        resumed(tmp_path)


def test_secrets_are_for_their_owner_alone_and_sealed_where_there_is_a_key(tmp_path):
    key_file = tmp_path / "operator.key"
    key_file.write_bytes(os.urandom(32))
    key_file.chmod(0o600)
    operator = read_operator_key(key_file)
    stream = opened(tmp_path, operator=operator)
    step(stream, until=StepPhase.COMMITTED)
    end_of_process(stream)

    secret = stream.secrets.noise_key
    for name in (KEY_FILE, AGGREGATE_FILE):
        path = tmp_path / "stream" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert secret not in path.read_bytes()
        assert total_of(0).tobytes() not in path.read_bytes()
    assert secret.hex() not in repr(stream.secrets)
    assert stat.S_IMODE((tmp_path / "home" / COUNTS_FILE).stat().st_mode) == 0o600
    with pytest.raises(StreamKeyError, match="sealed, and no key"):
        resumed(tmp_path)
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    other.chmod(0o600)
    with pytest.raises(StreamKeyError, match="does not open"):
        resumed(tmp_path, operator=read_operator_key(other))
    assert resumed(tmp_path, operator=operator).phase is StepPhase.COMMITTED
    other.chmod(0o644)
    with pytest.raises(StreamKeyError, match="others may read it"):
        read_operator_key(other)


def test_simulated_stream_is_never_taken_up_as_a_real_one(tmp_path):
    stream = opened(tmp_path, keys=SeededKeys(7))
    step(stream)
    end_of_process(stream)
    with pytest.raises(StreamRefusedError, match="kind simulated, not stream"):
        resumed(tmp_path)
    assert {entry.kind for entry in stream.home.entries} == {"simulated"}
    report = home_report(tmp_path / "home", delta=1e-6)
    assert (report["never_released"], report["epsilon_release"]) == (1, 0.0)
    assert any(line.startswith("not counted  1 entries") for line in ledger_lines(report))


def test_full_disk_leaves_the_ledger_as_it_was_and_the_step_can_be_charged_later(
    tmp_path, monkeypatch
):
    stream = opened(tmp_path)
    step(stream)
    stream.invite(device_ids=DEVICES, choose=lambda _: cohort_of(1))
    stream.commit(total_of(1))
    before = (tmp_path / "home" / LEDGER_FILE).read_bytes()
    write = os.write
    monkeypatch.setattr(ledger_file.os, "write", lambda handle, line: write(handle, line[:40]))
    with pytest.raises(HomeUnavailableError, match="No space left") as refused:
        stream.charge(NOW)
    monkeypatch.undo()

    assert refused.value.exit_code == 6
    assert (tmp_path / "home" / LEDGER_FILE).read_bytes() == before
    assert stream.charge(NOW).index == 1


def test_torn_line_is_refused_until_it_is_cut_and_then_the_step_is_charged_anew(tmp_path, capsys):
    stream = opened(tmp_path)
    step(stream)
    step(stream, until=StepPhase.COMMITTED)
    end_of_process(stream)
    path = tmp_path / "home" / LEDGER_FILE
    with path.open("ab") as ledger:
        ledger.write(b'{"at":"2026-')

    with pytest.raises(HomeBrokenError, match="--repair"):
        resumed(tmp_path)
    assert code_of("privacy", "ledger", "--home", str(tmp_path / "home")) == 5
    assert "--repair" in capsys.readouterr().err
    assert cut_torn_line(tmp_path / "home", now=NOW) == 12
    assert next(path.parent.glob("ledger.jsonl.torn-*")).read_bytes() == b'{"at":"2026-'
    again = resumed(tmp_path)
    assert again.charge(NOW).index == 1


def test_torn_line_that_was_whole_once_is_never_cut(tmp_path):
    stream = opened(tmp_path)
    step(stream)
    step(stream)
    path = tmp_path / "home" / LEDGER_FILE
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(HomeBrokenError, match="was whole once"):
        cut_torn_line(tmp_path / "home", now=NOW)


def test_altered_entry_ends_with_code_five(tmp_path, capsys):
    stream = opened(tmp_path)
    step(stream)
    path = tmp_path / "home" / LEDGER_FILE
    path.write_text(path.read_text().replace('"cohort_size":3', '"cohort_size":9'))
    assert code_of("privacy", "ledger", "--home", str(path.parent), "--json") == 5
    assert "hash does not match" in capsys.readouterr().err


def test_counts_that_are_gone_are_made_anew_with_everybody_charged(tmp_path):
    stream = opened(tmp_path)
    for _ in range(5):
        step(stream)
    end_of_process(stream)
    (tmp_path / "home" / COUNTS_FILE).unlink()

    with pytest.raises(HomeBrokenError, match="--rebuild-counts"):
        open_home(tmp_path / "home")
    head = read_home(tmp_path / "home")[-1].hash
    assert charge_everyone(tmp_path / "home", head=head[:16]) == 5
    found = open_home(tmp_path / "home").life_counts(["anybody"])
    assert found.participations.tolist() == [2]
    with pytest.raises(StreamRefusedError, match="knows no stream"):
        resumed(tmp_path)


def test_damaged_counts_are_told_as_such(tmp_path):
    step(opened(tmp_path))
    (tmp_path / "home" / COUNTS_FILE).write_bytes(b"no database" * 500)
    with pytest.raises(HomeBrokenError, match="--rebuild-counts"):
        open_home(tmp_path / "home")


def test_folder_without_a_ledger_is_named(tmp_path, capsys):
    with pytest.raises(HomeMissingError):
        read_home(tmp_path)
    assert code_of("privacy", "ledger", "--home", str(tmp_path)) == 4
    assert "name the folder" in capsys.readouterr().err


def invite_often(folder, stream, times, queue):
    """Invite one device again and again in a stream of its own, and say how often it worked."""
    home = open_home(folder)
    home.open_stream(stream, StreamRecord(policy_digest="", anchor="", max_participations=99))
    done = 0
    cost = StepCost(mu_squared=1.0, max_participations=10, mu_squared_limit=10.0)
    for index in range(times):
        try:
            home.invite(stream, index, device_ids=["shared"], choose=lambda _: [0], cost=cost)
        except BudgetExceededError:
            break
        done += 1
    queue.put(done)


def test_writers_of_one_home_take_turns_and_never_pass_a_devices_budget(tmp_path):
    open_home(tmp_path)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    writers = [
        context.Process(target=invite_often, args=(tmp_path, f"stream-{number}", 9, queue))
        for number in range(3)
    ]
    for writer in writers:
        writer.start()
    done = [queue.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()

    assert sum(done) == 10
    assert open_home(tmp_path).life_counts(["shared"]).participations.tolist() == [10]


def test_two_streams_of_one_home_append_to_one_chain(tmp_path):
    one, two = opened(tmp_path), opened(tmp_path, terms=terms_of("other", 6))
    for _ in range(3):
        step(one)
        step(two)
    entries = read_home(tmp_path / "home")
    assert [entry.event.stream for entry in entries] == ["stream", "other"] * 3


def test_over_two_streams_the_ledger_states_what_the_device_that_spent_most_has_spent(tmp_path):
    one, two = opened(tmp_path), opened(tmp_path, terms=terms_of("other", 6))
    step(one)
    two.invite(device_ids=DEVICES, choose=lambda _: [9, 10, 11])
    two.commit(total_of(0))
    entry = two.charge(NOW)

    once = 1 / TERMS.privacy.noise_multiplier**2
    assert entry.event.most_mu_squared == pytest.approx(once)
    events = [entry.event for entry in read_home(tmp_path / "home")]
    assert mu_of_releases(events) ** 2 == pytest.approx(once)


def test_report_counts_devices_and_names_none(tmp_path, capsys):
    stream = opened(tmp_path)
    for _ in range(5):
        step(stream)
    home = str(tmp_path / "home")

    assert code_of("privacy", "ledger", "--home", home, "--delta", "1e-6", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["participants"]["by_participations"] == {"1": 9, "2": 3}
    assert report["epsilon_release"] == pytest.approx(2.0, rel=1e-6)
    assert report["participants"]["mu_squared_left"] == pytest.approx(0.0, abs=1e-9)
    assert (report["epsilon_server"], report["delta"], report["verified"]) == (None, 1e-6, True)
    assert code_of("privacy", "ledger", "--home", home) == 0
    shown = capsys.readouterr().out
    assert "9 × 1, 3 × 2" in shown
    assert "at δ = 1e-08" in shown
    assert "replaced by zero" in shown
    assert not any(device in shown + json.dumps(report) for device in DEVICES)


def test_counts_say_nothing_of_a_device_beyond_its_id_and_sums(tmp_path):
    step(opened(tmp_path))
    with sqlite3.connect(tmp_path / "home" / COUNTS_FILE) as counts:
        columns = [row[1] for row in counts.execute("PRAGMA table_info(devices)")]
    assert columns == [
        "device",
        "participations",
        "mu_squared",
        "counts_mu_squared",
        "max_participations",
        "mu_squared_limit",
        "said_participations",
        "said_mu_squared",
        "counts_limit",
        "mu_squared_in_all",
        "answers_held_out",
        "answers_in_training",
        "said_surplus",
    ]
