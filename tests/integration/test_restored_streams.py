"""Files put back so that nothing shows it: noise never repeats; and what does show is refused."""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from privacy import OperatingSystemNoise, UpdateGrid
from privacy.banded_factor import band_coefficients
from server.privacy_home.home_repair import take_over
from server.privacy_home.privacy_errors import HomeBrokenError, StreamRefusedError
from server.privacy_home.privacy_ledger import COUNTS_FILE, open_home
from server.streams import stream_opening
from server.streams.stream_files import read_checkpoint
from server.streams.stream_key import KEY_FILE, read_secrets
from server.streams.stream_state import StepPhase, begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys
from tests.support.moved_homes import made_here
from tests.support.stream_crashes import DEVICES, NOW, SEPARATION, start, terms_of, total_of

GOLDEN = Path(__file__).parents[1] / "golden" / "stream_v1"
TERMS = terms_of("stream", 6)
KEYS = OperatingSystemKeys()


def begun(folder):
    return begin_stream(
        folder,
        open_home(folder),
        TERMS,
        start=start(),
        keys=KEYS,
        source=OperatingSystemNoise(),
    )


def resumed(folder):
    stream, _ = resume_stream(folder, open_home(folder), TERMS, keys=KEYS)
    return stream


def release(stream, total, *, state=None):
    """Release the next step, up to its checkpoint, and that too where a state is to be kept.

    Args:
        stream: between two steps.
        total: its sum; None for noise alone.
        state: to keep.
    """
    index = stream.next_index
    cohort = [3 * (index % SEPARATION) + number for number in range(3)]
    stream.invite(device_ids=DEVICES, choose=lambda _: cohort)
    stream.commit(total_of(0) if total is None else total, noise_only=total is None)
    stream.charge(NOW)
    released = stream.release()
    if state is not None:
        stream.checkpoint(state, released=released)
    return released


def rewind(backup, folder):
    """Put changed files back in place, and leave alone what did not change: no file is another."""
    for path in folder.iterdir():
        old = backup / path.name
        if not old.exists():
            path.unlink()
        elif path.read_bytes() != old.read_bytes():
            path.write_bytes(old.read_bytes())


def test_rewound_stream_that_nothing_tells_meets_another_sum_with_other_noise(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    stream = begun(folder)
    shutil.copytree(folder, tmp_path / "backup")
    first = release(stream, total_of(0))
    stream.close()

    rewind(tmp_path / "backup", folder)
    second = release(resumed(folder), np.zeros_like(total_of(0)))
    exact = 0.9 / TERMS.cohort_size
    distance = np.linalg.norm(first - second)
    noise = TERMS.privacy.noise_multiplier / TERMS.cohort_size * len(first) ** 0.5
    assert distance > 0.5 * 2**0.5 * noise > 2 * exact


@pytest.mark.parametrize("steps_alike", [1, SEPARATION])
def test_steps_that_are_alike_after_a_rewind_do_not_lay_open_the_one_that_differs(
    tmp_path, steps_alike
):
    """w_t holds earlier w, so equal z after the step that differs would give its noise away."""
    folder = tmp_path / "run"
    folder.mkdir()
    stream = begun(folder)
    shutil.copytree(folder, tmp_path / "backup")
    one = total_of(0)

    def life(stream, total):
        releases = [release(stream, total, state=start())]
        releases += [release(stream, None, state=start()) for _ in range(steps_alike)]
        stream.close()
        return np.array(releases)

    first_life = life(stream, one)
    rewind(tmp_path / "backup", folder)
    first, *after = first_life - life(resumed(folder), np.zeros_like(one))

    grid = UpdateGrid(clipping_norm=TERMS.clipping_norm)
    wanted = grid.restore(one) / TERMS.cohort_size
    c = band_coefficients(SEPARATION)
    # (w_0 − w'_0) as each later step alone would give it, if z were equal there in both lives.
    recovered = first + after[0] * (c[0] / c[1])
    noise = TERMS.privacy.noise_multiplier / TERMS.cohort_size * len(first) ** 0.5
    assert np.linalg.norm(recovered - wanted) > noise
    assert all(np.linalg.norm(step) > noise for step in after)


def test_equal_sums_committed_in_two_lives_meet_different_noise(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    stream = begun(folder)
    shutil.copytree(folder, tmp_path / "backup")
    first = release(stream, total_of(0))
    stream.close()

    rewind(tmp_path / "backup", folder)
    assert not np.array_equal(release(resumed(folder), total_of(0)), first)


def test_sum_that_was_committed_meets_the_same_noise_again_bit_for_bit(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    stream = begun(folder)
    first = release(stream, total_of(0))
    stream.close()
    again = resumed(folder)
    assert again.phase is StepPhase.CHARGED
    assert np.array_equal(again.release(), first)


def test_each_opening_changes_the_key_file_so_that_a_careful_restore_is_told(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    begun(folder).close()
    shutil.copytree(folder, tmp_path / "backup")
    stream = resumed(folder)
    release(stream, total_of(0))
    stream.close()

    rewind(tmp_path / "backup", folder)
    with pytest.raises(StreamRefusedError, match="copied or put back from a backup"):
        resumed(folder)


def test_counts_that_a_restore_replaced_by_a_new_file_are_told(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    stream = begun(folder)
    shutil.copytree(folder, tmp_path / "backup")
    release(stream, total_of(0))
    newest = stream.entry.hash
    stream.close()
    for path in folder.iterdir():
        old = tmp_path / "backup" / path.name
        if not old.exists():
            path.unlink()
        elif path.read_bytes() != old.read_bytes():
            aside = folder / "aside"
            aside.write_bytes(old.read_bytes())
            aside.replace(path)

    with pytest.raises(HomeBrokenError, match="put back from a backup"):
        resumed(folder)
    with pytest.raises(HomeBrokenError, match="does not end with an entry"):
        take_over(folder, head=newest)


@pytest.mark.parametrize("crash", ["rewrite_secrets", "note_first_opening"])
def test_opening_that_a_crash_cut_in_two_is_opened_again(tmp_path, monkeypatch, crash):
    folder = tmp_path / "run"
    folder.mkdir()
    stream = begun(folder)
    first = release(stream, total_of(0))
    stream.close()
    with monkeypatch.context() as patch:

        def die(*_args, **_options):
            raise KeyboardInterrupt

        patch.setattr(stream_opening, crash, die)
        with pytest.raises(KeyboardInterrupt):
            resumed(folder)
    generation = read_secrets(folder / KEY_FILE, operator=None).generation
    assert np.array_equal(resumed(folder).release(), first)
    assert read_secrets(folder / KEY_FILE, operator=None).generation != generation


def test_stream_of_yesterday_keeps_the_noise_it_released_and_binds_what_comes(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(GOLDEN, folder)
    (folder / KEY_FILE).chmod(0o600)
    made_here(folder)
    found = (folder / KEY_FILE).stat()
    with sqlite3.connect(folder / COUNTS_FILE) as counts:
        anchor = f"{found.st_ino}:{found.st_ctime_ns}"
        counts.execute("UPDATE streams SET anchor = ?", (anchor,))
    counts.close()

    released = json_floats(folder / "released.json")
    stream = resumed(folder)
    assert read_secrets(folder / KEY_FILE, operator=None).bound_from == 2
    assert (stream.phase, stream.next_index) == (StepPhase.CHARGED, 1)
    assert stream.release().tolist() == released[1]
    stream.checkpoint(start())
    third = release(stream, total_of(2))
    stream.close()
    assert np.array_equal(resumed(folder).release(), third)
    assert read_checkpoint(folder).index == 1


def json_floats(path):
    return [[float.fromhex(value) for value in step] for step in json.loads(path.read_text())]
