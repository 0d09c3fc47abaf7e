import pytest

from edge_client.errors import StoreDamagedError, StoreKeyError
from edge_client.store.row_cipher import PlainRows, SealedRows, key_from_file, key_id, read_key

KEY = bytes(range(32))


@pytest.fixture
def rows(tmp_path):
    return SealedRows(tmp_path / "device.db", KEY)


def test_sealed_value_opens_in_its_place_alone(rows):
    sealed = rows.seal(b"figures", "reading", 7, 1_700_000_000)
    assert b"figures" not in sealed
    assert len(sealed) == len(b"figures") + 28
    assert rows.open(sealed, "reading", 7, 1_700_000_000) == b"figures"
    for place in [("reading", 8, 1_700_000_000), ("reading", 7, 1_700_000_001), ("day", 7)]:
        with pytest.raises(StoreDamagedError, match=r"a row of \w+ does not verify"):
            rows.open(sealed, *place)


def test_same_value_is_never_sealed_alike(rows):
    assert len({rows.seal(b"same", "day", 1)[:12] for _ in range(100)}) == 100


@pytest.mark.parametrize("bit", [0, 95, 96, 130, 255, 300])
def test_flipped_bit_is_found(rows, bit):
    sealed = bytearray(rows.seal(b"figures...", "day", 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StoreDamagedError):
        rows.open(bytes(sealed), "day", 1)


@pytest.mark.parametrize("stored", [None, "text", 7, b"", b"short"])
def test_what_is_no_sealed_value_is_damage(rows, stored):
    with pytest.raises(StoreDamagedError):
        rows.open(stored, "day", 1)
    if not isinstance(stored, bytes):
        with pytest.raises(StoreDamagedError):
            PlainRows("device.db").open(stored, "day", 1)


@pytest.mark.parametrize("rows", [PlainRows("device.db"), SealedRows("device.db", KEY)])
def test_proof_holds_for_its_row_alone(rows):
    proof = rows.proof("consent", "training", 0, 1_700_000_000)
    rows.check(proof, "consent", "training", 0, 1_700_000_000)
    for other in [("training", 1, 1_700_000_000), ("notices", 0, 1_700_000_000), (b"\xff", 0, 0)]:
        with pytest.raises(StoreDamagedError):
            rows.check(proof, "consent", *other)
    with pytest.raises(StoreDamagedError):
        rows.check(None, "consent", "training", 0, 1_700_000_000)


def test_proof_in_the_clear_stays_what_it_is():
    """Stores in the field carry it."""
    rows = PlainRows("device.db")
    assert rows.proof("consent", "training", 1, 1_700_000_000) == 2254600141
    assert rows.proof("fact", "language", '"de"') == 1085322550


def test_name_of_a_key_stays_what_it_is():
    """Stores in the field carry it."""
    assert key_id(KEY).hex() == "f96954b6ce90989a01bf2e11c58f9eca"


@pytest.mark.parametrize("content", [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n"])
def test_key_file_is_raw_or_hexadecimal(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    assert key_from_file(file)() == KEY


@pytest.mark.parametrize(
    "content", [b"", KEY[:31], KEY + b"\n", b"zz" * 32, KEY.hex().encode()[:62]]
)
def test_other_key_files_are_refused_by_name(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(StoreKeyError, match=f"{file}: holds no key of 32 raw bytes"):
        key_from_file(file)()


def test_key_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreKeyError, match="cannot be read: No such file") as refused:
        key_from_file(tmp_path / "none")()
    assert refused.value.exit_code == 4


@pytest.mark.parametrize("key", [None, lambda: b"", lambda: "x" * 32])
def test_what_is_no_key_is_refused(tmp_path, key):
    with pytest.raises(StoreKeyError):
        read_key(tmp_path / "device.db", key)
