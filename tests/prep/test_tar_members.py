import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_catalogs.errors import DataError
from vlm_prep.compressed import COMPRESSIONS
from vlm_prep.tar_members import TarMember, read_members

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=300),
    st.lists(st.sampled_from(["a", "part_000", "b.c.d", "ü", "n\nn", "x" * 90, "…", "=", "7 path="]), min_size=1).map(
        "/".join
    ),
)
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=1100)), max_size=6)


def packed(members: list[tuple[str, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tar_format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def read(content: bytes) -> list[TarMember]:
    return list(read_members(memoryview(content)))


def by_tarfile(content: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(info.name, info.offset_data, info.size) for info in tar if info.isreg()]


def as_tuples(members: list[TarMember]) -> list[tuple[str, int, int]]:
    return [(member.name, member.offset, member.size) for member in members]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(MEMBERS, st.sampled_from(FORMATS))
def test_members_are_those_of_tarfile(members: list[tuple[str, bytes]], tar_format: int) -> None:
    try:
        content = packed(members, tar_format)
    except ValueError:  # ustar cannot hold every name
        content = packed(members, tarfile.PAX_FORMAT)
    found = read(content)
    assert as_tuples(found) == by_tarfile(content)
    assert [content[member.offset :][: member.size] for member in found] == [payload for _, payload in members]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damage_gives_a_data_error_or_members_inside_the_buffer(data: st.DataObject) -> None:
    content = bytearray(packed([("a/" * 75, b"x" * 700), ("b.json", b"{}")], data.draw(st.sampled_from(FORMATS))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        members = read(bytes(content))
    except DataError as error:
        assert "byte " in str(error)
    else:
        assert all(0 <= member.offset <= member.offset + member.size <= len(content) for member in members)


def system_tar(folder: Path, tar_format: str, *options: str) -> bytes:
    path = folder.parent / f"{tar_format}.tar"
    subprocess.run(["tar", f"--format={tar_format}", *options, "-cf", path, "-C", folder, "."], check=True)
    return path.read_bytes()


@pytest.mark.parametrize("tar_format", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_tars_of_the_system_with_folders_and_links_read_like_tarfile(tmp_path: Path, tar_format: str) -> None:
    folder = tmp_path / "tree"
    (folder / "part_000/deep.er").mkdir(parents=True)
    (folder / "part_000/deep.er/0001.v2.json").write_bytes(b"{}")
    (folder / "part_000/empty.jpg").write_bytes(b"")
    (folder / "part_000/ünï\ncode.jpg").write_bytes(b"y" * 513)
    (folder / "link").symlink_to("part_000")
    os.link(folder / "part_000/deep.er/0001.v2.json", folder / "hard.json")
    if tar_format not in ("v7", "ustar"):
        (folder / ("n" * 200 + ".png")).write_bytes(b"z")
    content = system_tar(folder, tar_format)
    members = {member.name: member for member in read(content)}
    files = [member for member in members.values() if member.other is None]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        inside = {info.name: tar.extractfile(info) for info in tar if not info.isdir() and not info.issym()}
    assert {f"./{name.removeprefix('./')}" for name in inside} == {member.name for member in files}
    for name, file in inside.items():
        assert file is not None
        member = members[f"./{name.removeprefix('./')}"]
        assert content[member.offset :][: member.size] == file.read()
    assert members["./link"].other == "a symbolic link"
    assert len(read(content)) == (5 if tar_format in ("v7", "ustar") else 6)


def with_member(kind: bytes, *, link: str = "") -> bytes:
    """A tar of a.png, a member of this type and z.png."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a.png", "odd.png", "z.png"):
            info = tarfile.TarInfo(name)
            if name == "odd.png":
                info.type, info.linkname = kind, link
                tar.addfile(info)
            else:
                info.size = 3
                tar.addfile(info, io.BytesIO(name[:3].encode()))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"M", "the rest of a file from another volume"),
        (b"Q", "a member of type 'Q'"),
    ],
)
def test_a_member_that_is_no_file_comes_as_what_it_is(kind: bytes, says: str) -> None:
    assert [(member.name, member.other) for member in read(with_member(kind))] == [
        ("a.png", None),
        ("odd.png", says),
        ("z.png", None),
    ]


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, b"D", b"V"])
def test_folders_and_labels_are_passed_over(kind: bytes) -> None:
    assert [member.name for member in read(with_member(kind))] == ["a.png", "z.png"]


@pytest.mark.parametrize("target", ["a.png", "z.png", "n" * 150])
def test_a_hard_link_has_the_payload_of_the_file_that_it_names(target: str) -> None:
    content = with_member(tarfile.LNKTYPE, link=target)
    odd = read(content)[1]
    assert odd.name == "odd.png"
    if len(target) > 100:
        assert odd.other == "a hard link to what is no file of the tar"
    else:
        assert content[odd.offset :][: odd.size] == target[:3].encode()


def test_a_hard_link_to_itself_or_to_another_one_is_no_file() -> None:
    assert read(with_member(tarfile.LNKTYPE, link="odd.png"))[1].other is not None


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd", "lz4"])
def test_a_compressed_tar_says_how_and_what_to_do(name: str) -> None:
    makers = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    magic = COMPRESSIONS[name][0]
    content = makers.get(name, lambda plain: magic + plain)(packed([("a.json", b"{}" * 2000)]))
    with pytest.raises(DataError, match=rf"t.tar: this is compressed with {name}, expected a plain tar; unpack it: "):
        list(read_members(memoryview(content), tar="t.tar"))
    with pytest.raises(DataError, match=f"compressed with {name}"):
        list(read_members(memoryview(content[:100]), tar="t.tar"))


def test_an_incremental_gnu_tar_has_no_prefix_in_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.json").write_bytes(b"{}")
    content = system_tar(folder, "gnu", "--incremental")
    assert [member.name for member in read(content)] == ["./a.json"]


@pytest.mark.parametrize("tar_format", ["gnu", "pax"])
def test_a_sparse_file_is_refused_rather_than_read_wrongly(tmp_path: Path, tar_format: str) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    with (folder / "a.mp4").open("wb") as file:
        file.truncate(1 << 20)
        file.write(b"x")
    with pytest.raises(DataError, match=r"byte [\d,]+: a sparse file"):
        read(system_tar(folder, tar_format, "--sparse"))


def test_base_256_and_pax_sizes_are_read() -> None:
    content = bytearray(packed([("a", b"x" * 600), ("b", b"y")], tarfile.GNU_FORMAT))
    content[124:136] = b"\x80" + (600).to_bytes(11)
    assert as_tuples(read(with_checksum(content))) == [("a", 512, 600), ("b", 2048, 1)]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.size, info.pax_headers = 600, {"size": "600"}
        tar.addfile(info, io.BytesIO(b"x" * 600))
    assert [member.size for member in read(stream.getvalue())] == [600]


def with_checksum(content: bytearray, *, at: int = 0, signed: bool = False) -> bytes:
    content[at + 148 : at + 156] = b" " * 8
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in content[at : at + 512])
    content[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(content)


@pytest.mark.parametrize(
    "size",
    [b"\xff" * 12, b"-0000000001\0", b"0000000zzz\0\0", b"\x81" + bytes(11), b"\x80" + b"\x7f" * 11, b"77777777777\0"],
)
def test_a_size_that_is_no_number_or_larger_than_the_tar_is_refused(size: bytes) -> None:
    content = bytearray(packed([("a", b"x")], tarfile.GNU_FORMAT))
    content[124:136] = size
    with pytest.raises(DataError, match=r"t\.tar: byte 0: (the size of a member is no number|member a is cut short)"):
        list(read_members(memoryview(with_checksum(content)), tar="t.tar"))


def test_a_wrong_checksum_names_the_offset() -> None:
    content = bytearray(packed([("a", b"x"), ("b", b"y")], tarfile.USTAR_FORMAT))
    content[1024] ^= 1
    with pytest.raises(DataError, match=r"byte 1,024: .*wrong checksum"):
        read(bytes(content))


def test_a_checksum_over_signed_bytes_is_accepted() -> None:
    content = bytearray(packed([("ü", b"x")], tarfile.GNU_FORMAT))
    assert [member.name for member in read(with_checksum(content, signed=True))] == ["ü"]


@pytest.mark.parametrize("end", [1, 511, 1024 + 300, 1024 + 511])
def test_a_truncated_header_stops_with_the_offset(end: int) -> None:
    content = packed([("a", b"x" * 512), ("b", b"y")], tarfile.USTAR_FORMAT)[:end]
    with pytest.raises(DataError, match=r"byte (0|1,024): a header is cut short"):
        read(content)


def test_a_truncated_member_stops_with_the_offset() -> None:
    content = packed([("a", b"x" * 512), ("b", b"y" * 600)], tarfile.USTAR_FORMAT)[: 1024 + 512 + 599]
    with pytest.raises(DataError, match=r"byte 1,024: member b is cut short \(599 of 600 bytes\)"):
        read(content)


@pytest.mark.parametrize("tar_format", FORMATS[1:])
def test_a_truncated_long_name_stops_with_the_offset(tar_format: int) -> None:
    content = packed([("n" * 300, b"x")], tar_format)
    with pytest.raises(DataError, match=r"byte 0: an extension header is cut short"):
        read(content[:700])
    with pytest.raises(DataError, match=r"byte 1,[05]\d\d: the tar ends after an extension header"):
        read(content[: content.index(b"n" * 100, 1024) // 512 * 512])


@pytest.mark.parametrize("num_zeros", [0, 1, 511, 512, 700, 1024, 10240])
def test_a_missing_or_short_end_of_archive_is_fine(num_zeros: int) -> None:
    content = packed([("a", b"x" * 600)], tarfile.USTAR_FORMAT)[: 512 + 1024] + bytes(num_zeros)
    assert as_tuples(read(content)) == [("a", 512, 600)]
    assert as_tuples(read(content[: 512 + 600])) == [("a", 512, 600)]


def test_an_empty_tar_has_no_members() -> None:
    assert read(b"") == read(packed([])) == read(bytes(512)) == []


def test_a_name_that_is_not_utf8_stays_storable() -> None:
    content = bytearray(packed([("name", b"x")], tarfile.USTAR_FORMAT))
    content[0:4] = b"n\xe9\xff."
    assert [member.name for member in read(with_checksum(content))] == ["n\\xe9\\xff."]


@pytest.mark.parametrize(
    "records", [b"99 path=a\n", b"path=a\n", b"0 path=a\n", b"10 path=aa", b"5 a\nb", b"-1 path=a\n"]
)
def test_a_damaged_pax_header_is_refused(records: bytes) -> None:
    content = bytearray(packed([("p", records), ("a", b"x")], tarfile.USTAR_FORMAT))
    content[156:157] = b"x"
    with pytest.raises(DataError, match="byte 0: a damaged PAX header"):
        read(with_checksum(content))


def test_a_folder_with_a_size_has_no_payload() -> None:
    content = bytearray(packed([("folder", b""), ("a", b"x")], tarfile.USTAR_FORMAT))
    content[156:157], content[124:136] = b"5", b"00000001000\0"
    assert as_tuples(read(with_checksum(content))) == by_tarfile(bytes(content)) == [("a", 1024, 1)]


def test_a_folder_of_v7_ends_in_a_slash() -> None:
    content = bytearray(packed([("folder/", b""), ("a", b"x")], tarfile.USTAR_FORMAT))
    content[156:157] = b"\0"
    content[0:7] = b"folder/"
    assert as_tuples(read(with_checksum(content))) == by_tarfile(bytes(content)) == [("a", 1024, 1)]


def test_an_extension_header_that_no_name_needs_is_refused() -> None:
    content = bytearray(packed([("long", b"n" * (1 << 21)), ("a", b"x")], tarfile.GNU_FORMAT))
    content[156:157] = b"L"
    with pytest.raises(DataError, match="byte 0: an extension header of 2,097,152 bytes"):
        read(with_checksum(content))
