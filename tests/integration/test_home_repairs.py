"""A privacy home whose files were lost, put back in place or moved forgets nothing, or refuses."""

import shutil
import sqlite3
from datetime import UTC, datetime

import numpy as np
import pytest

from privacy import OperatingSystemNoise, release_epsilon
from server.cli import main
from server.privacy_home import home_files, privacy_ledger
from server.privacy_home.home_files import COUNTS_FILE, HOME_FILE
from server.privacy_home.home_repair import charge_everyone, cut_torn_line, take_over
from server.privacy_home.ledger_file import LEDGER_FILE
from server.privacy_home.ledger_report import home_report
from server.privacy_home.privacy_errors import (
    HomeBrokenError,
    HomeUnavailableError,
    StreamRefusedError,
)
from server.privacy_home.privacy_ledger import open_home
from server.streams.stream_state import StepPhase, begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys
from tests.support.released_homes import DEVICES, ask, take_step, take_steps
from tests.support.stream_crashes import DEVICES as FLEET
from tests.support.stream_crashes import start, terms_of, total_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TERMS = terms_of("stream", 6)
ENOUGH = 99


def in_place(path, content):
    """Put content back as `cp` over a file or `sqlite3 .restore` do: it stays the same file."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def code_of(*arguments):
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return left.value.code


@pytest.mark.parametrize("what", ["step", "count"])
def test_counts_put_back_in_place_from_before_the_last_release_are_refused(tmp_path, what):
    home = open_home(tmp_path)
    take_steps(home, "s", 1)
    ask(home, 0, most=ENOUGH)
    old = (tmp_path / COUNTS_FILE).read_bytes()
    if what == "count":
        ask(home, 1, most=ENOUGH)
    else:
        take_step(home, "s", 1)
    in_place(tmp_path / COUNTS_FILE, old)

    with pytest.raises(HomeBrokenError, match="do not know") as refused:
        open_home(tmp_path)
    assert refused.value.exit_code == 5
    with pytest.raises(HomeBrokenError, match="do not know"):
        home_report(tmp_path, delta=1e-8)


@pytest.mark.parametrize("what", ["step", "count"])
def test_crash_between_an_entry_and_the_note_of_it_is_taken_up(tmp_path, what, monkeypatch):
    home = open_home(tmp_path)
    take_steps(home, "s", 1)
    release = ask if what == "count" else lambda home, index: take_step(home, "s", index)
    if what == "count":
        ask(home, 0, most=ENOUGH)

    def die(connection, name, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(privacy_ledger.counts_file, "keep_fact", die)
        with pytest.raises(KeyboardInterrupt):
            release(home, 1)
    again = open_home(tmp_path)
    assert len(again.entries) == len(home.entries) + (home.entries != again.entries)
    release(again, 2)


@pytest.mark.parametrize("gone", [(COUNTS_FILE,), (COUNTS_FILE, LEDGER_FILE)])
@pytest.mark.parametrize("earlier", [False, True])
def test_home_without_counts_never_begins_anew(tmp_path, gone, earlier):
    home = open_home(tmp_path)
    take_steps(home, "s", 2)
    for name in gone:
        (tmp_path / name).unlink()
    if earlier:
        (tmp_path / LEDGER_FILE).write_bytes(b"")
    with pytest.raises(HomeBrokenError, match="is gone") as refused:
        open_home(tmp_path)
    assert "--rebuild-counts" in str(refused.value)


@pytest.mark.parametrize("step", ["create_counts", "write_durably", "keep_fact"])
def test_crash_while_a_home_is_made_is_taken_up(tmp_path, step, monkeypatch):
    def die(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        where = home_files if step == "write_durably" else home_files.counts_file
        patch.setattr(where, step, die)
        with pytest.raises(KeyboardInterrupt):
            open_home(tmp_path)
    assert (tmp_path / HOME_FILE).exists() is (step == "keep_fact")
    home = open_home(tmp_path)
    take_steps(home, "s", 1)
    assert open_home(tmp_path).life_counts(DEVICES).participations.tolist() == [1, 1]


def test_counts_from_the_making_of_a_home_do_not_pass_for_later_ones(tmp_path, monkeypatch):
    def die(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(home_files.counts_file, "keep_fact", die)
        with pytest.raises(KeyboardInterrupt):
            open_home(tmp_path)
    unfinished = (tmp_path / COUNTS_FILE).read_bytes()
    home = open_home(tmp_path)
    take_steps(home, "s", 1)
    in_place(tmp_path / COUNTS_FILE, unfinished)
    with pytest.raises(HomeBrokenError, match="do not know"):
        open_home(tmp_path)


def test_counts_that_go_while_a_process_works_are_told_as_gone(tmp_path):
    home = open_home(tmp_path)
    take_steps(home, "s", 1)
    (tmp_path / COUNTS_FILE).unlink()
    with pytest.raises(HomeBrokenError, match="is gone"):
        home.life_counts(DEVICES)
    assert not (tmp_path / COUNTS_FILE).exists()
    (tmp_path / COUNTS_FILE).touch()
    with pytest.raises(HomeBrokenError, match="no such table"):
        open_home(tmp_path)


def test_full_disk_is_not_told_as_damage(tmp_path):
    home = open_home(tmp_path)
    take_steps(home, "s", 1)
    other = sqlite3.connect(tmp_path / COUNTS_FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    privacy_ledger.counts_file.LOCK_TIMEOUT_S, kept = (
        0.01,
        privacy_ledger.counts_file.LOCK_TIMEOUT_S,
    )
    try:
        with pytest.raises(HomeUnavailableError, match="locked"):
            home.life_counts(DEVICES)
    finally:
        privacy_ledger.counts_file.LOCK_TIMEOUT_S = kept
        other.close()


@pytest.mark.parametrize("counts", ["gone", "damaged"])
def test_torn_line_without_counts_is_cut_only_behind_the_newest_entry(tmp_path, counts, capsys):
    home = open_home(tmp_path)
    take_steps(home, "s", 3)
    ledger = tmp_path / LEDGER_FILE
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-40])
    (tmp_path / COUNTS_FILE).unlink()
    if counts == "damaged":
        (tmp_path / COUNTS_FILE).write_bytes(b"no database" * 500)
    newest, before = home.entries[-1].hash, home.entries[-2].hash
    for head in ("", newest):
        with pytest.raises(HomeBrokenError, match="does not end with an entry"):
            cut_torn_line(tmp_path, now=NOW, head=head)
    assert ledger.read_bytes() == whole[:-40]
    command = ("privacy", "ledger", "--home", str(tmp_path), "--repair")
    assert code_of(*command) == 5
    (tmp_path / COUNTS_FILE).unlink(missing_ok=True)
    assert code_of(*command, "--head", before) == 0
    assert "bytes of a torn line" in capsys.readouterr().err


def begun(folder, terms=TERMS):
    run = folder / terms.stream
    run.mkdir()
    home = open_home(folder / "home")
    keys, source = OperatingSystemKeys(), OperatingSystemNoise()
    return begin_stream(run, home, terms, start=start(), keys=keys, source=source)


def resumed(folder, terms=TERMS):
    home = open_home(folder / "home")
    return resume_stream(folder / terms.stream, home, terms, keys=OperatingSystemKeys())[0]


def step(stream):
    index = stream.next_index
    cohort = [(3 * index + number) % len(FLEET) for number in range(3)]
    stream.invite(device_ids=FLEET, choose=lambda _: cohort)
    stream.commit(total_of(index))
    stream.charge(NOW)
    stream.release()
    stream.checkpoint(start())


@pytest.mark.parametrize("with_run", [True, False])
def test_home_that_is_taken_over_ends_its_streams_and_forgets_nobody(tmp_path, with_run):
    stream = begun(tmp_path)
    step(stream)
    stream.close()
    home = tmp_path / "home"
    shutil.copytree(home, tmp_path / "copy")
    if with_run:
        shutil.copytree(tmp_path / "stream", tmp_path / "copied run")
        shutil.rmtree(tmp_path / "stream")
        shutil.copytree(tmp_path / "copied run", tmp_path / "stream")
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "copy", home)

    with pytest.raises(HomeBrokenError, match="--accept-moved --head"):
        open_home(home)
    assert take_over(home, head=stream.entry.hash) == 1
    assert open_home(home).life_counts(FLEET).participations.sum() == 3
    with pytest.raises(StreamRefusedError, match="copied or put back"):
        resumed(tmp_path)
    # A process that had it open goes no further either.
    stream.home = open_home(home)
    with pytest.raises(StreamRefusedError, match="ended stream"):
        step(stream)
    other = begun(tmp_path, terms_of("other", 6))
    step(other)
    assert other.phase is None


def test_older_home_is_not_taken_over(tmp_path):
    one = begun(tmp_path)
    step(one)
    one.close()
    shutil.copytree(tmp_path / "home", tmp_path / "old")
    two = begun(tmp_path, terms_of("other", 6))
    step(two)
    two.close()
    told = release_epsilon([entry.event for entry in two.home.entries], delta=1e-6)
    shutil.rmtree(tmp_path / "home")
    shutil.copytree(tmp_path / "old", tmp_path / "home")

    for head in ("", two.entry.hash):
        with pytest.raises(HomeBrokenError, match="does not end with an entry"):
            take_over(tmp_path / "home", head=head)
    with pytest.raises(HomeBrokenError, match="copied, moved"):
        open_home(tmp_path / "home")
    assert told > 0


def test_sum_that_was_committed_before_a_take_over_is_not_released(tmp_path):
    stream = begun(tmp_path)
    step(stream)
    stream.invite(device_ids=FLEET, choose=lambda _: [3, 4, 5])
    stream.commit(total_of(1))
    take_over(tmp_path / "home", head=stream.entry.hash)
    assert stream.phase is StepPhase.COMMITTED
    with pytest.raises(StreamRefusedError, match="ended stream"):
        stream.charge(NOW)
    assert np.count_nonzero(open_home(tmp_path / "home").life_counts(FLEET).participations) == 6


def test_command_takes_a_home_over_only_with_its_newest_entry(tmp_path, capsys):
    stream = begun(tmp_path)
    step(stream)
    stream.close()
    shutil.copytree(tmp_path / "home", tmp_path / "moved")
    command = ("privacy", "ledger", "--home", str(tmp_path / "moved"), "--accept-moved")
    for more, code in (([], 2), (["--head", "ab" * 32], 5), (["--head", stream.entry.hash], 0)):
        assert code_of(*command, *more) == code
    assert "taken over; 1 streams" in capsys.readouterr().err


@pytest.mark.parametrize("delta", ["0.9", "1.1e-5", "0", "-1", "nan"])
def test_epsilon_is_told_at_a_delta_that_a_policy_may_have(tmp_path, delta, capsys):
    take_steps(open_home(tmp_path), "s", 1)
    assert code_of("privacy", "ledger", "--home", str(tmp_path), "--delta", delta) == 2
    assert "delta" in capsys.readouterr().err


def test_rebuilt_home_is_no_copy_of_itself(tmp_path):
    home = open_home(tmp_path)
    take_steps(home, "s", 2)
    for name in (COUNTS_FILE, HOME_FILE):
        (tmp_path / name).unlink()
    charge_everyone(tmp_path, head=home.entries[-1].hash)
    assert open_home(tmp_path).life_counts(["anybody"]).participations.tolist() == [2]
    shutil.copytree(tmp_path, tmp_path / "copy")
    with pytest.raises(HomeBrokenError, match="copied, moved"):
        open_home(tmp_path / "copy")
