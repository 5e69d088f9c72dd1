"""The commands that use a model, as their user meets them: real processes, with neither torch nor Prefect."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import polars as pl
from bundles import SIZE, make_bundle, pictures

AGEPIPE = Path(sys.executable).with_name("agepipe")
WITHOUT = """
import sys
from flows.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "prefect", "mlflow"}))
"""


def agepipe(*words: object, cwd: Path, seconds: int = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AGEPIPE, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )


def faces(folder: Path) -> Path:
    folder.mkdir()
    for age, face in zip((5, 30, 55), pictures(np.array([5, 30, 55]), SIZE, seed=1, noise=0.01), strict=True):
        cv2.imwrite(str(folder / f"{age}.png"), face)
    return folder


def test_predict_writes_a_table_and_lists_what_it_could_not_use(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    (faces(tmp_path / "faces") / "note.txt").write_text("no picture")
    done = agepipe(
        "predict", "faces", "--model", "bundle", "--output", "out.csv", "--aligned", "--all-ranges", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "3 faces of 3 photographs are in out.csv" in done.stdout
    assert "faces/note.txt: not an image" in done.stderr
    table = pl.read_csv(tmp_path / "out.csv")
    assert table.select("path", "range").rows() == [
        ("faces/30.png", "21 to 40"), ("faces/5.png", "1 to 10"), ("faces/55.png", "over 40"),
    ]  # fmt: skip
    assert table.columns[5:] == ["1 to 10", "11 to 20", "21 to 40", "over 40"]
    assert pl.read_csv(tmp_path / "out.rejects.csv")["reason"].to_list() == ["not an image"]
    assert not (tmp_path / "mlruns").exists()


def test_predict_with_a_bundle_needs_neither_torch_nor_prefect_nor_mlflow(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    faces(tmp_path / "faces")
    words = ["predict", "faces", "--model", "bundle", "--output", "out.jsonl", "--aligned"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_predict_refuses_in_one_sentence(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    faces(tmp_path / "faces")
    for words, why in (
        (("faces", "--output", "out.xlsx"), "ends in '.xlsx'"),
        (("nowhere", "--output", "out.csv"), "nowhere does not exist"),
        (("faces", "--output", "out.csv", "--model", "bundle/none"), "bundle/none"),
    ):
        done = agepipe("predict", *words, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert why in done.stderr
        assert len(done.stderr.splitlines()) == 1
