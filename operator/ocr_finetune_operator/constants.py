"""Names that stand in the cluster: labels, annotations, ports and paths. Changing one breaks what runs."""

from __future__ import annotations

from ocr_finetune_api import GROUP

MANAGER = "ocr-finetune-operator"

LABEL_RUN = f"{GROUP}/run"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
APP_NAME = "ocr-finetune"

ANNOTATION_INPUT_HASH = f"{GROUP}/input-hash"
ANNOTATION_CONTENT = f"{GROUP}/content-hash"
ANNOTATION_STOP = f"{GROUP}/stop"

LABEL_JOB_NAME = "batch.kubernetes.io/job-name"
LABEL_JOB_INDEX = "batch.kubernetes.io/job-completion-index"

KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
LABEL_KUEUE_JOB_UID = "kueue.x-k8s.io/job-uid"
KUEUE_TOPOLOGY_PREFERRED = "kueue.x-k8s.io/podset-preferred-topology"
KUEUE_TOPOLOGY_REQUIRED = "kueue.x-k8s.io/podset-required-topology"

CONTAINER = "trainer"
CONFIG_FILE = "/etc/ocrft/run.yaml"
CONFIG_FOLDER = "/etc/ocrft"
CREDENTIALS_FOLDER = "/etc/ocrft-credentials"
WORKSPACE_FOLDER = "/workspace"
CLAIMS_FOLDER = "/claims"
SHARED_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - where a container's shared memory is

METRICS_PORT = 9464
RENDEZVOUS_PORT = 29500
