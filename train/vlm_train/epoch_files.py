"""Epoch tables on disk: ``<run>/epochs/epoch-00000/part-00000.parquet`` and so on, each written whole before it trains.

Beside each part stands its hash, ``part-00000.parquet.xxh3_128``. The last part of an epoch says how many steps the
epoch has, in the metadata of its schema.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.durable import sync_file, write_synced
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.tables import EPOCH
from vlm_train.epoch import EpochPart

NUM_STEPS = b"num_steps"
"""Key of the metadata of an epoch's last part."""


def epoch_part(run: Path, epoch: int, number: int = 0) -> Path:
    """Where a part of the table of an epoch stands."""
    return run / "epochs" / f"epoch-{epoch:05d}" / f"part-{number:05d}.parquet"


class EpochFiles:
    """The table of one epoch: written parts are the truth; the others are planned and written when they are asked for.

    ``plan`` begins the planning of the epoch from its first part.
    """

    def __init__(self, run: Path, epoch: int, *, plan: Callable[[], Iterator[EpochPart]]) -> None:
        self._run = run
        self._epoch = epoch
        self._plan = plan
        self._planned: Iterator[EpochPart] | None = None
        self._next = 0
        self._num_steps: int | None = None

    def part(self, number: int) -> EpochPart:
        """Part ``number``, from disk.

        Raises DataError when it is not what was written (Parquet itself would read much damage as data), and
        StorageError when it cannot be written.
        """
        self._write_part(number)
        path = epoch_part(self._run, self._epoch, number)
        refuse_damage(path)
        table = pq.read_table(path)
        if table.schema != EPOCH:
            raise DataError(f"{path}: not an epoch table of this version; start the run in another output_dir")
        return EpochPart(table=table, num_steps=_num_steps(table.schema))

    def num_steps(self) -> int:
        """Steps of the epoch; every part is written then. Raises as ``part``."""
        number = 0
        while True:
            self._write_part(number)
            found = _num_steps(pq.read_schema(epoch_part(self._run, self._epoch, number)))
            if found is not None:
                return found
            number += 1

    def _write_part(self, number: int) -> None:
        path = epoch_part(self._run, self._epoch, number)
        if path.exists():
            return
        part = self._planned_part(number)
        try:
            _write(part, path)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error}; then go on with --resume") from error

    def _planned_part(self, number: int) -> EpochPart:
        """Part ``number`` as planned; after the last one, an empty part that says so again."""
        if self._planned is None or self._next > number:
            self._planned, self._next, self._num_steps = self._plan(), 0, None
        part = EpochPart(table=EPOCH.empty_table(), num_steps=self._num_steps)
        while self._next <= number:
            part = next(self._planned, EpochPart(table=EPOCH.empty_table(), num_steps=self._num_steps))
            self._num_steps = part.num_steps
            self._next += 1
        return part


def written_parts(files: EpochFiles) -> Iterator[EpochPart]:
    """Every part of an epoch, each written before it comes. Raises as ``EpochFiles.part``."""
    for number in count():
        part = files.part(number)
        yield part
        if part.num_steps is not None:
            return


def _num_steps(schema: pa.Schema) -> int | None:
    said = (schema.metadata or {}).get(NUM_STEPS)
    return None if said is None else int(said)


def hash_file(part: Path) -> Path:
    """Where the hash of an epoch part stands."""
    return part.with_name(f"{part.name}.xxh3_128")


def refuse_damage(path: Path) -> None:
    """Raise DataError where a part is not what was written."""
    problem = _damage(path)
    if problem:
        raise DataError(f"{path}: damaged: {problem}; move its folder away to have it planned again")


def _damage(path: Path) -> str | None:
    recorded = hash_file(path)
    if not recorded.is_file():
        return f"its hash {recorded.name} is missing"
    if file_hash(path) != recorded.read_bytes().decode("ascii", "replace").strip():
        return f"its content differs from its hash in {recorded.name}"
    return None


def _write(part: EpochPart, path: Path) -> None:
    """Write the part, then its hash, then rename the part: a part that is there has its hash.

    A run and ``vlm-train plan`` may do so at once: the names of their staged files differ, what they write does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = f"{uuid4().hex}.tmp"
    staged, staged_hash = (path.with_name(f".{name}.{suffix}") for name in (path.name, hash_file(path).name))
    try:
        metadata = {} if part.num_steps is None else {NUM_STEPS: str(part.num_steps)}
        pq.write_table(part.table.replace_schema_metadata(metadata), staged)
        sync_file(staged)
        write_synced(staged_hash, f"{file_hash(staged)}\n".encode())
        staged_hash.rename(hash_file(path))
        staged.rename(path)
    finally:
        for left in (staged, staged_hash):
            left.unlink(missing_ok=True)
