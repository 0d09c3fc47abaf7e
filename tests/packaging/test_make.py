"""What the machine lacks is said in one line with a remedy, before anything is made."""

import os
import subprocess

from tests.support.system_parts import REPOSITORY

# Of the make that runs these tests.
OUTER_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON")


def make(*arguments):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name not in OUTER_MAKE},
        check=False,
        capture_output=True,
        text=True,
    )


def test_machine_without_python_is_told_what_to_install(tmp_path):
    answer = make("venv", "PYTHON=", f"VENV={tmp_path / 'venv'}")

    assert answer.returncode != 0
    assert answer.stdout == ""
    first, *rest = answer.stderr.splitlines()
    assert first == (
        "fedcell needs Python 3.11 or newer with venv; Debian: apt-get install python3 python3-venv"
    )
    assert all(line.startswith("make: ***") for line in rest)
    assert not (tmp_path / "venv").exists()


def test_index_that_cannot_be_reached_is_one_line_after_pips_own(tmp_path):
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'pip: no network' >&2\nexit 1\n")
    python.chmod(0o755)

    answer = make("venv", f"VENV={environment}")

    assert answer.returncode != 0
    assert "is the package index reachable?" in answer.stderr
    assert not (environment / "installed").exists()


def test_bare_make_only_lists(tmp_path):
    answer = make(f"VENV={tmp_path / 'venv'}")

    assert answer.returncode == 0
    assert answer.stderr == ""
    assert [line.split()[:2] for line in answer.stdout.splitlines()] == [
        ["make", target] for target in ("help", "demo", "test", "check", "bench", "soak", "fix")
    ]
    assert not (tmp_path / "venv").exists()
