"""Whether the files of a run's sources have changed since they were read, without reading them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_trainer.data.files import FolderFiles
from ocr_finetune_trainer.data.sources import local_path

__all__ = ["fingerprint"]


def fingerprint(spec: OCRFineTuneSpec) -> str:
    """Identifies the state of all local files that prepare reads for a spec: names, sizes and times of change.

    Addresses of other machines count by their text alone: asking for each object would cost more than it saves.
    """
    digest = hashlib.sha256()
    for uri in _addresses(spec):
        digest.update(uri.encode("utf-8", "surrogateescape"))
        path = local_path(uri)
        if path is not None:
            for name, size, changed in _files(path):
                digest.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _addresses(spec: OCRFineTuneSpec) -> Sequence[str]:
    dataset, evaluation = spec.dataset, spec.evaluation
    found = [source.uri for source in dataset.train]
    found += [held_out.uri for held_out in (dataset.validation, dataset.test) if held_out is not None]
    found += [guard.uri for guard in evaluation.guard]
    if evaluation.end_to_end is not None:
        found.append(evaluation.end_to_end.dataset.uri)
    if dataset.synthetic is not None:
        found += [dataset.synthetic.corpus, dataset.synthetic.fonts, dataset.synthetic.backgrounds]
    found += [spec.model.dictionary.uri, spec.model.pretrained]
    return [uri for uri in found if uri and uri not in ("official", "none")]


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Names, sizes and times of all files that reading would find."""
    if path.is_file():
        status = path.stat()
        yield path.name, status.st_size, status.st_mtime_ns
    elif path.is_dir():
        files = FolderFiles(path)
        for name in files.names():
            member = files.find(name)
            if member is not None:  # else a link to nothing; reading the data says so
                yield member.name, member.size, member.stamp
