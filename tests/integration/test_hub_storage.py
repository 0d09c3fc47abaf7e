"""The database: its revisions, its settings, and what its repositories keep."""

import sqlite3
import stat
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from importlib.util import find_spec

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.schema import CreateIndex, CreateTable

from privacy import PublicData, next_entry
from server.errors import (
    RegistryError,
    StorageDriverError,
    StorageError,
    StorageMissingError,
    StorageUnavailableError,
)
from server.registry import ModelState, admit, move
from server.storage import database as database_module
from server.storage.audit import AuditedDecision, AuditLine, AuditTrail
from server.storage.database import MIGRATIONS, open_database
from server.storage.dead_letters import DeadLetters
from server.storage.devices import Devices
from server.storage.model_versions import ModelVersions
from server.storage.notices import Notices
from server.storage.tables import dead_letters, metadata
from tests.support.wire_messages import notice, summary

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'hub.db'}"


@pytest.fixture
def database(url):
    with open_database(url) as opened:
        yield opened


def test_the_revisions_make_exactly_the_tables(database):
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == "0005"


def test_nobody_else_can_read_the_file_and_its_journals(database, tmp_path):
    with database.transaction() as connection:
        Devices(connection)
        modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()}

    assert modes == {"hub.db": 0o600, "hub.db-wal": 0o600, "hub.db-shm": 0o600}


def test_the_revisions_can_be_taken_back(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'hub.db'}")
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        command.downgrade(config, "base")
        left = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")

        assert [row[0] for row in left] == ["alembic_version"]


def test_the_revisions_ship_with_the_package():
    folder = files("server.storage.migrations")

    assert (folder / "env.py").is_file()
    assert (folder / "versions" / "0001_first_tables.py").is_file()
    assert (folder / "versions" / "0002_configurations.py").is_file()


def test_every_table_can_be_made_in_postgresql():
    dialect = postgresql.dialect()
    statements = [
        str(CreateTable(table).compile(dialect=dialect)) for table in metadata.tables.values()
    ]
    statements += [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in metadata.tables.values()
        for index in table.indexes
    ]

    assert len(statements) == 30
    assert any("BIGSERIAL" in statement for statement in statements)
    assert any("TIMESTAMP WITH TIME ZONE" in statement for statement in statements)


def test_sqlite_writes_ahead_keeps_what_it_says_and_checks_references(database):
    with database.transaction() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }

        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    with pytest.raises(IntegrityError), database.transaction() as connection:
        Notices(connection).add(notice(), model_version="1", reason_codes=[], now=NOW)


def test_opening_again_finds_what_was_kept(url):
    with open_database(url) as first, first.transaction() as connection:
        Devices(connection).seen("device-1", now=NOW)
        Devices(connection).keep_summary(summary(), now=NOW)

    with open_database(url, must_exist=True) as again, again.transaction() as connection:
        known = Devices(connection).get("device-1")

    assert (known.summary, known.summary_received_at, known.last_sequence) == (summary(), NOW, 1)


def test_a_transaction_is_kept_as_a_whole_or_not_at_all(database):
    def see_and_fail():
        with database.transaction() as connection:
            Devices(connection).seen("device-1", now=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        see_and_fail()

    with database.transaction() as connection:
        assert Devices(connection).count() == 0


def test_a_locked_database_is_unavailable_and_recovers(database, url, monkeypatch):
    monkeypatch.setattr(database_module, "LOCK_TIMEOUT_S", 0)
    with open_database(url) as impatient, database.transaction():
        with pytest.raises(StorageUnavailableError, match="locked") as refused:
            impatient.transaction().__enter__()
        assert refused.value.exit_code == 6
    with open_database(url) as impatient, impatient.transaction() as connection:
        assert Devices(connection).count() == 0


@pytest.mark.parametrize(
    ("made_url", "error", "what"),
    [
        ("nonsense", StorageError, "is no database URL"),
        ("sqlite:////nowhere/at/all/hub.db", StorageUnavailableError, "unable to open"),
        ("tape:///hub", StorageDriverError, "tape"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(made_url, error, what):
    with pytest.raises(error, match=what):
        open_database(made_url)


@pytest.mark.skipif(find_spec("psycopg") is not None, reason="psycopg is installed here")
def test_a_missing_driver_is_a_missing_part_and_no_password_is_shown():
    with pytest.raises(StorageDriverError, match="psycopg") as refused:
        open_database("postgresql+psycopg://hub:secret@host/hub")

    assert "secret" not in str(refused.value)
    assert refused.value.exit_code == 4


def test_a_database_that_must_exist_is_not_made(tmp_path, url):
    with pytest.raises(StorageMissingError, match="there is no such file"):
        open_database(url, must_exist=True)

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_something_else_is_left_alone(tmp_path, url):
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        connection.execute("CREATE TABLE reading (at INTEGER)")
    before = (tmp_path / "hub.db").read_bytes()

    with pytest.raises(StorageError, match="holds tables of something else"):
        open_database(url)

    assert (tmp_path / "hub.db").read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(tmp_path, url):
    (tmp_path / "hub.db").write_text("a letter to a friend, long enough to be no empty file" * 9)

    with pytest.raises(StorageError, match="not a database"):
        open_database(url)


def test_a_database_of_a_later_version_is_refused(database, url):
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(StorageError, match="9999"):
        open_database(url)


def test_times_come_back_in_utc_and_naive_ones_are_refused(database):
    somewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    with database.transaction() as connection:
        Devices(connection).seen("device-1", now=somewhere)
        Devices(connection).recheck("device-1", at=somewhere)

        assert Devices(connection).due_for_recheck(now=NOW, limit=9) == ("device-1",)
        assert Devices(connection).due_for_recheck(now=NOW - timedelta(seconds=1), limit=9) == ()
    with pytest.raises(StatementError, match="aware"), database.transaction() as connection:
        Devices(connection).seen("device-2", now=NOW.replace(tzinfo=None))


def test_the_audit_trail_offers_no_way_to_change_a_line(database):
    line = AuditLine(at=NOW, device_id="d", decision=AuditedDecision.SENT, reason_code="flagged")
    with database.transaction() as connection:
        trail = AuditTrail(connection)
        trail.append(line)

        assert trail.of_device("d") == (line,)
        assert trail.of_device("e") == ()
    assert {name for name in vars(AuditTrail) if not name.startswith("_")} == {
        "connection",
        "append",
        "of_device",
        "count_by_reason",
    }


def test_a_dead_letter_keeps_no_content(database):
    with database.transaction() as connection:
        DeadLetters(connection).add(
            reason="not_json",
            detail="x" * 999,
            topic="a\0b\ud800" + "c" * 999,
            payload=b"secret",
            now=NOW,
        )
        row = connection.execute(select(dead_letters)).one()

    assert (row.payload_bytes, len(row.detail), len(row.topic)) == (6, 256, 256)
    assert row.payload_sha256 == "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    assert "secret" not in str(row)
    assert row.topic.startswith("a\N{REPLACEMENT CHARACTER}b?c")


def test_the_registry_keeps_a_model_through_its_life(database):
    public = next_entry(None, PublicData(sources=("cells",)), kind="public", at=NOW)
    facts = {"ledger_entry": public.reference(), "ledger": [public], "now": NOW}
    model = admit(version="2", digest="ab" * 32, **facts)
    released = move(model, ModelState.RELEASED, now=NOW + timedelta(days=1))
    with database.transaction() as connection:
        registry = ModelVersions(connection)
        registry.add(model)
        registry.add(model)
        registry.keep_state(released)

        assert registry.all() == (released,)
        assert registry.get("3") is None
        other = admit(version="2", digest="cd" * 32, **facts)
        with pytest.raises(RegistryError, match="another digest"):
            registry.add(other)


def test_rows_of_no_device_are_refused(database):
    with pytest.raises(IntegrityError), database.transaction() as connection:
        connection.execute(
            insert(metadata.tables["outbox"]).values(
                message_id="0" * 32,
                device_id="nobody",
                topic="t",
                payload=b"",
                attempts=0,
                expires_at=NOW,
            )
        )
