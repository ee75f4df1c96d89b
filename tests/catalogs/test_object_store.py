"""The object store against a real server, as it is and behind a proxy that fails."""

import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.object_server import SECRET_KEY, FaultyProxy, ObjectServer

from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.object_store import ObjectStore, S3Location, parse_s3, read_credentials

CONTENT = bytes(range(256)) * 12_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    found = ObjectServer(tmp_path_factory.mktemp("server"))
    found.start()
    found.client().create_bucket(Bucket="things")
    found.client().put_object(Bucket="things", Key="a/large", Body=CONTENT)
    yield found
    found.stop()


@pytest.fixture
def store(server: ObjectServer, tmp_path: Path) -> ObjectStore:
    return ObjectStore(server.credentials(tmp_path / "good.secret"))


AT = parse_s3("s3://things/a")


def test_what_is_put_is_listed_headed_read_and_deleted(store: ObjectStore) -> None:
    for name in ("b/2", "b/1", "b/ü mlaut+"):
        store.put(AT / name, name.encode())
    found = list(store.list(AT / "b/"))
    assert [one.key for one in found] == ["a/b/1", "a/b/2", "a/b/ü mlaut+"]
    assert store.head(AT / "b/1") == found[0]
    assert store.read(AT / "b/ü mlaut+") == "b/ü mlaut+".encode()
    store.delete(AT / "b/1")
    assert store.head(AT / "b/1") is None


def test_ranges_and_downloads_give_the_bytes(store: ObjectStore, tmp_path: Path) -> None:
    assert store.read_range(AT / "large", 1_000, 70_000) == CONTENT[1_000:70_000]
    store.download(AT / "large", tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.secret", "here"]
    store.upload(tmp_path / "here", AT / "copy")
    assert store.read(AT / "copy") == CONTENT


def test_a_large_file_goes_up_in_pieces_with_its_hash(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_catalogs.object_store.PIECE_BYTES", 5 << 20)
    content = CONTENT * 4
    for name, written in (("small", b"x"), ("large", content)):
        (tmp_path / name).write_bytes(written)
        store.upload_hashed(tmp_path / name, AT / f"hashed/{name}", content_hash=f"hash of {name}")
        assert store.read(AT / f"hashed/{name}") == written
        assert store.stored_hash(AT / f"hashed/{name}") == f"hash of {name}"
    assert next(store.list(AT / "hashed/")).etag.endswith("-3"), "in three pieces"
    assert store.stored_hash(AT / "hashed/none") is None
    assert store.stored_hash(AT / "large") == "", "put without one"


def test_only_the_first_put_if_absent_counts(store: ObjectStore) -> None:
    store.delete(AT / "marker")
    assert store.put_if_absent(AT / "marker", b"first")
    assert not store.put_if_absent(AT / "marker", b"second")
    assert store.read(AT / "marker") == b"first"


def test_an_object_that_changed_since_it_was_listed_is_named(store: ObjectStore) -> None:
    store.put(AT / "changing", b"one")
    found = store.head(AT / "changing")
    assert found is not None
    store.put(AT / "changing", b"two")
    with pytest.raises(DataError, match=r"s3://things/a/changing: has changed since it was listed"):
        store.read(AT / "changing", etag=found.etag)


def test_a_store_crosses_to_other_processes_without_its_client(store: ObjectStore) -> None:
    store.head(AT / "large")
    assert pickle.loads(pickle.dumps(store)).read_range(AT / "large", 0, 3) == CONTENT[:3]
    assert SECRET_KEY.encode() not in pickle.dumps(store)


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_failing_requests_and_cut_bodies_do_no_harm(server: ObjectServer, tmp_path: Path, fault: str) -> None:
    proxy = FaultyProxy(server.port, fault=fault)
    try:
        store = ObjectStore(server.credentials(tmp_path / "proxy.secret", url=proxy.url))
        for number in range(8):
            store.download(AT / "large", tmp_path / f"copy-{number}")
            assert (tmp_path / f"copy-{number}").read_bytes() == CONTENT
    finally:
        proxy.close()
    assert proxy.num_faults >= 2


def test_what_cannot_pass_is_said_once_with_bucket_key_and_no_secret(server: ObjectServer, tmp_path: Path) -> None:
    good = ObjectStore(server.credentials(tmp_path / "good.secret"))
    wrong = ObjectStore(server.credentials(tmp_path / "wrong.secret", secret="not-the-planted-secret"))
    refusals = [
        (good, S3Location(bucket="nowhere", key="a"), DataError | StorageError, "nowhere"),
        (good, AT / "missing", DataError, "s3://things/a/missing: there is no such object"),
        (wrong, AT / "large", StorageError, r"not allowed \(SignatureDoesNotMatch\).*wrong.secret"),
    ]
    for store, at, kind, message in refusals:
        began = time.monotonic()
        with pytest.raises((DataError, StorageError), match=message) as refusal:
            store.read(at)
        assert isinstance(refusal.value, kind)
        assert time.monotonic() - began < 5
        assert "secret-key" not in str(refusal.value) and "not-the-planted" not in str(refusal.value)
    with pytest.raises(StorageError, match="there is no bucket 'nowhere'"):
        list(good.list(S3Location(bucket="nowhere", key="")))


def test_credentials_that_are_none_are_refused_without_showing_them(tmp_path: Path) -> None:
    path = tmp_path / "odd.secret"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_credentials(path)
    for text in (SECRET_KEY, f'["{SECRET_KEY}"]', f'{{"aws_secret_access_key": ["{SECRET_KEY}"]}}'):
        path.write_text(text)
        with pytest.raises(ConfigError) as refusal:
            read_credentials(path)
        assert SECRET_KEY not in str(refusal.value)
    path.write_text(f'{{"no_such_setting": "{SECRET_KEY}"}}')
    with pytest.raises(ConfigError, match="no S3 client can be made") as refusal:
        ObjectStore(str(path)).read(AT)
    assert SECRET_KEY not in str(refusal.value)


@pytest.mark.slow
def test_a_server_that_is_away_for_ten_seconds_does_no_harm(server: ObjectServer, tmp_path: Path) -> None:
    store = ObjectStore(server.credentials(tmp_path / "good.secret"))
    server.stop()
    back = threading.Timer(10, server.start)
    back.start()
    try:
        store.download(AT / "large", tmp_path / "copy")
    finally:
        back.join()
    assert (tmp_path / "copy").read_bytes() == CONTENT
