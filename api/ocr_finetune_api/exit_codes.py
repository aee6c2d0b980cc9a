"""Exit codes of every `ocrft` process, and the class of failure each one stands for.

The numbers up to 78 are those of BSD `sysexits.h`; 80 and above are ours. The operator decides by class, never by
number, whether another attempt makes sense.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Why a process ended."""

    OK = 0
    BAD_DATA = 65
    INPUT_MISSING = 66
    PEER_UNAVAILABLE = 69
    INTERNAL = 70
    OUTPUT_UNWRITABLE = 73
    STORAGE = 74
    STOPPED = 75
    BAD_CONFIGURATION = 78
    GATE_NOT_MET = 80
    DEVICE = 81
    DIVERGED = 82


class FailureClass(StrEnum):
    """What kind of failure ended an attempt; the failure policy knows nothing finer."""

    USER_ERROR = "UserError"
    DATA = "Data"
    OUT_OF_MEMORY = "OutOfMemory"
    DEVICE = "Device"
    STORAGE = "Storage"
    NODE_LOST = "NodeLost"
    PREEMPTED = "Preempted"
    STALLED = "Stalled"
    RENDEZVOUS = "Rendezvous"
    IMAGE_PULL = "ImagePull"
    UNSCHEDULABLE = "Unschedulable"
    DIVERGED = "Diverged"
    GATE = "Gate"
    STOPPED = "Stopped"
    INTERNAL = "Internal"


_CLASS_OF_CODE: dict[int, FailureClass] = {
    ExitCode.BAD_DATA: FailureClass.DATA,
    ExitCode.INPUT_MISSING: FailureClass.DATA,
    ExitCode.PEER_UNAVAILABLE: FailureClass.RENDEZVOUS,
    ExitCode.INTERNAL: FailureClass.INTERNAL,
    ExitCode.OUTPUT_UNWRITABLE: FailureClass.STORAGE,
    ExitCode.STORAGE: FailureClass.STORAGE,
    ExitCode.STOPPED: FailureClass.STOPPED,
    ExitCode.BAD_CONFIGURATION: FailureClass.USER_ERROR,
    ExitCode.GATE_NOT_MET: FailureClass.GATE,
    ExitCode.DEVICE: FailureClass.DEVICE,
    ExitCode.DIVERGED: FailureClass.DIVERGED,
}


def class_of(code: int) -> FailureClass:
    """The failure class of an exit code without any other evidence; codes of signals count as internal."""
    return _CLASS_OF_CODE.get(code, FailureClass.INTERNAL)


class OCRFineTuneError(Exception):
    """A failure that a person can act on: its message is shown without a traceback.

    Attributes:
        problems: Every problem found, one sentence each, with its place.
        exit_code: What the process ends with.
        hint: What to do; empty if the message says it.
        failure_class: What kind of failure it is, where the exit code alone would not say it; else None.
        node: Node of the gang where it began, where that is another one than the one that tells; else None.
    """

    exit_code = ExitCode.INTERNAL
    failure_class: FailureClass | None = None
    node: int | None = None

    def __init__(self, *problems: str, hint: str = "", exit_code: ExitCode | None = None) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class ConfigurationError(OCRFineTuneError):
    """The manifest or an option is wrong."""

    exit_code = ExitCode.BAD_CONFIGURATION


class DataError(OCRFineTuneError):
    """The user's data cannot be used."""

    exit_code = ExitCode.BAD_DATA


class InputMissingError(OCRFineTuneError):
    """A file or address that is to be read does not exist or cannot be reached."""

    exit_code = ExitCode.INPUT_MISSING


class OutputError(OCRFineTuneError):
    """An output cannot be created: the folder is read-only, or something else stands in its place."""

    exit_code = ExitCode.OUTPUT_UNWRITABLE


class StorageError(OCRFineTuneError):
    """The storage is full or failing."""

    exit_code = ExitCode.STORAGE


class PeerError(OCRFineTuneError):
    """Another rank of the gang is missing, dead or hung."""

    exit_code = ExitCode.PEER_UNAVAILABLE


class DeviceError(OCRFineTuneError):
    """A device is absent, broken or out of memory."""

    exit_code = ExitCode.DEVICE


class DivergedError(OCRFineTuneError):
    """Training diverged and going back did not help."""

    exit_code = ExitCode.DIVERGED


class GateNotMetError(OCRFineTuneError):
    """The new model is not good enough for the gate."""

    exit_code = ExitCode.GATE_NOT_MET


class StopRequested(OCRFineTuneError):  # noqa: N818 - a request, not an error
    """Somebody asked for a stop, and a checkpoint is saved."""

    exit_code = ExitCode.STOPPED
