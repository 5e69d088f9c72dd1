"""Small photographs and broken ones, made for tests of sources and ingest."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow


def jpeg(seed: int, width: int = 48, height: int = 48) -> bytes:
    """A JPEG that looks like no other seed's: smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    done, data = cv2.imencode(".jpg", picture)
    assert done
    return data.tobytes()


def chip_name(age: int, number: int, gender: int = 0, race: int = 2) -> str:
    """A file name as UTKFace has them."""
    return f"{age}_{gender}_{race}_{20170104020210475 + number}.jpg.chip.jpg"


def chips(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Write `count` different photographs with ages from 1 on."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(first, first + count):
        path = folder / chip_name(1 + number % 100, number)
        path.write_bytes(jpeg(number))
        made.append(path)
    return made


def png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks, each a kind and a body."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)


def png_bomb(side: int = 60_000) -> bytes:
    """A small PNG whose header announces `side` × `side` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return png([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")])


def encoded(image: Pillow.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The file of a picture; `options` are those of Pillow for its kind."""
    out = io.BytesIO()
    image.save(out, kind, **{"quality": 95, **options})
    return out.getvalue()


def tar_of(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """Pack the members into a tar, in their order."""
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    """Pack the members into a zip, in their order."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
