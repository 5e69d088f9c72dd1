"""No pickle is read from a file or a socket: by the source, and by hostile files in place of those that are read."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hostile import Hostile

from agepipe.core.errors import AgepipeError
from agepipe.data.pixel_store import open_pixels
from agepipe.evaluation.predictions import _kept
from agepipe.training import checkpoints
from agepipe.training.backbones import state_of

ROOT = Path(__file__).resolve().parents[1]
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "pickletools"}
HARMLESS = {"UnpicklingError", "PicklingError"}
SENDERS = {
    "all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list", "send_object_list",
    "recv_object_list", "read_pickle", "Unpickler",
}  # fmt: skip


def faults(source: str) -> Iterator[str]:
    """Each place where a module reads a pickle, or may."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNPICKLERS:
            yield f"{node.lineno}: from {node.module}"
        if isinstance(node, ast.Import):
            yield from (f"{node.lineno}: {one.name}" for one in node.names if one.name in UNPICKLERS - {"pickle"})
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        if (owner in UNPICKLERS and node.attr not in HARMLESS) or node.attr in SENDERS:
            yield f"{node.lineno}: {owner}.{node.attr}"
        if owner == "fabric" and node.attr == "broadcast":
            yield f"{node.lineno}: {owner}.{node.attr}"
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        given = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
        if name == "torch.load" and given.get("weights_only") is not True:
            yield f"{call.lineno}: {name} without weights_only=True"
        if name in ("np.load", "numpy.load") and given.get("allow_pickle") is not False:
            yield f"{call.lineno}: {name} without allow_pickle=False"


def test_no_module_reads_a_pickle() -> None:
    modules = [path for folder in ("agepipe", "tasks", "flows") for path in (ROOT / folder).rglob("*.py")]
    assert len(modules) > 100
    assert {str(path): found for path in modules if (found := list(faults(path.read_text("utf-8"))))} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle\npickle.load(file)", "import pickle as hidden_no\nimport joblib", "from pickle import loads",
        "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)", "np.load(path, allow_pickle=True)",
        "torch.distributed.all_gather_object(found, mine)", "pd.read_pickle(path)",
    ],
)  # fmt: skip
def test_a_planted_one_is_seen(planted: str) -> None:
    assert list(faults(planted))


PLACES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "pixels": ("pixels.npy", open_pixels),
    "pixels of a training": ("pixels.npy", open_pixels),
    "part of the answers": ("part.npz", lambda path: _kept(path, 1)),
    "checkpoint": ("checkpoint.pt", checkpoints.load),
    "weights": ("weights.pt", lambda path: state_of(path)),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_file_in_the_place_of_a_good_one_is_not_run(place: str, tmp_path: Path, hostile: Hostile) -> None:
    name, read = PLACES[place]
    forms = [hostile.array] if Path(name).suffix.startswith(".np") else [hostile.tensors]
    for write in (*forms, lambda path: path.write_bytes(hostile.pickled())):
        write(tmp_path / name)
        try:
            assert read(tmp_path / name) is None
        except AgepipeError as error:
            assert name in str(error)
        assert not hostile.ran


def test_the_hostile_file_would_be_run(tmp_path: Path, hostile: Hostile) -> None:
    hostile.tensors(tmp_path / "weights.pt")
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert hostile.ran
