"""The camera on a video of real chips: what it draws, what it writes down, what it does when the model changes."""

import json
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import RANGES, make_bundle
from chips import detector_file, real_chips
from videos import RATE, read, scene, video

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError, ModelError, ServiceError, SourceError
from agepipe.model.bundle import Card
from agepipe.model.decoding import Decoding, Rule, decide
from agepipe.model.imaging import Image, fit
from agepipe.model.predictor import Prediction, Predictor
from agepipe.serving import camera, camera_session
from agepipe.serving.align import align
from agepipe.serving.camera import Camera
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.deploy import folder_of, switch
from agepipe.serving.detect import yunet
from agepipe.serving.detect.face import Face
from agepipe.serving.detect.yunet import YuNet
from agepipe.serving.model_source import DeployedModel, FixedModel
from agepipe.serving.overlay import label_lines
from agepipe.serving.sinks import AnnotatedFrame
from agepipe.serving.sources import Frame, open_source
from agepipe.serving.tracker import Track
from agepipe.serving.window import Keys


@pytest.fixture(scope="module")
def chips(sample_archive: Path) -> list[Image]:
    return [real_chips(sample_archive, step=70)[0][at] for at in (8, 1)]


@pytest.fixture(scope="module")
def film(chips: list[Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video(tmp_path_factory.mktemp("film") / "film.mp4", chips)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "brightness").folder


@pytest.fixture
def here(runtime: Runtime, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return runtime


def asked(film: Path | str, folder: Path, **changes: object) -> CameraOptions:
    known = {"source": str(film), "headless": True, "output": folder / "out.mp4", "events": folder / "out.jsonl"}
    return CameraOptions(**{**known, **changes})  # type: ignore[arg-type]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answered(picture: Image, bundle: Path, shared: Path) -> tuple[Card, Prediction]:
    """What the predictor says of the faces of a picture, largest first."""
    predictor = Predictor.load(bundle)
    faces = YuNet(detector_file(shared)).search(picture)
    cut = np.stack([fit(align(picture, face.landmarks), predictor.card.size) for face in faces])
    return predictor.card, predictor.predict(cut)


def test_a_video_is_annotated_and_every_face_written_down(
    film: Path, bundle: Path, here: Runtime, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    done = camera_session.run(
        asked(film, tmp_path, model=str(bundle)), here, lambda done, total, note="": told.append((done, total))
    )
    assert (done.frames, done.faces, done.tracks) == (30, 60, {1, 2})
    assert done.models == ["brightness"]
    assert told[-1] == (30, 30)
    plain, drawn = read(film), read(tmp_path / "out.mp4")
    assert len(drawn) == 30
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == RATE
    capture.release()
    events = lines(tmp_path / "out.jsonl")
    assert Counter(event["track"] for event in events) == {1: 30, 2: 30}
    for event in (events[0], events[-1]):
        left, top, width, height = (int(value) for value in event["box"])  # type: ignore[attr-defined]
        at = int(event["frame"])  # type: ignore[call-overload]
        changed = np.abs(drawn[at].astype(int) - plain[at]).max(axis=2)
        assert changed[top + height // 2, left - 2 : left + 3].max() > 40, "the box is drawn"
        assert changed[top + height // 2, left + width // 2] < 40, "and the face left as it is"
    assert {path.name for path in tmp_path.iterdir()} >= {"out.mp4", "out.jsonl"}
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    ("sharpness", "decoding", "thresholds"), [(60.0, "likeliest", {}), (6.0, "median", {90: 0.85})]
)
def test_events_have_what_the_predictor_says_of_the_same_faces_by_the_card(
    chips: list[Image], shared: Path, here: Runtime, tmp_path: Path, sharpness: float, decoding: Decoding,
    thresholds: dict[int, float],
) -> None:  # fmt: skip
    bundle = make_bundle(tmp_path / "bundle", sharpness=sharpness, decoding=decoding, thresholds=thresholds).folder
    path, picture = tmp_path / "two.png", scene(chips, 10)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    camera_session.run(asked(path, tmp_path, model=str(bundle), output=tmp_path / "drawn.png"), here)
    card, expected = answered(picture, bundle, shared)
    events = lines(tmp_path / "out.jsonl")
    labels = decide(expected.probabilities, decoding)
    assert [event["range"] for event in events] == [card.ranges.words[label] for label in labels]
    assert [event["age"] for event in events] == pytest.approx(expected.years.tolist(), abs=1e-3)
    spans = card.spans(expected.probabilities) if thresholds else [(None, None)] * len(events)
    assert [(event["low"], event["high"]) for event in events] == spans
    assert cv2.imread(str(tmp_path / "drawn.png")).shape == (480, 640, 3)


class Kept:
    """A model that keeps the chips that it is given."""

    title = "kept"

    def __init__(self, bundle: Path) -> None:
        self.card, self.chips = Predictor.load(bundle).card, list[Image]()

    @property
    def predictor(self) -> "Kept":
        return self

    def update(self) -> bool:
        return False

    def notes(self) -> list[str]:
        return []

    def predict(self, images: np.ndarray) -> Prediction:
        self.chips += list(images)
        count = len(images)
        return Prediction(np.full((count, len(RANGES)), 1 / len(RANGES), np.float32), np.full(count, 20.0, np.float32))


def test_the_network_sees_the_colours_of_the_face_not_red_for_blue(
    chips: list[Image], bundle: Path, shared: Path
) -> None:
    tinted = [(chip * np.array([1.0, 0.8, 0.4])).astype(np.uint8) for chip in chips]
    model = Kept(bundle)
    Camera(model, YuNet(detector_file(shared))).process(Frame(scene(tinted, 10), 0.0))
    assert len(model.chips) == 2
    for chip in model.chips:
        red, _, blue = chip.mean(axis=(0, 1))
        assert red > 1.3 * blue


def test_an_unsure_model_shows_between_which_ages_the_face_nearly_surely_is() -> None:
    def said(probabilities: list[float], rule: Rule) -> list[str]:
        nowhere = Face(np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 1.0)
        return label_lines(Track(1, nowhere, np.array(probabilities), 30.0, 0.0, rule), RANGES)

    rule = Rule(threshold=0.85)
    assert said([0.0, 0.5, 0.4, 0.1], rule) == ["11 to 20   50%", "about 20 years", "90% sure: 11 to 40"]
    assert said([0.0, 0.1, 0.4, 0.5], rule) == ["over 40   50%", "about 41 years", "90% sure: over 20"]
    assert said([0.0, 0.1, 0.9, 0.0], rule) == ["21 to 40   90%", "about 30 years"]
    assert said([0.0, 0.5, 0.4, 0.1], Rule()) == ["11 to 20   50%", "about 20 years"]


def test_pictures_of_a_folder_are_taken_apart_and_bad_ones_named(
    chips: list[Image], bundle: Path, here: Runtime, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for at in (0, 10):
        cv2.imwrite(str(folder / f"{at}.png"), cv2.cvtColor(scene(chips, at), cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(folder / "z.png"), np.full((50, 1000, 3), 90, np.uint8))
    (folder / "text.jpg").write_text("no picture")
    done = camera_session.run(asked(folder, tmp_path, model=str(bundle)), here)
    assert (done.frames, done.tracks) == (3, {1, 2, 3, 4})
    assert [note for note in done.notes if "text.jpg: not an image" in note]
    assert [frame.shape for frame in read(tmp_path / "out.mp4")] == [(480, 640, 3)] * 3


def test_the_number_of_frames_can_be_bounded(film: Path, bundle: Path, here: Runtime, tmp_path: Path) -> None:
    assert camera_session.run(asked(film, tmp_path, model=str(bundle), frames=4), here).frames == 4
    assert len(read(tmp_path / "out.mp4")) == 4


class Disturbance:
    """Does something at a frame, as the world does."""

    def __init__(self, at: int, what: object) -> None:
        self.at, self.what, self.count = at, what, 0

    def write(self, result: AnnotatedFrame) -> None:
        self.count += 1
        if self.count == self.at:
            self.what()  # type: ignore[operator]

    def close(self) -> None:
        pass


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_finishes_the_files(film: Path, bundle: Path, shared: Path, tmp_path: Path) -> None:
    from agepipe.serving.sinks import Events, Recorder

    looking = Camera(FixedModel(bundle, "x"), YuNet(detector_file(shared)))
    sinks = [Recorder(tmp_path / "a.mp4", RATE), Events(tmp_path / "a.jsonl"), Disturbance(5, interrupt)]
    done = camera.run(open_source(str(film)), looking, sinks)
    assert (done.frames, done.stopped) == (4, True)
    assert len(read(tmp_path / "a.mp4")) == 5
    assert {event["frame"] for event in lines(tmp_path / "a.jsonl")} == set(range(5))


def test_a_switched_pointer_is_followed_between_two_frames(film: Path, runtime: Runtime, shared: Path) -> None:
    """Every frame is treated; the first model answers until the second is loaded, then the second does."""
    one, two = (make_bundle(folder_of(runtime) / f"agepipe-{at}-x", sharpness=60.0 / at).folder for at in (1, 2))
    switch(one, "agepipe", 1, runtime)
    model = DeployedModel(runtime)
    titles: list[str] = []

    class Titles(Disturbance):
        def write(self, result: AnnotatedFrame) -> None:
            super().write(result)
            titles.append(result.model)

    def change() -> None:
        before = set(threading.enumerate())
        switch(two, "agepipe", 2, runtime)
        assert not model.update(), "it never waits for the next model"
        for loading in set(threading.enumerate()) - before:
            loading.join()

    done = camera.run(open_source(str(film)), Camera(model, YuNet(detector_file(shared))), [Titles(10, change)])
    assert titles == ["agepipe version 1"] * 10 + ["agepipe version 2"] * 20
    assert done.models == ["agepipe version 1", "agepipe version 2"]
    assert done.tracks == {1, 2, 3, 4}, "the averages of another model are forgotten"
    assert "Changed over to agepipe version 2." in done.notes


def test_a_damaged_next_model_leaves_the_last_one_at_work(runtime: Runtime) -> None:
    one, two = (make_bundle(folder_of(runtime) / f"agepipe-{at}-x").folder for at in (1, 2))
    switch(one, "agepipe", 1, runtime)
    model = DeployedModel(runtime)
    switch(two, "agepipe", 2, runtime)
    shutil.rmtree(two)
    for _ in range(200):
        assert not model.update()
        if model.notes():
            break
        time.sleep(0.05)
    assert model.title == "agepipe version 1"
    assert "agepipe version 1 goes on" in model.notes()[0]


def test_without_a_deployed_model_and_a_champion_it_says_how_to_get_one(tracked: Runtime) -> None:
    with pytest.raises(ModelError, match="agepipe run sample"):
        DeployedModel(tracked)


def test_what_cannot_work_is_refused_before_anything_is_opened(
    film: Path, bundle: Path, here: Runtime, tmp_path: Path
) -> None:
    ok = {"model": str(bundle)}
    with pytest.raises(ServiceError, match=r"no display .* add --headless"):
        camera_session.run(asked(film, tmp_path, **ok, headless=False), here)
    with pytest.raises(ConfigError, match="--headless"):
        camera_session.run(asked(film, tmp_path, **ok, output=None, events=None), here)
    with pytest.raises(ConfigError, match=r"ends in '\.gif'"):
        camera_session.run(asked(film, tmp_path, **ok, output=tmp_path / "a.gif"), here)
    with pytest.raises(SourceError, match=r"none\.mp4 does not exist"):
        camera_session.run(asked(tmp_path / "none.mp4", tmp_path, **ok), here)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(SourceError, match="is no video that can be read"):
        camera_session.run(asked(tmp_path / "text.mp4", tmp_path, **ok), here)
    with pytest.raises(SourceError, match="camera or stream 9 cannot be opened"):
        camera_session.run(asked("9", tmp_path, **ok), here)
    assert not (tmp_path / "out.jsonl").exists()


def test_keys_pause_show_help_take_snapshots_and_quit() -> None:
    keys = Keys()
    for key in (-1, ord("x")):
        keys.press(key)
    assert not (keys.quit or keys.paused or keys.show_help or keys.snapshot)
    keys.press(ord("s"))
    assert keys.snapshot
    for key in "pH":
        keys.press(ord(key))
    assert (keys.paused, keys.show_help, keys.snapshot) == (True, True, False)
    for key in "ph":
        keys.press(ord(key))
    assert (keys.paused, keys.show_help) == (False, False)
    keys.press(27)
    assert keys.quit
