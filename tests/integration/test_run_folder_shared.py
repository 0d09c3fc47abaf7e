"""No start and no resume that fails takes anything from a run, whoever runs it."""

import numpy as np
import pytest

from privacy import OperatingSystemNoise
from server.engine.server_optimizer import OptimizerState
from server.privacy_home.privacy_errors import HomeMissingError, HomeUnavailableError
from server.runs.folder import RunFolder
from server.streams.stream_files import lock_stream
from server.streams.stream_state import begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys
from tests.support.federated_rounds import config_of

DEVICES = [f"BT-{number}" for number in range(12)]
CONFIG = config_of(stream="run-a", epsilon=2.0, num_rounds=4)
TERMS = CONFIG.terms(CONFIG.schedule(len(DEVICES)))


def begun(held):
    """The stream of a run, as its process begins it."""
    stream = begin_stream(
        held.path,
        held.home,
        TERMS,
        start=OptimizerState.start(np.zeros(3, np.float32)),
        keys=OperatingSystemKeys(),
        source=OperatingSystemNoise(),
        lock=held.hand_over_lock(),
    )
    held.save_report({"status": "running", "rounds": []})
    return stream


def invites(stream):
    return stream.invite(
        device_ids=DEVICES, choose=lambda _: np.arange(CONFIG.cohort_size, dtype=np.intp)
    )


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_second_start_into_the_same_folder_is_refused_before_it_writes_anything(tmp_path):
    home = tmp_path / "home"
    live = RunFolder(tmp_path / "run", home=home, command={"rounds": 4})
    before = content_of(tmp_path / "run")
    with pytest.raises(HomeUnavailableError, match="run by another process"):
        RunFolder(tmp_path / "run", home=home, command={"rounds": 99})
    assert content_of(tmp_path / "run") == before

    stream = begun(live)
    invites(stream)
    stream.close()
    assert RunFolder(tmp_path / "run", home=home, is_resumed=True).is_resumed


def test_resume_of_a_live_run_that_invited_nobody_yet_takes_nothing_from_it(tmp_path):
    stream = begun(RunFolder(tmp_path, command={}))
    before = content_of(tmp_path)
    with pytest.raises(HomeUnavailableError, match="run by another process"):
        RunFolder(tmp_path, is_resumed=True)
    assert content_of(tmp_path) == before
    assert len(invites(stream)) == CONFIG.cohort_size


def test_resume_makes_no_home_where_a_disk_is_not_mounted(tmp_path):
    run, home = tmp_path / "run", tmp_path / "disk" / "home"
    stream = begun(RunFolder(run, home=home, command={}))
    invites(stream)
    stream.close()
    before = content_of(run)
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    (tmp_path / "disk").mkdir()

    with pytest.raises(HomeMissingError, match="mount its disk"):
        RunFolder(run, home=home, is_resumed=True)
    assert not home.exists()
    assert content_of(run) == before

    (tmp_path / "disk").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "disk")
    assert RunFolder(run, home=home, is_resumed=True).is_resumed


def test_resume_of_a_run_that_was_killed_before_it_began_makes_no_shared_home(tmp_path):
    run = tmp_path / "run"
    RunFolder(run, home=tmp_path / "home", command={"rounds": 4}).close()
    (tmp_path / "home").rename(tmp_path / "unmounted")
    with pytest.raises(HomeMissingError):
        RunFolder(run, home=tmp_path / "home", is_resumed=True)
    assert not (tmp_path / "home").exists()
    assert (run / "command.json").exists()


def test_resume_that_fails_discards_nothing_of_a_home_that_does_not_know_the_stream(tmp_path):
    run = tmp_path / "run"
    stream = begun(RunFolder(run, command={}))
    invites(stream)
    stream.close()
    RunFolder(tmp_path / "another run", home=tmp_path / "wrong home").close()
    before = content_of(run)

    held = RunFolder(run, home=tmp_path / "wrong home", is_resumed=True)
    with pytest.raises(Exception, match="run"):
        resume_stream(run, held.home, TERMS, keys=OperatingSystemKeys(), lock=held.hand_over_lock())
    held.discard_unless_begun(CONFIG.stream)
    assert content_of(run) == before


def test_start_that_fails_leaves_a_run_that_another_process_took_up_meanwhile(tmp_path):
    failed = RunFolder(tmp_path, command={})
    begun(failed).close()
    lock = lock_stream(tmp_path)
    before = content_of(tmp_path)
    failed.discard_unless_begun(CONFIG.stream)
    assert content_of(tmp_path) == before
    assert lock >= 0


def test_start_that_fails_once_somebody_may_have_been_invited_leaves_everything(tmp_path):
    held = RunFolder(tmp_path / "run", home=tmp_path / "home", command={})
    stream = begun(held)
    invites(stream)
    stream.close()
    (tmp_path / "run" / "step.json").unlink()
    before = content_of(tmp_path / "run")
    held.discard_unless_begun(CONFIG.stream)
    assert content_of(tmp_path / "run") == before


def test_lock_that_was_removed_with_a_run_that_never_began_is_held_by_nobody(tmp_path):
    failed = RunFolder(tmp_path / "run", command={})
    failed.discard_unless_begun("run-a")
    assert [*content_of(tmp_path / "run")] == ["home.lock"]
    again = RunFolder(tmp_path / "run", command={})
    with pytest.raises(HomeUnavailableError):
        RunFolder(tmp_path / "run", is_resumed=True)
    assert not again.is_resumed
