"""The same picture is found again in another size and quality; another one of the same kind is not."""

from __future__ import annotations

import cv2
import numpy as np

import good_data
from ocr_finetune_trainer.data.duplicates import DISTANCE, candidates, find, looks_same
from ocr_finetune_trainer.data.pictures import decode, difference_hashes, encode, inspect, looks
from ocr_finetune_trainer.data.split import components


def describe_all(pictures):
    inspected = [inspect(encode(picture, lossless=True)) for picture in pictures]
    digest = np.array([hash(i.content) & (2**63 - 1) for i in inspected], dtype=np.uint64)
    cells = looks([i.thumbnail for i in inspected]).cells
    across, down = difference_hashes(cells)
    return across, down, digest, cells, np.array([i.width / i.height for i in inspected])


def find_all(pictures):
    across, down, digest, cells, ratios = describe_all(pictures)
    return find(across, down, digest, cells=cells, ratios=ratios, picture=lambda index: pictures[index])


def test_copies_are_found_and_others_are_not():
    originals = [good_data.picture(seed, height=48, width=160, text=f"w{seed}") for seed in range(40)]
    smaller = cv2.resize(originals[3], (120, 36), interpolation=cv2.INTER_AREA)
    worse = decode(encode(originals[7], lossless=False))
    pictures = [*originals, smaller, worse, originals[9]]
    exact, near = find_all(pictures)
    assert exact.tolist() == [[9, 42]]
    assert near.tolist() == [[3, 40], [7, 41]]


def test_different_handwritten_digits_are_different():
    from sklearn.datasets import load_digits

    images = load_digits().images[:400]
    pictures = [
        cv2.resize((255 - image * 15.9).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)[:, :, None].repeat(
            3, 2
        )
        for image in images
    ]
    exact, near = find_all(pictures)
    assert (len(exact), len(near)) == (0, 0)


def test_blank_pictures_of_one_shade_look_the_same():
    light, dark = np.full((20, 60, 3), 250, np.uint8), np.full((20, 60, 3), 20, np.uint8)
    assert looks_same(light, np.full((40, 120, 3), 248, np.uint8))
    assert not looks_same(light, dark)
    assert not looks_same(light, np.full((20, 20, 3), 250, np.uint8))


def test_bands_lose_no_pair_within_the_distance():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, size=(300, 2)).astype(np.uint64)
    flipped = base.copy()
    for index in range(len(flipped)):
        for bit in rng.choice(128, size=DISTANCE, replace=False):
            flipped[index, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    both = np.concatenate([base, flipped])
    found = {tuple(pair) for pair in candidates(both[:, 0], both[:, 1]).tolist()}
    assert found == {(index, index + 300) for index in range(300)}


def test_a_million_equal_hashes_cost_no_square():
    same = np.zeros(20_000, dtype=np.uint64)
    assert len(candidates(same, same)) < 20 * len(same)


def test_many_that_look_the_same_are_joined_by_as_few_pairs_as_that_takes():
    original = good_data.picture(3, height=48, width=160, text="frame")
    pictures = [original.copy() for _ in range(60)]
    for number, picture in enumerate(pictures):
        picture[0, number] = 0
    exact, near = find_all(pictures)
    assert (len(exact), len(near)) == (0, len(pictures) - 1)
    assert components(len(pictures), np.zeros(len(pictures), np.uint64), near).max() == 0


def test_one_of_many_equal_pictures_is_compared_for_all_of_them():
    original = good_data.picture(3, height=48, width=160, text="copy")
    smaller = cv2.resize(original, (120, 36), interpolation=cv2.INTER_AREA)
    looked_at = []

    def picture(index):
        looked_at.append(index)
        return pictures[index]

    pictures = [good_data.picture(5), original, original, smaller, original]
    across, down, digest, cells, ratios = describe_all(pictures)
    exact, near = find(across, down, digest, cells=cells, ratios=ratios, picture=picture)
    assert exact.tolist() == [[1, 2], [2, 4]]
    assert near.tolist() == [[1, 3]]
    assert sorted(looked_at) == [1, 3]
