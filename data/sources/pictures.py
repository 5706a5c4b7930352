"""An image file of any kind as the bytes that a record stores: decoded once to verify it, passed through where it can
be, without metadata.

A sound PNG or JPEG of 8 bits stays as it is, to the bit of its compressed pixels. Everything else becomes a PNG of the
same pixels: other formats, more than 8 bits (stretched from the image's own minimum and maximum, as prediction does),
alpha (dropped), CMYK (as RGB), an EXIF orientation (applied). `changes` says so in words. A DICOM file becomes a PNG of
what a viewer shows.
"""

import dataclasses
import io
import pathlib
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.sources import containers, dicom_files
from data.sources.files import shown
from data.sources.orientation import TRANSPOSE, Size, turn_size
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import to_8_bits


class BadRecord(Exception):
    """A record that cannot be used: `reason` is what it is counted under, `detail` what was found and expected."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclasses.dataclass(frozen=True)
class Picture:
    """The image of a record: PNG or JPEG bytes as a viewer shows them, and what was done to get there."""

    data: bytes
    width: int
    height: int
    orientation: int = 1  # the EXIF orientation that has been applied
    changes: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """Width and height as shown."""
        return self.width, self.height

    @property
    def stored_size(self) -> Size:
        """Width and height as the file stores the pixels, before its EXIF orientation."""
        return turn_size(self.size, self.orientation)


def read_picture(path: pathlib.Path, where: str = "") -> Picture:
    """The image of a file; `where` names it in messages in place of its path. BadRecord if it cannot be used."""
    where = where or shown(path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or "no such name"
        raise BadRecord("missing image", f"{where} ({reason}): put the file there") from error
    return _of_dicom(path, where) if data[128:132] == b"DICM" else picture_of(data, where)


def _of_dicom(path: pathlib.Path, where: str) -> Picture:
    """A DICOM image as it is shown; nothing of its header is kept."""
    try:
        shown_pixels = dicom_files.picture(path)
    except InputError as error:
        raise BadRecord("unreadable image", f"{where}: {error}") from None
    grey = (shown_pixels == shown_pixels[..., :1]).all()
    image = Image.fromarray(shown_pixels[..., 0] if grey else shown_pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)
    return Picture(buffer.getvalue(), *image.size)


def picture_of(data: bytes, where: str) -> Picture:
    """The image in the bytes of a file of any format that Pillow reads; BadRecord, naming `where`, if there is none."""
    try:
        pixels = containers.strip(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is an error or told in `changes`
            image = Image.open(io.BytesIO(pixels.data if pixels else data))
            with image:
                return _picture(image, pixels)
    except Image.DecompressionBombError as error:
        raise BadRecord("image too large", f"{where}: {_line(error)}: scale it down") from error
    except UnidentifiedImageError as error:
        raise BadRecord("unreadable image", f"{where}: not an image format that is known here") from error
    except Exception as error:  # on damaged bytes Pillow's decoders raise whatever those lead to
        raise BadRecord("unreadable image", f"{where}: {_line(error)}: give a complete PNG or JPEG file") from error


def _picture(image: Image.Image, pixels: containers.Pixels | None) -> Picture:
    changes = []
    turn = pixels.orientation if pixels else _orientation(image)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 or (pixels and pixels.animated):
        changes.append("animated, or of several pages: the first is kept")
    own_format = image.format
    image.load()
    if turn > 1:
        changes.append(f"turned by its EXIF orientation {turn}")
        # Pillow applies the orientation of a TIFF by itself.
        image = image if own_format == "TIFF" else image.transpose(TRANSPOSE[turn])
    image, more = _eight_bits(image, pixels)
    changes += more
    if pixels and own_format in ("PNG", "JPEG") and (not changes or (pixels.animated and len(changes) == 1)):
        return Picture(pixels.data, *image.size, changes=tuple(changes))
    image.info.clear()  # else the encoder would write the profile and the transparent colours of the source
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)  # a third of the time of 6 for as few bytes
    return Picture(buffer.getvalue(), *image.size, turn, tuple(changes))


def _eight_bits(image: Image.Image, pixels: containers.Pixels | None) -> tuple[Image.Image, list[str]]:
    """The image in a mode that a record may have, and what had to be done for it."""
    changes = []
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        finite = values[np.isfinite(values)] if image.mode == "F" else values
        if not finite.size:
            raise ValueError("it has no finite pixel")
        changes.append(f"values {finite.min():g} to {finite.max():g} stretched to 8 bits")
        if finite.size != values.size:
            changes.append(f"{values.size - finite.size} pixels without a finite value set to the lowest")
        return to_8_bits(image), changes
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (pixels and pixels.transparent):
        changes.append("alpha dropped")
    if pixels and pixels.depth > 8:
        changes.append("16 bits per colour reduced to 8")
    if image.mode in ("1", "L", "RGB", "P"):
        return image, changes
    if image.mode in ("LA", "La"):
        return image.convert("L"), changes
    if not changes:
        changes.append(f"{image.mode} converted to RGB")
    return image.convert("RGB"), changes


def _orientation(image: Image.Image) -> int:
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        return containers.orientation(exif)
    value = image.getexif().get(0x0112) if image.format in ("TIFF", "WEBP", "MPO") else 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
