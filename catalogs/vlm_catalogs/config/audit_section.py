"""The section of a TOML that says how a mix is audited. It decides nothing of the mix itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlm_catalogs.config.values import Count, PositiveCount


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSection:
    """[mix.audit]: when a mix is audited, by which queries, and what makes ``vlm-prep audit`` fail."""

    at_build: Literal["auto", "always", "never"] = "auto"
    """Does ``build-mix`` audit the mix and write its report? ``auto``: up to 100,000 samples."""
    queries: tuple[str, ...] = ()
    """Folders of further queries, ``*.sql``."""
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Query -> name of a threshold -> its value, in the place of the one in the query's header."""
    fail_at: Mapping[str, Count] = field(default_factory=dict)
    """Severity (E, W, I) -> how many queries of it must find something for exit code 3; 0 never. As set: E = 1."""
    benchmarks: tuple[str, ...] = ()
    """Mixes, shards or files of hashes, as ``[mix.select] held_out``, that the mix must share nothing with."""
    memory_limit: PositiveCount = 3_000_000_000
    """Bytes of memory for the queries; what needs more goes to the temporary folder."""
