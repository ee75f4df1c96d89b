"""The named questions that are asked of the index, one file each."""

from importlib.resources import files


def read_sql(name: str) -> str:
    """The text of one question."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
