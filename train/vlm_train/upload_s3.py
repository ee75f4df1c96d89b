"""Copies in S3: every file of a folder, then the one that marks it whole; nothing there is ever overwritten."""

from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.config.credentials import i4_credentials
from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.object_store import ObjectStore, S3Location
from vlm_train.checkpoint import CHECKPOINTS
from vlm_train.uploads import MARKERS


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Copies:
    """``<prefix>/<name of output_dir>/checkpoints/step-20/...``: the folders of a run under their own names."""

    store: ObjectStore
    below: S3Location
    takes_all: bool
    """Every checkpoint, not only the last of a run that ended whole."""

    @staticmethod
    def of(config: Config) -> "S3Copies":
        """As ``[train.ckpt]`` says."""
        ckpt = config.train.ckpt
        assert ckpt.s3_bucket
        below = S3Location(bucket=ckpt.s3_bucket, key=ckpt.s3_prefix.strip("/")) / Path(config.train.output_dir).name
        return S3Copies(store=ObjectStore(i4_credentials(config)), below=below, takes_all=ckpt.upload_s3 == "all")

    def check(self) -> None:
        """As Target: one listing."""
        next(self.store.list(self.below / ""), None)

    def wants(self, folder: Path, *, is_final: bool) -> bool:
        """As Target."""
        return is_final or (self.takes_all and folder.parent.name == CHECKPOINTS)

    def send(self, folder: Path) -> str:
        """As Target. Raises DataError where another run's files stand there whole, StorageError."""
        at = self.below / folder.parent.name / folder.name
        marker = folder / MARKERS[folder.parent.name]
        is_whole = self.store.stored_hash(at / marker.name) is not None
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != marker)
        for path in (*files, marker):
            place, content_hash = at / path.relative_to(folder).as_posix(), file_hash(path)
            if self.store.stored_hash(place) == content_hash:
                continue
            if is_whole:
                raise DataError(
                    f"{place}: is not the file of this run, and nothing is overwritten; name another s3_prefix"
                )
            self.store.upload_hashed(path, place, content_hash=content_hash)
        return str(at)
