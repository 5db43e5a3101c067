"""Decoding images and sounds, and saying what is wrong with those that cannot be decoded."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headrace.api.records import ErrorCode
from headrace_worker.media.errors import MediaError
from headrace_worker.media.images import decode_image
from headrace_worker.media.sounds import MOST_SECONDS, decode_sound
from media_files import RATE, bomb, picture, recording, tone

INVALID, TOO_LARGE = ErrorCode.INVALID_MEDIA, ErrorCode.MEDIA_TOO_LARGE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_decode_image_of_each_format(kind: str) -> None:
    image = decode_image(picture("red", (7, 5), kind))
    assert (image.mode, image.size) == ("RGB", (7, 5))
    red, green, blue = np.asarray(image, dtype=int)[0, 0]
    assert (red > 240, green < 15, blue < 15) == (True, True, True)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1", "I;16"])
def test_decode_image_of_other_colours_becomes_rgb(mode: str) -> None:
    file = BytesIO()
    Image.new(mode, (4, 4)).save(file, "PNG")
    assert decode_image(file.getvalue()).mode == "RGB"


def test_decode_image_of_one_pixel() -> None:
    assert decode_image(picture("red", (1, 1), "PNG")).size == (1, 1)


def test_decode_image_that_a_camera_has_turned_is_turned_back() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    assert decode_image(picture("red", (7, 5), "JPEG", exif=exif)).size == (5, 7)


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        pytest.param(b"", INVALID, "is no image of the formats JPEG", id="nothing"),
        pytest.param(b"<html>404</html>", INVALID, "is no image", id="a web page"),
        pytest.param(recording(tone(0.1)), INVALID, "is no image", id="a sound"),
        pytest.param(picture(kind="BMP"), INVALID, "is no image", id="another format"),
        pytest.param(picture(kind="TIFF"), INVALID, "is no image", id="a format with many decoders"),
        pytest.param(picture("red", (300, 300), "JPEG")[:-400], INVALID, "cannot be decoded: image file is truncated",
                     id="a truncated image"),
        pytest.param(picture()[:20], INVALID, "image", id="a header alone"),
        pytest.param(picture().replace(b"IDAT", b"IDAX"), INVALID, "is no image", id="a damaged image"),
        pytest.param(bomb(), TOO_LARGE, "of very many pixels", id="a decompression bomb"),
        pytest.param(bomb(10_000, 10_000), TOO_LARGE, "10000 x 10000 pixels; at most 64 Mi", id="100 megapixels"),
        pytest.param(bomb(10_000, 9_000), TOO_LARGE, "10000 x 9000 pixels; at most 64 Mi", id="a bomb that Pillow warns of"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decode_image_says_what_is_wrong(data: bytes, code: ErrorCode, says: str) -> None:
    with pytest.raises(MediaError) as caught:
        decode_image(data)
    assert (caught.value.code, caught.value.retriable) == (code, False)
    assert says in caught.value.message


@given(st.binary(max_size=300), st.integers(0, 200))
def test_decode_image_damaged_anywhere_is_an_image_or_a_media_error(noise: bytes, at: int) -> None:
    whole = picture()
    with suppress(MediaError):
        assert decode_image(whole[:at] + noise + whole[at + len(noise) :]).mode == "RGB"


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", None), ("MP3", None)]
)
def test_decode_sound_of_each_format(kind: str, subtype: str | None) -> None:
    sound = decode_sound(recording(tone(1), kind=kind, subtype=subtype), RATE)
    assert sound.dtype == np.float32
    middle = sound[2000:14_000]
    assert abs(np.sqrt((middle**2).mean()) - 0.5 / np.sqrt(2)) < 0.01


def test_decode_sound_mixes_channels_and_changes_the_rate() -> None:
    left = tone(1, rate=44_100)
    sound = decode_sound(recording(np.stack([left, np.zeros_like(left)], axis=1), rate=44_100), RATE)
    assert len(sound) == RATE
    expected = tone(1) / 2
    assert np.abs(sound - expected)[500:-500].max() < 1e-3


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        pytest.param(b"", INVALID, "is no sound", id="nothing"),
        pytest.param(picture(), INVALID, "is no sound", id="an image"),
        pytest.param(recording(tone(0.1), kind="AIFF"), INVALID, "of the format AIFF", id="another format"),
        pytest.param(recording(tone(0.1))[:30], INVALID, "is no sound", id="half a header"),
        pytest.param(recording(np.zeros(0, np.float32)), INVALID, "without a sample", id="no samples"),
        pytest.param(recording(np.full(100, np.nan, np.float32), subtype="FLOAT"), INVALID, "no numbers", id="not a number"),
        pytest.param(recording(np.zeros((10, 9), np.float32)), INVALID, "of 9 channels", id="too many channels"),
        pytest.param(recording(np.zeros((MOST_SECONDS + 1) * 8000, np.float32), 8000, "FLAC"), TOO_LARGE,
                     "more than 600 seconds", id="an hour of silence in a few kilobytes"),
    ],
)  # fmt: skip
def test_decode_sound_says_what_is_wrong(data: bytes, code: ErrorCode, says: str) -> None:
    with pytest.raises(MediaError) as caught:
        decode_sound(data, RATE)
    assert (caught.value.code, caught.value.retriable) == (code, False)
    assert says in caught.value.message


@given(st.binary(max_size=300), st.integers(0, 400))
def test_decode_sound_damaged_anywhere_is_a_sound_or_a_media_error(noise: bytes, at: int) -> None:
    whole = recording(tone(0.05), kind="FLAC")
    with suppress(MediaError):
        assert np.isfinite(decode_sound(whole[:at] + noise + whole[at + len(noise) :], RATE)).all()
