"""The images: small, for any user, on a read-only root file system, with nothing in them that builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cluster_testing import images

if TYPE_CHECKING:
    from cluster_testing.cluster import Cluster

_MEGABYTES = {"operator": 200, "trainer": 1300}
_WORKS = {
    "operator": "python -m ocr_finetune_operator --help > /dev/null",
    "trainer": "ocrft --version && "
    "python -W ignore -c 'import paddle, paddleocr, paddle2onnx, onnxruntime.quantization'",
}
_CHECKS = """
set -eu
test "$(id -u)" = 1234567
for tool in cc gcc g++ make pip apt-get perl; do
  if command -v $tool; then echo "there is $tool" >&2; exit 1; fi
done
if touch /opt/here /usr/here 2>/dev/null; then echo "the root file system can be written" >&2; exit 1; fi
test "$(cat /proc/1/comm)" = tini
WORKS
"""


@pytest.mark.parametrize("target", ["operator", "trainer"])
def test_an_image_is_small_and_labelled(cluster: Cluster, target: str) -> None:
    config = images.inspect(target)["Docker"]["config"]
    assert config["User"] == "65532:0"
    assert config["Entrypoint"] == ["/usr/bin/tini", "--"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    # The archive holds the layers as they are unpacked.
    assert max(file.stat().st_size for file in images.CACHE.glob(f"{target}-*.tar")) <= _MEGABYTES[target] * 10**6


def test_the_same_sources_give_the_same_layers() -> None:
    found = []
    for version in ("once", "again"):
        images.build("operator", flags="--no-cache", version=version)
        found.append(images.inspect("operator", version=version)["Docker"]["rootfs"]["diff_ids"])
    assert found[0] == found[1]


@pytest.mark.parametrize("target", ["operator", "trainer"])
def test_an_image_works_for_any_user_without_writing_to_its_root(cluster: Cluster, namespace: str, target: str) -> None:
    cluster.kube.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": target, "namespace": namespace},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "check",
                        "image": images.reference(target),
                        "args": ["sh", "-c", _CHECKS.replace("WORKS", _WORKS[target])],
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                        "securityContext": {
                            "runAsUser": 1234567,
                            "runAsNonRoot": True,
                            "readOnlyRootFilesystem": True,
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        }
    )
    pod = cluster.kube.wait(
        "Pod", target, namespace, lambda pod: pod["status"]["phase"] in {"Succeeded", "Failed"}, timeout=120
    )
    assert pod["status"]["phase"] == "Succeeded", pod["status"]["containerStatuses"][0]["state"]
