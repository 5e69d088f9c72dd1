"""What launchers set in the environment, as their documentation lists it."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from agepipe.core.errors import ConfigError
from agepipe.training import launcher
from agepipe.training.launcher import Position, position

TORCHRUN = {
    "LOCAL_RANK": "1", "RANK": "3", "GROUP_RANK": "1", "ROLE_RANK": "3", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4",
    "ROLE_WORLD_SIZE": "4", "MASTER_ADDR": "node-1", "MASTER_PORT": "41873", "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "0", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
KUBEFLOW = {
    "MASTER_ADDR": "faces-master-0", "MASTER_PORT": "23456", "WORLD_SIZE": "3", "RANK": "2", "PYTHONUNBUFFERED": "1",
    "PET_NNODES": "3", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "faces-master-0", "PET_MASTER_PORT": "23456",
}  # fmt: skip
BATCH = {
    "SLURM_JOB_ID": "204711", "SLURM_JOB_NAME": "faces", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2", "SLURM_NODELIST": "gnode[10-11]", "SLURM_JOB_NODELIST": "gnode[10-11]", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_TASKS_PER_NODE": "2(x2)",
}  # fmt: skip
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
BY_HAND = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.5", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {**TORCHRUN, **KUBEFLOW, **STEP}:
        monkeypatch.delenv(name, raising=False)


def launched(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> Position | None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return position()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (TORCHRUN, Position(3, 4, "node-1", 41873, 1, 2, hosted=True)),
        ({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "False"}, Position(3, 4, "node-1", 41873, 1, 2)),
        (KUBEFLOW, Position(2, 3, "faces-master-0", 23456)),
        (BY_HAND, Position(1, 2, "10.0.0.5", 29500)),
        ({**STEP, **TORCHRUN}, Position(3, 4, "node-1", 41873, 1, 2, hosted=True)),  # `srun torchrun`
        ({}, None),
        ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, None),
        ({**KUBEFLOW, "WORLD_SIZE": "1", "RANK": "0"}, None),
        (BATCH, None),  # a batch script that starts agepipe without srun
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"WORLD_SIZE": "4"}, None),
    ],
)
def test_each_launcher_is_honoured(
    variables: dict[str, str], expected: Position | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightning_fabric", reason="needs the extra distributed")
    assert launched(monkeypatch, variables) == expected


def test_slurm_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning_fabric", reason="needs the extra distributed")
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # Fabric sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert launched(monkeypatch, STEP) == Position(3, 4, "gnode10", 15000 + 4711, 1)
    assert launched(monkeypatch, {**STEP, "MASTER_ADDR": "gnode11", "MASTER_PORT": "5000"}) == Position(
        3, 4, "gnode11", 5000, 1
    )


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        ({**BY_HAND, "MASTER_PORT": ""}, "MASTER_PORT", "WORLD_SIZE is 2"),
        ({**BY_HAND, "MASTER_ADDR": ""}, "MASTER_ADDR", "WORLD_SIZE is 2"),
        ({**BY_HAND, "RANK": "2"}, "RANK", "2"),
        ({**BY_HAND, "RANK": "first"}, "RANK", "'first'"),
        ({**BY_HAND, "WORLD_SIZE": "two"}, "WORLD_SIZE", "'two'"),
        ({name: value for name, value in STEP.items() if name != "SLURM_NTASKS_PER_NODE"}, "SLURM_STEP_NUM_TASKS", "4"),
    ],
)
def test_variables_that_cannot_be_used_are_named(
    variables: dict[str, str], field: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=rf"{field}.*{value}"):
        launched(monkeypatch, variables)


@pytest.mark.parametrize("variables", [TORCHRUN, KUBEFLOW, STEP])
def test_several_ranks_need_the_extra(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"agepipe\[distributed\]"):
        launched(monkeypatch, variables)


def test_a_command_that_no_launcher_started_imports_neither_torch_nor_fabric() -> None:
    code = "import sys; from agepipe.training.launcher import position; position(); print(*sys.modules)"
    variables = {name: value for name, value in os.environ.items() if name not in {**TORCHRUN, **STEP}}
    said = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert not {"torch", "lightning_fabric"} & set(said.stdout.split())
