"""Webdataset: ``<dataset>/<number>.tar`` with ``<key>.json`` and ``<key>.<suffix>`` members, and a meta.json beside."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.sample import Sample
from vlm_prep.export.records import file_suffix, record_of

TAR_BYTES = 256 << 20
"""A tar is closed when it is as large as this."""


class TarWriter:
    """Tars of about TAR_BYTES, one after the other, with the same bytes for the same members."""

    def __init__(self, folder: Path, *, tar_bytes: int = TAR_BYTES) -> None:
        self._folder = folder
        self._tar_bytes = tar_bytes
        self._tar: tarfile.TarFile | None = None
        self._num_tars = self._num_bytes = 0

    def write_sample(self, members: list[tuple[str, bytes | memoryview]]) -> None:
        """Write the members of one sample; they stand in one tar."""
        if self._tar is None:
            self._tar = tarfile.open(self._folder / f"{self._num_tars:06d}.tar", "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
            self._num_bytes += len(content)
        if self._num_bytes >= self._tar_bytes:
            self.close()

    def close(self) -> None:
        """Finish the tar that is open."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            self._num_tars, self._num_bytes = self._num_tars + 1, 0


def write_webdataset(dataset: str, samples: Iterable[Sample], folder: Path) -> int:
    """Write one dataset; gives 0: unused media are members like the others."""
    (folder / dataset).mkdir()
    writer = TarWriter(folder / dataset)
    number = -1
    try:
        for number, sample in enumerate(samples):
            writer.write_sample(_members(f"{number:09d}", sample))
    finally:
        writer.close()
    meta = json_text.dumps_indented({"total_items": number + 1})
    (folder / dataset / "meta.json").write_text(meta)
    return 0


def _members(key: str, sample: Sample) -> list[tuple[str, bytes | memoryview]]:
    suffixes = {facts.name: file_suffix(facts, position) for position, facts in enumerate(sample.media_table)}
    record = record_of(sample, lambda _, name: {"wds_field": suffixes[name]})
    media = [(f"{key}.{suffix}", sample.medium(name)) for name, suffix in suffixes.items()]
    return [(f"{key}.json", json_text.dumps(record).encode()), *media]
