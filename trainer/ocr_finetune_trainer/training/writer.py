"""Writes checkpoints beside training: the loop waits for a copy in memory, never for the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_finetune_api.exit_codes import StorageError
from ocr_finetune_trainer.training import checkpoint

if TYPE_CHECKING:
    from ocr_finetune_trainer.training.checkpoint import Arrays, Checkpoint, Fence, Manifest

__all__ = ["CheckpointWriter"]

logger = logging.getLogger(__name__)

LAST_TRIES = 3
RETRY_SECONDS = 2.0


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread of its own.

    Attributes:
        written: The newest checkpoint that was written, None before the first.
        failure: Why the last one could not be written, None if it could.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fence: Fence,
        keep_last: int,
        patience_seconds: float,
        tell: Callable[[str], None] = logger.warning,
        wrote: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Starts nothing yet.

        Args:
            folder: The run's folder of checkpoints.
            fence: Who may write.
            keep_last: How many of the newest stay, beside the best.
            patience_seconds: How long training goes on without being able to write one.
            tell: Told when one could not be written, and when it works again.
            wrote: Told the step of each that was written.
        """
        self._folder = folder
        self._fence = fence
        self._keep_last = keep_last
        self._patience = patience_seconds
        self._tell = tell
        self._wrote = wrote
        self._thread: threading.Thread | None = None
        self._fatal: BaseException | None = None
        self._failing_since: float | None = None
        self.written: Checkpoint | None = None
        self.failure: OSError | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, manifest: Manifest, files: Mapping[str, Arrays]) -> None:
        """Begins to write a checkpoint; waits only if the one before is still being written.

        Args:
            manifest: What it holds.
            files: The arrays, copied: they may not change any more.

        Raises:
            StorageError: None could be written for too long.
            StopRequested: Another attempt has taken the run over.
        """
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(manifest, files), name="checkpoint")
        self._thread.start()

    def save_last(self, manifest: Manifest, files: Mapping[str, Arrays]) -> None:
        """Writes a checkpoint and waits for it: nothing comes after it that could make up for a failure.

        Raises:
            StorageError: It could not be written, nor on further tries.
            StopRequested: Another attempt has taken the run over.
        """
        for attempt in range(LAST_TRIES):
            if attempt:
                time.sleep(RETRY_SECONDS)
            self.save(manifest, files)
            self.wait()
            if self.failure is None:
                return
        raise self._storage_error()

    def wait(self) -> None:
        """Waits until nothing is being written.

        Raises:
            StorageError: None could be written for too long.
            StopRequested: Another attempt has taken the run over.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._fatal is not None:
            raise self._fatal
        if self._failing_since is not None and time.monotonic() - self._failing_since > self._patience:
            raise self._storage_error()

    def _write(self, manifest: Manifest, files: Mapping[str, Arrays]) -> None:
        try:
            self.written = checkpoint.save(self._folder, manifest, files, fence=self._fence)
        except OSError as error:
            self._failed(manifest, error)
        except BaseException as error:
            self._fatal = error
        else:
            if self.failure is not None:
                self._tell(f"checkpoints can be written again: step {manifest.step} is saved")
            self.failure = None
            self._failing_since = None
            self._wrote(manifest.step)
            checkpoint.prune(self._folder, keep_last=self._keep_last)

    def _failed(self, manifest: Manifest, error: OSError) -> None:
        self.failure = error
        self._failing_since = self._failing_since or time.monotonic()
        kept = f"step {self.written.step} is kept" if self.written else "none of this attempt exists yet"
        self._tell(
            f"the checkpoint of step {manifest.step} could not be written to {self._folder}: {error.strerror or error}; "
            f"training goes on, {kept}"
        )

    def _storage_error(self) -> StorageError:
        kept = f"the one of step {self.written.step} is whole" if self.written else "none of this attempt exists"
        reason = (self.failure.strerror or str(self.failure)) if self.failure else "unknown"
        return StorageError(
            f"{self._folder}: no checkpoint could be written: {reason}; {kept}",
            hint="free or add storage, then run again: training goes on from the newest checkpoint",
        )
