"""Which facts may a part gain later, under which name, and does a TOML ask for them? (semantics A1, A9)"""

from vlm_catalogs.config import Config

DECODED_VERSION = 1
"""Raised when a column would come to say something else; parts are then decoded anew."""
DECODED_NAME = f"facts/decoded-{DECODED_VERSION}.parquet"
"""What full decoding finds of each medium: ``tables.DECODED``."""
DECODED_NAMES = tuple(f"facts/decoded-{version}.parquet" for version in range(1, DECODED_VERSION + 1))
"""Of this version and those before, which stay beside it: mixes may pin them."""
COPIED = ["dataset", "sample_id", "sample_key", "position", "name", "xxh3_128", "kind"]
"""Its columns that are those of media.parquet."""


def asks_for_decoding(config: Config) -> bool:
    """Does something of the TOML need the media decoded?"""
    return config.mix.decode == "full" or config.mix.select.duplicates.near is not None
