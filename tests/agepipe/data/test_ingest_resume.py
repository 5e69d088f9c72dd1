"""What a second ingest of one source does: finds the first one's result, goes on where it was killed, or waits."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest
from folders import fresh
from photographs import chip_name, chips, jpeg
from test_ingest import SETTINGS, everything, take, work_folder

from agepipe.config.runtime import Runtime
from agepipe.config.stages import SourceSettings
from agepipe.data import ingest as stage
from agepipe.data import journal
from agepipe.data.archives import Entry
from agepipe.data.sources import fingerprint


def test_the_number_of_threads_changes_nothing(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_CHUNK_PIXELS", 1)  # 8 files a chunk
    chips(tmp_path / "faces", 60)
    one = everything(take(runtime.model_copy(update={"workers": 1}), tmp_path / "faces"))
    shutil.rmtree(runtime.workspace)
    assert everything(take(runtime.model_copy(update={"workers": 7}), tmp_path / "faces")) == one


def test_chunks_that_are_read_ahead_are_not_decoded_after_an_interruption() -> None:
    read: list[int] = []

    def entry(number: int) -> Entry:
        def content() -> bytes:
            time.sleep(0.5 if number else 0)
            read.append(number)
            return jpeg(number)

        return Entry(chip_name(20, number), 1, content)

    chunks = [([entry(number)], number) for number in range(4)]
    with closing(stage._examined(chunks, SETTINGS, workers=1)) as found:
        next(found)
    assert len(read) < len(chunks)


def test_progress_rises_to_the_whole(tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_CHUNK_PIXELS", 1)
    chips(tmp_path / "faces", 30)
    seen: list[tuple[int, int]] = []
    source = fingerprint(SourceSettings(data=(str(tmp_path / "faces"),)), runtime)
    stage.ingest(source, SETTINGS, fresh(tmp_path), runtime, lambda done, total, note="": seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) == 5 and seen[-1][0] == seen[-1][1] == sum(
        path.stat().st_size for path in (tmp_path / "faces").iterdir()
    )


RUN = """
    import sys, time
    from pathlib import Path
    from agepipe.config.stages import IngestSettings, SourceSettings
    from agepipe.config.runtime import Runtime
    from agepipe.data import ingest as stage, journal
    from agepipe.data.sources import fingerprint
    from tasks.data import ingest

    stage._CHUNK_PIXELS = 1
    keep, seen = journal.Journal.add, []

    def slow(self, examined):
        keep(self, examined)
        seen.append(len(examined.ledger))
        print(len(seen), flush=True)
        time.sleep(float(sys.argv[3]))

    journal.Journal.add = slow
    runtime = Runtime(workspace=Path(sys.argv[1]), workers=2)
    source = fingerprint(SourceSettings(data=(sys.argv[2],)), runtime)
    print("digest", ingest(source, IngestSettings(size=32), runtime).digest, sum(seen), flush=True)
"""


def start(workspace: Path, archive: Path, pause: float) -> "subprocess.Popen[str]":
    code = [sys.executable, "-c", textwrap.dedent(RUN), str(workspace), str(archive), str(pause)]
    return subprocess.Popen(code, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["tar", "gztar", "zip"])
def test_a_killed_ingest_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, runtime: Runtime, kind: str) -> None:
    chips(tmp_path / "faces", 100)
    (tmp_path / "faces" / "holiday.jpg").write_bytes(jpeg(1))
    (tmp_path / "faces" / "1_broken.jpg").write_bytes(jpeg(1))
    archive = Path(shutil.make_archive(str(tmp_path / "faces"), kind, tmp_path / "faces"))
    with start(runtime.workspace, archive, pause=0.2) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if line.strip() == "4":
                break
        os.kill(killed.pid, signal.SIGKILL)
    finished = len(list((work_folder(runtime) / "result-partial").glob("*.arrow")))
    assert 4 <= finished < 12
    with start(runtime.workspace, archive, pause=0) as second:
        assert second.stdout is not None
        digest, decoded = next(line for line in second.stdout if line.startswith("digest")).split()[1:]
    assert second.returncode == 0
    assert int(decoded) == 102 - 8 * finished
    (resumed,) = (path for path in (runtime.workspace / "datasets").iterdir() if path.is_dir())
    alone = runtime.model_copy(update={"workspace": tmp_path / "alone"})
    whole = take(alone, archive)
    assert whole.digest == digest
    assert {path.name: path.read_bytes() for path in resumed.iterdir()} == everything(whole)


def test_pictures_beyond_the_last_finished_chunk_are_cut_off(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between the pictures and the ledger of a chunk is the worst one for a kill."""
    monkeypatch.setattr(stage, "_CHUNK_PIXELS", 1)
    chips(tmp_path / "faces", 40)
    whole = everything(take(runtime, tmp_path / "faces"))
    shutil.rmtree(runtime.workspace)
    keep = journal.Journal._path

    def fails(self: journal.Journal, position: int) -> Path:
        if position == 2 and self.files:
            raise KeyboardInterrupt
        return keep(self, position)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(journal.Journal, "_path", fails)
        take(runtime, tmp_path / "faces")
    assert (work_folder(runtime) / "result" / "pixels.npy").stat().st_size > 128 + 16 * 32 * 32 * 3
    assert everything(take(runtime, tmp_path / "faces")) == whole


def test_two_ingests_of_one_source_take_turns(tmp_path: Path, runtime: Runtime) -> None:
    chips(tmp_path / "faces", 40)
    archive = Path(shutil.make_archive(str(tmp_path / "faces"), "tar", tmp_path / "faces"))
    both = [start(runtime.workspace, archive, pause=0.1) for _ in range(2)]
    lines = [(process.communicate(timeout=60)[0] or "").splitlines()[-1].split() for process in both]
    assert lines[0][1] == lines[1][1]
    assert sorted(int(line[2]) for line in lines) == [0, 40]
