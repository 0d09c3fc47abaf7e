"""The run folder: replaced when the new one is whole, and never otherwise."""

import os

import pytest

from simulations.demo.output_folder import OutputFolderError, replacing


def left_beside(out):
    return sorted(path.name for path in out.parent.iterdir() if path != out)


def old_run(out):
    out.mkdir(parents=True)
    (out / "report.json").write_text("old")
    (out / "old.txt").write_text("old")


def test_new_folder_appears_whole(tmp_path):
    out = tmp_path / "runs" / "demo"

    with replacing(out) as folder:
        (folder / "report.json").write_text("new")
        assert not out.exists()

    assert (out / "report.json").read_text() == "new"
    assert left_beside(out) == []


def test_old_run_is_replaced_with_all_that_was_in_it(tmp_path):
    out = tmp_path / "demo"
    old_run(out)

    with replacing(out) as folder:
        (folder / "report.json").write_text("new")

    assert sorted(path.name for path in out.iterdir()) == ["report.json"]
    assert left_beside(out) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_old_run_stays_where_the_new_one_fails(tmp_path, error):
    out = tmp_path / "demo"
    old_run(out)

    def run():
        with replacing(out) as folder:
            (folder / "report.json").write_text("half")
            raise error

    with pytest.raises(error):
        run()
    assert (out / "report.json").read_text() == "old"
    assert left_beside(out) == []


def test_folder_of_something_else_is_refused_untouched(tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter-1.txt").write_text("mine")

    with pytest.raises(OutputFolderError, match="no run of the demo"), replacing(out):
        pass

    assert (out / "chapter-1.txt").read_text() == "mine"


def test_file_in_the_way_is_refused(tmp_path):
    out = tmp_path / "demo"
    out.write_text("a file")

    with pytest.raises(OutputFolderError, match="is no folder"), replacing(out):
        pass


def test_place_that_cannot_be_written_is_an_outside_condition(tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "demo"

    with pytest.raises(OutputFolderError, match="cannot be written") as refusal, replacing(out):
        pass

    assert refusal.value.exit_code == 6


def test_leftovers_of_killed_runs_go_and_those_of_running_ones_stay(tmp_path):
    out = tmp_path / "demo"
    dead, alive = tmp_path / ".demo.99999999.new", tmp_path / f".demo.{os.getppid()}.new"
    dead.mkdir()
    alive.mkdir()

    with replacing(out) as folder:
        (folder / "report.json").write_text("new")

    assert left_beside(out) == [alive.name]


def test_run_that_was_killed_while_it_was_being_replaced_comes_back(tmp_path):
    out = tmp_path / "demo"
    old_run(tmp_path / ".demo.99999999.old")

    with pytest.raises(ValueError, match="stop"), replacing(out):
        raise ValueError("stop")

    assert (out / "report.json").read_text() == "old"
