"""Can a dataset be called that? Its name is a folder under shards/ and a key in every table."""

MAX_BYTES = 200
"""File systems stop at 255 bytes."""


def name_problem(name: object) -> str | None:
    """What is wrong with a dataset's name, or None."""
    if not isinstance(name, str):
        return f"a dataset's name must be a text, got a {type(name).__name__}"
    if not name.strip() or name != name.strip():
        return f"a dataset's name must not be empty or begin or end with blanks, got {name!r}"
    if name.startswith("."):
        return f"a dataset's name must not begin with a dot (it becomes a folder under shards/), got {name!r}"
    if any(sign in "/\\" or not sign.isprintable() for sign in name):
        return f"a dataset's name must have no slash and no control character (it becomes a folder), got {name!r}"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return f"a dataset's name must not be over {MAX_BYTES} bytes (it becomes a folder), got {name[:40]!r}..."
    return None
