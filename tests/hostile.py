"""A file that runs a program on whoever unpickles it, or trusts Prefect's formats."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Hostile:
    """What it leaves where it was run."""

    mark: Path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)

    @property
    def ran(self) -> bool:
        """Whether it was."""
        return self.mark.exists()

    def pickled(self) -> bytes:
        """As a pickle."""
        return pickle.dumps(self, protocol=2)  # the one that `torch.load` takes as its own

    def array(self, path: Path) -> None:
        """As the one element of a NumPy file, an archive where the name says so."""
        held = np.array([self], dtype=object)
        if path.suffix == ".npz":
            np.savez(path, probabilities=held, years=held, seconds=held)
        else:
            np.save(path, held)

    def tensors(self, path: Path) -> None:
        """As a file of torch's."""
        torch.save(self, path)

    def result(self) -> bytes:
        """As a result that Prefect keeps, which names a pickle as its own format."""
        from prefect.results import ResultRecord, ResultRecordMetadata
        from prefect.serializers import PickleSerializer

        metadata = ResultRecordMetadata(serializer=PickleSerializer())
        return ResultRecord(metadata=metadata, result=self).serialize()

    def call(self) -> bytes:
        """As a result in JSON, of which Prefect's decoder makes a call."""
        from prefect.results import ResultRecordMetadata
        from prefect.serializers import JSONSerializer

        said = {"__class__": "subprocess.getoutput", "data": {"cmd": f"touch {self.mark}"}}
        metadata = json.loads(ResultRecordMetadata(serializer=JSONSerializer()).dump_bytes())
        return json.dumps({"metadata": metadata, "result": json.dumps(said)}).encode()
