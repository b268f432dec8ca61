import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosscontext.datasets.tar_headers import Member, members
from packed import tar_bytes

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LETTERS = st.characters(codec="utf-8", exclude_characters="/\0\r\n", exclude_categories=["Cs"])
PIECES = st.text(LETTERS, min_size=1, max_size=40).filter(lambda piece: piece not in (".", ".."))
NAMES = st.lists(PIECES, min_size=1, max_size=8).map("/".join)


def listed(archive: bytes) -> list[Member]:
    return list(members(lambda start, length: archive[start : start + length], len(archive)))


def entry(name: str = "a.jpg", kind: bytes = b"0", size: int = 0, link: str = "") -> bytes:
    """An archive with one entry of any kind, and no content."""
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


@given(
    st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_names_and_places_are_those_that_the_standard_library_finds(
    files: dict[str, bytes], format: int
) -> None:
    archive = tar_bytes(files, format)
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        expected = [Member(found.name, found.offset_data, found.size) for found in opened]
    assert listed(archive) == expected
    assert [archive[m.start : m.start + m.size] for m in listed(archive)] == list(files.values())


@pytest.mark.parametrize("format", FORMATS)
def test_long_names_are_whole(format: int) -> None:
    name = "/".join(["folder" * 10] * 3) + "/picture.jpg"
    assert [m.name for m in listed(tar_bytes({name: b"x", "b.jpg": b"y"}, format))] == [name, "b.jpg"]


def test_folders_are_passed_over_and_a_leading_dot_is_dropped() -> None:
    assert listed(entry("pictures/", b"5")[:512] + tar_bytes({"./pictures/a.jpg": b"x"})) == [
        Member("pictures/a.jpg", 1024, 1)
    ]


@pytest.mark.parametrize("size", [2**20, 2**33, 2**63])
def test_a_size_is_believed_only_within_the_archive(size: int) -> None:
    with pytest.raises(ValueError, match="truncated: the entry at byte 0"):
        listed(entry(size=size)[:1024])


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (b"1", "a hard link"),
        (b"2", "a symbolic link"),
        (b"3", "a device"),
        (b"4", "a device"),
        (b"6", "a named pipe"),
        (b"K", "a link"),
        (b"S", "a sparse file"),
        (b"?", r"an entry of the unknown type b'\?'"),
    ],
)
def test_what_is_neither_file_nor_folder_is_refused(kind: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=f"'a.jpg' is {what}; expected files and folders alone"):
        listed(entry(kind=kind, link="/etc/passwd"))


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "a/../../b.jpg", ".."])
@pytest.mark.parametrize("format", FORMATS)
def test_names_that_lead_out_are_refused(name: str, format: int) -> None:
    with pytest.raises(ValueError, match="leads out of the archive"):
        listed(tar_bytes({name: b"x"}, format))


@pytest.mark.parametrize("kept", [0, 100, 512, 700, 1024])
def test_a_truncated_archive_is_called_so(kept: int) -> None:
    with pytest.raises(ValueError, match="it is truncated"):
        listed(tar_bytes({"a.jpg": bytes(600)})[:kept])


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive_is_called_so(mode: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as opened:  # type: ignore[call-overload]  # any mode
        opened.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(ValueError, match=r"compressed.*unpack it"):
        listed(archive.getvalue() + bytes(512))


def test_something_else_is_no_archive() -> None:
    with pytest.raises(ValueError, match="it is no tar archive"):
        listed(b"x" * 2000)


def test_every_flipped_bit_of_a_header_is_noticed() -> None:
    archive = bytearray(tar_bytes({"a.jpg": b"x", "b.jpg": b"y"}))
    checksum = range((1024 + 148) * 8, (1024 + 156) * 8)  # of its digits some bits mean nothing
    for bit in set(range(1024 * 8, 1536 * 8)) - set(checksum):
        archive[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"header at byte 1024"):
            listed(bytes(archive))
        archive[bit // 8] ^= 1 << bit % 8


def test_nothing_may_hide_behind_the_end() -> None:
    archive = tar_bytes({"a.jpg": b"x"})
    with pytest.raises(ValueError, match="goes on behind its end mark"):
        listed(archive + archive)
    with pytest.raises(ValueError, match="goes on behind its end mark"):
        listed(archive + bytes(2**21))


@pytest.mark.parametrize("record", [b"9999 path=x\n", b"0 path=x\n", b"path=x\n", b"11 path=x\n", b"\xff"])
def test_a_damaged_extended_header_is_refused(record: bytes) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = b"x", len(record)
    archive = header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + tar_bytes({"a.jpg": b""})
    with pytest.raises(ValueError, match="extended header is damaged"):
        listed(archive)


def test_an_extended_header_of_all_files_may_say_nothing_that_moves_them() -> None:
    for record, refused in ((b"16 comment=none\n", False), (b"10 path=x\n", True), (b"10 size=0\n", True)):
        header = tarfile.TarInfo("pax")
        header.type, header.size = b"g", len(record)
        archive = header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + tar_bytes({"a.jpg": b""})
        if refused:
            with pytest.raises(ValueError, match="the same name or size"):
                listed(archive)
        else:
            assert [member.name for member in listed(archive)] == ["a.jpg"]
