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
