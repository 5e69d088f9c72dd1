"""All the real photographs in a process of their own: what it takes, and what the audit says of them."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agepipe.config.stages import LabelSettings
from agepipe.data.audit import Audit, audit
from agepipe.data.records import Catalogue

GIB = 2**30
INGEST = """
    import json, sys
    from pathlib import Path
    from agepipe.config.stages import IngestSettings, SourceSettings
    from agepipe.config.runtime import Runtime
    from agepipe.data.sources import fingerprint
    from tasks.data import ingest

    runtime = Runtime(workspace=Path(sys.argv[1]), workers=2)
    catalogue = ingest(fingerprint(SourceSettings(data=(sys.argv[2],)), runtime), IngestSettings(), runtime)
    # Not getrusage: on Linux its peak starts from that of the process that started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak": int(peak.split()[1]) * 1024, "catalogue": catalogue.model_dump(mode="json")}))
"""
COUNTS = [1440, 678, 766, 388, 518, 1241, 4292, 3020, 2859, 1883, 1981, 1053, 610, 486]


@pytest.fixture(scope="module")
def measured(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Audit]:
    """Peak resident memory of the ingest, bytes, and the audit of what it made."""
    code = [
        sys.executable,
        "-c",
        textwrap.dedent(INGEST),
        str(tmp_path_factory.mktemp("real")),
        str(shared / "utkface"),
    ]
    printed = json.loads(subprocess.run(code, check=True, capture_output=True, text=True, timeout=250).stdout)
    return printed["peak"], audit(Catalogue.model_validate(printed["catalogue"]), LabelSettings())


@pytest.mark.slow
def test_ingest_of_all_photographs_stays_under_one_gibibyte(measured: tuple[int, Audit]) -> None:
    peak, _ = measured
    assert 50 * 2**20 < peak < GIB


@pytest.mark.slow
def test_the_audit_agrees_with_what_is_known_of_the_photographs(measured: tuple[int, Audit]) -> None:
    _, found = measured
    assert (found.files, found.usable, found.repeated, found.rejected, found.outside) == (21_329, 21_215, 114, 0, 0)
    assert [tally.count for tally in found.ranges] == COUNTS
    assert [tally.count for tally in found.races if tally.name == "unknown"] == [3]
    assert found.ages[-1][0] == 116
    assert 26 in {spike.age for spike in found.spikes}
    exact = found.exact
    assert (exact.groups, exact.surplus, exact.ages, exact.ranges) == (335, 350, 181, 117)
    assert found.near.groups == pytest.approx(820, abs=5)
    assert found.near.surplus == pytest.approx(899, abs=5)
