"""Whatever happens to a training, it ends like a calm one: a few dozen of the stories of `chaos.py`."""

from __future__ import annotations

import chaos
import pytest

STORIES = 24


@pytest.fixture(scope="module")
def expected(zygote, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos")
    prepared = chaos.prepare(folder / "prepared")
    return folder, prepared, {world: chaos.calm(zygote, prepared, folder, world=world) for world in (1, 2)}


@pytest.mark.parametrize("seed", range(STORIES))
def test_it_ends_like_a_calm_one(zygote, expected, seed):
    folder, prepared, jobs = expected
    world = 2 if seed % 8 == 7 else 1
    chaos.run_one(zygote, prepared, folder, jobs[world], seed=seed, world=world)
