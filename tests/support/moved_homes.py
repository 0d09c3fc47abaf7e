"""A copy of a privacy home, as if it had been made where it is: what tests may do alone."""

from pathlib import Path

from server.privacy_home import counts_file
from server.privacy_home.folder_origin import anchor_of, inode_of
from server.privacy_home.home_files import ANCHOR_FACT, COUNTS_FILE, HOME_FILE, INODE_FACT


def made_here(home: Path) -> Path:
    """Let a copy pass as the home itself; its streams go on."""
    with counts_file.transaction(home / COUNTS_FILE) as connection:
        counts_file.keep_fact(connection, ANCHOR_FACT, anchor_of(home / HOME_FILE))
        counts_file.keep_fact(connection, INODE_FACT, inode_of(home / COUNTS_FILE))
    return home
