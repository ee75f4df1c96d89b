"""Media that stand in a table itself: bytes, or ``{"bytes", "path"}`` structs as Hugging Face writes them."""

from typing import Any

Buffer = bytes | memoryview


class EmbeddedMedia:
    """The media of one row, taken out of its values; a name stands in the place of each."""

    def __init__(self) -> None:
        self.contents: dict[str, Buffer] = {}
        """Name -> encoded file."""

    def lifted(self, value: Any) -> Any:
        """``value`` with names for its media, without the nulls that pad structs."""
        if isinstance(value, bytes | memoryview):
            return self._name(value, None)
        if isinstance(value, list):
            return [self.lifted(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if "bytes" in value and value.keys() <= {"bytes", "path"}:
            content, path = value["bytes"], value.get("path")
            return path if content is None else self._name(content, path)
        lifted = ((key, self.lifted(entry)) for key, entry in value.items())
        return {key: entry for key, entry in lifted if entry is not None}

    def _name(self, content: Buffer, path: str | None) -> str:
        """The path if it has one, else a name of its own; the same medium twice has one name."""
        name = path or next((name for name in self._unnamed() if self.contents[name] == content), "")
        if not name or self.contents.get(name, content) != content:
            name = f"{path or 'medium'}#{len(self.contents):06d}"
        self.contents[name] = content
        return name

    def _unnamed(self) -> list[str]:
        return [name for name in self.contents if name.startswith("medium#")]
