"""What the operator and the trainer share: the manifest, the plan, and the documents they pass each other.

Pydantic and YAML only: neither Kubernetes nor Paddle is imported here, so both sides can use every module.
"""

GROUP = "ocrfinetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "OCRFineTune"
PLURAL = "ocrfinetunes"
SHORT_NAME = "ocrft"
