"""The two last stages on a real, quickly fitted model."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from trained_run import MODEL, context_for, digits, make_run, spec_of, write_set

from ocr_finetune_api import results
from ocr_finetune_api.exit_codes import (
    DataError,
    ExitCode,
    GateNotMetError,
    InputMissingError,
    OCRFineTuneError,
    OutputError,
)
from ocr_finetune_api.model_table import lookup
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.results import StageResult
from ocr_finetune_trainer.data.pictures import decode
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.stages import evaluate, export

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    make_run(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(root):
    outcome = evaluate.run(context_for(root, Stage.EVALUATE))
    workspace = context_for(root, Stage.EVALUATE).workspace
    results.write(
        StageResult(stage=Stage.EVALUATE, input_hash="x", metrics=outcome.metrics), workspace.result(Stage.EVALUATE)
    )
    return outcome


@pytest.fixture(scope="module")
def exported(root, evaluated, tmp_path_factory):
    formats = ["paddle", "onnx", "paddle-legacy"]
    destination = str(tmp_path_factory.mktemp("models") / "digits")
    spec = spec_of(export={"destination": destination, "formats": formats})
    return spec["export"]["destination"], export.run(context_for(root, Stage.EXPORT, spec=spec))


@pytest.fixture
def copy(root, tmp_path):
    """The run again, to be changed."""
    shutil.copytree(root, tmp_path / "copy")
    return tmp_path / "copy"


def test_before_and_after_are_measured_on_the_same_samples(root, evaluated):
    document = json.loads((context_for(root, Stage.EVALUATE).workspace.evaluation / "metrics.json").read_text())

    assert evaluated.metrics["base"]["samples"] == evaluated.metrics["best"]["samples"] == 120
    assert evaluated.metrics["best"]["accuracy"] > evaluated.metrics["base"]["accuracy"] + 0.1
    assert document["improvement"]["accuracy"]["low"] > 0
    assert document["optimistic"] is False
    assert sum(row["samples"] for row in document["byLength"].values()) == 120
    assert "blurred" in document["byDifficulty"] or "plain" in document["byDifficulty"]


def test_the_figures_are_those_of_the_predictions(root, evaluated):
    lines = (context_for(root, Stage.EVALUATE).workspace.evaluation / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]

    right = sum(row["label"] == row["prediction"] for row in rows)
    assert right / len(rows) == pytest.approx(evaluated.metrics["best"]["accuracy"])
    assert rows[7]["origin"] == "test.txt:8"


def test_the_report_holds_its_pictures_and_needs_nothing_else(root, evaluated):
    page = (context_for(root, Stage.EVALUATE).workspace.evaluation / "report.html").read_text()

    wrong = round(120 * (1 - evaluated.metrics["best"]["accuracy"]))
    assert page.count("data:image/jpeg;base64,") >= wrong > 0
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_a_gate_that_is_not_met_keeps_what_was_measured(copy):
    spec = spec_of(evaluation={"gate": {"min": 1.0}})
    context = context_for(copy, Stage.EVALUATE, spec=spec)

    with pytest.raises(GateNotMetError, match="at least 1 is wanted") as caught:
        evaluate.run(context)

    assert caught.value.exit_code == ExitCode.GATE_NOT_MET
    assert caught.value.outcome.metrics["best"]["samples"] == 120
    assert (context.workspace.evaluation / "report.html").is_file()
    assert json.loads((context.workspace.evaluation / "metrics.json").read_text())["gate"]["passed"] is False


def test_a_guard_set_that_got_worse_fails_the_gate(copy):
    context = context_for(copy, Stage.EVALUATE)
    # An untrained model reads nothing here; so does the new one where labels are none of its characters.
    write_set(context.workspace, "guard-general", [(picture, "x") for picture, _ in digits(20)])
    spec = spec_of(evaluation={"guard": [{"name": "general", "uri": "x"}]})
    outcome = evaluate.run(context_for(copy, Stage.EVALUATE, spec=spec))

    assert outcome.metrics["guard"]["general"]["best"]["accuracy"] == 0.0
    assert outcome.metrics["guard"]["general"]["best"]["paddleocrAccuracy"] == 0.0


def test_without_a_test_set_the_result_is_optimistic(copy):
    workspace = context_for(copy, Stage.EVALUATE).workspace
    shutil.rmtree(workspace.data / "test")
    workspace.result(Stage.PREPARE).unlink()

    outcome = evaluate.run(context_for(copy, Stage.EVALUATE))

    assert outcome.metrics["optimistic"] is True
    assert outcome.metrics["best"]["samples"] == 60
    assert "optimistic" in outcome.warnings[0]


def test_samples_that_preparation_had_to_leave_out_count_as_wrong(copy, evaluated):
    workspace = context_for(copy, Stage.EVALUATE).workspace
    details = {"optimistic": False, "unusable": {"test": 30}}
    results.write(StageResult(stage=Stage.PREPARE, input_hash="x", details=details), workspace.result(Stage.PREPARE))

    outcome = evaluate.run(context_for(copy, Stage.EVALUATE))

    assert outcome.metrics["best"]["samples"] == 150
    assert outcome.metrics["best"]["accuracy"] == pytest.approx(evaluated.metrics["best"]["accuracy"] * 120 / 150)


def test_an_empty_test_set_is_an_error_not_a_perfect_score(copy):
    write_set(context_for(copy, Stage.EVALUATE).workspace, "test", [])

    with pytest.raises(DataError, match="no usable samples"):
        evaluate.run(context_for(copy, Stage.EVALUATE))


def test_without_a_checkpoint_the_stage_says_what_to_run(copy):
    shutil.rmtree(context_for(copy, Stage.EVALUATE).workspace.checkpoints)

    with pytest.raises(InputMissingError, match="no usable checkpoint"):
        evaluate.run(context_for(copy, Stage.EVALUATE))


def test_a_checkpoint_of_another_model_is_refused(copy):
    spec = spec_of(model={"name": "CRNN_r34_vd", "pretrained": "none"})

    with pytest.raises(DataError):
        evaluate.run(context_for(copy, Stage.EVALUATE, spec=spec))


def test_every_format_reads_what_the_trained_model_reads(exported):
    _, outcome = exported

    assert set(outcome.metrics["formats"]) == {"paddle", "paddleocr", "onnx", "paddle-legacy"}
    assert {check["different"] for check in outcome.metrics["formats"].values()} == {0}
    assert outcome.artifacts["legacy"] == "export/paddle-legacy"
    assert outcome.metrics["exported"]["samples"] == 120


def test_paddleocr_reads_the_export_as_evaluation_did(root, exported):
    from ocr_finetune_trainer.export.serving import ServedReader

    workspace = context_for(root, Stage.EXPORT).workspace
    rows = [json.loads(line) for line in (workspace.evaluation / "predictions.jsonl").read_text().splitlines()]
    dataset = DataSet.open(workspace.data / "test")
    reader = ServedReader(workspace.export / "paddle", serving_name=lookup(MODEL).serving_name)

    texts = [text for text, _ in reader.read([decode(dataset.image(i)) for i in range(30)], batch_size=8)]

    assert texts == [row["prediction"] for row in rows[:30]]


def test_the_onnx_file_says_how_to_use_it(root, exported):
    import onnx

    model = onnx.load(str(context_for(root, Stage.EXPORT).workspace.export / "onnx" / "inference.onnx"))
    metadata = {entry.key: entry.value for entry in model.metadata_props}

    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "probabilities"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert metadata["character"].split("\n") == list("0123456789")
    assert json.loads(metadata["shape"]) == [3, 32, 80]
    assert metadata["serving_name"] == "PP-OCRv3_mobile_rec"
    assert json.loads(metadata["metrics"])["samples"] == 120
    assert not [node for node in model.graph.node if node.op_type in ("BatchNormalization", "Identity")]


def test_the_archive_arrives_whole_with_checksums(exported, tmp_path):
    destination, outcome = exported
    folder = Path(destination)

    assert sorted(path.name for path in folder.iterdir()) == ["digits.tar.gz", "digits.tar.gz.sha256"]
    subprocess.run(["sha256sum", "--quiet", "-c", "digits.tar.gz.sha256"], cwd=folder, check=True)
    with tarfile.open(folder / "digits.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "digits", check=True)
    assert {"paddle", "onnx", "model-card.md", "pipeline.yml"} <= {
        path.name for path in (tmp_path / "digits").iterdir()
    }
    assert outcome.details["uri"] == str(folder / "digits.tar.gz")


def test_the_card_says_what_the_model_reaches_and_how_to_use_it(root, exported, evaluated):
    card = (context_for(root, Stage.EXPORT).workspace.export / "model-card.md").read_text()

    assert f"| accuracy | 0.0000 | {evaluated.metrics['best']['accuracy']:.4f} |" in card
    assert 'TextRecognition(model_name="PP-OCRv3_mobile_rec", model_dir="paddle")' in card
    assert "Apache-2.0" in card
    assert "fine-tuned from random weights" in card
    assert DataSet.open(context_for(root, Stage.EXPORT).workspace.data / "test").content_hash in card


def test_a_format_that_reads_otherwise_fails_the_stage_and_replaces_nothing(exported, copy, monkeypatch):
    """The export is broken on purpose between writing and checking: one weight file is that of another model."""
    from ocr_finetune_trainer.export.exporter import Exporter

    before = (context_for(copy, Stage.EXPORT).workspace.export / "SHA256SUMS").read_text()
    write = Exporter.make_paddle

    def make_broken(self):
        weight = self.subject.layer.head.fc.weight
        kept = weight.numpy()
        weight.set_value(np.roll(kept, 1, axis=1))
        write(self)
        weight.set_value(kept)

    monkeypatch.setattr(Exporter, "make_paddle", make_broken)
    with pytest.raises(OCRFineTuneError, match="differ from the trained model's") as caught:
        export.run(context_for(copy, Stage.EXPORT))

    assert any(problem.startswith("paddleocr:") for problem in caught.value.problems)
    kept = context_for(copy, Stage.EXPORT).workspace.export
    assert (kept / "SHA256SUMS").read_text() == before


def test_a_destination_that_cannot_be_written_keeps_the_export(copy, tmp_path):
    (tmp_path / "file").write_text("in the way")
    context = context_for(copy, Stage.EXPORT, spec=spec_of(export={"destination": f"file://{tmp_path}/file/models"}))

    with pytest.raises(OutputError, match="cannot be written"):
        export.run(context)

    assert (context.workspace.export / "paddle" / "inference.json").is_file()
    assert (context.workspace.folder / "digits.tar.gz").is_file()


def test_only_the_formats_that_were_asked_for_are_left(copy, tmp_path):
    target = tmp_path / "models" / "digits.oci.tar"
    spec = spec_of(export={"formats": ["onnx"], "destination": str(target)})
    context = context_for(copy, Stage.EXPORT, spec=spec)

    outcome = export.run(context)

    assert not (context.workspace.export / "paddle").exists()
    assert "model" not in outcome.artifacts
    assert target.is_file()
    assert outcome.details["uri"] == str(target)


def test_bad_cases_come_back_as_training_data_once_somebody_confirms_them(root, evaluated, tmp_path):
    from ocr_finetune_api.model_table import Kind
    from ocr_finetune_trainer.data import formats
    from ocr_finetune_trainer.data.crops import cut
    from ocr_finetune_trainer.data.files import open_files
    from ocr_finetune_trainer.data.records import Record

    workspace = context_for(root, Stage.EVALUATE).workspace
    folder = tmp_path / "badcases"
    shutil.copytree(workspace.evaluation / "badcases", folder)
    names = sorted(path.name for path in folder.glob("*.png"))
    dataset = DataSet.open(workspace.data / "test")
    wrong = round(120 * (1 - evaluated.metrics["best"]["accuracy"]))
    assert len(names) == wrong

    def read():
        request = formats.Request(files=open_files(folder)[0], kind=Kind.RECOGNITION)
        layout = formats.layout(formats.recognise(request).format)
        return [item for item in layout.read(request) if isinstance(item, Record)]

    assert read() == []
    (folder / "fileState.txt").write_text(f"{folder / names[0]}\t1\n")
    (record,) = read()
    index = int(names[0].removesuffix(".png"))
    assert [box.text for box in record.boxes] == [dataset.texts[index]]
    picture = decode(dataset.image(index))
    assert np.array_equal(cut(picture, record.boxes[0].points), picture)


def test_samples_that_training_has_seen_are_listed(copy):
    context = context_for(copy, Stage.EVALUATE)
    write_set(context.workspace, "test", [*digits(10, start=1000), *digits(3, start=5)])

    outcome = evaluate.run(context_for(copy, Stage.EVALUATE))

    shared = json.loads((context.workspace.evaluation / "metrics.json").read_text())["sharedWithTraining"]
    assert [(row["origin"], row["inTraining"]) for row in shared] == [
        (f"test.txt:{11 + i}", f"train.txt:{6 + i}") for i in range(3)
    ]
    assert any("3 samples of the test set are in the training data" in line for line in outcome.warnings)

    with pytest.raises(DataError) as caught:
        evaluate.run(context_for(copy, Stage.EVALUATE, spec=spec_of(evaluation={"strict": True})))
    assert "3 samples of the test set" in caught.value.problems[0]
    assert [problem.split(":")[0] for problem in caught.value.problems[1:]] == ["test.txt"] * 3
    assert "test.txt:12: the same picture is in training at train.txt:7" in caught.value.problems


def test_the_base_model_is_measured_with_its_own_dictionary(root, copy, evaluated):
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.models.store import obtain
    from ocr_finetune_trainer.training import checkpoint

    spec = spec_of(model={"name": MODEL, "pretrained": "run://digits"})
    context = context_for(copy, Stage.EVALUATE, spec=spec, name="more")
    first = context_for(copy, Stage.EVALUATE).workspace
    shutil.copytree(first.data, context.workspace.data)
    write_set(context.workspace, "train", digits(20))
    write_set(context.workspace, "test", digits(120, start=1000))
    obtain(
        MODEL, "run://digits", workspace=context.workspace, best_of=lambda other: checkpoint.load_best(other).weights()
    )
    # The new model is the old one with its classes in another order: both must read the same.
    weights = checkpoint.load_best(first).weights()
    order = [0, *range(10, 0, -1)]
    turned = weights | {
        "head.fc.weight": weights["head.fc.weight"][:, order],
        "head.fc.bias": weights["head.fc.bias"][order],
    }
    turned = {name: np.ascontiguousarray(array) for name, array in turned.items()}
    checkpoint.save(context.workspace.checkpoints, checkpoint.Manifest(step=1), {"model": turned})
    Dictionary(tuple("9876543210"), use_space=False).save(context.workspace.dictionary)

    outcome = evaluate.run(context)

    assert outcome.metrics["base"]["accuracy"] == outcome.metrics["best"]["accuracy"]
    assert outcome.metrics["base"]["accuracy"] == evaluated.metrics["best"]["accuracy"]
    assert outcome.metrics["improvement"]["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0}
