"""What a file's first bytes and its extension say about its format."""

from __future__ import annotations

import struct

__all__ = ["HEAD", "IMAGE_EXTENSIONS", "UNREADABLE", "header_size", "sniff"]

HEAD = 64  # bytes that `sniff` needs

# (offset, bytes, name). RIFF and ISO media files are looked at further in `sniff`.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\x00", "tiff"),
    (0, b"MM\x00*", "tiff"),
    (0, b"II+\x00", "tiff"),
    (0, b"MM\x00+", "tiff"),
    (0, b"qoif", "qoi"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
    (0, b"\xff\x4f\xff\x51", "jpeg2000"),
    (0, b"icns", "icns"),
    (0, b"\x00\x00\x01\x00", "ico"),
    (0, b"\x01\xda", "sgi"),
    (0, b"DDS ", "dds"),
    (0, b"8BPS", "psd"),
    (0, b"\xff\x0a", "jxl"),
    (0, b"\x00\x00\x00\x0cJXL ", "jxl"),
    (0, b"v/1\x01", "exr"),
    (0, b"#?RADIANCE", "hdr"),
    (0, b"#?RGBE", "hdr"),
    (0, b"FUJIFILMCCD-RAW", "raw"),
    (0, b"IIRO", "raw"),
    (0, b"IIU\x00", "raw"),
    (0, b"%!PS", "eps"),
    (0, b"\xc5\xd0\xd3\xc6", "eps"),
)
_NETPBM = frozenset({b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"Pf", b"PF"})
_BRANDS = {b"avif": "avif", b"avis": "avif", b"crx ": "raw"}
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

# Formats that are images, and that no decoder here reads. EPS is left out on purpose: reading it runs a program.
UNREADABLE = frozenset({"heif", "jxl", "exr", "hdr", "raw", "eps"})

_EXTENSIONS = (
    ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .ppm .pgm .pbm .pnm .pfm .tga .ico .icns "
    ".qoi .jp2 .j2k .jpx .jpf .j2c .avif .pcx .sgi .psd .dds "
    ".heic .heif .jxl .exr .hdr .cr2 .cr3 .nef .arw .dng .orf .rw2 .raf"
)
IMAGE_EXTENSIONS = frozenset(_EXTENSIONS.split())


def sniff(head: bytes) -> str | None:
    """Name of the image format that `head` (at least `HEAD` bytes of the file, if it has them) begins, or None."""
    for offset, mark, name in _SIGNATURES:
        if head[offset : offset + len(mark)] == mark:
            return name
    if head[:2] in _NETPBM and head[2:3] in b" \t\r\n" and len(head) > 2:
        return "netpbm"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return _BRANDS.get(brand, "heif" if brand in _HEIF else None)
    return None


def header_size(data: bytes, name: str) -> tuple[int, int] | None:
    """(width, height) as a PNG, GIF, BMP or JPEG header claims them; None when it is not there to read."""
    try:
        if name == "png" and data[12:16] == b"IHDR":
            return struct.unpack(">II", data[16:24])
        if name == "gif":
            return struct.unpack("<HH", data[6:10])
        if name == "bmp":
            if struct.unpack("<I", data[14:18])[0] == 12:
                return struct.unpack("<HH", data[18:22])
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height)
        if name == "jpeg":
            return _frame_size(data)
    except struct.error:
        pass
    return None


def _frame_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG's first frame header (ITU T.81 B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        elif marker == 0xDA:
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
