"""What a decoder repairs or fills up without a word is refused, in every format; whole files of every kind are not."""

import io
import re
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from chips import real_files
from photographs import encoded, png
from PIL import Image as Pillow

from agepipe.core.errors import ImageError
from agepipe.model.imaging import decode

END = b"\xff\xd9"


@pytest.fixture(scope="module")
def real(sample_archive: Path) -> bytes:
    """A real chip, baseline, with the standard tables."""
    return max(real_files(sample_archive, step=50).values(), key=len)


@pytest.fixture(scope="module")
def scene(real: bytes) -> Pillow.Image:
    """A larger picture with real texture."""
    return Pillow.open(io.BytesIO(real)).convert("RGB").resize((400, 300))


def jpeg(image: Pillow.Image, **options: Any) -> bytes:
    return encoded(image, "JPEG", **{"quality": 90, **options})


def reason(data: bytes) -> str:
    """Why it is refused; empty where it is not."""
    try:
        decode(data)
    except ImageError as error:
        assert error.detail
        return error.reason
    return ""


def scan(data: bytes) -> int:
    """Where the coded data of the last scan begins."""
    return data.rindex(b"\xff\xda") + 14


KINDS = [
    {}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"restart_marker_blocks": 7},
    {"progressive": True, "restart_marker_rows": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_without_a_part_of_its_data_is_refused(scene: Pillow.Image, mode: str, options: dict[str, Any]) -> None:
    data = jpeg(scene.convert(mode), **options)
    start = data.index(b"\xff\xda") + 14
    assert reason(data) == ""
    for keep in np.linspace(start, len(data) - 8, 25).astype(int):
        assert reason(data[:keep]) == "truncated", f"cut at {keep}"
        assert reason(data[:keep] + END) in ("truncated", "damaged"), f"cut at {keep}, end appended"
        assert reason(data[:keep] + bytes(999)) in ("truncated", "damaged"), f"cut at {keep}, zeros appended"


def test_a_real_chip_with_a_hole_of_zeros_is_refused(real: bytes) -> None:
    start = scan(real)
    for length in (48, 100, 500):
        for at in np.linspace(start, len(real) - length - 2, 40).astype(int):
            assert reason(real[:at] + bytes(length) + real[at + length :]) in ("damaged", "truncated"), (at, length)


def test_an_even_picture_whose_data_is_zeros_is_whole() -> None:
    even = jpeg(Pillow.new("RGB", (640, 640), (255, 255, 255)), optimize=True)
    assert bytes(64) in even
    assert reason(even) == ""


@pytest.mark.parametrize("swap", [None, b"\xff\xd0", b"\xff\xd5"])
def test_restart_markers_that_are_missing_or_wrong_are_refused(scene: Pillow.Image, swap: bytes | None) -> None:
    data = jpeg(scene, restart_marker_blocks=5)
    at = data.index(b"\xff\xd3", scan(data))
    assert reason(data[:at] + (swap or b"") + data[at + 2 :]) == "damaged"


def test_bytes_that_are_removed_or_put_in_are_refused(scene: Pillow.Image) -> None:
    data = jpeg(scene)
    middle = (scan(data) + len(data)) // 2
    assert reason(data[:middle] + data[middle + 700 :])
    assert reason(data[:middle] + bytes(range(1, 200)) + data[middle:])
    assert reason(data[:middle] + b"\xff\xda" + data[middle:])


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_progressive_jpeg_without_its_last_scans_is_truncated(scene: Pillow.Image, mode: str) -> None:
    data = jpeg(scene.convert(mode), progressive=True)
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    assert len(scans) >= 6
    for at in scans[1:]:
        head = data.rindex(b"\xff\xc4", 0, at)  # the tables of the scan go with it
        assert reason(data[:head] + END) == "truncated"


def test_damaged_segments_are_refused(scene: Pillow.Image) -> None:
    data = jpeg(scene)
    table = data.index(b"\xff\xc4")
    assert reason(data[:table] + b"\x00\x01\x02" + data[table:]) == "damaged"
    assert reason(data[: table + 2] + b"\x00\x03" + data[table + 4 :])
    twice = data[: table + 4] + b"\xff" + data[table + 5 :]
    assert reason(twice)


def test_cmyk_is_as_strict(scene: Pillow.Image) -> None:
    data = jpeg(scene.convert("CMYK"), subsampling=0)
    assert reason(data) == ""
    assert reason(data[: len(data) // 2] + END) == "truncated"


@pytest.mark.parametrize("factor", [0x411111, 0x121111, 0x211111, 0x221111])
def test_every_usual_sampling_is_whole(scene: Pillow.Image, factor: int) -> None:
    done, data = cv2.imencode(".jpg", np.asarray(scene), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])
    assert done
    assert reason(data.tobytes()) == ""


def test_what_cameras_add_is_no_damage(scene: Pillow.Image) -> None:
    data = jpeg(scene)
    assert reason(data + jpeg(scene)) == "", "a second picture, as in MPF"
    assert reason(data + b"\0\0\0\x18ftypmp42" + bytes(5000)) == "", "a video, as in motion photographs"
    assert reason(data[:-2] + b"\xff\xff\xff" + END) == "", "filled up"
    assert reason(data[:11] + b"\x02" + data[12:]) == "", "a later revision of JFIF"
    block = b"\xff\xe2" + struct.pack(">H", 4002) + bytes(4000)
    assert reason(data[:2] + block + data[2:]) == "", "zeros in the header"


def parts(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def test_a_png_that_is_not_whole_is_refused(scene: Pillow.Image) -> None:
    data = encoded(scene, "PNG")
    chunks = parts(data)
    pixels = b"".join(body for kind, body in chunks if kind == b"IDAT")
    head, end = chunks[0], chunks[-1]
    assert reason(png([head, (b"IDAT", pixels), end])) == ""
    for keep in (0.1, 0.5, 0.95, 0.999):
        assert reason(data[: int(len(data) * keep)]) == "truncated"
        assert reason(png([head, (b"IDAT", pixels[: int(len(pixels) * keep)]), end])) == "truncated"
    assert reason(png([head, end])) == "truncated"
    lines = zlib.decompress(pixels)
    assert reason(png([head, (b"IDAT", zlib.compress(lines[:-1])), end])) == "truncated"
    for at in np.linspace(30, len(data) - 13, 40).astype(int):
        flipped = data[:at] + bytes((data[at] ^ 0x10,)) + data[at + 1 :]
        assert reason(flipped) in ("damaged", "truncated"), at
    assert reason(png([head, (b"IDAT", pixels[:-4] + bytes(4)), end])) == "damaged"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(400, 300), (1, 1), (5, 3), (9, 17)])
def test_every_kind_of_png_is_whole(scene: Pillow.Image, mode: str, size: tuple[int, int]) -> None:
    grey = Pillow.fromarray(np.asarray(scene.convert("L")).astype(np.uint16) * 257)
    small = (grey if mode == "I;16" else scene.convert(mode)).resize(size)
    assert decode(encoded(small, "PNG")).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("size", [(400, 300), (1, 1), (5, 3), (9, 17), (3, 8)])
def test_an_interlaced_png_is_counted_pass_by_pass(scene: Pillow.Image, size: tuple[int, int]) -> None:
    pixels = np.asarray(scene.resize(size))
    lines = b""
    for x, y, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
    ):  # fmt: skip
        lines += b"".join(b"\0" + row.tobytes() for row in pixels[y::down, x::across] if row.size)
    head = (b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 1))
    assert np.array_equal(decode(png([head, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")])), pixels)
    assert reason(png([head, (b"IDAT", zlib.compress(lines[:-1])), (b"IEND", b"")])) == "truncated"


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_that_is_not_whole_is_refused(scene: Pillow.Image, lossless: bool) -> None:
    data = encoded(scene, "WEBP", lossless=lossless)
    assert reason(data) == ""
    for keep in (0.01, 0.1, 0.5, 0.95, 0.999):
        cut = data[: 12 + int((len(data) - 12) * keep)]
        assert reason(cut) in ("truncated", "not an image")
        body = cut[20:] + b"\0" * (len(cut) % 2)
        mended = b"RIFF" + struct.pack("<I", len(body) + 12) + data[8:16] + struct.pack("<I", len(body)) + body
        assert reason(mended) in ("truncated", "not an image"), "the lengths are mended"


def test_a_bmp_that_is_not_whole_is_truncated(scene: Pillow.Image) -> None:
    data = encoded(scene, "BMP")
    for keep in (60, len(data) // 2, len(data) - 1):
        assert reason(data[:keep]) == "truncated"


@pytest.mark.slow
def test_every_real_chip_is_whole_and_has_the_pixels_that_opencv_decodes(shared: Path) -> None:
    count = 0
    for archive in sorted((shared / "utkface").glob("*.tar")):
        for data in real_files(archive).values():
            count += 1
            expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            assert np.array_equal(decode(data), expected)
    assert count > 20_000


def test_thousands_of_texts_in_a_png_cost_no_more_than_one(scene: Pillow.Image) -> None:
    text = (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n" * (1 << 20)))
    head, *others = parts(encoded(scene, "PNG"))
    start = time.process_time()
    decode(png([head, *(text for _ in range(1000)), *others]))
    assert time.process_time() - start < 5
