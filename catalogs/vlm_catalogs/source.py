"""Where the samples of a mix come from: plain values that catalogues and TOMLs are read into."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class I4Source:
    """One dataset of an i4 weight dictionary: a wdinfo.json and tars per key, in a bucket or a local mirror of it."""

    name: str
    weight: float
    """Relative; > 0. Zero weights never become a Source."""
    wdinfo: dict[str, str]
    """Split -> key of a wdinfo.json in the bucket, or a local path."""
    text_keys: tuple[str, ...] = ("texts",)
    media_keys: tuple[str, ...] = ("media",)
    text_only: bool = False
    bucket: str
    """The bucket of this dataset: its own, or ``[custom] s3_bucket``."""
    local_root: str | None
    """``[mix] i4_root``: a folder with the bucket's layout. None reads from S3."""
    credentials_path: str | None = None
    """``[custom] s3_credentials_path``; None: boto3's own chain."""
    subsample: dict[str, float] = field(default_factory=dict)
    """Split -> fraction, from ``subsample_config``."""
    is_held_out: bool = False
    """True for a source of validation alone, of weight 0: its split is ``val``, and no sample of it is trained on."""
    origin: str
    """Where it was named, such as ``catalogs/i4_data_utils.py:12``."""

    @property
    def split(self) -> str:
        """Which of its wdinfos is read."""
        return "val" if self.is_held_out else "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """One normal dataset: files of conversations, with media beside them or inside."""

    name: str
    weight: float
    path: str
    """A file or a folder; also s3://bucket/key, whose files are copied before they are read."""
    format: str
    """One of the formats of ``[[mix.source]]``; ``auto`` is decided by looking at the files, and printed."""
    media_root: str | None = None
    """Folder that relative media paths start from; None is the folder of each file."""
    repeat_time: float = 1.0
    credentials_path: str | None = None
    """For a path or media root in S3; None: boto3's own chain."""
    columns: dict[str, str] = field(default_factory=dict)
    """``messages``, ``images``, ... -> the key or column that holds it in this source."""
    is_held_out: bool = False
    """True for a source of validation alone, of weight 0: no sample of it is trained on."""
    origin: str


Source = I4Source | FileSource
