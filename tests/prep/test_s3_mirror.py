from collections.abc import Iterator
from pathlib import Path

import pytest

from vlm_catalogs.errors import DataError
from vlm_catalogs.object_store import ObjectStore, StoredObject
from vlm_catalogs.source import FileSource
from vlm_prep.s3_mirror import local_source


@pytest.mark.parametrize("key", ["set/../../outside.jsonl", "set//etc/outside.jsonl"])
def test_an_object_whose_name_leads_out_of_the_folder_is_refused(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(*_: object) -> Iterator[StoredObject]:
        yield StoredObject(key=key, bytes=1, etag="e")

    monkeypatch.setattr(ObjectStore, "list", listed)
    source = FileSource(name="a", weight=1.0, path="s3://things/set", format="jsonl", origin="here")
    with pytest.raises(DataError, match="leads out of its folder"):
        local_source(source, tmp_path)
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize("record", [b"", b'{"a": "b', b"[]", b"\xff"])
def test_a_record_of_copies_that_is_damaged_has_them_copied_again(
    tmp_path: Path, record: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []

    def listed(*_: object) -> Iterator[StoredObject]:
        yield StoredObject(key="set/a.jsonl", bytes=1, etag="e")

    def download(_: ObjectStore, at: object, path: Path, **__: object) -> None:
        copied.append(str(at))
        path.write_bytes(b"x")

    monkeypatch.setattr(ObjectStore, "list", listed)
    monkeypatch.setattr(ObjectStore, "download", download)
    source = FileSource(name="a", weight=1.0, path="s3://things/set", format="jsonl", origin="here")
    local_source(source, tmp_path)
    local_source(source, tmp_path)
    assert len(copied) == 1
    next(tmp_path.rglob("objects.json")).write_bytes(record)
    local_source(source, tmp_path)
    assert len(copied) == 2
