"""Opens pictures: once to see whether they can be trusted, and then, in training, as fast as possible.

`inspect` looks at a picture's every byte with Pillow. Bytes that OpenCV would show just the same are kept as they are;
anything else (transparency, CMYK, 16 bits, animations, rare containers) is turned into a plain RGB picture, and said to
be. So `decode` in training is one call, and what it shows is what a viewer shows.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Picture", "PictureError", "decode", "describe", "difference_hashes", "encode", "inspect", "looks",
           "open_page"]  # fmt: skip

# Larger pictures than a professional scanner's are mistakes or bombs; Pillow's own limit only warns.
MAX_PIXELS = 400_000_000
_ORIENTATION = 0x0112
_SEGMENT = struct.Struct(">BBHBHHB")  # of a JPEG: mark, kind, length; of its frame also bits, rows, columns, colours
_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN = {("JPEG", "L"), ("JPEG", "RGB"), ("PNG", "1"), ("PNG", "L"), ("PNG", "RGB"), ("PNG", "P"), ("BMP", "RGB"),
          ("BMP", "L"), ("BMP", "P"), ("BMP", "1"), ("WEBP", "RGB")}  # fmt: skip
_THUMBNAIL = 24
_CELLS = 8
_REDUCED = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)
# For each of 8x8 cells, row by row, the one to its right and the one below it; behind the last comes the first.
_NEIGHBOURS = np.stack([np.roll(np.arange(64).reshape(8, 8), -1, axis=axis).ravel() for axis in (1, 0)])


class PictureError(Exception):
    """A picture that can't be used.

    Attributes:
        kind: What kind of problem, in kebab case.
        hint: What to do.
    """

    def __init__(self, kind: str, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.kind = kind
        self.hint = hint


class Picture(NamedTuple):
    """A picture that OpenCV decodes to what a viewer shows.

    Attributes:
        content: The encoded bytes.
        width: Columns, after its orientation has been applied.
        height: Rows, after its orientation has been applied.
        converted: Why `content` is not the original; empty if it is.
        thumbnail: uint8 (24, 24): grey levels; `looks` says what can be seen of many.
    """

    content: bytes
    width: int
    height: int
    converted: str
    thumbnail: NDArray[np.uint8]


class Looks(NamedTuple):
    """What thumbnails show.

    Attributes:
        cells: uint8 (N, 64): mean brightness of 8x8 parts, row by row.
        contrast: uint8 (N,): largest less smallest brightness.
        brightness: uint8 (N,): mean brightness.
    """

    cells: NDArray[np.uint8]
    contrast: NDArray[np.uint8]
    brightness: NDArray[np.uint8]


def inspect(content: bytes) -> Picture:
    """Opens a picture completely.

    Raises:
        PictureError: It is empty, no picture, cut off, damaged, or absurdly large.
    """
    if not content:
        raise PictureError("empty-picture", "the file is empty", "copy it again")
    size = _plain_size(content)
    if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS:
        # Most pictures are plain and whole, and OpenCV opens those at half the cost. All others are left to Pillow.
        grey = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), _grey(content, size))
        if grey is not None:
            return Picture(content=content, width=size[0], height=size[1], converted="", thumbnail=_shrunk(grey))
    Image.MAX_IMAGE_PIXELS = None  # the check below replaces Pillow's, which warns through Python's warnings
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _inspect(image, content)
    except UnidentifiedImageError:
        raise PictureError("not-a-picture", f"is no picture ({_guess(content)})", "replace or remove it") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, MemoryError) as error:
        kind, what = _damage(content, error)
        raise PictureError(kind, what, "copy it again from where it came from") from error


def _grey(content: bytes, size: tuple[int, int]) -> int:
    """How a plain picture is decoded to be looked at: a JPEG at the least size that holds a thumbnail."""
    if content[:2] != b"\xff\xd8":
        return cv2.IMREAD_GRAYSCALE
    least = min(size)
    for step, flag in _REDUCED:
        if least >= step * _THUMBNAIL:
            return flag
    return cv2.IMREAD_GRAYSCALE


def _inspect(image: Image.Image, content: bytes) -> Picture:
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError("zero-size", f"has {width}x{height} pixels", "remove it")
    if width * height > MAX_PIXELS:
        raise PictureError("too-large", f"has {width}x{height} pixels, over {MAX_PIXELS // 10**6} million", "scale it")
    reason = _why_convert(image)
    if reason:
        image = _to_rgb(image)
        content = encode(np.asarray(image)[:, :, ::-1], lossless=True)
        width, height = image.size
    else:
        if image.format == "JPEG":
            orientation = image.getexif().get(_ORIENTATION, 1) if b"Exif\0" in content[:65536] else 1
            image.draft("L", (2 * _THUMBNAIL, 2 * _THUMBNAIL))
        else:
            orientation = 1
        image.load()
        if orientation in (5, 6, 7, 8):
            width, height = height, width
    grey = image if image.mode == "L" else image.convert("L")
    return Picture(content=content, width=width, height=height, converted=reason, thumbnail=_shrunk(np.asarray(grey)))


def describe(picture: NDArray[np.uint8], content: bytes) -> Picture:
    """What `inspect` would say of a picture that has just been encoded here.

    Args:
        picture: uint8 (H, W, 3), BGR.
        content: The same, encoded.
    """
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    height, width = grey.shape
    return Picture(content=content, width=width, height=height, converted="", thumbnail=_shrunk(grey))


def looks(thumbnails: Sequence[NDArray[np.uint8]]) -> Looks:
    """Looks at many thumbnails at once, which costs a tenth of one after the other.

    Args:
        thumbnails: N times uint8 (24, 24).
    """
    if not thumbnails:
        return Looks(np.zeros((0, 64), np.uint8), np.zeros(0, np.uint8), np.zeros(0, np.uint8))
    column = np.concatenate(thumbnails)  # one below the other: as wide as one, so that no cell has parts of two
    cells = cv2.resize(column, (_CELLS, _CELLS * len(thumbnails)), interpolation=cv2.INTER_AREA)
    levels = column.reshape(len(thumbnails), -1)
    return Looks(
        cells=np.asarray(cells, dtype=np.uint8).reshape(len(thumbnails), -1),
        contrast=levels.max(axis=1) - levels.min(axis=1),
        brightness=levels.mean(axis=1).astype(np.uint8),
    )


def _why_convert(image: Image.Image) -> str:
    if getattr(image, "n_frames", 1) > 1:
        return "first-frame"
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return "transparency"
    if image.mode in ("CMYK", "YCCK"):
        return "cmyk"
    if image.mode.startswith(("I", "F")):
        return "16-bit"
    if (image.format, image.mode) not in _PLAIN:
        return f"{(image.format or 'unknown').lower()}-{image.mode.lower()}"
    if image.format != "JPEG" and image.getexif().get(_ORIENTATION, 1) != 1:
        return "orientation"
    return ""


def _to_rgb(image: Image.Image) -> Image.Image:
    """What a viewer shows on white paper, upright, 8 bits a channel."""
    from PIL import ImageOps

    image.load()
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        top = float(values.max())
        # Scanners write 8 to 16 bits into 16-bit files; the largest value says which it was.
        full = next((2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if top < 2**bits), max(top, 1.0))
        picture = Image.fromarray((values * (255.0 / full)).clip(0, 255).round().astype(np.uint8))
        picture.info.update({key: value for key, value in image.info.items() if key == "exif"})
        image = picture
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        layered = image.convert("RGBA")
        paper = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        paper.alpha_composite(layered)
        exif = image.info.get("exif")
        image = paper.convert("RGB")
        if exif:
            image.info["exif"] = exif
    upright = ImageOps.exif_transpose(image)
    return (upright or image).convert("RGB")


def _shrunk(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """24x24 grey levels."""
    return np.asarray(cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _plain_size(content: bytes) -> tuple[int, int] | None:
    """Columns and rows of a JPEG or PNG that is whole and holds nothing unusual; None for all other content."""
    if content[:2] == b"\xff\xd8":
        return _plain_jpeg(content)
    if content[:8] == _PNG:
        return _plain_png(content)
    return None


def _plain_jpeg(content: bytes) -> tuple[int, int] | None:
    """Walks the segments up to the frame; orientation, CMYK, and a missing end are left to Pillow."""
    if content[-2:] != b"\xff\xd9":
        return None
    at = 2
    last = len(content) - _SEGMENT.size
    while at <= last:
        mark, marker, length, bits, height, width, components = _SEGMENT.unpack_from(content, at)
        if mark != 0xFF or marker in (0xE1, 0xEE):  # Exif may turn the picture, Adobe may mean another colour space
            return None
        if marker in (0xC0, 0xC1, 0xC2):
            return (width, height) if bits == 8 and components in (1, 3) else None
        at += 2 + length
    return None


def _plain_png(content: bytes) -> tuple[int, int] | None:
    """Checks every chunk's length and checksum; transparency, orientation and 16 bits are left to Pillow."""
    width, height, bits, colours = struct.unpack_from(">IIBB", content, 16) if len(content) > 33 else (0, 0, 0, 0)
    if bits != 8 or colours not in (0, 2, 3):
        return None
    at = len(_PNG)
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        kind, end = content[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(content) or kind in (b"tRNS", b"eXIf", b"acTL"):
            return None
        if zlib.crc32(memoryview(content)[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return None
        if kind == b"IEND":
            return width, height
        at = end + 4
    return None


def difference_hashes(cells: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Two perceptual hashes of each picture; those of pictures that look alike differ in few bits.

    Args:
        cells: uint8 (N, 64), `Looks.cells`.

    Returns:
        uint64 (N,) each: where it gets brighter from left to right, and from top to bottom.
    """
    bits = (cells[:, neighbours] > cells for neighbours in _NEIGHBOURS)
    across, down = (np.packbits(bit, axis=1).view(">u8")[:, 0].astype(np.uint64) for bit in bits)
    return across, down


def open_page(content: bytes) -> NDArray[np.uint8]:
    """Inspects and decodes a picture in one go, for those of which only parts are kept.

    Raises:
        PictureError: As `inspect`.
    """
    size = _plain_size(content)
    if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS:
        page = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
        if page is not None:
            return np.asarray(page, dtype=np.uint8)
    return decode(inspect(content).content)


def decode(content: bytes | memoryview) -> NDArray[np.uint8]:
    """Decodes an inspected picture: uint8 (H, W, 3), BGR, upright.

    Raises:
        PictureError: It can't be decoded.
    """
    picture = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise PictureError("not-a-picture", "can't be decoded")
    result: NDArray[np.uint8] = picture
    return result


def encode(picture: NDArray[Any], *, lossless: bool) -> bytes:
    """Encodes a BGR picture as PNG, or as JPEG of quality 95.

    Raises:
        PictureError: OpenCV refuses it.
    """
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3] if lossless else [cv2.IMWRITE_JPEG_QUALITY, 95]
    done, content = cv2.imencode(".png" if lossless else ".jpg", np.ascontiguousarray(picture), options)
    if not done:
        raise PictureError("not-a-picture", "can't be encoded again")
    return bytes(content.tobytes())


def _guess(content: bytes) -> str:
    head = content[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html")):
        return "it holds an HTML page: the download failed"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: fetch the real files with git lfs pull"
    if head.startswith(b"<svg") or b"<svg" in head:
        return "it is an SVG drawing"
    if head.startswith(b"%pdf"):
        return "it is a PDF"
    if content[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "it is HEIC, which this installation can't open"
    return "its content is of no known kind"


def _damage(content: bytes, error: Exception) -> tuple[str, str]:
    text = str(error).lower()
    cut = "truncated" in text or "unexpected end" in text or "not enough data" in text or isinstance(error, EOFError)
    if cut or (content[:2] == b"\xff\xd8" and b"\xff\xd9" not in content[-64:]):
        return "truncated-picture", f"the picture is cut off after {len(content)} bytes"
    return "damaged-picture", f"the picture is damaged ({str(error)[:120] or type(error).__name__})"
