"""`ocrft init`: looks at a folder and writes a manifest for it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ocr_finetune_api.exit_codes import DataError, InputMissingError, OutputError
from ocr_finetune_api.model_table import Kind

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.formats import Recognised

_OF_TABLES = frozenset({"pubtabnet", "pp-structure"})
LOOKED_AT = 20_000  # labels; enough to know what the data is like

_TEMPLATE = """\
# Written by `ocrft init` after a look at {folder}:
#   {reason}
#   {seen}
# Next: ocrft check {file}    what is in the data and what is wrong with it
#       ocrft run {file}      prepare, train, evaluate, export; run it again to go on
apiVersion: ocrfinetune.dev/v1alpha1
kind: OCRFineTune
metadata:
  name: {name}
spec:
  model:
    name: {model}   # `ocrft models` lists all
    pretrained: official   # none: start from nothing; or the path of a .pdparams file
    # dictionary: {{mode: auto}}   # auto keeps the official characters and adds what the data needs
  dataset:
    train:
      - {{name: {source}, uri: {uri}, format: {format}}}
    validation: {{fraction: 0.1}}   # chooses the best checkpoint; or {{uri: …}} for a set of its own
    test: {{fraction: 0.1}}   # measures the result, never seen in training; or {{uri: …}}
    # maxRejected: 1%   # more unusable samples than this end the run; each is listed either way
  training: {{}}   # all is chosen by itself, and the log says why; for example:
    # epochs: 50
    # batchSize: 64
    # learningRate: 5e-5
  distributed: {{nodes: 1, devicesPerNode: 1}}   # device: cpu where there is no GPU
  evaluation:
    gate: {{}}   # for example {{min: 0.9, minImprovement: 0.01}}: a worse model fails the run
  export:
    formats: [paddle, onnx]
    # destination: models/{name}   # where an archive of the model goes; a path, s3://, gs:// or oss://
"""


def init(
    folder: Annotated[Path, typer.Argument(help="A folder, list file or archive of labelled pictures.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it; - for standard output.")] = Path(
        "finetune.yaml"
    ),
    name: Annotated[str, typer.Option(help="Name of the run; made from the folder's if not given.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was seen as JSON.")] = False,
) -> None:
    """Looks at labelled pictures and writes a commented manifest for them."""
    from ocr_finetune_api.manifest import parse
    from ocr_finetune_trainer.cli.output import err, out, print_json

    to_file = str(output) != "-"
    if to_file and output.exists() and not force:
        raise OutputError(f"{output}: exists already", hint="name another file with --output, or give --force")
    recognised, lines, pages, problems = _look(folder)
    of_tables = recognised.format.value in _OF_TABLES
    seen = _seen(lines, pages, problems, unit="tables with cells" if of_tables else "pages with boxes")
    file = str(output) if to_file else "finetune.yaml"
    text = _TEMPLATE.format(
        folder=folder,
        file=file,
        reason=recognised.reason,
        seen=seen,
        name=name or _name(folder.absolute().name),
        source=_name(folder.absolute().name),
        model="SLANet" if of_tables else "PP-OCRv5_mobile_det" if pages > lines else "PP-OCRv5_mobile_rec",
        uri=_quoted(str(_relative(folder, output.absolute().parent if to_file else Path.cwd()))),
        format=recognised.format.value,
    )
    parse(text, file=file)
    if to_file:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{output}: {error.strerror}") from error
    if json:
        print_json(
            {
                "file": file if to_file else None,
                "manifest": text,
                "format": recognised.format.value,
                "reason": recognised.reason,
                "lines": lines,
                "pages": pages,
                "problems": problems,
            }
        )
    elif to_file:
        err.print(f"{recognised.reason}; {seen}", markup=False)
        out.print(f"wrote {output}; next: ocrft check {output}", markup=False)
    else:
        typer.echo(text, nl=False)


def _look(folder: Path) -> tuple[Recognised, int, int, int]:
    """The layout, and how many lines, pages and problems its first labels are."""
    from ocr_finetune_trainer.data.files import open_files
    from ocr_finetune_trainer.data.formats import Request, layout, recognise
    from ocr_finetune_trainer.data.records import Record

    if not folder.exists():
        raise InputMissingError(f"{folder}: there is no such file or folder")
    files, list_file = open_files(folder)
    request = Request(files=files, list_file=list_file)
    recognised = recognise(request)
    if recognised.format.value in _OF_TABLES:
        request = replace(request, kind=Kind.TABLE)
    found = list(islice(layout(recognised.format).read(request), LOOKED_AT))
    records = [item for item in found if isinstance(item, Record)]
    if not records:
        raise DataError(f"{folder}: {recognised.reason}, but none of its labels can be used", *map(str, found[:20]))
    pages = sum(record.boxes is not None for record in records)
    return recognised, len(records) - pages, pages, len(found) - len(records)


def _seen(lines: int, pages: int, problems: int, *, unit: str) -> str:
    parts = [f"{lines:,} labelled lines" if lines else "", f"{pages:,} {unit}" if pages else ""]
    if problems:
        parts.append(f"{problems:,} problems, which `ocrft check` explains")
    more = " (and more)" if lines + pages + problems >= LOOKED_AT else ""
    return ", ".join(part for part in parts if part) + more


def _name(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return (name if name[:1].isalpha() else f"run-{name}".strip("-"))[:40].rstrip("-")


def _relative(path: Path, folder: Path) -> Path:
    absolute = path.absolute()
    return absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute


def _quoted(text: str) -> str:
    """A YAML scalar: plain where nothing in it means something to YAML."""
    if re.fullmatch(r"[\w./-]+", text, re.ASCII):
        return text
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'
