"""`python -m ocr_finetune_trainer.cli` is `ocrft`."""

from ocr_finetune_trainer.cli import main

if __name__ == "__main__":
    main()
