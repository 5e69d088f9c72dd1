"""What a frame costs through `mlflow models serve`, beside the same model in the camera's own process.

    python -m benchmarks.serving [--model BUNDLE] [--rounds 200]

It registers the bundle in a store of its own, starts the real server on it, and asks both for the same faces in turns,
since the speed of a machine varies. Medians and their ratio are printed, and by how much the answers differ. JPEG
is measured as well: smaller to send, but not the picture that the camera would have shown its own model.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

from agepipe.config.runtime import Runtime
from agepipe.config.stages import ReleaseSettings
from agepipe.data.sample import source
from agepipe.model import bundle as bundles
from agepipe.model.imaging import decode, fit
from agepipe.model.predictor import Predictor
from agepipe.model.records import Model
from agepipe.registry import register
from agepipe.serving.camera import one_thread
from agepipe.serving.endpoint import Endpoint
from benchmarks import untrained
from benchmarks.answering import wait_for
from flows.services import end_family


@contextmanager
def serving(uri: str, runtime: Runtime, folder: Path, port: int = 0) -> Iterator[str]:
    """`mlflow models serve` of a registered model, on any port for 0; yields its address, and ends it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        port = probe.getsockname()[1]
    tools = Path(sys.executable).parent  # where MLflow looks for uvicorn
    environ = {
        **os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": runtime.tracking,
    }  # fmt: skip
    words = ["models", "serve", "-m", uri, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [str(tools / "mlflow"), *words, "--workers", "1"], env=environ, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", process, folder / "serve.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            end_family(psutil.Process(process.pid))  # its child answers, and would do so for a moment longer
        process.wait(30)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", type=Path, help="folder of a bundle; by default one as large as laptop's, untrained")
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as name:
        folder = Path(name)
        if given.model is None:
            untrained.bundle(folder / "bundle")
        place = given.model or folder / "bundle"
        runtime = Runtime(workspace=folder / "workspace", tracking=f"sqlite:///{folder}/mlruns/mlflow.db")
        model = Model(digest=bundles.digest(place), folder=place, lineage="unknown")
        version = register.register(model, None, ReleaseSettings(), runtime).version
        with serving(f"models:/agepipe/{version}", runtime, folder) as url:
            _measure(Predictor.load(place), Endpoint(url), given.rounds)


def _measure(own: Predictor, served: Endpoint, rounds: int) -> None:
    chips = [fit(decode(source.encoded(chip, 7)), own.card.size) for chip in source.plan(28, 7)]
    images = np.stack(chips)
    apart = np.abs(own.predict(images).probabilities - served.predict(images).probabilities).max()
    lossy = np.stack([_jpeg(chip) for chip in chips])
    lost = np.abs(own.predict(images).probabilities - own.predict(lossy).probabilities).max()
    print(f"largest difference of a probability: {apart:.1e} as PNG, which is sent; {lost:.1e} as JPEG of quality 95")
    print("faces   own process, ms   server, ms   ratio")
    for count in (1, 2, 8):
        part = images[:count]
        pairs = [(_ms(own.predict, part), _ms(served.predict, part)) for _ in range(rounds + 5)][5:]
        alone, there = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{count:>5} {alone:>17.1f} {there:>12.1f} {there / alone:>7.1f}", flush=True)


def _ms(predict: Callable[[NDArray[np.uint8]], object], images: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    predict(images)
    return (time.perf_counter() - start) * 1000


def _jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    return decode(data.tobytes())


if __name__ == "__main__":
    main()
