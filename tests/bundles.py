"""Small real bundles and rows: networks that read an age off the brightness of a picture, and pictures that show it."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray
from onnx import TensorProto, helper

from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import CURVES, NETWORK, Card, digest
from agepipe.model.bundle_files import LINEAGE_SCHEMA, write_card, write_lineage
from agepipe.model.decoding import Decoding
from agepipe.model.phash import perceptual_hashes
from agepipe.model.records import Model

RANGES = AgeRanges.of(("1-10", "11-20", "21-40", "over40"))
SIZE = 16


def brightness(ages: NDArray[np.integer]) -> NDArray[np.float64]:
    """The mean brightness of a picture of somebody of that age, in [0, 1]."""
    return 0.1 + 0.8 * np.minimum(ages, 60) / 60


def network(path: Path, ranges: AgeRanges, size: int, sharpness: float = 60.0, order: Sequence[int] = ()) -> None:
    """Write an ONNX network: softmax over minus the squared distance of the mean brightness to that of each range.

    Args:
        path: file to write.
        ranges: the classes.
        size: side of the pictures, px.
        sharpness: how sure the network is; 0 makes it indifferent.
        order: the classes' columns, if not in class order.
    """
    centres = brightness(ranges.mid_ages)
    weights = np.tile(2 * sharpness * centres / 3, (3, 1)).astype(np.float32)
    bias = (-sharpness * centres**2).astype(np.float32)
    columns = list(order) or list(range(len(ranges)))
    initial = {
        "scale": np.float32(1 / 255), "axes": np.array([1, 2]), "weights": weights, "bias": bias,
        "ages": ranges.mid_ages.astype(np.float32)[:, None], "last": np.array([1]), "order": np.array(columns),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["light"]),
        helper.make_node("MatMul", ["light", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["ordered"], axis=1),
        helper.make_node("Gather", ["ordered", "order"], ["probabilities"], axis=1),
        helper.make_node("MatMul", ["ordered", "ages"], ["column"]),
        helper.make_node("Squeeze", ["column", "last"], ["years"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(ranges)]),
            helper.make_tensor_value_info("years", TensorProto.FLOAT, ["N"]),
        ],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in initial.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def make_bundle(
    folder: Path,
    ranges: AgeRanges = RANGES,
    *,
    size: int = SIZE,
    sharpness: float = 60.0,
    order: Sequence[int] = (),
    lineage: pl.DataFrame | None = None,
    known: bool = True,
    curves: bool = True,
    temperature: float = 1.0,
    thresholds: Mapping[int, float] = {},
    decoding: Decoding = "likeliest",
) -> Model:
    """A bundle that can serve, be judged and be registered; its lineage is empty unless rows are given.

    The temperature is what its card says; the network is as sharp as `sharpness` has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network(folder / NETWORK, ranges, size, sharpness, order)
    status = "known" if known else "unknown"
    card = Card(
        ranges=ranges, size=size, input=size, network="brightness", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2),
        rows="0" * 64, config={"learn": {}, "final": {}}, lineage=status, versions={"numpy": np.__version__},
        temperature=temperature, thresholds=dict(thresholds), decoding=decoding,
    )  # fmt: skip
    write_card(folder, card)
    write_lineage(folder, pl.DataFrame(schema=LINEAGE_SCHEMA) if lineage is None else lineage)
    if curves:
        _curves().write_parquet(folder / CURVES)
    return Model(digest=digest(folder), folder=folder, lineage=status)


def _curves(epochs: int = 6) -> pl.DataFrame:
    rise = 1 - np.exp(-np.arange(1, epochs + 1) / 2)
    columns: dict[str, object] = {"epoch": range(1, epochs + 1), "lr": [0.01] * epochs, "seconds": [1.0] * epochs}
    for part, top in (("train", 0.9), ("validation", 0.7)):
        columns |= {f"{part}_{name}": top * rise for name in ("accuracy", "macro_precision", "macro_recall")}
        columns |= {f"{part}_loss": 2 - top * rise, f"{part}_mae": 20 - 15 * top * rise}
    return pl.DataFrame(columns)


def pictures(ages: NDArray[np.integer], size: int, seed: int, noise: float) -> NDArray[np.uint8]:
    """Random soft patterns, each at the brightness of its age give or take `noise`; uint8 `(n, size, size, 3)`."""
    random = np.random.default_rng(seed)
    coarse = random.normal(0, 0.12, (len(ages), 24, 24))
    pattern = np.stack([cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in coarse])[..., None]
    pattern -= pattern.mean(axis=(1, 2, 3), keepdims=True)
    level = brightness(ages) + random.normal(0, noise, len(ages))
    grey = np.clip((pattern + level[:, None, None, None]) * 255, 0, 255).astype(np.uint8)
    return grey.repeat(3, axis=3)


def make_rows(
    folder: Path,
    count: int = 200,
    ranges: AgeRanges = RANGES,
    *,
    size: int = SIZE,
    seed: int = 0,
    noise: float = 0.08,
    pixels: NDArray[np.uint8] | None = None,
    ages: NDArray[np.integer] | None = None,
    groups: Sequence[str] | None = None,
) -> Rows:
    """Labelled rows with their pixel store; ages are drawn from 1 to 60 unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    ages = np.random.default_rng(seed).integers(1, 61, count) if ages is None else ages
    pixels = pictures(ages, size, seed, noise) if pixels is None else pixels
    digests = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pixels]
    table = pl.DataFrame(
        {
            "index": pl.Series(range(len(ages)), dtype=pl.UInt32),
            "path": [f"faces/{age}_0_0_{at}.jpg" for at, age in enumerate(ages)],
            "age": pl.Series(ages, dtype=pl.UInt8),
            "gender": pl.Series([at % 2 for at in range(len(ages))], dtype=pl.Int8),
            "race": pl.Series([at % 5 for at in range(len(ages))], dtype=pl.Int8),
            "folder": pl.Series([None] * len(ages), dtype=pl.String),
            "digest": digests,
            "look": perceptual_hashes(pixels),
            "group": digests if groups is None else list(groups),
            "width": pl.Series([size] * len(ages), dtype=pl.UInt32),
            "height": pl.Series([size] * len(ages), dtype=pl.UInt32),
            "brightness": pl.Series(pixels.mean(axis=(1, 2, 3)) / 255, dtype=pl.Float32),
            "sharpness": pl.Series([1.0] * len(ages), dtype=pl.Float32),
            "label": pl.Series(ranges.classes(ages), dtype=pl.Int16),
        }
    )
    np.save(folder / "pixels.npy", pixels)
    table.write_parquet(folder / "rows.parquet")
    return Rows(
        digest=digest_of(sorted(zip(digests, map(int, table["label"]), strict=True)), ranges),
        table=folder / "rows.parquet", pixels=folder / "pixels.npy", size=size, count=len(ages), ranges=ranges,
        name="faces",
    )  # fmt: skip


def seen(rows: Rows, role: str = "fitted", first: int | None = None) -> pl.DataFrame:
    """The lineage of a model that has seen these rows."""
    table = pl.read_parquet(rows.table).head(first or rows.count)
    return table.select("digest", "look", pl.lit(role).alias("role"))
