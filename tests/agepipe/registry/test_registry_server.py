"""The registry behind a real MLflow server: pipelines that end at once, and a server that is killed in the middle."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import make_rows
from servers import MlflowServer
from versions import better, histories, put, standing, worse

from agepipe.config.runtime import Runtime
from agepipe.core.errors import TrackingError
from agepipe.data.records import Rows
from agepipe.registry import lookup, register

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PIPELINE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bundles import make_bundle
from versions import judged
from agepipe.registry import lookup, register
from agepipe.config.stages import EvaluateSettings, ReleaseSettings
from agepipe.config.runtime import Runtime
from agepipe.evaluation.gate import compare
from agepipe.data.records import Rows
from agepipe.model.bundle import digest, read_card
from agepipe.model.bundle_files import write_card
runtime, rows = Runtime(tracking=sys.argv[2], workspace=Path(sys.argv[3])), Rows.model_validate_json(sys.argv[4])
model = make_bundle(Path(sys.argv[5]), sharpness=float(sys.argv[6]))
write_card(model.folder, read_card(model.folder).model_copy(update={"versions": {"pipeline": model.folder.name}}))
model = model.model_copy(update={"digest": digest(model.folder)})
release, evaluate = ReleaseSettings(metric="mae"), EvaluateSettings(draws=200)
decide = lambda champion: compare(model, champion, rows, release, evaluate, runtime)
print(register.register(model, judged(model), release, runtime, decide=decide).alias)
"""


def pipeline(runtime: Runtime, rows: Rows, folder: Path, sharpness: float) -> "subprocess.Popen[str]":
    """The end of a pipeline in a process of its own: a model is compared with the champion and registered."""
    words = (
        str(Path(__file__).parents[2]),
        runtime.tracking,
        str(runtime.workspace),
        rows.model_dump_json(),
        str(folder),
    )
    return subprocess.Popen([sys.executable, "-c", PIPELINE, *words, str(sharpness)], stdout=subprocess.PIPE, text=True)


def test_two_pipelines_that_end_at_once_do_not_both_replace_the_same_champion(
    mlflow_server: Runtime, tmp_path: Path
) -> None:
    """Both are far better than the champion and answer alike: whichever is later has to beat the other, and cannot."""
    rows = make_rows(tmp_path / "rows", 300, noise=0.02)
    first = pipeline(mlflow_server, rows, tmp_path / "first", 5.0)
    assert first.communicate(timeout=240)[0].strip() == "champion"
    both = [pipeline(mlflow_server, rows, tmp_path / name, 400.0) for name in ("second", "third")]
    assert sorted(one.communicate(timeout=240)[0].strip() for one in both) == ["challenger", "champion"]
    three, two, one = lookup.versions("agepipe", mlflow_server)
    champion, challenger = (two, three) if two.alias == "champion" else (three, two)
    assert (one.alias, champion.replaces, challenger.replaces) == ("retired", 1, None)
    assert challenger.record().reason.startswith("Not promoted")


def killed_before(name: str, server: MlflowServer, patch: pytest.MonkeyPatch) -> None:
    """Kill the server just before the client makes this call, which is then really made."""
    from mlflow import MlflowClient

    whole: Callable[..., object] = getattr(MlflowClient, name)

    def call(*args: object, **kwargs: object) -> object:
        server.kill()
        return whole(*args, **kwargs)

    patch.setattr(MlflowClient, name, call)


def test_a_server_killed_in_the_middle_leaves_the_registry_as_it_was_or_is_mended(
    server: MlflowServer, mlflow_server: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    put(tmp_path, mlflow_server, 60.0, better)
    put(tmp_path, mlflow_server, 50.0, worse)
    before = standing(mlflow_server)

    with monkeypatch.context() as patch, pytest.raises(TrackingError, match="failed while the registry was changed"):
        killed_before("set_registered_model_alias", server, patch)
        register.promote("agepipe", 2, "Before the commit.", mlflow_server)
    server.start()
    assert standing(mlflow_server) == before

    with monkeypatch.context() as patch, pytest.raises(TrackingError):
        killed_before("update_model_version", server, patch)
        register.promote("agepipe", 2, "After the commit.", mlflow_server)
    server.start()
    champion = lookup.champion("agepipe", mlflow_server)
    assert champion is not None
    assert (champion.number, histories(mlflow_server)[2]) == (2, ["challenger: Not promoted: worse."])
    assert register.rollback("agepipe", mlflow_server) == 1
    assert histories(mlflow_server)[2] == ["challenger: Not promoted: worse.", "champion: After the commit."]
    two, one = lookup.versions("agepipe", mlflow_server)
    assert (one.aliases, two.aliases) == (("champion",), ())
    assert "Before the commit." not in str(standing(mlflow_server))
