from pathlib import Path

import pytest
import yaml

from ocr_finetune_api.exit_codes import ConfigurationError, ExitCode
from ocr_finetune_api.manifest import load, parse, rewrite_uris

GOOD = """\
apiVersion: ocrfinetune.dev/v1alpha1
kind: OCRFineTune
metadata: {name: plates}
spec:
  model: {name: PP-OCRv5_mobile_rec}
  dataset:
    train:
      - {name: plates, uri: plates}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, file="f.yaml")
    assert caught.value.exit_code == ExitCode.BAD_CONFIGURATION
    return list(caught.value.problems)


def test_defaults_need_only_a_model_and_data():
    spec = parse(GOOD, file="f.yaml").spec
    assert spec.training.epochs == "auto"
    assert spec.dataset.validation.fraction == 0.1
    assert spec.dataset.test is None
    assert spec.export.formats == ["paddle", "onnx"]
    assert spec.workspace.access_modes == ["ReadWriteMany"]


def test_every_example_is_a_manifest():
    examples = [path for path in Path("examples").rglob("*.yaml") if "OCRFineTune" in path.read_text()]
    assert examples
    for path in examples:
        load(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("  model:", "  modell:"), "f.yaml:5: spec.modell: there is no such field; did you mean model?"),
        (("PP-OCRv5_mobile_rec", "PP-OCRv5_mobil_rec"), "did you mean PP-OCRv5_mobile_rec?"),
        (("plates}\nspec", "Plates}\nspec"), "f.yaml:3: metadata.name: 'Plates' is not a name for a run"),
        (("v1alpha1", "v1"), "f.yaml:1: apiVersion: 'ocrfinetune.dev/v1' is not ocrfinetune.dev/v1alpha1"),
        (("uri: plates", "uri: plates, format: ppcr"), "did you mean ppocr?"),
        (("uri: plates", "url: plates"), "spec.dataset.train[0].url: there is no such field; did you mean uri?"),
        (("{name: plates, uri: plates}", "{name: plates}"), "f.yaml:8: spec.dataset.train[0].uri: is missing"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_to_write(change, expected):
    assert expected in "\n".join(problems(GOOD.replace(*change)))


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("training: {epochs: many}", "spec.training.epochs: 'many' is not one of auto, a whole number"),
        ("training: {batchSize: 0}", "spec.training.batchSize: 0 is not at least 1"),
        ("training: {learningRate: 7}", "spec.training.learningRate: 7.0 is not above 0 and at most 1"),
        ("training: {evaluate: {every: 1 hour}}", "write auto, 1 epoch or 500 steps"),
        ("training: {checkpoint: {every: 10}}", "write a duration such as 90s, 10m or 1h30m"),
        ("training: {checkpoint: {every: 0s}}", "a run that is killed loses everything"),
        ("training: {epochs: 5, schedule: {warmupEpochs: 5}}", "warmupEpochs: 5.0 leaves nothing of 5 epochs"),
        ("training: {schedule: {warmupEpochs: -1}}", "spec.training.schedule.warmupEpochs: -1.0 is not at least 0"),
        ("training: {schedule: {boundaries: [0.9, 0.2]}}", "schedule.boundaries: each must be above the one before"),
        ("training: {precision: fp16}\n  distributed: {device: cpu}", "CPUs train in fp32"),
        ("distributed: {nodes: 1, minNodes: 2}", "minNodes must not be above nodes"),
        ("workspace: {claimName: a, size: 1Gi}", "either the name of a claim or the size"),
        ("policy: {suspend: maybe}", "spec.policy.suspend: 'maybe' is neither true nor false"),
        ("policy: {gracePeriod: soon}", "spec.policy.gracePeriod: 'soon' is not understood; write a duration"),
        ("model: {name: CRNN}", "spec.model: stands twice, first on line 5"),
    ],
)
def test_values_out_of_range_are_named_with_what_is_allowed(addition, expected):
    assert expected in "\n".join(problems(GOOD + f"  {addition}\n"))


def test_all_problems_come_in_one_go():
    text = GOOD + "  training: {epoch: 5, batchSize: 0}\n  distributed: {nodes: 1, minNodes: 2}\n  evalation: {}\n"
    found = problems(text)
    fields = [problem.split(": ")[1] for problem in found]
    assert fields == ["spec.training.epoch", "spec.training.batchSize", "spec.distributed", "spec.evalation"]


def test_weights_are_for_all_sources_or_none():
    two = GOOD.replace("uri: plates}", "uri: plates, weight: 1}\n      - {name: general, uri: general}")
    assert "a weight to each source" in "\n".join(problems(two))


def test_rare_characters_are_not_drawn_more_often_against_weights():
    weighted = GOOD.replace("uri: plates}", "uri: plates, weight: 1}")
    assert parse(weighted, file="f.yaml").spec.dataset.train[0].weight == 1
    rare = weighted.replace("    train:", "    rareCharacters: oversample\n    train:")
    assert rare != weighted
    assert "rareCharacters and weights" in "\n".join(problems(rare))


def test_names_of_sources_differ():
    two = GOOD.replace("uri: plates}", "uri: plates}\n      - {name: plates, uri: general}")
    assert "names of dataset.train must differ" in "\n".join(problems(two))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no OCRFineTune"),
        ("- a\n", "holds no OCRFineTune"),
        ("a: [1\n", "f.yaml:2: is not YAML"),
        (GOOD + "---\n" + GOOD, "f.yaml:10: a second document begins here"),
    ],
)
def test_other_files_are_refused(text, expected):
    assert expected in problems(text)[0]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no such file"):
        load(tmp_path / "none.yaml")


def test_a_learning_rate_written_as_yaml_text_is_a_number():
    assert isinstance(yaml.safe_load("5e-5"), str)
    spec = parse(GOOD + "  training: {learningRate: 5e-5}\n", file="f.yaml").spec
    assert spec.training.learning_rate == 5e-5


def test_every_address_is_rewritten_and_words_are_not():
    text = (
        GOOD
        + """\
    test: {uri: tests}
    synthetic: {corpus: words.txt, fonts: fonts}
  evaluation:
    guard: [{name: general, uri: general}]
    endToEnd: {with: {run: det}, dataset: {uri: pages}}
  export: {destination: out}
  training: {resumeFrom: ckpt}
"""
    )
    spec = rewrite_uris(parse(text, file="f.yaml").spec, lambda uri: f"/abs/{uri}")
    assert spec.model.pretrained == "official"
    assert spec.dataset.train[0].uri == "/abs/plates"
    assert spec.dataset.test is not None
    assert spec.dataset.test.uri == "/abs/tests"
    assert spec.dataset.validation.uri == ""
    assert spec.dataset.synthetic is not None
    assert (spec.dataset.synthetic.corpus, spec.dataset.synthetic.backgrounds) == ("/abs/words.txt", "")
    assert spec.evaluation.guard[0].uri == "/abs/general"
    assert spec.evaluation.end_to_end is not None
    assert spec.evaluation.end_to_end.dataset.uri == "/abs/pages"
    assert (spec.export.destination, spec.training.resume_from) == ("/abs/out", "/abs/ckpt")
