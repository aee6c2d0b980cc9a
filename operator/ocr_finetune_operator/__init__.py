"""The operator: turns OCRFineTune resources into Jobs, sees them through failures, and tells people how they stand.

It never imports the trainer or Paddle; `ocr_finetune_api` is all that both share.
"""

from importlib.metadata import PackageNotFoundError, version


def operator_version() -> str:
    """The version of the installed package."""
    try:
        return version("ocr-finetune")
    except PackageNotFoundError:
        return "0.0.0"
