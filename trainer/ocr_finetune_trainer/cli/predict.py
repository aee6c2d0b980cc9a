"""`ocrft predict`: reads pictures with a model, in whatever form it is."""

from __future__ import annotations

import json as json_module
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_finetune_api.exit_codes import ConfigurationError, ExitCode, InputMissingError
from ocr_finetune_api.model_table import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.opening import OpenModel
    from ocr_finetune_trainer.evaluation.pipeline import Pipeline, Read

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
CHUNK = 64
_PAGES_A_CHUNK = 8


def predict(
    model: Annotated[Path, typer.Argument(help="A run, a checkpoint, an export, or an ONNX file.", metavar="MODEL")],
    pictures: Annotated[
        list[str], typer.Argument(help="Pictures, folders of pictures, or - for a list on standard input.")
    ],
    with_: Annotated[
        Path | None, typer.Option("--with", help="The other half: a recogniser for a detector, or the reverse.")
    ] = None,
    draw: Annotated[Path | None, typer.Option(help="Folder for the pictures with outlines drawn.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Crops read at once.")] = 32,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of one operator.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a picture and line.")] = False,
) -> None:
    """Reads pictures with a model: lines of text, pages, or both at once; tables as HTML; whether lines are turned."""
    # Paddle warns about what is missing on this machine; a person who wants texts can do nothing with that.
    warnings.simplefilter("ignore")
    from ocr_finetune_trainer.evaluation.opening import open_model
    from ocr_finetune_trainer.evaluation.pipeline import Pipeline

    models = [open_model(path, threads=threads) for path in (model, with_) if path is not None]
    if models[0].kind in (Kind.TABLE, Kind.ORIENTATION):
        if with_ is not None or (draw is not None and models[0].kind is Kind.ORIENTATION):
            raise ConfigurationError(f"{model}: a {models[0].kind.value} model takes neither --with nor outlines")
        _predict_alone(models[0], pictures, draw=draw, as_json=json)
        return
    pipeline = Pipeline(models, batch_size=batch_size)
    if draw is not None and not pipeline.detects:
        raise ConfigurationError("--draw: a recognition model finds no outlines", hint="add a detector by --with")
    bad = seen = 0
    missing = True
    for chunk in _chunks(_names(pictures), _PAGES_A_CHUNK if pipeline.detects else CHUNK):
        for name, result in _read(pipeline, chunk, draw=draw):
            seen += 1
            if isinstance(result, str):
                bad += 1
                missing &= not Path(name).exists()
                _print_problem(name, result, as_json=json)
            else:
                _print(name, result, as_json=json)
        sys.stdout.flush()
    if not seen:
        raise InputMissingError("there is no picture to read", hint="give pictures, folders, or - and a list")
    if bad:
        _print_summary(bad, seen, as_json=json)
        raise typer.Exit(ExitCode.INPUT_MISSING if missing else ExitCode.BAD_DATA)


def _predict_alone(model: OpenModel, pictures: Sequence[str], *, draw: Path | None, as_json: bool) -> None:
    """Reads tables as HTML, or says of lines whether they are turned; one picture at a time, as serving does."""
    from ocr_finetune_trainer.evaluation.alone import read_alone

    bad = seen = 0
    missing = True
    for name in _names(pictures):
        seen += 1
        picture = _open(name)
        if isinstance(picture, str):
            bad += 1
            missing &= not Path(name).exists()
            _print_problem(name, picture, as_json=as_json)
            continue
        result = read_alone(model, picture)
        if draw is not None:
            _draw_outlines(picture, result.outlines, draw / f"{Path(name).stem}.png")
        if as_json:
            sys.stdout.write(json_module.dumps({"picture": name, **result.document}, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(f"{name}\t{result.text}\t{result.score:.4f}\n")
        sys.stdout.flush()
    if not seen:
        raise InputMissingError("there is no picture to read", hint="give pictures, folders, or - and a list")
    if bad:
        _print_summary(bad, seen, as_json=as_json)
        raise typer.Exit(ExitCode.INPUT_MISSING if missing else ExitCode.BAD_DATA)


def _names(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        elif Path(argument).is_dir():
            yield from sorted(str(path) for path in Path(argument).rglob("*") if path.suffix.lower() in SUFFIXES)
        else:
            yield argument


def _chunks(names: Iterator[str], size: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    for name in names:
        chunk.append(name)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _open(name: str) -> NDArray[Any] | str:
    from ocr_finetune_trainer.data.pictures import PictureError, decode, inspect

    try:
        return decode(inspect(Path(name).read_bytes()).content)
    except OSError as error:
        return error.strerror or str(error)
    except PictureError as error:
        return str(error)


def _read(pipeline: Pipeline, names: Sequence[str], *, draw: Path | None) -> Iterator[tuple[str, list[Read] | str]]:
    opened = [_open(name) for name in names]
    good = [picture for picture in opened if not isinstance(picture, str)]
    results = iter(pipeline.read(good))
    for name, picture in zip(names, opened, strict=True):
        if isinstance(picture, str):
            yield name, picture
            continue
        texts = next(results)
        if draw is not None:
            _draw(picture, texts, draw / f"{Path(name).stem}.png")
        yield name, texts


def _draw(picture: NDArray[Any], texts: Sequence[Read], path: Path) -> None:
    _draw_outlines(picture, [text.points for text in texts if text.points is not None], path)


def _draw_outlines(picture: NDArray[Any], outlines: Sequence[NDArray[Any]], path: Path) -> None:
    from ocr_finetune_trainer.data.pictures import encode
    from ocr_finetune_trainer.evaluation.drawing import FOUND, draw_outlines
    from ocr_finetune_trainer.evaluation.files import write_bytes

    number = 1
    while path.exists() and number < 10**6:
        # Two pictures of one name from different folders: neither replaces the other.
        path, number = path.with_name(f"{path.stem.rsplit('~', 1)[0]}~{number}{path.suffix}"), number + 1
    write_bytes(path, encode(draw_outlines(picture, outlines, color=FOUND), lossless=True))


def _print(name: str, texts: Sequence[Read], *, as_json: bool) -> None:
    if as_json:
        document = {"picture": name, "texts": [text.as_dict() for text in texts]}
        sys.stdout.write(json_module.dumps(document, ensure_ascii=False) + "\n")
        return
    for text in texts:
        parts = [name]
        if text.points is not None:
            parts.append(" ".join(f"{x},{y}" for x, y in text.points.tolist()))
        if text.text is not None:
            parts += [text.text, f"{text.score:.4f}"]
        else:
            parts.append(f"{text.found_score:.4f}")
        sys.stdout.write("\t".join(parts) + "\n")


def _print_problem(name: str, problem: str, *, as_json: bool) -> None:
    from ocr_finetune_trainer.cli.output import print_problems

    if as_json:
        sys.stdout.write(json_module.dumps({"picture": name, "problem": problem}, ensure_ascii=False) + "\n")
    else:
        print_problems([f"{name}: {problem}"])


def _print_summary(bad: int, seen: int, *, as_json: bool) -> None:
    from ocr_finetune_trainer.cli.output import err

    if not as_json:
        err.print(f"{bad} of {seen} pictures could not be read; all others were")
