"""The export stage: formats that others load, each proven equal to the trained model, and delivered whole."""

from __future__ import annotations

import json
import logging
import os
import posixpath
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_api import results, run_config
from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.model_table import Kind, lookup
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.progress import Activity
from ocr_finetune_trainer.data.sources import Opener, local_path
from ocr_finetune_trainer.evaluation.end_to_end import find_run
from ocr_finetune_trainer.evaluation.files import write_json, write_text
from ocr_finetune_trainer.evaluation.held_out import HeldOutSet, test_set
from ocr_finetune_trainer.evaluation.subjects import Subject, postprocess_of, trained_of
from ocr_finetune_trainer.export.archive import pack, push
from ocr_finetune_trainer.export.exporter import ONNX_FILE, Exporter, put_in_place
from ocr_finetune_trainer.export.model_card import model_card
from ocr_finetune_trainer.export.oci import OCI_SUFFIX, write_oci
from ocr_finetune_trainer.export.registry import SCHEME, login_for, push_to_registry
from ocr_finetune_trainer.export.serving_pipeline import pipeline_config, pipeline_text
from ocr_finetune_trainer.export.small import Small, make_small
from ocr_finetune_trainer.export.snippets import Snippet, as_markdown, snippets_for
from ocr_finetune_trainer.stages.context import StageOutcome
from ocr_finetune_trainer.stages.prepare import SECRETS

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
    from ocr_finetune_trainer.export.checks import Checker
    from ocr_finetune_trainer.stages.context import StageContext

__all__ = ["run"]

logger = logging.getLogger(__name__)


def run(context: StageContext) -> StageOutcome:
    """Writes the formats of the best checkpoint, checks them on the test set, packs and delivers them.

    Raises:
        OCRFineTuneError: A format cannot be made, does not load, or reads otherwise than the trained model.
        OutputError: The destination cannot be written.
        StorageError: Writing to the destination failed again and again; the export itself is kept.
    """
    context.reporter.activity(Activity.LOADING, "loading the model")
    workspace = context.workspace
    subject = trained_of(workspace, context.spec)
    measured_on = test_set(workspace)
    built = workspace.folder / ".export.new"
    shutil.rmtree(built, ignore_errors=True)
    exporter = Exporter(
        subject=subject,
        folder=built,
        checker=_checker(subject, measured_on),
        metrics=_evaluated(context).get("best") or {},
        max_drop=context.spec.export.max_drop,
        tell=_teller(context),
    )
    small = _make(context, exporter)
    notes = [small.note] if small is not None else []
    put_in_place(built, workspace.export)
    archive = _finish(context, exporter, subject=subject, measured_on=measured_on, notes=notes)
    uri = _deliver(context, archive)
    return _outcome(context, exporter, archive=archive, uri=uri, small=small)


def _teller(context: StageContext) -> Any:
    steps = 8
    said: list[str] = []

    def tell(what: str) -> None:
        said.append(what)
        logger.info("%s", what)
        context.reporter.update(activity=Activity.EVALUATING, message=what, percent=min(95.0, 100 * len(said) / steps))

    return tell


def _checker(subject: Subject, measured_on: HeldOutSet) -> Checker:
    serving_name = lookup(subject.model_name).serving_name
    if subject.kind is Kind.RECOGNITION:
        from ocr_finetune_trainer.export.recognition_checks import RecognitionChecker

        return RecognitionChecker(subject, measured_on=measured_on, serving_name=serving_name)
    if subject.kind is Kind.DETECTION:
        from ocr_finetune_trainer.export.detection_checks import DetectionChecker

        return DetectionChecker(subject, measured_on=measured_on, serving_name=serving_name)
    if subject.kind is Kind.TABLE:
        from ocr_finetune_trainer.export.table_checks import TableChecker

        return TableChecker(subject, measured_on=measured_on, serving_name=serving_name)
    if subject.kind is Kind.ORIENTATION:
        from ocr_finetune_trainer.export.orientation_checks import OrientationChecker

        return OrientationChecker(subject, measured_on=measured_on, serving_name=serving_name)
    raise ConfigurationError(f"export of {subject.kind.value} models is not known here")


def _make(context: StageContext, exporter: Exporter) -> Small | None:
    wanted = set(context.spec.export.formats)
    exporter.make_paddle()
    exporter.check_paddle()
    if "onnx" in wanted or context.spec.export.quantize != "none":
        exporter.make_onnx()
        exporter.check_onnx()
    if "paddle-legacy" in wanted:
        exporter.make_legacy(context.config, workspace=context.workspace)
    exporter.raise_problems()
    small = None
    kind = context.spec.export.quantize
    if kind != "none":
        small = make_small(
            exporter,
            kind,
            workspace=context.workspace,
            checker_for=lambda measured_on: _checker(exporter.subject, measured_on),
        )
    if "paddle" not in wanted:
        shutil.rmtree(exporter.paddle)
    if "onnx" not in wanted and exporter.onnx.parent.is_dir():
        shutil.rmtree(exporter.onnx.parent)
    return small


def _evaluated(context: StageContext) -> dict[str, Any]:
    result = results.read(context.workspace.result(Stage.EVALUATE))
    return result.metrics if result is not None else {}


def _finish(
    context: StageContext, exporter: Exporter, *, subject: Subject, measured_on: HeldOutSet, notes: list[str]
) -> Path:
    """Writes the card, the pipeline, the checks and the archive."""
    folder = context.workspace.export
    info = lookup(subject.model_name)
    pairs = {info.kind: (info.serving_name, "paddle")} | _partner(context)
    pipeline = pipeline_config(
        detection=pairs.get(Kind.DETECTION),
        recognition=pairs.get(Kind.RECOGNITION),
        postprocess=_postprocess(context, subject),
    )
    if info.kind in (Kind.DETECTION, Kind.RECOGNITION):
        write_text(folder / "pipeline.yml", pipeline_text(pipeline))
    checks = {name: check.as_dict() for name, check in exporter.checks.items()}
    write_json(folder / "checks.json", checks)
    card = model_card(
        context.config,
        step=subject.checkpoint.step if subject.checkpoint else 0,
        data=_data(context, measured_on),
        base=_base(context),
        evaluation=_evaluated(context),
        checks=checks,
        metric=exporter.checker.metric,
        snippets=as_markdown(_snippets(context, folder=Path())),
        notes=notes,
    )
    write_text(folder / "model-card.md", card)
    archive = context.workspace.folder / f"{context.config.run.name}.tar.gz"
    pack(folder, archive, name=context.config.run.name)
    return archive


def _warnings(exporter: Exporter, small: Small | None) -> list[str]:
    smaller = {"int8", "fp16"}
    warnings = [
        f"{name}: {check.different} of {check.samples} results differ from the trained model's by rounding"
        for name, check in exporter.checks.items()
        if check.different and name not in smaller
    ]
    return [*warnings, *([small.note] if small is not None and not small.shipped else [])]


def _data(context: StageContext, measured_on: HeldOutSet) -> str:
    """The sets in words, each with the hash of its content."""
    prepared = results.read(context.workspace.result(Stage.PREPARE))
    details = prepared.details if prepared is not None else {}
    counts, hashes = details.get("counts") or {}, details.get("contentHash") or {}
    parts = [f"{name}: {count} samples, content {hashes.get(name, 'unknown')}" for name, count in counts.items()]
    if measured_on.name not in counts:
        parts.append(
            f"{measured_on.name}: {len(measured_on.dataset)} samples, content {measured_on.dataset.content_hash}"
        )
    return "; ".join(parts)


def _base(context: StageContext) -> str:
    """What the model was made from."""
    pretrained = context.spec.model.pretrained
    if pretrained == "none":
        return "random weights"
    try:
        source = json.loads((context.workspace.weights / "source.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return f"the weights {pretrained}"
    return f"the weights {pretrained} (SHA-256 {source.get('sha256', 'unknown')})"


def _postprocess(context: StageContext, subject: Subject) -> DBPostProcess:
    """How the pipeline's detector makes outlines: that of this run, or of its partner."""
    asked = context.spec.evaluation.end_to_end
    if subject.kind is Kind.DETECTION or asked is None:
        return subject.postprocess
    return postprocess_of(run_config.read(find_run(context.workspace.root, asked.with_.run).run_config).spec)


def _snippets(context: StageContext, *, folder: Path) -> list[Snippet]:
    """How to use the export, with paths below a folder."""
    made = context.workspace.export
    asked = context.spec.evaluation.end_to_end
    has_partner = asked is not None and any(made.glob("paddle-*/inference.yml"))
    return snippets_for(
        lookup(context.spec.model.name),
        paddle=str(folder / "paddle") if (made / "paddle").is_dir() else "",
        onnx=str(folder / "onnx" / ONNX_FILE) if (made / "onnx").is_dir() else "",
        folder=str(folder),
        others=f"that of {asked.with_.run}" if has_partner and asked is not None else "an official one",
    )


def _partner(context: StageContext) -> dict[Kind, tuple[str, str]]:
    """Serving name and folder of the other half of the pipeline, where the manifest names one that is exported.

    Its files are copied into this export, so that the archive reads whole pages wherever it is unpacked.
    """
    asked = context.spec.evaluation.end_to_end
    if asked is None:
        return {}
    workspace = find_run(context.workspace.root, asked.with_.run)
    if not (workspace.export / "paddle").is_dir():
        return {}
    info = lookup(run_config.read(workspace.run_config).spec.model.name)
    path = f"paddle-{info.kind.value}"
    shutil.copytree(workspace.export / "paddle", context.workspace.export / path, dirs_exist_ok=True)
    return {info.kind: (info.serving_name, path)}


def _deliver(context: StageContext, archive: Path) -> str:
    destination = context.spec.export.destination
    if not destination:
        return ""
    context.reporter.update(message=f"copying to {destination}")
    folder = os.environ.get(SECRETS, "")
    secrets = Path(folder) if folder else None
    if destination.startswith(SCHEME):
        fitting = [given for given in context.spec.credentials if destination.startswith(given.prefix)]
        given = max(fitting, key=lambda one: len(one.prefix), default=None)
        return push_to_registry(
            archive,
            destination,
            annotations=_annotations(context),
            login=lambda host: login_for(given, secrets=secrets, host=host),
            plain_http=given is not None and given.endpoint.startswith("http://"),
        )
    path = local_path(destination)
    where = destination if path is None else str(path)
    if where.endswith(OCI_SUFFIX):
        layout = archive.with_name(posixpath.basename(where))
        write_oci(archive, layout, annotations=_annotations(context))
        files, where = [layout], posixpath.dirname(where)
    else:
        files = [archive, archive.with_name(archive.name + ".sha256")]
    opener = Opener(credentials=context.spec.credentials, secrets=secrets)
    return push(files, where, options=opener.options(destination))[0]


def _annotations(context: StageContext) -> dict[str, str]:
    info = lookup(context.spec.model.name)
    return {
        "org.opencontainers.image.title": context.config.run.name,
        "org.opencontainers.image.description": f"{info.name} for {info.kind.value}, served as {info.serving_name}",
        "org.opencontainers.image.licenses": "Apache-2.0",
    }


def _outcome(
    context: StageContext, exporter: Exporter, *, archive: Path, uri: str, small: Small | None
) -> StageOutcome:
    folder = context.workspace.export
    name = folder.name
    artifacts = {"card": f"{name}/model-card.md", "archive": archive.name}
    if (folder / "paddle").is_dir():
        artifacts = {"model": f"{name}/paddle"} | artifacts
    if (folder / "paddle-legacy").is_dir():
        artifacts["legacy"] = f"{name}/paddle-legacy"
    if (folder / "onnx").is_dir():
        artifacts["onnx"] = f"{name}/onnx/{ONNX_FILE}"
    if small is not None and small.shipped:
        artifacts[small.path.split("/")[0]] = f"{name}/{small.path}"
    served = exporter.checks["paddleocr"]
    checks = {key: check.as_dict() for key, check in exporter.checks.items()}
    shown = ", ".join(f"{key} {check.metrics[exporter.checker.metric]:.2%}" for key, check in exporter.checks.items())
    return StageOutcome(
        metrics={"exported": served.metrics, "formats": checks},
        artifacts=artifacts,
        warnings=_warnings(exporter, small),
        details={
            "summary": f"{exporter.checker.metric} as exported: {shown}",
            "uri": uri,
            "snippets": [snippet.as_dict() for snippet in _snippets(context, folder=folder)],
            "servingName": lookup(context.spec.model.name).serving_name,
            **({"quantized": small.as_dict()} if small is not None else {}),
        },
    )
