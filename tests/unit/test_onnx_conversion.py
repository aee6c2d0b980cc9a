"""What paddle2onnx does to its process stays there."""

from __future__ import annotations

import paddle
import pytest
from paddle import nn

from ocr_finetune_api.exit_codes import OCRFineTuneError
from ocr_finetune_trainer.export.onnx_conversion import convert


class Convertible(nn.Layer):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x)


class Inconvertible(Convertible):
    """Uses an operator that paddle2onnx has no counterpart for: it ends the process, without an exception."""

    def forward(self, x):
        return paddle.linalg.det(self.linear(x))


def saved(layer, folder):
    spec = paddle.static.InputSpec([None, 4, 4], "float32", name="x")
    paddle.jit.save(paddle.jit.to_static(layer, input_spec=[spec], full_graph=True), str(folder / "inference"))
    return folder


def test_what_can_be_converted_comes_back_as_onnx(tmp_path):
    import onnx

    model = onnx.load_model_from_string(convert(saved(Convertible(), tmp_path), opset=17))

    assert [entry.version for entry in model.opset_import] == [17]


def test_an_operator_without_a_counterpart_is_a_message_not_the_end(tmp_path):
    with pytest.raises(OCRFineTuneError, match=r"(?s)cannot convert .*(exit code|ended by) .*det") as caught:
        convert(saved(Inconvertible(), tmp_path), opset=17)

    assert "leave onnx out" in caught.value.hint


def test_a_folder_without_a_model_is_a_message(tmp_path):
    with pytest.raises(OCRFineTuneError, match=r"exit code 1.*does not exist"):
        convert(tmp_path, opset=17)
