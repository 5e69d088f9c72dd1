"""Copies are found, whatever their order and number; different photographs are not."""

import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest
from chips import real_chips
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agepipe.data import near_duplicates
from agepipe.data.duplicates import groups, linked, thumbnails
from agepipe.model import phash
from agepipe.model.phash import COPY_BITS, near, oriented, perceptual_hashes, sketches

Pixels = NDArray[np.uint8]


def faces(count: int, seed: int = 0, side: int = 24) -> Pixels:
    """Smooth random pictures that share a mean, as faces do; uint8 (count, side, side)."""
    random = np.random.default_rng(seed)
    mean = cv2.resize(random.normal(0, 25, (5, 5)), (side, side), interpolation=cv2.INTER_CUBIC)
    own = [cv2.resize(random.normal(0, 25, (7, 7)), (side, side), interpolation=cv2.INTER_CUBIC) for _ in range(count)]
    return np.clip(128 + mean + np.array(own), 0, 255).astype(np.uint8)


def names(count: int, prefix: str = "") -> list[str]:
    return [sha256(f"{prefix}{number}".encode()).hexdigest() for number in range(count)]


def dense(thumbs: Pixels, threshold: float) -> set[tuple[int, int]]:
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    left, right = np.nonzero(np.triu(flat @ flat.T > threshold, 1))
    return set(zip(left.tolist(), right.tolist(), strict=True))


def noisy(thumbs: Pixels, sigma: float, seed: int = 1) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, sigma, thumbs.shape)
    return np.clip(thumbs + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def chips(sample_archive: Path) -> Pixels:
    """Real chips at 108 px, RGB."""
    chips = real_chips(sample_archive)[0]
    return np.stack([cv2.resize(chip, (108, 108), interpolation=cv2.INTER_AREA) for chip in chips])


def recoded(picture: Pixels) -> Pixels:
    small = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    back = cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    coded = cv2.imencode(".jpg", back, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    return cv2.GaussianBlur(cv2.imdecode(coded, cv2.IMREAD_COLOR), (0, 0), 0.7)


def test_no_picture_and_one_picture_have_groups() -> None:
    assert groups(np.empty((0, 24, 24), np.uint8), [], 0.975) == []
    assert groups(faces(1), ["a"], 0.975) == ["a"]


def test_different_faces_stay_alone_and_noisy_copies_join_under_the_smallest_digest() -> None:
    originals = faces(300)
    thumbs = np.concatenate([originals, noisy(originals[:40], 1.5)])
    digests = names(len(thumbs))
    found = groups(thumbs, digests, 0.975)
    for number in range(40):
        assert found[number] == found[300 + number] == min(digests[number], digests[300 + number])
    assert found[40:300] == digests[40:300]


def test_equal_digests_share_a_group_even_if_the_pictures_do_not() -> None:
    assert groups(faces(3), ["b", "a", "b"], 0.975) == ["b", "a", "b"]


def test_a_pair_shares_a_group_if_its_correlation_is_above_the_threshold() -> None:
    thumbs = np.concatenate([faces(1), noisy(faces(1), 6.0)])
    (pair,) = near_duplicates.correlation(thumbs.__getitem__, np.array([0]), np.array([1]))
    assert groups(thumbs, ["a", "b"], pair - 1e-6) == ["a", "a"]
    assert groups(thumbs, ["a", "b"], pair + 1e-6) == ["a", "b"]


def test_correlation_is_pearsons_and_zero_for_a_constant_picture() -> None:
    thumbs = np.concatenate([faces(2), np.full((1, 24, 24), 9, np.uint8)]).reshape(3, -1)
    found = near_duplicates.correlation(thumbs.__getitem__, np.array([0, 0]), np.array([1, 2]))
    assert found == pytest.approx([np.corrcoef(thumbs[:2].astype(float))[0, 1], 0.0])


def test_all_pairs_of_dense_correlation_are_found() -> None:
    originals = faces(3000, seed=3)
    thumbs = np.concatenate([originals, noisy(originals, 5.0)])
    wanted = dense(thumbs, 0.975)
    found = groups(thumbs, names(len(thumbs)), 0.975)
    assert len(wanted) > 2000
    missed = sum(found[a] != found[b] for a, b in wanted)
    assert missed <= 0.005 * len(wanted)


def test_with_a_scratch_folder_the_groups_are_the_same_and_little_is_allocated(tmp_path: Path) -> None:
    originals = faces(6000, seed=4)
    np.save(tmp_path / "thumbs.npy", np.concatenate([originals, noisy(originals, 5.0)]))
    thumbs = np.load(tmp_path / "thumbs.npy", mmap_mode="r")
    found, least = allocated(lambda: near_duplicates.joined(thumbs, 0.975, scratch=tmp_path))
    expected, most = allocated(lambda: near_duplicates.joined(thumbs, 0.975))
    assert np.array_equal(found, expected)
    assert least < 50e6  # 43 of them for blocks; the thumbnails and their mirror images have 14 MB, the features 8
    assert most - least > 600 * len(thumbs)
    assert [path.name for path in tmp_path.iterdir()] == ["thumbs.npy"]


def allocated(work: Callable[[], NDArray[np.int64]]) -> tuple[NDArray[np.int64], int]:
    """The result of the work, and the bytes that it had allocated at most."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 60), st.floats(0.0, 12.0))
def test_order_of_rows_changes_nothing(random: Random, count: int, sigma: float) -> None:
    originals = faces(count, seed=count)
    mirrored = originals[:, :, ::-1]
    thumbs = np.concatenate([originals, noisy(originals, sigma), originals[:1], noisy(mirrored, 4.0), mirrored[:1]])
    digests = names(len(thumbs))
    order = list(range(len(thumbs)))
    random.shuffle(order)
    expected = groups(thumbs, digests, 0.975)
    shuffled = groups(thumbs[order], [digests[at] for at in order], 0.975)
    assert shuffled == [expected[at] for at in order]


@pytest.mark.parametrize("value", [0, 128, 255])
def test_one_picture_many_times_is_one_group_at_once(value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = count_verified(monkeypatch)
    thumbs = np.full((20_000, 24, 24), value, dtype=np.uint8)
    digests = names(len(thumbs))
    assert set(groups(thumbs, digests, 0.975)) == {min(digests)}
    assert sum(compared) == 0


def test_one_face_with_noise_many_times_is_not_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = count_verified(monkeypatch)
    thumbs = noisy(np.repeat(faces(1), 5000, axis=0), 1.0)
    digests = names(len(thumbs))
    assert set(groups(thumbs, digests, 0.975)) == {min(digests)}
    assert sum(compared) < 20 * len(thumbs)


def test_constant_pictures_of_different_brightness_stay_apart() -> None:
    thumbs = np.repeat(np.arange(200, dtype=np.uint8), 576).reshape(-1, 24, 24)
    digests = names(200)
    assert groups(thumbs, digests, 0.975) == digests


def count_verified(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    real = near_duplicates.correlation

    def counting(
        read: Callable[[NDArray[np.int64]], Pixels], left: NDArray[np.int64], right: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        counts.append(len(left))
        return real(read, left, right)

    monkeypatch.setattr(near_duplicates, "correlation", counting)
    return counts


def test_comparisons_grow_with_the_rows_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = count_verified(monkeypatch)
    work = []
    for count in (1000, 8000):
        compared.clear()
        groups(faces(count, seed=count), names(count), 0.975)
        work.append(sum(compared) / count)
    assert work[1] < 3 * work[0] + 1


def test_merge_joins_chains_in_any_order() -> None:
    order = np.random.default_rng(0).permutation(1000)
    labels = np.arange(1000)
    near_duplicates.merge(labels, order[:-1], order[1:])
    assert (labels == 0).all()


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="2 thumbnails, but 1 digests"):
        groups(faces(2), ["a"], 0.975)


def test_a_look_has_256_bits_and_does_not_depend_on_brightness() -> None:
    pictures = np.repeat(noisy(faces(3, side=64), 20.0)[..., None], 3, axis=3)
    found = perceptual_hashes(pictures)
    assert [len(look) - len(sketch) for look, sketch in zip(found, sketches(found), strict=True)] == [32, 32, 32]
    darker = perceptual_hashes((pictures * 0.8).astype(np.uint8))
    assert near(darker, found).tolist() == [0, 1, 2]


def test_near_takes_the_nearest_within_the_limit() -> None:
    base = bytes(32)
    one = bytes([1]) + bytes(31)
    far = bytes([255] * 8) + bytes(24)
    assert near([base, one, far], [one, base]).tolist() == [1, 0, -1]
    assert near([base], [far, one], limit=0).tolist() == [-1]
    assert near([], [base]).tolist() == []
    assert near([base], []).tolist() == [-1]


def test_near_works_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    found = [random.bytes(32) for _ in range(50)]
    monkeypatch.setattr(phash, "BLOCK_PAIRS", 64)
    assert near(found, found).tolist() == list(range(50))


def test_ties_are_those_of_all_pairs() -> None:
    random = np.random.default_rng(5)
    base = random.integers(0, 2, (2000, 256), dtype=np.uint8)
    flipped = base.copy()
    for row in flipped:
        row[random.choice(256, COPY_BITS, replace=False)] ^= 1
    found = [np.packbits(row).tobytes() for row in np.concatenate([base, flipped])]
    ties = linked(found)
    assert (ties[:2000] == ties[2000:]).mean() > 0.995
    assert len(np.unique(ties)) >= 2000


def test_ties_of_nothing_and_of_one_look_many_times() -> None:
    assert linked([]).tolist() == []
    assert len(set(linked([bytes(32)] * 1000).tolist())) == 1


@pytest.mark.parametrize("size", [72, 108])
def test_real_chips_group_as_dense_correlation_says(chips: Pixels, size: int) -> None:
    pixels = np.stack([cv2.resize(chip, (size, size), interpolation=cv2.INTER_AREA) for chip in chips])
    thumbs = thumbnails(pixels)
    wanted = dense(thumbs, 0.975)
    found = groups(thumbs, names(len(thumbs)), 0.975)
    assert all(found[a] == found[b] for a, b in wanted)
    assert len(set(found)) >= len(found) - len(wanted)


def test_recoded_real_chips_are_found_and_other_people_are_not(chips: Pixels) -> None:
    originals = perceptual_hashes(chips)
    copies = perceptual_hashes(np.stack([recoded(chip) for chip in chips]))
    found = near(copies, originals)
    same = groups(thumbnails(chips), names(len(chips)), 0.975)
    assert all(at >= 0 and same[at] == same[row] for row, at in enumerate(found))
    half = len(chips) // 2
    apart = [row for row in range(half) if same[row] not in same[half:]]
    assert len(apart) > 300
    assert (near([originals[row] for row in apart], originals[half:]) == -1).all()


def test_thumbnails_are_grey_means_of_the_picture() -> None:
    pixels = np.zeros((1, 48, 48, 3), dtype=np.uint8)
    pixels[:, :, 24:] = 200
    thumb = thumbnails(pixels)
    assert thumb.shape == (1, 24, 24)
    assert (thumb[0, :, :12] == 0).all()
    assert (thumb[0, :, 12:] == 200).all()


@pytest.mark.parametrize("side", [50, 60, 70])
def test_a_pixel_of_a_thumbnail_is_the_mean_of_the_area_that_it_covers(side: int) -> None:
    grey = np.random.default_rng(5).integers(0, 256, (2, side, side), dtype=np.uint8)
    step = side / 24
    low = np.arange(24)[:, None] * step
    share = np.clip(np.minimum(low + step, np.arange(side) + 1) - np.maximum(low, np.arange(side)), 0, None) / step
    expected = np.einsum("ai,bj,nij->nab", share, share, grey, optimize=True)
    assert np.abs(thumbnails(grey) - expected).max() <= 1


def test_mirrored_copies_share_a_group_and_a_tie_and_mirrored_strangers_do_not() -> None:
    originals = noisy(faces(300, side=72), 20.0)
    copies = noisy(originals[:40, :, ::-1], 2.0)
    pictures = np.concatenate([originals, copies])
    digests = names(len(pictures))
    found = groups(thumbnails(pictures), digests, 0.975)
    tie = linked(perceptual_hashes(pictures))
    assert all(found[row] == found[300 + row] and tie[row] == tie[300 + row] for row in range(40))
    assert len(set(found)) == len(set(tie.tolist())) == 300


def test_a_symmetrical_picture_is_not_joined_with_others() -> None:
    half = faces(200, side=72)[:, :, :36]
    symmetrical = np.concatenate([half, half[:, :, ::-1]], axis=2)
    digests = names(200)
    assert groups(thumbnails(symmetrical), digests, 0.975) == digests


def test_the_looks_of_turned_pictures_follow_from_the_looks() -> None:
    pictures = noisy(faces(20, side=72), 10.0)
    both = [pictures, pictures[:, :, ::-1], pictures[:, ::-1], pictures[:, ::-1, ::-1]]
    known = [look for each in oriented(perceptual_hashes(pictures)) for look in each]
    for picture in [*both, *(each.transpose(0, 2, 1) for each in both)]:
        found = near(perceptual_hashes(np.ascontiguousarray(picture)), known, limit=4)
        assert (found % 20).tolist() == list(range(20))
