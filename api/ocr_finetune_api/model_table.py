"""The table of models: what exists, what each is for, and where its official weights lie.

Both sides read it: the operator refuses a name that does not exist before a pod starts, the trainer builds the model.
It is data only, so that reading it costs nothing. A new model is one row here and one module in
`ocr_finetune_trainer.models`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypedDict

OFFICIAL_SITE = "https://paddle-model-ecology.bj.bcebos.com/paddlex"


class Kind(StrEnum):
    """What a model does."""

    RECOGNITION = "recognition"
    DETECTION = "detection"
    TABLE = "table"
    ORIENTATION = "orientation"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One row of the table.

    Attributes:
        name: The name used in manifests.
        kind: What the model does.
        purpose: For whom it is, in a few words.
        parameters: Trainable parameters of the inference model with its official dictionary.
        serving_name: The name under which `paddleocr` 3.7 loads an export of it. `paddleocr` refuses names it does not
            know, so a model it has no name for is served under that of one with the same pre- and post-processing.
        weights_url: Official `.pdparams` file for fine-tuning; empty if none is published.
        inference_url: Official inference archive, whose `inference.yml` holds the dictionary; empty if there is none.
        dictionary_size: Characters in the official dictionary, without the space; 0 if the model has none.
        guided: Whether it has a guided (GTC) branch that fine-tuning keeps by default.
        can_guide: Whether it has a guided branch at all.
        guide: The decoder of the guided branch, `nrtr` or `sar`: it decides how labels are written for it.
        architecture: The row whose module builds it, if it shares one; empty if it has its own.
    """

    name: str
    kind: Kind
    purpose: str
    parameters: int
    serving_name: str
    weights_url: str = ""
    inference_url: str = ""
    dictionary_size: int = 0
    guided: bool = False
    can_guide: bool = False
    guide: Literal["nrtr", "sar"] = "nrtr"
    architecture: str = ""

    @property
    def module(self) -> str:
        """The module in `ocr_finetune_trainer.models` that builds it."""
        return (self.architecture or self.name).lower().replace("-", "_").replace(".", "_")


class _Official(TypedDict):
    weights_url: str
    inference_url: str


def _official(name: str) -> _Official:
    return {
        "weights_url": f"{OFFICIAL_SITE}/official_pretrained_model/{name}_pretrained.pdparams",
        "inference_url": f"{OFFICIAL_SITE}/official_inference_model/paddle3.0.0/{name}_infer.tar",
    }


# Prefix, what it reads, entries of its official dictionary without the space; the head has two classes more.
_LANGUAGES: tuple[tuple[str, str, int], ...] = (
    ("en", "English", 436),
    ("latin", "languages in Latin letters", 836),
    ("korean", "Korean and English", 11945),
    ("eslav", "Russian, Belarusian, Ukrainian and English", 517),
    ("th", "Thai and English", 524),
    ("el", "Greek and English", 354),
    ("cyrillic", "languages in Cyrillic letters", 850),
    ("devanagari", "languages in Devanagari letters", 568),
    ("ta", "Tamil and English", 513),
    ("te", "Telugu and English", 540),
)
_MOBILE_WITHOUT_CLASSES = 1_886_884
_MOBILE_A_CLASS = 121
_RIGHT_TO_LEFT = ("arabic_", "ar_", "fa_", "ug_", "ur_", "he_", "hebrew_")


def _language(prefix: str, reads: str, dictionary_size: int) -> ModelInfo:
    """The row of a PP-OCRv5 mobile recogniser of one language or script: the same network, another dictionary."""
    name = f"{prefix}_PP-OCRv5_mobile_rec"
    return ModelInfo(
        name=name,
        kind=Kind.RECOGNITION,
        purpose=f"lines of text in {reads}, on phones and CPUs",
        parameters=_MOBILE_WITHOUT_CLASSES + _MOBILE_A_CLASS * (dictionary_size + 2),
        serving_name=name,
        **_official(name),
        dictionary_size=dictionary_size,
        guided=True,
        can_guide=True,
        architecture="PP-OCRv5_mobile_rec",
    )


_ROWS: tuple[ModelInfo, ...] = (
    ModelInfo(
        name="MobileNetV3_small_ctc",
        kind=Kind.RECOGNITION,
        purpose="short texts of few characters, trained from scratch on a CPU in a minute",
        parameters=91_592,
        serving_name="PP-OCRv3_mobile_rec",
    ),
    ModelInfo(
        name="PP-OCRv5_mobile_rec",
        kind=Kind.RECOGNITION,
        purpose="lines of text in Chinese, English and Japanese, on phones and CPUs",
        parameters=4_111_469,
        serving_name="PP-OCRv5_mobile_rec",
        **_official("PP-OCRv5_mobile_rec"),
        dictionary_size=18383,
        guided=True,
        can_guide=True,
        guide="sar",
    ),
    ModelInfo(
        name="PP-OCRv5_server_rec",
        kind=Kind.RECOGNITION,
        purpose="lines of text in Chinese, English and Japanese, on GPUs",
        parameters=21_043_161,
        serving_name="PP-OCRv5_server_rec",
        **_official("PP-OCRv5_server_rec"),
        dictionary_size=18383,
        guided=True,
        can_guide=True,
    ),
    ModelInfo(
        name="PP-OCRv4_mobile_rec",
        kind=Kind.RECOGNITION,
        purpose="lines of Chinese and English text, on phones and CPUs",
        parameters=2_688_509,
        serving_name="PP-OCRv4_mobile_rec",
        **_official("PP-OCRv4_mobile_rec"),
        dictionary_size=6623,
        guided=True,
        can_guide=True,
    ),
    ModelInfo(
        name="PP-OCRv4_server_rec",
        kind=Kind.RECOGNITION,
        purpose="lines of Chinese and English text, on GPUs",
        parameters=22_587_321,
        serving_name="PP-OCRv4_server_rec",
        **_official("PP-OCRv4_server_rec"),
        dictionary_size=6623,
        guided=True,
        can_guide=True,
    ),
    ModelInfo(
        name="PP-OCRv3_mobile_rec",
        kind=Kind.RECOGNITION,
        purpose="lines of Chinese and English text, small and fast; what PaddleOCR's guide starts from",
        parameters=2_639_665,
        serving_name="PP-OCRv3_mobile_rec",
        **_official("PP-OCRv3_mobile_rec"),
        dictionary_size=6623,
        can_guide=True,
    ),
    ModelInfo(
        name="PP-OCRv3_mobile_rec_ctc",
        kind=Kind.RECOGNITION,
        purpose="PP-OCRv3_mobile_rec laid out without its guided branch, as PaddleOCR's guide trains it",
        parameters=2_639_665,
        serving_name="PP-OCRv3_mobile_rec",
        **_official("PP-OCRv3_mobile_rec"),
        dictionary_size=6623,
    ),
    ModelInfo(
        name="CRNN_r34_vd",
        kind=Kind.RECOGNITION,
        purpose="words and short lines at height 32, the practitioners' classic",
        parameters=24_511_296,
        serving_name="PP-OCRv3_mobile_rec",
    ),
    ModelInfo(
        name="DB_mv3",
        kind=Kind.DETECTION,
        purpose="text lines on a small budget, the practitioners' classic",
        parameters=1_844_136,
        serving_name="PP-OCRv3_mobile_det",
    ),
    ModelInfo(
        name="DB_r50_vd",
        kind=Kind.DETECTION,
        purpose="text lines where accuracy counts more than speed, the practitioners' classic",
        parameters=25_428_962,
        serving_name="PP-OCRv3_mobile_det",
    ),
    ModelInfo(
        name="PP-OCRv2_mobile_det",
        kind=Kind.DETECTION,
        purpose="text lines, small and fast, an older generation",
        parameters=583_234,
        serving_name="PP-OCRv3_mobile_det",
    ),
    ModelInfo(
        name="PP-OCRv3_mobile_det",
        kind=Kind.DETECTION,
        purpose="text lines, small and fast; the student of the distilled release",
        parameters=603_418,
        serving_name="PP-OCRv3_mobile_det",
        **_official("PP-OCRv3_mobile_det"),
    ),
    ModelInfo(
        name="PP-OCRv4_mobile_det",
        kind=Kind.DETECTION,
        purpose="text lines, on phones and CPUs",
        parameters=1_194_858,
        serving_name="PP-OCRv4_mobile_det",
        **_official("PP-OCRv4_mobile_det"),
    ),
    ModelInfo(
        name="PP-OCRv4_server_det",
        kind=Kind.DETECTION,
        purpose="text lines, on GPUs",
        parameters=28_463_939,
        serving_name="PP-OCRv4_server_det",
        **_official("PP-OCRv4_server_det"),
    ),
    ModelInfo(
        name="PP-OCRv5_mobile_det",
        kind=Kind.DETECTION,
        purpose="text lines, on phones and CPUs; the newest small detector of PP-OCRv5",
        parameters=1_194_858,
        serving_name="PP-OCRv5_mobile_det",
        **_official("PP-OCRv5_mobile_det"),
    ),
    ModelInfo(
        name="PP-OCRv5_server_det",
        kind=Kind.DETECTION,
        purpose="text lines, on GPUs; the most accurate detector of PP-OCRv5",
        parameters=22_097_507,
        serving_name="PP-OCRv5_server_det",
        **_official("PP-OCRv5_server_det"),
    ),
    ModelInfo(
        name="PP-OCRv6_tiny_rec",
        kind=Kind.RECOGNITION,
        purpose="lines of text in many languages, where every millisecond counts",
        parameters=1_106_702,
        serving_name="PP-OCRv6_tiny_rec",
        **_official("PP-OCRv6_tiny_rec"),
        dictionary_size=6904,
        guided=True,
        can_guide=True,
    ),
    ModelInfo(
        name="PP-OCRv6_small_rec",
        kind=Kind.RECOGNITION,
        purpose="lines of text in many languages, on phones and CPUs; the newest small recogniser",
        parameters=5_275_238,
        serving_name="PP-OCRv6_small_rec",
        **_official("PP-OCRv6_small_rec"),
        dictionary_size=18708,
        guided=True,
        can_guide=True,
    ),
    ModelInfo(
        name="PP-OCRv6_medium_rec",
        kind=Kind.RECOGNITION,
        purpose="lines of text in many languages; the newest and most accurate recogniser",
        parameters=19_134_326,
        serving_name="PP-OCRv6_medium_rec",
        **_official("PP-OCRv6_medium_rec"),
        dictionary_size=18708,
        guided=True,
        can_guide=True,
    ),
    ModelInfo(
        name="PP-OCRv6_tiny_det",
        kind=Kind.DETECTION,
        purpose="text lines, where every millisecond counts",
        parameters=504_148,
        serving_name="PP-OCRv6_tiny_det",
        **_official("PP-OCRv6_tiny_det"),
    ),
    ModelInfo(
        name="PP-OCRv6_small_det",
        kind=Kind.DETECTION,
        purpose="text lines, on phones and CPUs; the newest small detector",
        parameters=2_623_508,
        serving_name="PP-OCRv6_small_det",
        **_official("PP-OCRv6_small_det"),
    ),
    ModelInfo(
        name="PP-OCRv6_medium_det",
        kind=Kind.DETECTION,
        purpose="text lines; the newest and most accurate detector",
        parameters=16_657_992,
        serving_name="PP-OCRv6_medium_det",
        **_official("PP-OCRv6_medium_det"),
    ),
    ModelInfo(
        name="SLANet",
        kind=Kind.TABLE,
        purpose="structure and cells of English tables, small and fast",
        parameters=1_875_714,
        serving_name="SLANet",
        **_official("SLANet"),
        dictionary_size=28,
    ),
    ModelInfo(
        name="SLANet_small",
        kind=Kind.TABLE,
        purpose="small tables, trained from scratch on a CPU in a minute or two",
        parameters=271_050,
        serving_name="SLANet",
    ),
    ModelInfo(
        name="SLANet_plus",
        kind=Kind.TABLE,
        purpose="structure and cells of tables with wide spans or without lines, also photographed",
        parameters=1_897_242,
        serving_name="SLANet_plus",
        **_official("SLANet_plus"),
        dictionary_size=48,
    ),
    ModelInfo(
        name="PP-LCNet_x0_25_textline_ori",
        kind=Kind.ORIENTATION,
        purpose="whether a text line stands on its head, on phones and CPUs",
        parameters=242_746,
        serving_name="PP-LCNet_x0_25_textline_ori",
        **_official("PP-LCNet_x0_25_textline_ori"),
    ),
    ModelInfo(
        name="PP-LCNet_x1_0_textline_ori",
        kind=Kind.ORIENTATION,
        purpose="whether a text line stands on its head, where accuracy counts more than speed",
        parameters=1_674_082,
        serving_name="PP-LCNet_x1_0_textline_ori",
        **_official("PP-LCNet_x1_0_textline_ori"),
    ),
)

TABLE: dict[str, ModelInfo] = {
    row.name: row for row in (*_ROWS, *(_language(prefix, reads, size) for prefix, reads, size in _LANGUAGES))
}


def nearest(name: str) -> str | None:
    """The name in the table that looks most like `name`, or None if nothing does."""
    matches = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.5)
    return matches[0] if matches else None


def why_refused(name: str) -> str | None:
    """Why there is no such model although PaddleOCR has one; None if there is no reason to give."""
    if name.startswith(_RIGHT_TO_LEFT):
        return (
            f"{name!r} reads a right-to-left script, which is not supported: labels are in reading order and frames in "
            "the picture's order, so nothing here would train or measure it rightly"
        )
    return None


def lookup(name: str) -> ModelInfo:
    """The row of a model.

    Raises:
        KeyError: There is no such model; the message names the nearest one.
    """
    try:
        return TABLE[name]
    except KeyError:
        refused = why_refused(name)
        if refused:
            raise KeyError(refused) from None
        hint = nearest(name)
        raise KeyError(f"no model named {name!r}" + (f"; did you mean {hint!r}?" if hint else "")) from None
