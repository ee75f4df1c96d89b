"""Every bad input that has a named outcome: what plants it, and what ``vlm-prep build-mix`` must make of it.

``docs/outcomes.md`` is written from this list, and tests/end_to_end/test_outcomes.py holds it row by row.
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from PIL import Image

Member = tuple[str, bytes]
TAR = "part_000000/000000.tar"
LINE = '{"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class BadInput:
    """One row."""

    what: str
    plant: Callable[[], str]
    """Writes it into the working directory, beside at least one good sample; gives the sources' part of the TOML."""
    outcome: str
    """``rejected`` | ``not selected`` | ``stopped`` | ``warned`` | ``used``."""
    says: str = ""
    """The reason of the rejection, or what the message holds."""
    kept: int = 1
    """Samples that are in the mix nevertheless; 0 where the build is stopped."""


def picture(*, size: tuple[int, int] = (40, 30), image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, image_format)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header says 50,000 x 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def film_without_frames() -> bytes:
    """An MP4 with a video stream and not one packet."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        container.start_encoding()
    return buffer.getvalue()


def conversation(*media: str) -> bytes:
    """The JSON of a sample that shows ``media``."""
    kinds = ["video" if name.startswith("video") else "image" for name in media]
    items: list[dict[str, str]] = [{"type": kind, kind: name} for kind, name in zip(kinds, media, strict=True)]
    user = {"role": "user", "content": [*items, {"type": "text", "text": "What is it?"}]}
    return json.dumps([user, {"role": "assistant", "content": "A thing."}]).encode()


def pickled(**media: Any) -> bytes:
    return pickle.dumps(media)


class CallsSystem:
    """Unpickled by Python, it runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch stolen",)


def write_tar(path: Path, members: Sequence[Member]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


GOOD = (("good.json", conversation("image_0")), ("good.pkl", pickled(image_0=picture())))


def i4(*, texts: Sequence[Member] = (), media: Sequence[Member] = (), good: bool = True, wdinfo: str = "") -> str:
    """An i4 source of one tar a key, with a good sample in front; ``wdinfo`` in the place of a sound one."""
    write_tar(Path("bucket/set/texts", TAR), [*GOOD[:1], *texts] if good else texts)
    write_tar(Path("bucket/set/media", TAR), [*GOOD[1:], *media] if good else media)
    sound = json.dumps({"root": "set", "data_list": [TAR], "total_key_count": 2})
    Path("bucket/set/wdinfo.json").write_text(wdinfo or sound)
    Path("listed.py").write_text(
        "from projects.cosmos3.vlm.datasets.utils import DataSource\n"
        "DATAINFO = {'set': DataSource(wdinfo_path={'train': 'set/wdinfo.json'}, text_keys=['texts'],"
        " media_keys=['media'])}\n"
        "weights = {'set': 1}\n"
    )
    return (
        '[custom]\nuse_i4 = true\ninclude_video = true\ni4_data_source = "listed.weights"\n[mix]\ni4_root = "bucket"\n'
    )


def i4_then(change: Callable[[Path, Path], object], **tars: Any) -> Callable[[], str]:
    """An i4 source whose (text tar, media tar) are changed afterwards."""

    def plant() -> str:
        toml = i4(**tars)
        change(Path("bucket/set/texts", TAR), Path("bucket/set/media", TAR))
        return toml

    return plant


def one(name: str, text: bytes, medium: bytes, *, ending: str = ".png") -> Callable[[], str]:
    """A good i4 sample and one more."""
    return lambda: i4(texts=[(f"{name}.json", text)], media=[(f"{name}{ending}", medium)])


def files(path: str = "set", *, name: str = "set") -> str:
    return f"[custom]\ninclude_video = true\n[[mix.source]]\nname = {name!r}\npath = {path!r}\n"


def jsonl(*lines: str | bytes) -> Callable[[], str]:
    """A JSONL source with a good line in front."""

    def plant() -> str:
        Path("set").mkdir()
        rows = [LINE, *lines]
        Path("set/a.jsonl").write_bytes(b"\n".join(row.encode() if isinstance(row, str) else row for row in rows))
        return files()

    return plant


def showing(path: str, content: bytes | None = None) -> Callable[[], str]:
    """A JSONL source whose second line shows the image ``path``."""

    def plant() -> str:
        toml = jsonl(LINE.replace('"What?"', json.dumps([{"type": "image", "image": path}])))()
        if content is not None:
            Path("set", path).write_bytes(content)
        return toml

    return plant


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def webdataset(*members: Member) -> Callable[[], str]:
    """A webdataset source with a good sample in front."""

    def plant() -> str:
        ask = LINE.replace('"What?"', json.dumps([{"type": "image", "wds_field": "png"}])).encode()
        good = [("good.json", ask), ("good.png", picture())]
        write_tar(Path("set/0.tar"), [*good, *[(name, body or ask) for name, body in members]])
        return files()

    return plant


def with_odd(path: str, *members: tuple[str, bytes, str]) -> None:
    """Put members of these (name, type, link target) behind those of a tar."""
    with tarfile.open(path, "a") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)


def odd_i4(name: str, kind: bytes = tarfile.SYMTYPE, *, in_both: bool = False) -> Callable[[], str]:
    """An i4 source with a member that is no file in the media tar (with a sound text), or in both."""

    def plant() -> str:
        toml = i4(texts=[] if in_both else [(f"{name}.json", ASK)])
        with_odd(f"bucket/set/media/{TAR}", (f"{name}.png", kind, "good.pkl"))
        if in_both:
            with_odd(f"bucket/set/texts/{TAR}", (f"{name}.json", kind, "good.json"))
        return toml

    return plant


def odd_webdataset(*odd: tuple[str, bytes, str], texts: Sequence[Member] = ()) -> Callable[[], str]:
    """A webdataset source with members that are no files."""

    def plant() -> str:
        toml = webdataset(*texts)()
        with_odd("set/0.tar", *odd)
        return toml

    return plant


def special_headers() -> str:
    """A webdataset tar with a PAX header for all members, as ``git archive`` writes, folders and GNU long names."""
    toml = webdataset()()
    content = Path("set/0.tar").read_bytes()
    with tarfile.open("set/1.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        folder = tarfile.TarInfo("d" * 120)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        with tarfile.open("set/0.tar") as old:
            for member in old.getmembers():
                body = old.extractfile(member)
                member.name = f"{'d' * 120}/{member.name}"
                tar.addfile(member, body)
    headers = {"comment": "0" * 40}
    with (
        tarfile.open("set/0.tar", "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar,
        tarfile.open(fileobj=io.BytesIO(content)) as old,
    ):
        for member in old.getmembers():
            tar.addfile(member, old.extractfile(member))
    return toml


def sparse() -> str:
    toml = webdataset()()
    with Path("set/0.tar").open("r+b") as file:
        header = bytearray(file.read(512))
        header[156] = ord("S")
        header[148:156] = b"        "
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        file.seek(0)
        file.write(header)
    return toml


def compressed(
    plant: Callable[[], str], path: str, pack: Callable[[bytes], bytes], *, to: str = ""
) -> Callable[[], str]:
    """A source with one file compressed, under its old name or another."""

    def planted() -> str:
        toml = plant()
        content = Path(path).read_bytes()
        if to:
            Path(path).unlink()
        Path(to or path).write_bytes(pack(content))
        return toml

    return planted


def giant() -> str:
    """A medium of 3 GB in a sparse tar: the header says so, the disk holds nothing."""
    toml = i4(texts=[("big.json", conversation("image_0"))])
    path = Path("bucket/set/media", TAR)
    with path.open("r+b") as file:
        file.truncate(10_240)  # the good member and padding; tarfile's end mark is two blocks of zeros
        with tarfile.open(path) as tar:
            end = max(member.offset_data + -(-member.size // 512) * 512 for member in tar)
        info = tarfile.TarInfo("big.png")
        info.size = 3_000_000_256
        file.seek(end)
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(end + 512 + info.size + 1024)
    return toml


def apart() -> str:
    """Members of one sample that do not stand together, as the order of the other tar has them."""
    names = ("a", "b", "c")
    texts = [(f"{name}.json", conversation("image_0")) for name in names]
    return i4(texts=texts, media=[(f"{name}.png", picture()) for name in reversed(names)])


def wdinfo(**fields: Any) -> Callable[[], str]:
    sound = {"root": "set", "data_list": [TAR], "total_key_count": 1}
    return lambda: i4(wdinfo=json.dumps({**sound, **fields}))


def s3(*, bucket: str = "nowhere", credentials: str) -> Callable[[], str]:
    def plant() -> str:
        i4()
        head = f'[custom]\nuse_i4 = true\ni4_data_source = "listed.weights"\ns3_bucket = "{bucket}"\n'
        return f'{head}s3_credentials_path = "{credentials}"\n'

    return plant


def utf_16() -> str:
    Path("set").mkdir()
    Path("set/a.jsonl").write_bytes((LINE + "\n").encode("utf-16"))
    return files()


def llava(*records: str) -> Callable[[], str]:
    def plant() -> str:
        Path("set").mkdir()
        good = '{"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]}'
        Path("set/a.json").write_text(f"[{', '.join([good, *records])}]")
        return files()

    return plant


ASK = conversation("image_0")
LONG = "n" * 300
DEEP = '{"messages": ' + "[" * 10_000 + "]" * 10_000 + "}"

BAD_INPUTS: tuple[BadInput, ...] = (
    BadInput(
        what="a tar cut inside a member",
        plant=i4_then(lambda text, media: cut(media, 600)),
        outcome="stopped",
        says=f"media/{TAR}: byte 0: member good.pkl is cut short",
        kept=0,
    ),
    BadInput(
        what="a tar cut inside a header",
        plant=i4_then(lambda text, media: cut(text, 1300), texts=[("b.json", ASK)]),
        outcome="stopped",
        says=f"texts/{TAR}: byte 1,024: a header is cut short (276 of 512 bytes)",
        kept=0,
    ),
    BadInput(
        what="a webdataset tar cut inside a member",
        plant=lambda: (webdataset()(), cut(Path("set/0.tar"), 1560))[0],
        outcome="stopped",
        says="set/0.tar: byte 1,024: member good.png is cut short",
        kept=0,
    ),
    BadInput(
        what="a webdataset tar with a symbolic link in the place of a medium",
        plant=odd_webdataset(("b.png", tarfile.SYMTYPE, "good.png"), texts=[("b.json", b"")]),
        outcome="rejected",
        says="not_a_file",
    ),
    BadInput(
        what="a webdataset tar with symbolic links alone in the place of a sample",
        plant=odd_webdataset(("b.json", tarfile.SYMTYPE, "good.json"), ("b.png", tarfile.SYMTYPE, "good.png")),
        outcome="rejected",
        says="not_a_file",
    ),
    BadInput(
        what="a webdataset tar with a hard link to a medium of the tar",
        plant=odd_webdataset(("b.png", tarfile.LNKTYPE, "good.png"), texts=[("b.json", b"")]),
        outcome="used",
        kept=2,
    ),
    BadInput(
        what="a webdataset tar with a hard link to what is not in it",
        plant=odd_webdataset(("b.png", tarfile.LNKTYPE, "gone.png"), texts=[("b.json", b"")]),
        outcome="rejected",
        says="not_a_file",
    ),
    BadInput(
        what="a webdataset tar with a pipe",
        plant=odd_webdataset(("b.png", tarfile.FIFOTYPE, "")),
        outcome="rejected",
        says="not_a_file",
    ),
    BadInput(
        what="a webdataset tar with a device",
        plant=odd_webdataset(("b", tarfile.CHRTYPE, "")),
        outcome="rejected",
        says="not_a_file",
    ),
    BadInput(
        what="a webdataset tar with a member of an unknown type",
        plant=odd_webdataset(("b.json", b"Q", "")),
        outcome="rejected",
        says="not_a_file",
    ),
    BadInput(
        what="webdataset tars with folders, GNU long names and a PAX header for all",
        plant=special_headers,
        outcome="used",
        kept=2,
    ),
    BadInput(
        what="a webdataset tar with a sparse file",
        plant=sparse,
        outcome="stopped",
        says="set/0.tar: byte 0: a sparse file; pack the tar again without --sparse",
        kept=0,
    ),
    BadInput(
        what="i4: a symbolic link in the place of a medium", plant=odd_i4("b"), outcome="rejected", says="not_a_file"
    ),
    BadInput(
        what="i4: symbolic links in the place of a text and its medium",
        plant=odd_i4("b", in_both=True),
        outcome="rejected",
        says="not_a_file",
    ),
    BadInput(
        what="i4: a hard link to the medium of another sample",
        plant=odd_i4("b", tarfile.LNKTYPE),
        outcome="rejected",
        says="media_unreadable",  # good.pkl, under the name of a picture
    ),
    BadInput(
        what="i4: a tar that is compressed with gzip",
        plant=compressed(i4, f"bucket/set/media/{TAR}", gzip.compress),
        outcome="stopped",
        says=f"media/{TAR}: this is compressed with gzip, expected a plain tar; unpack it: gzip -dc OLD > NEW",
        kept=0,
    ),
    BadInput(
        what="a webdataset tar that is compressed with bzip2",
        plant=compressed(webdataset(), "set/0.tar", bz2.compress),
        outcome="stopped",
        says="set/0.tar: this is compressed with bzip2, expected a plain tar",
        kept=0,
    ),
    BadInput(
        what="a folder of a .tgz alone",
        plant=compressed(webdataset(), "set/0.tar", gzip.compress, to="set/0.tgz"),
        outcome="stopped",
        says="set/0.tgz is compressed with gzip, which is not read; unpack it (gzip -dc 0.tgz > 0.tar) or move it away",
        kept=0,
    ),
    BadInput(
        what="a .jsonl.xz beside other JSONL files",
        plant=lambda: (jsonl(LINE)(), Path("set/b.jsonl.xz").write_bytes(lzma.compress(LINE.encode())), files())[-1],
        outcome="stopped",
        says="set/b.jsonl.xz is compressed with xz, which is not read; unpack it (xz -dc b.jsonl.xz > b.jsonl)",
        kept=0,
    ),
    BadInput(
        what="a .jsonl.gz beside its plain form",
        plant=lambda: (jsonl(LINE)(), Path("set/a.jsonl.gz").write_bytes(gzip.compress(LINE.encode())), files())[-1],
        outcome="used",
        kept=2,
    ),
    BadInput(
        what="a JSONL file that is compressed with gzip",
        plant=compressed(jsonl(LINE), "set/a.jsonl", gzip.compress),
        outcome="stopped",
        says="set/a.jsonl: this is compressed with gzip, expected a plain JSON file",
        kept=0,
    ),
    BadInput(what="a tar without its end mark", plant=i4_then(lambda text, media: cut(text, 1024)), outcome="used"),
    BadInput(
        what="a zero-byte text member", plant=one("b", b"", picture()), outcome="rejected", says="unreadable_json"
    ),
    BadInput(what="a zero-byte image member", plant=one("b", ASK, b""), outcome="rejected", says="media_empty"),
    BadInput(
        what="a zero-byte pickle", plant=one("b", ASK, b"", ending=".pkl"), outcome="rejected", says="unreadable_pickle"
    ),
    BadInput(
        what="a medium of no bytes in a pickle",
        plant=one("b", ASK, pickled(image_0=b""), ending=".pkl"),
        outcome="rejected",
        says="media_empty",
    ),
    BadInput(
        what="a zero-byte image file beside JSONL",
        plant=showing("0.png", b""),
        outcome="rejected",
        says="media_empty",
    ),
    BadInput(
        what="a wrong extension: a PNG named .jpg",
        plant=one("b", ASK, picture(), ending=".jpg"),
        outcome="used",
        kept=2,
    ),
    BadInput(
        what="a wrong extension: text named .jpg",
        plant=one("b", ASK, b"no picture at all", ending=".jpg"),
        outcome="rejected",
        says="media_unreadable",
    ),
    BadInput(
        what="a wrong extension: an image shown as a video",
        plant=one("b", conversation("video_0"), picture(), ending=".mp4"),
        outcome="rejected",
        says="media_kind_mismatch",
    ),
    BadInput(what="dots in a name", plant=one("b.v1.2", ASK, picture()), outcome="used", kept=2),
    BadInput(
        what="dots in names of webdataset keys",
        plant=webdataset(("a.v1.json", b""), ("a.v1.png", picture()), ("a.v2.json", b""), ("a.v2.png", picture())),
        outcome="used",
        kept=3,
    ),
    BadInput(what="unicode in a name", plant=one("漢字-ü-🎈", ASK, picture()), outcome="used", kept=2),
    BadInput(what="a newline in a name", plant=one("b\nc", ASK, picture()), outcome="used", kept=2),
    BadInput(what="a name of 300 characters", plant=one(LONG, ASK, picture()), outcome="used", kept=2),
    BadInput(
        what="the path of an image with 300 characters",
        plant=showing(LONG),
        outcome="rejected",
        says="missing_media",
    ),
    BadInput(
        what="a text that stands twice in a tar",
        plant=lambda: i4(texts=GOOD[:1]),
        outcome="rejected",
        says="duplicate_member",
    ),
    BadInput(
        what="a medium that stands twice in a tar",
        plant=lambda: i4(media=GOOD[1:]),
        outcome="rejected",
        says="duplicate_member",
    ),
    BadInput(
        what="a webdataset member that stands twice",
        plant=webdataset(("good.png", picture(size=(8, 8)))),
        outcome="rejected",
        says="duplicate_member",
    ),
    BadInput(
        what="key tars that disagree: a text without its medium",
        plant=lambda: i4(texts=[("b.json", ASK)]),
        outcome="rejected",
        says="missing_media",
    ),
    BadInput(
        what="key tars that disagree: a medium without its text",
        plant=lambda: i4(media=[("b.png", picture())]),
        outcome="rejected",
        says="missing_text",
    ),
    BadInput(
        what="key tars in different orders",
        plant=apart,
        outcome="warned",
        says="set: 2 samples have members out of order",
        kept=4,
    ),
    BadInput(
        what="a pickle that calls os.system",
        plant=one("b", ASK, pickled(image_0=CallsSystem()), ending=".pkl"),
        outcome="rejected",
        says="unsafe_pickle",
    ),
    BadInput(what="a member of 3 GB", plant=giant, outcome="rejected", says="sample_too_large"),
    BadInput(what="JSON nested 10,000 deep", plant=jsonl(DEEP), outcome="rejected", says="unreadable_json"),
    BadInput(
        what="JSON nested 10,000 deep in a tar",
        plant=one("b", DEEP.encode(), picture()),
        outcome="rejected",
        says="unreadable_json",
    ),
    BadInput(what="JSON nested 10,000 deep in an array", plant=llava(DEEP), outcome="rejected", says="unreadable_json"),
    BadInput(
        what="NaN in JSON", plant=jsonl(LINE.replace('"What?"', "NaN")), outcome="rejected", says="unreadable_json"
    ),
    BadInput(
        what="a lone surrogate in JSON",
        plant=jsonl(LINE.replace("What?", r"\ud800")),
        outcome="rejected",
        says="unreadable_json",
    ),
    BadInput(
        what="an image of 50,000 x 50,000 pixels",
        plant=one("b", ASK, bomb()),
        outcome="not selected",
        says="too_many_pixels",
    ),
    BadInput(
        what="a video without frames",
        plant=one("b", conversation("video_0"), film_without_frames(), ending=".mp4"),
        outcome="rejected",
        says="media_unreadable",
    ),
    BadInput(
        what="an empty wdinfo.json",
        plant=i4_then(lambda text, media: Path("bucket/set/wdinfo.json").write_bytes(b"")),
        outcome="stopped",
        says="bucket/set/wdinfo.json: not a wdinfo.json with root and data_list",
        kept=0,
    ),
    BadInput(
        what="a wdinfo.json without fields",
        plant=lambda: i4(wdinfo="{}"),
        outcome="stopped",
        says="bucket/set/wdinfo.json: not a wdinfo.json with root and data_list: KeyError('data_list')",
        kept=0,
    ),
    BadInput(
        what="a wdinfo.json that lists nothing",
        plant=wdinfo(data_list=[]),
        outcome="stopped",
        says="set: there is nothing in it",
        kept=0,
    ),
    BadInput(
        what="a missing wdinfo.json",
        plant=i4_then(lambda text, media: Path("bucket/set/wdinfo.json").unlink()),
        outcome="stopped",
        says="bucket/set/wdinfo.json: no wdinfo.json here",
        kept=0,
    ),
    BadInput(
        what="a wdinfo.json whose data_list leads out of the root",
        plant=wdinfo(data_list=["../texts/part_000000/000000.tar"]),
        outcome="stopped",
        says="data_list entry '../texts/part_000000/000000.tar' has '..' in it",
        kept=0,
    ),
    BadInput(
        what="a wdinfo.json whose root leads out of the mirror",
        plant=wdinfo(root="../elsewhere"),
        outcome="stopped",
        says="root '../elsewhere' has '..' in it",
        kept=0,
    ),
    BadInput(
        what="a tar that wdinfo.json names and that is not there",
        plant=wdinfo(data_list=[TAR, "part_000000/000001.tar"]),
        outcome="stopped",
        says="2 tars of set are not there",
        kept=0,
    ),
    BadInput(
        what="wrong credentials",
        plant=s3(bucket="there", credentials="wrong.secret"),
        outcome="stopped",
        says="not allowed (SignatureDoesNotMatch)",
        kept=0,
    ),
    BadInput(
        what="credentials that are not there",
        plant=s3(credentials="missing.secret"),
        outcome="stopped",
        says="missing.secret: credentials cannot be read",
        kept=0,
    ),
    BadInput(
        what="a bucket that is not there",
        plant=s3(bucket="nowhere", credentials="good.secret"),
        outcome="stopped",
        says="s3://nowhere/set/wdinfo.json",
        kept=0,
    ),
    BadInput(
        what="JSONL in UTF-16",
        plant=utf_16,
        outcome="stopped",
        says="set/a.jsonl: the text is UTF-16",
        kept=0,
    ),
    BadInput(
        what="a path of a medium that leads out of the root",
        plant=showing("../../secret.png"),
        outcome="rejected",
        says="media_outside_root",
    ),
    BadInput(
        what="a path of a medium that is a folder",
        plant=llava('{"image": ".", "conversations": [{"from": "human", "value": "<image>"}]}'),
        outcome="rejected",
        says="missing_media",
    ),
    BadInput(
        what="a medium on the network",
        plant=showing("http://localhost/a.png"),
        outcome="rejected",
        says="remote_media",
    ),
    BadInput(
        what="a JSON array that is cut short",
        plant=lambda: (llava()(), cut(Path("set/a.json"), 60))[0],
        outcome="stopped",
        says="set/a.json: byte 60: the JSON array ends here unfinished",
        kept=0,
    ),
)
