"""What training decodes is what a viewer shows, for every kind of picture; the rest is refused with its reason."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

import good_data
from ocr_finetune_trainer.data.pictures import PictureError, decode, difference_hashes, encode, inspect, looks


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC))


PLAIN = {
    "jpeg": lambda p: saved(p, "JPEG", quality=95),
    "grey jpeg": lambda p: saved(p.convert("L"), "JPEG", quality=95),
    "progressive": lambda p: saved(p, "JPEG", quality=95, progressive=True),
    "png": lambda p: saved(p, "PNG"),
    "grey png": lambda p: saved(p.convert("L"), "PNG"),
    "palette": lambda p: saved(p.quantize(200), "PNG"),
    "one bit": lambda p: saved(p.convert("1"), "PNG"),
    "bmp": lambda p: saved(p, "BMP"),
    "webp": lambda p: saved(p, "WEBP", lossless=True),
}
CONVERTED = {
    "transparency": lambda p: saved(p.convert("RGBA"), "PNG"),
    "16-bit": lambda p: saved(Image.fromarray(np.asarray(p.convert("L")).astype(np.uint16) * 257), "PNG"),
    "cmyk": lambda p: saved(p.convert("CMYK"), "JPEG", quality=95),
    "tiff-rgb": lambda p: saved(p, "TIFF"),
    "first-frame": lambda p: saved(p, "GIF", save_all=True, append_images=[p.rotate(90)]),
    "gif-p": lambda p: saved(p.quantize(200), "GIF"),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_pictures_keep_their_bytes(kind, photo):
    content = PLAIN[kind](photo)
    picture = inspect(content)
    assert picture.content == content
    assert (picture.width, picture.height, picture.converted) == (64, 48, "")
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[:, :, ::-1]
    assert np.abs(decode(picture.content).astype(int) - shown).mean() < 1.5


@pytest.mark.parametrize("reason", CONVERTED)
def test_others_are_converted_to_what_a_viewer_shows(reason, photo):
    content = CONVERTED[reason](photo)
    picture = inspect(content)
    assert picture.converted == reason
    with Image.open(io.BytesIO(content)) as image:
        shown = np.asarray(photo.convert("L").convert("RGB") if reason == "16-bit" else image.convert("RGB"))
    assert np.abs(decode(picture.content).astype(int) - shown[:, :, ::-1]).mean() < 2.0


def test_transparent_pixels_are_paper():
    clear = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    picture = inspect(saved(clear, "PNG"))
    assert picture.converted == "transparency"
    assert decode(picture.content).min() == 255


@pytest.mark.parametrize(("orientation", "size"), [(1, (64, 48)), (3, (64, 48)), (6, (48, 64)), (8, (48, 64))])
def test_orientation_is_applied(photo, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG"):
        picture = inspect(saved(photo, kind, exif=exif.tobytes()))
        assert (picture.width, picture.height) == size
        assert decode(picture.content).shape[:2] == size[::-1]


def test_twelve_bits_in_sixteen_are_not_dark():
    levels = np.linspace(0, 4095, 64, dtype=np.uint16)[None].repeat(20, axis=0)
    shown = decode(inspect(saved(Image.fromarray(levels), "PNG")).content)
    assert shown.max() > 250


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (b"", "empty-picture", "empty"),
        (b"hello", "not-a-picture", "no picture"),
        (b"<!DOCTYPE html>", "not-a-picture", "HTML"),
        (good_data.png_header(40000, 40000), "too-large", "million"),
    ],
)
def test_what_is_no_picture_says_why(content, kind, says):
    with pytest.raises(PictureError, match=says) as caught:
        inspect(content)
    assert caught.value.kind == kind


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "webp", "progressive"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_cut_off_pictures_are_found(kind, part, photo):
    content = PLAIN[kind](photo)
    with pytest.raises(PictureError) as caught:
        inspect(content[: int(len(content) * part)])
    assert caught.value.kind in ("truncated-picture", "damaged-picture", "not-a-picture")


def test_hashes_stand_quality_and_size_but_not_content(photo):
    worse = saved(photo.resize((128, 96)), "JPEG", quality=60)
    turned = saved(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG")
    contents = [saved(photo, "PNG"), worse, turned, saved(Image.new("RGB", (64, 48)), "PNG")]
    cells = looks([inspect(content).thumbnail for content in contents]).cells
    across, down = difference_hashes(cells)

    def distance(first, second):
        return sum(int(hashes[first] ^ hashes[second]).bit_count() for hashes in (across, down))

    assert distance(0, 1) <= 5
    assert distance(0, 2) > 30
    assert across[3] == down[3] == 0


def test_encoding_without_loss_is_exact():
    image = good_data.picture(3)
    assert np.array_equal(decode(encode(image, lossless=True)), image)


def test_looking_at_many_thumbnails_is_looking_at_each():
    rng = np.random.default_rng(0)
    thumbnails = [rng.integers(low, 255, (24, 24), dtype=np.uint8) for low in (0, 90, 200)]
    cells, contrast, brightness = looks(thumbnails)
    for number, thumbnail in enumerate(thumbnails):
        assert np.abs(cells[number] - thumbnail.reshape(8, 3, 8, 3).mean(axis=(1, 3)).ravel()).max() <= 0.5
        assert contrast[number] == thumbnail.max() - thumbnail.min()
        assert brightness[number] == int(thumbnail.mean())
    assert [len(part) for part in looks([])] == [0, 0, 0]
