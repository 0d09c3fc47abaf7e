"""Tables come in with checks and go out whole or not at all."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import DatasetError
from models.parquet_tables import (
    Column,
    Kind,
    TableWriter,
    read_table,
    rows_of,
    write_table,
)

COLUMNS = {
    "name": Column(Kind.TEXT, nullable=False),
    "size": Column(Kind.NUMBER),
    "at": Column(Kind.TIME, required=False),
    "good": Column(Kind.FLAG, required=False),
}
KINDS = {name: column.kind for name, column in COLUMNS.items()}
ROWS = {
    "name": np.array(["a", "b"], dtype=object),
    "size": np.array([1.5, np.nan]),
    "at": np.array([86_400.25, np.nan]),
    "good": np.array([True, None], dtype=object),
}


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_a_table_comes_back_as_it_went_in(tmp_path):
    write_table(tmp_path / "t.parquet", ROWS, KINDS)
    found = read_table(tmp_path / "t.parquet", COLUMNS)

    assert found["name"].tolist() == ["a", "b"]
    assert found["good"].tolist() == [True, None]
    assert found["size"] == pytest.approx([1.5, np.nan], nan_ok=True)
    assert found["at"] == pytest.approx([86_400.25, np.nan], nan_ok=True)
    assert pq.read_schema(tmp_path / "t.parquet").names == list(COLUMNS)


def test_parts_in_a_folder_are_read_in_the_order_of_their_names(tmp_path):
    for number, name in ((2, "b.parquet"), (1, "a.parquet"), (3, "c.parquet")):
        write(tmp_path / name, name=[str(number)], size=[float(number)])
    (tmp_path / "notes.txt").write_text("no part")

    assert read_table(tmp_path, COLUMNS)["size"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([86_400], pa.timestamp("s")),
        pa.array([86_400_000], pa.timestamp("ms", tz="UTC")),
        pa.array([86_400 * 10**9], pa.timestamp("ns")),
        pa.array([dt.datetime(1970, 1, 2, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))]),
        pa.array([dt.date(1970, 1, 2)]),
    ],
    ids=["naive", "UTC", "nanoseconds", "zone", "date"],
)
def test_times_of_any_unit_and_zone_are_the_same_moment(tmp_path, times):
    path = write(tmp_path / "t.parquet", name=["a"], size=[1.0], at=times)

    assert read_table(path, COLUMNS)["at"].tolist() == [86_400]


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        (pa.array([0, 11_171_347_200_000_000], pa.timestamp("us", tz="UTC")), "2324-01-0"),
        (pa.array([0, 11_171_347_200], pa.timestamp("s")), "2324-01-0"),
        (pa.array([0, 2**62], pa.timestamp("ms")), "146140482"),
        (pa.array([0, -(10**13)], pa.timestamp("ms")), "1653-02-10"),
        (pa.array([None, dt.date(9999, 1, 1)]), "9999-01-01"),
    ],
    ids=["microseconds", "seconds", "no year", "early", "date"],
)
def test_times_beyond_the_years_that_fit_are_named_and_nothing_is_called_damaged(
    tmp_path, times, shown
):
    path = write(tmp_path / "t.parquet", name=["a", "b"], size=[1.0, 2.0], at=times)

    with pytest.raises(DatasetError, match=f"holds the time {shown}.* in row 1; .* 1685 to 2254"):
        read_table(path, COLUMNS)


def test_a_time_of_nulls_alone_has_no_values(tmp_path):
    path = write(tmp_path / "t.parquet", name=["a"], size=[1.0], at=pa.nulls(1))

    assert np.isnan(read_table(path, COLUMNS)["at"]).all()


@pytest.mark.parametrize(
    "sizes",
    [
        pa.array([3], pa.int8()),
        pa.array([3], pa.uint64()),
        pa.array([3.0], pa.float32()),
        pa.array([3], pa.decimal128(9, 2)),
    ],
    ids=str,
)
def test_numbers_of_any_width_are_numbers(tmp_path, sizes):
    path = write(tmp_path / "t.parquet", name=["a"], size=sizes)

    assert read_table(path, COLUMNS)["size"].tolist() == [3]


def test_integers_beyond_exact_numbers_are_rounded_not_refused(tmp_path):
    path = write(tmp_path / "t.parquet", name=["a"], size=pa.array([2**60 + 1], pa.int64()))

    assert read_table(path, COLUMNS)["size"].tolist() == [2.0**60]


@pytest.mark.parametrize(
    "names",
    [
        pa.array(["x"], pa.large_string()),
        pa.array(["x"]).dictionary_encode(),
    ],
    ids=["large", "dictionary"],
)
def test_text_of_any_encoding_is_text(tmp_path, names):
    assert read_table(write(tmp_path / "t.parquet", name=names, size=[1]), COLUMNS)["name"] == ["x"]


def test_a_column_of_nulls_alone_is_a_column_without_values(tmp_path):
    path = write(tmp_path / "t.parquet", name=["a"], size=pa.nulls(1), good=pa.nulls(1))
    found = read_table(path, COLUMNS)

    assert np.isnan(found["size"]).all()
    assert found["good"].tolist() == [None]


def test_foreign_names_are_mapped_also_with_dots_and_spaces(tmp_path):
    path = write(tmp_path / "t.parquet", **{"dev.name": ["a"], "Size [mAh]": [2.0]})
    found = read_table(path, COLUMNS, renamed={"dev.name": "name", "Size [mAh]": "size"})

    assert (found["name"].tolist(), found["size"].tolist()) == (["a"], [2])


REFUSED = {
    "unknown column": ({"name": ["a"], "size": [1], "colour": ["red"]}, "unknown column 'colour'"),
    "missing column": ({"size": [1]}, "column name is missing"),
    "number as text": ({"name": ["a"], "size": ["1"]}, "column size is of type string"),
    "text as number": ({"name": [1], "size": [1]}, "column name is of type int64"),
    "time as text": ({"name": ["a"], "size": [1], "at": ["2026"]}, "column at is of type string"),
    "time as number": ({"name": ["a"], "size": [1], "at": [1]}, "column at is of type int64"),
    "flag as number": ({"name": ["a"], "size": [1], "good": [1]}, "column good is of type int64"),
    "list": ({"name": ["a"], "size": [[1]]}, "column size is of type list"),
    "null": ({"name": ["a", None], "size": [1, 2]}, "column name is null in row 1"),
}


@pytest.mark.parametrize(("columns", "message"), REFUSED.values(), ids=REFUSED)
def test_tables_that_do_not_fit_are_refused_with_file_column_and_remedy(tmp_path, columns, message):
    path = write(tmp_path / "t.parquet", **columns)

    with pytest.raises(DatasetError, match=message) as refused:
        read_table(path, COLUMNS)
    assert str(refused.value).startswith(f"{path}: ")
    assert "; " in str(refused.value)
    assert refused.value.exit_code == 3


def test_columns_that_are_there_twice_are_refused(tmp_path):
    table = pa.table(
        [pa.array(["a"]), pa.array([1]), pa.array([2])], names=["name", "size", "size"]
    )
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match="size is there twice"):
        read_table(tmp_path / "t.parquet", COLUMNS)

    path = write(tmp_path / "m.parquet", name=["a"], size=[1], width=[2])
    with pytest.raises(DatasetError, match="two columns map to the same name"):
        read_table(path, COLUMNS, renamed={"width": "size"})


def test_parts_of_different_columns_are_refused(tmp_path):
    write(tmp_path / "a.parquet", name=["a"], size=[1.0], good=[True])
    write(tmp_path / "b.parquet", name=["a"], size=[1.0])

    with pytest.raises(DatasetError, match="column good is missing in some parts"):
        read_table(tmp_path, COLUMNS)


def test_no_file_no_bytes_no_parts_and_no_parquet_are_told_apart(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("name,size\na,1\n")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("missing", "no such file"),
        ("empty", "0 bytes"),
        ("text", "not a readable Parquet file"),
        ("folder", r"holds no \.parquet part"),
    ):
        with pytest.raises(DatasetError, match=message):
            read_table(tmp_path / name, COLUMNS)


def test_a_file_cut_off_or_damaged_anywhere_is_refused_or_read(tmp_path):
    """Parquet pages carry no checksum by default: a changed value may pass, nothing else may."""
    path = tmp_path / "t.parquet"
    write_table(path, {n: np.repeat(v, 50) for n, v in ROWS.items()}, KINDS)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for length in (1, 4, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetError):
            read_table(path, COLUMNS)
    refused = 0
    for place in rng.integers(4, len(whole) - 8, 300):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_table(path, COLUMNS)
        except DatasetError:
            refused += 1
    assert refused > 20


def test_a_table_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, ROWS, KINDS)
    before = path.read_bytes()
    for interruption in (KeyboardInterrupt, RuntimeError):

        def write_and_stop(error):
            with TableWriter(path, KINDS) as writer:
                writer.write(ROWS)
                assert len(list(tmp_path.iterdir())) == 2
                raise error

        with pytest.raises(interruption):
            write_and_stop(interruption)

        assert path.read_bytes() == before
        assert [found.name for found in tmp_path.iterdir()] == ["t.parquet"]


def test_rows_that_cannot_be_written_leave_nothing_behind(tmp_path):
    with pytest.raises(KeyError):
        write_table(tmp_path / "t.parquet", {"name": ROWS["name"]}, KINDS)

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_at_the_end_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.parquet_tables.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(tmp_path / "t.parquet", ROWS, KINDS)

    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("here")
    for path in (tmp_path, tmp_path / "file" / "t.parquet"):
        with pytest.raises(DatasetError, match="cannot be written"):
            write_table(path, ROWS, KINDS)

    assert [found.name for found in tmp_path.parent.glob(".*.part")] == []


def test_positions_of_identifiers():
    codes = np.array(["b", "x", "a", "b"], dtype=object)

    assert rows_of(("a", "b"), codes).tolist() == [1, -1, 0, 1]
