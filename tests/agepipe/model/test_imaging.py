import io
import struct

import cv2
import numpy as np
import pytest
from photographs import encoded, png_bomb
from PIL import Image as Pillow
from PIL import ImageOps
from PIL.PngImagePlugin import PngInfo

from agepipe.core.errors import ImageError
from agepipe.model.imaging import DEFAULT_LIMITS, Limits, decode, fit, photograph


def picture(width: int = 60, height: int = 40) -> Pillow.Image:
    """A smooth picture without any symmetry, so that a wrong turn shows and compression hardly does."""
    y, x = np.mgrid[0:height, 0:width]
    return Pillow.fromarray(np.stack([x * 255 // width, y * 255 // height, (x + y) % 128], axis=-1).astype(np.uint8))


def reason(data: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, limits)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_formats_come_back_exactly_as_rgb(kind: str) -> None:
    assert np.array_equal(decode(encoded(picture(), kind)), np.asarray(picture()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(kind: str) -> None:
    found = decode(encoded(picture(), kind))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.asarray(picture())).mean() < 4


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_exif_orientation_is_undone_as_pillow_does(kind: str, turn: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = turn
    data = encoded(picture(), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))))
    found = decode(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 1


def test_text_and_nothing_are_not_images() -> None:
    assert reason(b"once upon a time") == "not an image"
    assert reason(b"") == "not an image"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_formats_that_stop_early_are_refused(kind: str) -> None:
    data = encoded(picture(300, 300), kind)
    assert reason(data[: len(data) // 2]) in ("truncated", "not an image")


def test_a_jpeg_cut_in_its_header_is_truncated() -> None:
    assert reason(encoded(picture())[:30]) == "truncated"


def test_a_thumbnail_in_the_exif_block_does_not_hide_a_cut() -> None:
    thumbnail = b"Exif\0\0" + encoded(picture(16, 16))
    data = encoded(picture(300, 300))
    with_exif = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    assert decode(with_exif).shape == (300, 300, 3)
    assert reason(with_exif[: len(with_exif) * 2 // 3]) == "truncated"


@pytest.mark.parametrize("tail", [b"\0", b"trailing words", b"\xff\xd8\xff\xe0 a second picture begins", b"\xff" * 9])
@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_after_the_end_do_no_harm(tail: bytes, progressive: bool) -> None:
    data = encoded(picture(300, 300), progressive=progressive)
    assert np.array_equal(decode(data + tail), decode(data))


def test_small_sides_are_refused() -> None:
    assert reason(encoded(picture(31, 200)), Limits(min_side=32)) == "too small"
    assert decode(encoded(picture(32, 200)), Limits(min_side=32)).shape == (200, 32, 3)


def test_a_header_that_announces_too_much_is_refused_before_decoding() -> None:
    assert reason(png_bomb()) == "too large"


@pytest.mark.parametrize("rest", [b"", bytes(30), bytes(12) + b"\x05" + bytes(40)], ids=["end", "zeros", "header_size"])
def test_a_bmp_whose_header_cannot_be_read_is_no_image(rest: bytes) -> None:
    assert reason(b"BM" + rest) == "not an image"


def test_a_bmp_that_is_too_wide_for_the_decoder_is_no_image() -> None:
    assert reason(encoded(Pillow.new("RGB", (2**20 + 1, 1)), "BMP")) == "not an image"


def test_fit_takes_the_centre_square() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert (fit(image, 20) == 200).all()
    assert (fit(np.ascontiguousarray(image.transpose(1, 0, 2)), 20) == 200).all()


def test_fit_averages_areas_when_it_shrinks() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 200
    image = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    assert (np.abs(fit(image, 32).astype(int) - 100) <= 1).all()


@pytest.mark.parametrize(("side", "size"), [(96, 32), (120, 50), (108, 80), (65, 64)])
def test_a_shrunk_pixel_is_the_mean_of_the_area_that_it_covers(side: int, size: int) -> None:
    """At one half, interpolation between pixels comes to the same; at a third it takes one pixel of nine."""
    image = np.random.default_rng(5).integers(0, 256, (side, side, 3), dtype=np.uint8)
    step = side / size
    low = np.arange(size)[:, None] * step
    share = np.clip(np.minimum(low + step, np.arange(side) + 1) - np.maximum(low, np.arange(side)), 0, None) / step
    expected = np.einsum("ai,bj,ijc->abc", share, share, image, optimize=True)
    assert np.abs(fit(image, size) - expected).max() <= 1


def test_fit_writes_where_it_is_told() -> None:
    store = np.zeros((3, 24, 24, 3), np.uint8)
    image = np.asarray(picture(60, 60))
    fit(image, 24, store[1])
    assert np.array_equal(store[1], fit(image, 24))
    assert not store[0].any() and not store[2].any()


def test_an_exif_segment_behind_the_frame_still_turns_the_picture() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    body = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    data = encoded(picture(60, 40))
    scan = data.index(b"\xff\xda")
    turned = data[:scan] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[scan:]
    assert decode(turned).shape == (60, 40, 3)


OPTIONS = [
    {}, {"progressive": True}, {"comment": b"by hand"}, {"restart_marker_rows": 1}, {"optimize": True},
    {"subsampling": 0}, {"subsampling": 1}, {"keep_rgb": True},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(61, 37), (1, 1), (300, 200)])
def test_a_jpeg_has_the_pixels_that_opencv_decodes(
    size: tuple[int, int], mode: str, options: dict[str, object]
) -> None:
    data = encoded(picture(*size).convert(mode), **options)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    assert np.array_equal(decode(data), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize(
    ("most", "shape"), [(2400, (40, 60, 3)), (2399, (20, 30, 3)), (150, (10, 15, 3)), (149, (5, 8, 3))]
)
def test_a_picture_above_the_limit_comes_smaller_and_says_how_large_it_was(
    kind: str, most: int, shape: tuple[int, ...]
) -> None:
    limits = Limits(max_pixels=most)
    data = encoded(picture(), kind, subsampling=0)
    if kind != "JPEG" and limits.memory < 2400 * 12:
        assert reason(data, limits) == "too large"
        return
    found = photograph(data, limits)
    assert (found.image.shape, found.width, found.height) == (shape, 60, 40)
    assert found.scale == pytest.approx(60 / shape[1])
    expected = np.asarray(picture().resize((shape[1], shape[0]), Pillow.Resampling.BOX))
    assert np.abs(found.image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_picture_that_comes_smaller_is_upright(mode: str, turn: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = turn
    data = encoded(picture(64, 48).convert(mode), exif=exif, subsampling=0)
    small, whole = photograph(data, Limits(max_pixels=64 * 48 // 4)), photograph(data)
    assert small.image.shape[:2] == tuple(side // 2 for side in whole.image.shape[:2])
    assert (small.width, small.height) == (whole.width, whole.height) == whole.image.shape[1::-1]
    expected = cv2.resize(whole.image, small.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.image.astype(int) - expected).mean() < 4


def test_the_smallest_side_is_that_of_the_original() -> None:
    assert decode(encoded(picture(60, 40)), Limits(min_side=40, max_pixels=700)).shape == (20, 30, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_telephone_photograph_of_48_megapixels_is_decoded(progressive: bool) -> None:
    data = encoded(Pillow.new("RGB", (8064, 6048), (90, 120, 40)), quality=30, progressive=progressive)
    found = photograph(data)
    assert (found.image.shape, found.width, found.height) == ((3024, 4032, 3), 8064, 6048)
    assert np.abs(found.image[::500, ::500].astype(int) - (90, 120, 40)).max() < 8


@pytest.mark.parametrize("how", ["eXIf", "XMP", "raw profile"])
def test_every_orientation_that_a_png_may_hold_is_undone(how: str) -> None:
    exif, extra = Pillow.Exif(), PngInfo()
    exif[0x0112] = 6
    if how == "XMP":
        extra.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    elif how == "raw profile":
        lines = exif.tobytes().hex()
        extra.add_text("Raw profile type exif", f"\nexif\n {len(lines) // 2}\n{lines}", zip=True)
    options = {"exif": exif} if how == "eXIf" else {"pnginfo": extra}
    data = encoded(picture(), "PNG", **options)
    assert np.array_equal(decode(data), np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data)))))


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (b"GIF89a", "GIF"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"", "empty"),
        (b"\x80\x81\x82\x83", "80 81 82 83"),
    ],
)
def test_a_kind_that_is_not_read_is_named(start: bytes, name: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(start + bytes(64) if start else b"")
    assert caught.value.reason == "not an image"
    assert name in caught.value.detail
    assert "JPEG, PNG, WebP and BMP" in caught.value.detail
