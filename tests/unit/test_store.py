"""The weights a run starts from: official, one's own, another run's; each with the dictionary it was trained with."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError
from ocr_finetune_api.model_table import TABLE
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.sources import Opener
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.models.library import Library
from ocr_finetune_trainer.models.store import load_prepared, obtain, official_dictionary

NAME = "PP-OCRv3_mobile_rec_ctc"
CHARACTERS = ("b", "a", "🇯🇵", "0")


def _weights(path: Path, classes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"head.fc.bias": paddle.ones([classes]), "backbone.x": paddle.zeros([2])}
    paddle.save(state, str(path))


def _config(path: Path, characters: tuple[str, ...] = CHARACTERS) -> None:
    path.write_text(
        json.dumps({"PostProcess": {"character_dict": list(characters)}}, ensure_ascii=False), encoding="utf-8"
    )


@pytest.fixture
def library(tmp_path: Path) -> Library:
    folder = tmp_path / "home" / "PP-OCRv3_mobile_rec"
    _weights(folder / "PP-OCRv3_mobile_rec_pretrained.pdparams", len(CHARACTERS) + 2)
    _config(folder / "inference.yml")
    return Library([tmp_path / "home"], mirror="http://127.0.0.1:9")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work", "plates-12345678")


def _nothing(_: Workspace) -> dict[str, np.ndarray]:
    raise AssertionError


def _obtain(pretrained: str, workspace: Workspace, library: Library, name: str = NAME) -> Dictionary | None:
    """Obtains, reads again, and gives the dictionary."""
    found = obtain(name, pretrained, workspace=workspace, best_of=_nothing, library=library)
    arrays, dictionary, source = load_prepared(workspace.weights)
    assert arrays
    assert (dictionary, source) == (found.dictionary, pretrained)
    assert sorted(p.name for p in workspace.folder.iterdir()) == ["weights"]
    return dictionary


def test_none_is_none(workspace: Workspace, library: Library) -> None:
    assert obtain(NAME, "none", workspace=workspace, best_of=_nothing, library=library) is None


def test_official_weights_come_with_their_dictionary(workspace: Workspace, library: Library) -> None:
    assert _obtain("official", workspace, library) == Dictionary(CHARACTERS)


def test_official_files_that_do_not_belong_together_are_refused(
    workspace: Workspace, library: Library, tmp_path: Path
) -> None:
    (tmp_path / "home" / "PP-OCRv3_mobile_rec" / "inference.yml").unlink()
    _config(tmp_path / "home" / "PP-OCRv3_mobile_rec" / "inference.yml", ("a",))
    with pytest.raises(DataError, match=r"head has 6 classes, but .* has 1 characters, which makes 3"):
        _obtain("official", workspace, library)


@pytest.mark.parametrize("beside", ["w.txt", "dictionary.txt", "inference.yml"])
@pytest.mark.parametrize("use_space", [True, False])
def test_ones_own_weights_find_their_dictionary_beside_them(
    workspace: Workspace, library: Library, tmp_path: Path, beside: str, use_space: bool
) -> None:
    dictionary = Dictionary(("x", "y"), use_space=use_space)
    _weights(tmp_path / "own" / "w.pdparams", dictionary.size + 1)
    if beside.endswith("yml"):
        _config(tmp_path / "own" / beside, dictionary.characters)
    else:
        (tmp_path / "own" / beside).write_text("x\ny\n")
    assert _obtain(str(tmp_path / "own" / "w.pdparams"), workspace, library) == dictionary


def test_weights_in_object_storage_come_with_their_dictionary(
    workspace: Workspace, library: Library, tmp_path: Path
) -> None:
    store = fsspec.filesystem("memory")
    _weights(tmp_path / "w.pdparams", 3)
    store.pipe({"/models/w.pdparams": (tmp_path / "w.pdparams").read_bytes(), "/models/w.txt": b"x\ny\n"})
    opener = Opener(cache=tmp_path / "cache")
    found = obtain(
        NAME, "memory://models/w.pdparams", workspace=workspace, best_of=_nothing, library=library, fetch=opener.fetch
    )
    assert found.dictionary == Dictionary(("x", "y"), use_space=False)
    assert load_prepared(workspace.weights)[0]["head.fc.bias"].shape == (3,)
    with pytest.raises(InputMissingError, match="does not exist"):
        obtain(
            NAME, "memory://models/no.pdparams", workspace=workspace, best_of=_nothing, library=library,
            fetch=opener.fetch,
        )  # fmt: skip


def test_weights_of_an_unknown_dictionary_are_refused(workspace: Workspace, library: Library, tmp_path: Path) -> None:
    _weights(tmp_path / "own" / "w.pdparams", 50)
    with pytest.raises(DataError, match=r"head has 50 classes, and no dictionary with 48 or 49 characters") as caught:
        _obtain(f"file://{tmp_path}/own/w.pdparams", workspace, library)
    assert "w.txt" in caught.value.hint
    (tmp_path / "own" / "w.txt").write_text("x\ny\n")
    with pytest.raises(DataError, match=r"looked at .*w\.txt \(2 characters\)"):
        _obtain(f"file://{tmp_path}/own/w.pdparams", workspace, library)


def test_without_a_dictionary_beside_them_the_official_one_must_fit(
    workspace: Workspace, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the real one has 6,623 characters; a table with 4 stands for it
    import dataclasses

    monkeypatch.setitem(TABLE, NAME, dataclasses.replace(TABLE[NAME], dictionary_size=4))
    _weights(tmp_path / "own" / "w.pdparams", 6)
    assert _obtain(str(tmp_path / "own" / "w.pdparams"), workspace, library) == Dictionary(CHARACTERS)


def test_a_backbone_and_a_detector_need_no_dictionary(workspace: Workspace, library: Library, tmp_path: Path) -> None:
    save_file({"backbone.x": np.ones(2, dtype=np.float32)}, tmp_path / "b.safetensors")
    assert _obtain(str(tmp_path / "b.safetensors"), workspace, library) is None
    assert _obtain(str(tmp_path / "b.safetensors"), workspace, library, name="DB_mv3") is None


@pytest.mark.parametrize("folder", ["first-abcdefgh", "first-local"])
def test_another_runs_best_checkpoint(workspace: Workspace, library: Library, tmp_path: Path, folder: str) -> None:
    other = Workspace(workspace.root, folder)
    other.data.mkdir(parents=True)
    Dictionary(("q",), use_space=False).save(other.dictionary)

    def best_of(asked: Workspace) -> dict[str, np.ndarray]:
        assert asked == other
        return {"head.fc.bias": np.ones(2, dtype=np.float32)}

    found = obtain(NAME, "run://first", workspace=workspace, best_of=best_of, library=library)
    assert found.dictionary == Dictionary(("q",), use_space=False)
    assert load_prepared(workspace.weights)[0]["head.fc.bias"].tolist() == [1.0, 1.0]
    with pytest.raises(InputMissingError, match="there is no run 'second' in .*; runs there: first"):
        obtain(NAME, "run://second", workspace=workspace, best_of=best_of, library=library)


def test_what_cannot_be_had_says_why(workspace: Workspace, library: Library, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="there is no such file"):
        _obtain(str(tmp_path / "none.pdparams"), workspace, library)
    with pytest.raises(ConfigurationError, match="addresses of this kind"):
        _obtain("gopher://x/w.pdparams", workspace, library)
    (tmp_path / "w.pdparams").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"asks for os\.system"):
        _obtain(str(tmp_path / "w.pdparams"), workspace, library)
    with pytest.raises(InputMissingError, match="there are no prepared weights"):
        load_prepared(workspace.weights)
    assert list(workspace.folder.rglob("*")) == []


def test_prepared_weights_that_changed_are_refused(workspace: Workspace, library: Library) -> None:
    _obtain("official", workspace, library)
    file = workspace.weights / "weights.pdparams"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1])
    with pytest.raises(DataError, match="not the file that was prepared"):
        load_prepared(workspace.weights)


def test_another_source_takes_the_place_of_the_first(workspace: Workspace, library: Library, tmp_path: Path) -> None:
    _obtain("official", workspace, library)
    save_file({"backbone.x": np.ones(2, dtype=np.float32)}, tmp_path / "b.safetensors")
    assert _obtain(str(tmp_path / "b.safetensors"), workspace, library) is None
    assert sorted(p.name for p in workspace.weights.iterdir()) == ["source.json", "weights.safetensors"]


def test_an_inference_yml_without_a_dictionary_is_refused(tmp_path: Path) -> None:
    for content in ("a: 1", "PostProcess: {character_dict: x}", "{", "PostProcess: {character_dict: []}"):
        (tmp_path / "inference.yml").write_text(content)
        with pytest.raises(DataError, match=r"no inference\.yml with a dictionary"):
            official_dictionary(tmp_path / "inference.yml")
