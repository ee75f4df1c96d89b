"""The media dict in an untrusted pickle, read by a machine that holds no class and can call nothing.

Python's own Unpickler, restricted by ``find_class``, still allocates what a pickle asks for (one LONG_BINPUT opcode
takes 32 GiB) and copies every payload. Here each opcode that plain data needs is a line or two, every other one is
refused by name, and payloads are slices of the input. Opcodes: CPython 3.11, Lib/pickletools.py. Allowed are dict,
list, tuple, str, bytes, bytearray, int, float, bool and None, in protocols 0 to 5 (not the strings of Python 2).
"""

import pickletools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import NoneType
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

MAX_OPCODES = 1_000_000
"""A media dict takes about six an entry; more is an attack on memory."""


class UnsafePickle(ValueError):
    """A pickle that asks for more than plain data; the message names what was refused."""


def is_pickle(name: str) -> bool:
    """Does a file of this name hold a pickle?"""
    return name.lower().endswith((".pkl", ".pickle"))


def load_media_dict(content: bytes | memoryview) -> dict[str, memoryview]:
    """Media name -> encoded file, as slices of ``content`` where it stands there in one piece.

    Raises UnsafePickle for a pickle that names a class or function, and ValueError for one that is damaged or whose
    value is no dict of str to bytes.
    """
    value = _Machine(memoryview(content)).run()
    if not isinstance(value, dict):
        raise ValueError(f"expected a dict of media, got {type(value).__name__}")
    for name, medium in value.items():
        if not isinstance(name, str):
            raise ValueError(f"expected media names of type str, got {name!r:.40}")
        if not isinstance(medium, (bytes, bytearray, memoryview)):
            raise ValueError(f"medium {name!r:.80}: expected bytes, got {type(medium).__name__}")
        name.encode()  # a lone surrogate is a ValueError too
    return {name: memoryview(medium) for name, medium in value.items()}


class _Mark:
    """Where the items of a container begin on the stack."""


class _BytesMaker:
    """What stands for bytes, bytearray and _codecs.encode on the stack; the only thing that REDUCE applies."""


MARK = _Mark()
BYTES_MAKER = _BytesMaker()
BYTES_MAKER_NAMES = frozenset(
    ["builtins.bytes", "builtins.bytearray", "__builtin__.bytes", "__builtin__.bytearray", "_codecs.encode"]
)
"""How protocols below 3 spell bytes, and those below 5 bytearrays."""


class _Machine:
    """The stack, the memo and a cursor over the opcodes of one pickle."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self.position = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.num_made = 0

    def run(self) -> Any:
        """The value at STOP."""
        try:
            for _ in range(MAX_OPCODES):
                code = self.take(1)[0]
                if code in VALUES:
                    self.stack.append(VALUES[code](self))
                elif code in EFFECTS:
                    EFFECTS[code](self)
                elif code == STOP:
                    return self.stack.pop()
                else:
                    _refuse_opcode(code)
        except (IndexError, KeyError, struct.error) as error:  # an empty stack, a memo entry never put
            raise ValueError(f"damaged pickle before byte {self.position:,}") from error
        raise ValueError(f"a pickle of over {MAX_OPCODES:,} opcodes")

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes."""
        piece = self.content[self.position : self.position + size]
        if len(piece) < size:
            raise ValueError(f"truncated pickle: {size:,} bytes wanted at byte {self.position:,}, {len(piece):,} left")
        self.position += size
        return piece

    def take_sized(self, length_bytes: int) -> memoryview:
        """The payload after a little-endian length."""
        return self.take(self.take_number(length_bytes))

    def take_number(self, size: int, *, signed: bool = False) -> int:
        """A little-endian integer."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def take_text(self, length_bytes: int) -> str:
        """A UTF-8 text after its length."""
        return str(self.take_sized(length_bytes), "utf-8")

    def take_line(self) -> bytes:
        """The rest of the line, as protocol 0 writes its arguments."""
        line = bytearray()
        while (byte := self.take(1)[0]) != NEWLINE:
            line.append(byte)
        return bytes(line)

    def pop_to_mark(self) -> list[Any]:
        """The items above the last mark."""
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        items.reverse()
        return items

    def pop_many(self, number: int) -> tuple[Any, ...]:
        """The last ``number`` items."""
        items = [self.stack.pop() for _ in range(number)]
        return tuple(reversed(items))

    def remember(self, key: int) -> None:
        """Put the top of the stack into the memo."""
        self.memo[key] = self.stack[-1]

    def count_made(self, made: bytes) -> bytes:
        """Bytes made from a text. A pickle that makes more of them than it holds spells one text again and again."""
        self.num_made += len(made)
        if self.num_made > len(self.content):
            raise UnsafePickle("makes more bytes than it holds")
        return made

    def append_all(self, items: Iterable[Any]) -> None:
        """Append to the list on top of the stack."""
        self.top(list).extend(items)

    def set_all(self, items: Sequence[Any]) -> None:
        """Set keys and values, which alternate, in the dict on top of the stack."""
        self.top(dict).update(_pairs(items))

    def top(self, expected: type[T]) -> T:
        """The container on top of the stack."""
        if not isinstance(value := self.stack[-1], expected):
            raise ValueError(f"damaged pickle before byte {self.position:,}: no {expected.__name__} to add to")
        return value


def _pairs(items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, int, float, NoneType)):  # nested tuples take exponential time to hash
            raise ValueError(f"a dict key of type {type(key).__name__}")
        yield key, value


def _named(name: str) -> _BytesMaker:
    if name not in BYTES_MAKER_NAMES:
        raise UnsafePickle(f"asks for {name!r:.120}")
    return BYTES_MAKER


def _global(machine: _Machine) -> _BytesMaker:
    module, name = machine.take_line(), machine.take_line()
    return _named(f"{module.decode()}.{name.decode()}")


def _stack_global(machine: _Machine) -> _BytesMaker:
    module, name = machine.pop_many(2)
    if not (isinstance(module, str) and isinstance(name, str)):  # a nested list could take for ever to print
        raise UnsafePickle("asks for something whose name is no text")
    return _named(f"{module}.{name}")


def _reduced(machine: _Machine) -> Any:
    """The bytes that bytes(), bytes(b), bytearray(text, "latin-1") or _codecs.encode(text, "latin1") make."""
    maker, arguments = machine.pop_many(2)
    if maker is not BYTES_MAKER:
        raise UnsafePickle(f"calls a {type(maker).__name__}")
    match arguments:
        case ():
            return b""
        case (bytes() | bytearray() | memoryview() as content,):
            return content
        case (str() as text, "latin1" | "latin-1"):
            return machine.count_made(text.encode("latin-1"))
    raise UnsafePickle("makes bytes from something else than bytes or a latin-1 text")


def _refuse_opcode(code: int) -> NoReturn:
    for opcode in pickletools.opcodes:
        if code == ord(opcode.code):
            raise UnsafePickle(f"uses opcode {opcode.name}, which a dict of media does not need")
    raise ValueError(f"not a pickle: opcode 0x{code:02x}")


def _integer_line(machine: _Machine) -> int | bool:
    line = machine.take_line()
    return line == b"01" if line in (b"00", b"01") else int(line.removesuffix(b"L"))


def _by_code(table: dict[str, Callable[[_Machine], Any]]) -> dict[int, Callable[[_Machine], Any]]:
    codes = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
    return {codes[name]: action for name, action in table.items()}


NEWLINE = ord("\n")
STOP = ord(".")

VALUES = _by_code(
    {
        "NONE": lambda machine: None,
        "NEWTRUE": lambda machine: True,
        "NEWFALSE": lambda machine: False,
        "INT": _integer_line,
        "LONG": _integer_line,
        "BININT": lambda machine: machine.take_number(4, signed=True),
        "BININT1": lambda machine: machine.take_number(1),
        "BININT2": lambda machine: machine.take_number(2),
        "LONG1": lambda machine: int.from_bytes(machine.take_sized(1), "little", signed=True),
        "LONG4": lambda machine: int.from_bytes(machine.take_sized(4), "little", signed=True),
        "FLOAT": lambda machine: float(machine.take_line()),
        "BINFLOAT": lambda machine: struct.unpack(">d", machine.take(8))[0],
        "SHORT_BINBYTES": lambda machine: machine.take_sized(1),
        "BINBYTES": lambda machine: machine.take_sized(4),
        "BINBYTES8": lambda machine: machine.take_sized(8),
        "BYTEARRAY8": lambda machine: machine.take_sized(8),
        "UNICODE": lambda machine: machine.take_line().decode("raw-unicode-escape"),
        "SHORT_BINUNICODE": lambda machine: machine.take_text(1),
        "BINUNICODE": lambda machine: machine.take_text(4),
        "BINUNICODE8": lambda machine: machine.take_text(8),
        "MARK": lambda machine: MARK,
        "EMPTY_LIST": lambda machine: [],
        "EMPTY_DICT": lambda machine: {},
        "EMPTY_TUPLE": lambda machine: (),
        "LIST": lambda machine: machine.pop_to_mark(),
        "TUPLE": lambda machine: tuple(machine.pop_to_mark()),
        "DICT": lambda machine: dict(_pairs(machine.pop_to_mark())),
        "TUPLE1": lambda machine: machine.pop_many(1),
        "TUPLE2": lambda machine: machine.pop_many(2),
        "TUPLE3": lambda machine: machine.pop_many(3),
        "DUP": lambda machine: machine.stack[-1],
        "GET": lambda machine: machine.memo[int(machine.take_line())],
        "BINGET": lambda machine: machine.memo[machine.take_number(1)],
        "LONG_BINGET": lambda machine: machine.memo[machine.take_number(4)],
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "REDUCE": _reduced,
    }
)
"""Opcodes that push a value."""

EFFECTS = _by_code(
    {
        "PROTO": lambda machine: machine.take(1),
        "FRAME": lambda machine: machine.take(8),  # frames only help readers of streams
        "POP": lambda machine: machine.stack.pop(),
        "POP_MARK": lambda machine: machine.pop_to_mark(),
        "PUT": lambda machine: machine.remember(int(machine.take_line())),
        "BINPUT": lambda machine: machine.remember(machine.take_number(1)),
        "LONG_BINPUT": lambda machine: machine.remember(machine.take_number(4)),
        "MEMOIZE": lambda machine: machine.remember(len(machine.memo)),
        "APPEND": lambda machine: machine.append_all(machine.pop_many(1)),
        "APPENDS": lambda machine: machine.append_all(machine.pop_to_mark()),
        "SETITEM": lambda machine: machine.set_all(machine.pop_many(2)),
        "SETITEMS": lambda machine: machine.set_all(machine.pop_to_mark()),
    }
)
"""Opcodes that change what is there."""
