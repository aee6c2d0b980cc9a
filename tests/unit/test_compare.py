"""Runs side by side."""

from __future__ import annotations

import json
import shutil

import pytest
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
    weights = {name: array.copy() for name, array in trained_weights(100).items()}
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
    assert comparison.table("figures")["training step"] == {folders[0].name: 100, folders[1].name: 5}


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
