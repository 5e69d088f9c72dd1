"""What hostile pictures cost: each is refused, in a process of its own, with hardly more memory than before."""

import io
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
from photographs import png
from PIL import Image as Pillow

SIDE = 20_000
MOST = 60
"""Megabytes that refusing may take; the pictures would take 400 to 12,000."""
CHILD = """
import resource, sys
from agepipe.core.errors import ImageError
from agepipe.model.imaging import decode
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(data)
    reason = "decoded"
except ImageError as error:
    reason = error.reason
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, reason, sep=",")
"""


def lines(count: int, length: int) -> bytes:
    pack = zlib.compressobj(9)
    return b"".join(pack.compress(bytes(length)) for _ in range(count)) + pack.flush()


def one_bit_png() -> bytes:
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0)
    return png([(b"IHDR", head), (b"IDAT", lines(SIDE, 1 + SIDE // 8)), (b"IEND", b"")])


def one_bit_png_with_exif_behind() -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    data = one_bit_png()
    return data[:-12] + png([(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))])[8:] + data[-12:]


def small_png(*chunks: tuple[bytes, bytes], body: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    body = body or zlib.compress(bytes(8 * 25))
    return png([(b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b"")])


def texts() -> bytes:
    packed = zlib.compress(bytes(8_000_000), 9)
    many = [(b"zTXt", b"n%d\0\0" % n + packed) for n in range(150)]
    return small_png((b"iCCP", b"p\0\0" + packed), *many, (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed))


def overfull() -> bytes:
    return small_png(body=zlib.compress(bytes(400 << 20), 9))


def webp() -> bytes:
    out = io.BytesIO()
    frames = [Pillow.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], duration=40)
    data = out.getvalue()
    at = data.index(b"VP8X") + 12
    return data[:at] + struct.pack("<I", 16_382)[:3] * 2 + data[at + 6 :]


def bmp() -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def jpeg(progressive: bool = False, side: int = 65_500) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (64, 64)).save(out, "JPEG", progressive=progressive)
    data = out.getvalue()
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


KINDS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "png": (one_bit_png, ("too large",)),
    "png with exif behind": (one_bit_png_with_exif_behind, ("too large",)),
    "webp": (webp, ("too large",)),
    "bmp": (bmp, ("too large",)),
    "jpeg": (jpeg, ("too large", "truncated")),
    "jpeg just below the limit": (lambda: jpeg(side=30_000), ("truncated",)),
    "progressive": (lambda: jpeg(True), ("too large",)),
    "progressive just below the limit": (lambda: jpeg(True, 30_000), ("too large",)),
    "texts": (texts, ("decoded",)),
    "overfull": (overfull, ("decoded",)),
}


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("kind", ["png", *(pytest.param(name, marks=pytest.mark.slow) for name in [*KINDS][1:])])
def test_a_hostile_picture_takes_no_memory(kind: str) -> None:
    make, reasons = KINDS[kind]
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=make(), capture_output=True, timeout=60, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
    )  # fmt: skip
    taken, reason = done.stdout.decode().strip().split(",")
    assert reason in reasons
    assert int(taken) < MOST
