"""The section of a TOML that says which converted samples a mix uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from vlm_catalogs.config.values import Bound, PositiveCount


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesSection:
    """[mix.select.duplicates]: of samples that are alike, one stays."""

    by: Literal["none", "text", "media", "both"] = "none"
    """What must be equal, exactly: the conversation, all media in order, or the two together."""
    near: Annotated[int | None, Bound(low=0, high=3)] = None
    """Pictures count as equal too when their perceptual hashes (64 bits) differ by so many bits; None: bytes only."""
    across: bool = True
    """Look over all datasets; false looks inside each."""
    priority: tuple[str, ...] = ()
    """Datasets whose samples stay before those of others, the first before the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSection:
    """[mix.select.eval]: samples that are held out for validation; samples that share a medium stay together."""

    fraction: Annotated[float | None, Bound(above=0, below=1)] = None
    """Of what each dataset has left."""
    num_samples: PositiveCount | None = None
    """Of each dataset, instead of a fraction."""
    datasets: tuple[str, ...] = ()
    """Empty is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectSection:
    """[mix.select]: which converted samples the mix uses."""

    where: Mapping[str, str] = field(default_factory=dict)
    """Name -> SQL condition on a sample; one that is not true leaves it out, with the reason ``where:<name>``."""
    dataset_where: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Dataset -> conditions as in ``where``, for its samples only."""
    tables: Mapping[str, str] = field(default_factory=dict)
    """Name -> Parquet, CSV or JSONL file with dataset, sample_id and columns that conditions may name."""
    include: tuple[str, ...] = ()
    """Files that list dataset and sample_id; samples that none of them names leave."""
    exclude: tuple[str, ...] = ()
    """Files that list dataset and sample_id of samples that leave."""
    held_out: tuple[str, ...] = ()
    """Mixes, shards or files of hashes; samples that share a medium with them leave (those without media: the text)."""
    max_samples: Mapping[str, PositiveCount] = field(default_factory=dict)
    """Dataset -> the most samples that train has of it."""
    max_tokens: Mapping[str, PositiveCount] = field(default_factory=dict)
    """Dataset -> the most tokens that train has of it."""
    fractions: Mapping[str, Annotated[float, Bound(above=0, high=1)]] = field(default_factory=dict)
    """Dataset -> the fraction of its usable samples that train has."""
    duplicates: DuplicatesSection = DuplicatesSection()
    eval: EvalSection = EvalSection()
