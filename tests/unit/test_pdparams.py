"""Weights of other people: read, but never run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from ocr_finetune_api.exit_codes import DataError, ExitCode, InputMissingError
from ocr_finetune_trainer.models.pdparams import read_weights


def test_what_paddle_writes_is_read(tmp_path: Path) -> None:
    layer = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))
    state = layer.state_dict()
    for protocol in (2, 4):
        paddle.save(state, str(tmp_path / "w.pdparams"), protocol=protocol)
        arrays = read_weights(tmp_path / "w.pdparams")
        assert arrays.keys() == state.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, state[name].numpy())


def test_tensors_inside_other_values_are_read(tmp_path: Path) -> None:
    # not a plain state dictionary, so Paddle pickles (name, array) pairs
    paddle.save({"model": {"w": paddle.to_tensor([1.0, 2.0])}, "epoch": 3}, str(tmp_path / "w.pdparams"))
    np.testing.assert_array_equal(read_weights(tmp_path / "w.pdparams")["w"], [1.0, 2.0])


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5], dtype=np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps({"w": halves}))
    np.testing.assert_array_equal(read_weights(tmp_path / "w.pdparams")["w"], values)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"w": np.ones(2, dtype=np.float32)}, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors")["w"].tolist() == [1.0, 1.0]


class _Runs:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def _attacks(target: Path) -> dict[str, bytes]:
    touch = f"__import__('pathlib').Path({str(target)!r}).touch()"
    return {
        "posix.system": pickle.dumps({"w": _Runs(os.system, f"touch {target}")}),
        "builtins.eval": pickle.dumps({"w": _Runs(eval, touch)}),
        "builtins.exec": pickle.dumps({"w": _Runs(exec, touch)}),
        "io.open": pickle.dumps({"w": _Runs(io.open, str(target), "w")}),
        "builtins.getattr": b"cbuiltins\ngetattr\n(cos\nsystem\nVx\ntR.",
        "_codecs.encode": b"c_codecs\nencode\n(Vx\nVzlib\ntR.",
    }


@pytest.mark.parametrize("name", list(_attacks(Path("x"))))
def test_a_malicious_file_is_refused_and_runs_nothing(name: str, tmp_path: Path) -> None:
    target = tmp_path / "it_ran"
    (tmp_path / "w.pdparams").write_bytes(_attacks(target)[name])
    with pytest.raises(DataError, match=f"asks for {name}; weights may hold arrays only") as caught:
        read_weights(tmp_path / "w.pdparams")
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert not target.exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps({"w": np.array([[], None], dtype=object)}))
    with pytest.raises(DataError, match=r"numpy\.dtype\('O8'\)"):
        read_weights(tmp_path / "w.pdparams")


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    whole = pickle.dumps({"w": np.zeros(1000, dtype=np.float32)})
    path = tmp_path / "w.pdparams"
    for content, message in (
        (whole[:2000], "cut off or no .pdparams file"),
        (b"", "cut off or no .pdparams file"),
        (b"<html>not found</html>", "w.pdparams"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({}), "holds no weights"),
        (pickle.dumps({"w": 1}), "holds no weights"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_weights(path)
    (tmp_path / "w.safetensors").write_bytes(b"123456789")
    with pytest.raises(DataError, match="no safetensors"):
        read_weights(tmp_path / "w.safetensors")
    with pytest.raises(InputMissingError, match="no such weights file"):
        read_weights(tmp_path / "none.pdparams")
