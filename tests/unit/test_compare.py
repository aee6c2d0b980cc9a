"""Runs side by side."""

from __future__ import annotations

import json
import shutil

import pytest
from trained_detector import detection_spec, make_detection_run
from trained_run import context_for, digits, make_run, spec_of, trained_weights, write_set
from typer.testing import CliRunner

from ocr_finetune_api.exit_codes import ConfigurationError, InputMissingError
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.cli import app
from ocr_finetune_trainer.evaluation.comparison import Comparison
from ocr_finetune_trainer.stages import evaluate
from ocr_finetune_trainer.training import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")


def evaluated(root, name, *, spec, weights=None):
    workspace = make_run(root, name=name)
    if weights is not None:
        shutil.rmtree(workspace.checkpoints)
        checkpoint.save(workspace.checkpoints, checkpoint.Manifest(step=5), {"model": weights})
    context = context_for(root, Stage.EVALUATE, spec=spec, name=name)
    workspace.run_config.write_text(context.config.to_yaml())
    evaluate.run(context)
    return workspace.folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs on the same test set; the second has forgotten a class."""
    root = tmp_path_factory.mktemp("workspace")
    weights = {name: array.copy() for name, array in trained_weights(200).items()}
    weights["head.fc.bias"][4] -= 100
    first = evaluated(root, "first", spec=spec_of())
    second = evaluated(root, "second", spec=spec_of(training={"epochs": 7}), weights=weights)
    return [first, second]


def test_runs_differ_where_one_has_forgotten_a_class(folders):
    comparison = Comparison.of(folders)
    rows = [json.loads(line) for line in (folders[0] / "evaluation" / "predictions.jsonl").read_text().splitlines()]
    threes = {row["index"] for row in rows if row["prediction"] == "3"}

    assert comparison.same_set
    assert comparison.settings == {"training.epochs": {folders[0].name: "auto", folders[1].name: "7"}}
    assert threes <= {item.index for item in comparison.disagreements}
    assert comparison.differences[folders[1].name].high < 0
    assert comparison.table("figures")["training step"] == {folders[0].name: 200, folders[1].name: 5}


def test_what_one_run_alone_gets_right_comes_first(folders):
    found = Comparison.of(folders).disagreements

    decided = [len(item.right) == 1 for item in found]
    assert decided == sorted(decided, reverse=True)
    for item in found:
        assert all((item.answers[name] == item.label) == (name in item.right) for name in item.answers)


def test_the_command_line_prints_a_table_json_and_a_page(folders, tmp_path):
    page = tmp_path / "page.html"
    names = [str(folder) for folder in folders]
    words = CliRunner().invoke(app, ["compare", *names, "--html", str(page)])
    data = CliRunner().invoke(app, ["compare", *names, "--json"])

    assert words.exit_code == data.exit_code == 0, words.output + data.output
    assert "training.epochs" in words.stdout
    assert "They disagree on" in words.stdout
    assert json.loads(data.stdout)["figures"]["accuracy"].keys() == {folder.name for folder in folders}
    assert page.read_text().count("data:image/jpeg") == len(json.loads(data.stdout)["disagreements"])


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """Two detection runs on the same pages; the second sees nothing, on whatever CPU it was trained."""
    root = tmp_path_factory.mktemp("detectors")
    made = []
    for name, less in (("keen", 0.0), ("dull", 100.0)):
        workspace = make_detection_run(root, name=name)
        weights = {
            key: value - less if key == "head.binarize.conv3.bias" else value
            for key, value in checkpoint.load_best(workspace).weights().items()
        }
        shutil.rmtree(workspace.checkpoints)
        checkpoint.save(workspace.checkpoints, checkpoint.Manifest(step=5), {"model": weights})
        context = context_for(root, Stage.EVALUATE, spec=detection_spec(), name=name)
        workspace.run_config.write_text(context.config.to_yaml())
        evaluate.run(context)
        made.append(workspace.folder)
    return made


def test_detectors_are_compared_page_by_page(detectors, tmp_path):
    page = tmp_path / "page.html"
    comparison = Comparison.of(detectors)
    keen, dull = (folder.name for folder in detectors)

    done = CliRunner().invoke(app, ["compare", *map(str, detectors), "--html", str(page)])

    hmeans = comparison.table("figures")["hmean"]
    assert comparison.differences[dull].value == pytest.approx(hmeans[dull] - hmeans[keen])
    assert comparison.differences[dull].high < 0
    assert comparison.disagreements
    for item in comparison.disagreements:
        assert item.answers[keen] != item.answers[dull]
        assert item.right in ((keen,), (dull,), (keen, dull))
    assert done.exit_code == 0, done.output
    assert f"{dull}: hmean -" in done.stdout
    assert page.read_text().count("<figure>") == 2 * len(comparison.disagreements)


def table_run(root, name, rows):
    """What the evaluation of a table model leaves, as far as a comparison reads it."""
    spec = {"model": {"name": "SLANet_small", "pretrained": "none"}, "dataset": {"train": [{"uri": "tables"}]}}
    context = context_for(root, Stage.EVALUATE, spec=spec, name=name)
    folder = context.workspace.evaluation
    folder.mkdir(parents=True)
    context.workspace.run_config.write_text(context.config.to_yaml())
    metrics = {"dataHash": "same", "set": "test", "best": {"structureAccuracy": 0.5}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return context.workspace.folder


def test_tables_are_compared_by_what_was_read(tmp_path):
    def row(index, read, right):
        return {
            "index": index,
            "structure": "<tr><td></td></tr>",
            "read": read,
            "right": right,
            "origin": f"gt:{index}",
        }

    good, bad = "<tr><td></td></tr>", "<tr></tr>"
    folders = [
        table_run(tmp_path, "first", [row(0, good, right=True), row(1, good, right=True)]),
        table_run(tmp_path, "second", [row(0, good, right=True), row(1, bad, right=False)]),
    ]

    comparison = Comparison.of(folders)

    (item,) = comparison.disagreements
    assert (item.origin, item.label, item.right) == ("gt:1", good, (folders[0].name,))
    assert item.answers[folders[1].name] == bad
    assert comparison.differences[folders[1].name].value == -0.5


def test_runs_on_different_samples_are_said_to_be_not_comparable(folders, tmp_path):
    other = evaluated(tmp_path, "third", spec=spec_of())
    write_set(context_for(tmp_path, Stage.EVALUATE, name="third").workspace, "test", digits(50, start=1300))
    evaluate.run(context_for(tmp_path, Stage.EVALUATE, spec=spec_of(), name="third"))

    comparison = Comparison.of([folders[0], other])

    assert not comparison.same_set
    assert comparison.disagreements == []
    assert "different samples" in CliRunner().invoke(app, ["compare", str(folders[0]), str(other)]).stdout


def test_what_cannot_be_compared_is_told_together(folders, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    with pytest.raises(InputMissingError) as caught:
        Comparison.of([folders[0], tmp_path / "a", tmp_path / "b"])
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigurationError, match="at least two"):
        Comparison.of(folders[:1])
    with pytest.raises(ConfigurationError, match="given twice"):
        Comparison.of([folders[0], folders[0]])
