"""PNG and JPEG files with nothing in them but pixels: EXIF, XMP, ICC profiles, text, comments, thumbnails and whatever
follows the end are taken out, the compressed pixels stay as they are to the bit.

After PNG (ISO/IEC 15948, chunks) and JPEG (ITU-T T.81, annex B, marker segments; JFIF 1.02 for APP0).
"""

import dataclasses
import re
import struct
import zlib

from PIL import Image

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_SCAN_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # a marker inside compressed data, other than a restart


class Damaged(ValueError):
    """A file that is not what it begins as: cut off, or with a wrong checksum."""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A file without its metadata, and what the metadata said of the pixels."""

    data: bytes
    orientation: int = 1  # EXIF, 1 to 8
    depth: int = 8  # bits per channel
    transparent: bool = False  # by a list of transparent colours, beside any alpha channel
    animated: bool = False


def strip(data: bytes) -> Pixels | None:
    """The file without metadata; None if it is neither PNG nor JPEG, or a JPEG of unknown structure. Damaged if a PNG
    is cut off or a checksum does not fit."""
    if data.startswith(PNG):
        return _strip_png(data)
    return _strip_jpeg(data) if data.startswith(JPEG) else None


def orientation(exif: bytes) -> int:
    """The EXIF orientation (1 to 8) in the payload of an EXIF segment; 1 where there is none that can be read."""
    tags = Image.Exif()
    try:
        tags.load(exif if exif.startswith(_EXIF) else _EXIF + exif)
        value = tags.get(_ORIENTATION)
    except Exception:  # a damaged EXIF block says nothing, and Pillow raises whatever its bytes lead to
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _strip_png(data: bytes) -> Pixels:
    kept = [PNG]
    turned, depth, transparent, animated = 1, 8, False, False
    at = len(PNG)
    while at < len(data):
        if at + 12 > len(data):
            raise Damaged("cut off")
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            raise Damaged(f"cut off in a chunk {kind!r}")
        body = data[at + 8 : end - 4]
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end - 4 : end], "big"):
                raise Damaged(f"the checksum of a chunk {kind!r} is wrong")
            kept.append(data[at:end])
            if kind == b"IHDR" and length == 13:
                depth = body[8]
            if kind == b"IEND":
                return Pixels(b"".join(kept), turned, depth, transparent, animated)
        elif kind == b"eXIf":
            turned = orientation(body)
        transparent = transparent or kind == b"tRNS"
        animated = animated or kind == b"acTL"
        at = end
    raise Damaged("cut off before its end chunk")


def _strip_jpeg(data: bytes) -> Pixels | None:
    kept, turned, at = [data[:2]], 1, 2
    try:
        while True:
            if data[at] != 0xFF:
                return None
            while data[at] == 0xFF:  # fill bytes may stand before a marker
                at += 1
            marker = data[at]
            at += 1
            if marker == 0xD9:
                return Pixels(b"".join([*kept, b"\xff\xd9"]), turned)
            if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no payload
                kept.append(bytes([0xFF, marker]))
                continue
            length = struct.unpack_from(">H", data, at)[0]
            end = at + length
            if length < 2 or end > len(data):
                return None
            body = data[at + 2 : end]
            if marker == 0xE1 and body.startswith(_EXIF):
                turned = orientation(body)
            kept.append(_segment(marker, body))
            at = end
            if marker == 0xDA:
                found = _SCAN_END.search(data, at)
                if not found:
                    return None
                kept.append(data[at : found.start()])
                at = found.start()
    except (IndexError, struct.error):
        return None


def _segment(marker: int, body: bytes) -> bytes:
    """The marker segment as it is kept: whole, without a thumbnail, or not at all."""
    if marker == 0xE0:  # JFIF says that the colours are YCbCr; its thumbnail and extensions go
        if not body.startswith(b"JFIF\0") or len(body) < 14:
            return b""
        body = body[:12] + b"\0\0"
    elif marker == 0xEE:  # Adobe says which transform the colours have
        if not body.startswith(b"Adobe") or len(body) < 12:
            return b""
        body = body[:12]
    elif 0xE1 <= marker <= 0xEF or marker == 0xFE:
        return b""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
