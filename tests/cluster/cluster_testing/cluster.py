"""The cluster: a bridge, the control plane and CoreDNS on it, and the nodes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from helm_python import Config
from kube_testing import binaries
from kube_testing.control_plane import ControlPlane

from . import images
from .machine import call, only_cluster
from .node import Node
from .volumes import SharedVolumes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kube_testing.client import Kube

_BRIDGE = "ocrft-bridge"
_GATEWAY = "10.77.0.1"
_CORE_FILE = """
.:53 {{
    bind {gateway}
    errors
    ready {gateway}:8181
    kubernetes cluster.local {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
}}
"""
CHART = binaries.ROOT / "charts" / "ocr-finetune-operator"
_SMALL_FOLDER_MEGABYTES = 24


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Yields a cluster of two ready nodes that have the images, and removes it in the end."""
    archives = images.archives("operator", "trainer")
    with only_cluster():
        cluster = Cluster(folder)
        volumes = SharedVolumes(cluster.kube, folder / "volumes")
        cluster.small_folder = volumes.small("full", megabytes=_SMALL_FOLDER_MEGABYTES)
        try:
            cluster.start(archives)
            yield cluster
        finally:
            cluster.stop()
            volumes.unmount()


class Cluster:
    """A cluster, from :meth:`start` to :meth:`stop`.

    Attributes:
        plane: Its control plane.
        nodes: Its nodes, by name.
        small_folder: A folder of little room that both nodes see.
    """

    def __init__(self, folder: Path, *, nodes: int = 2) -> None:
        self.folder = folder
        self.small_folder = folder
        call("ip", "link", "delete", _BRIDGE, quiet=True)
        call("ip", "link", "add", _BRIDGE, "type", "bridge")
        call("ip", "addr", "add", f"{_GATEWAY}/24", "dev", _BRIDGE)
        call("ip", "link", "set", _BRIDGE, "up")
        self.plane = ControlPlane(
            folder / "plane",
            host=_GATEWAY,
            fake_nodes=False,
            controller_manager_flags=["--node-monitor-grace-period=12s"],
        )
        self.nodes = {
            name: Node(
                name,
                number=number,
                plane=self.plane,
                folder=folder / name,
                bridge=_BRIDGE,
                gateway=_GATEWAY,
                pause=images.PAUSE,
            )
            for number, name in enumerate(f"node-{number}" for number in range(nodes))
        }

    @property
    def kube(self) -> Kube:
        """A client with an administrator's rights."""
        return self.plane.kube

    def start(self, archives: list[Path]) -> None:
        """Starts everything, hands the images to the nodes, and waits until all nodes are ready."""
        (self.folder / "plane").mkdir(parents=True, exist_ok=True)
        self.plane.start()
        core_file = self.folder / "Corefile"
        core_file.write_text(_CORE_FILE.format(gateway=_GATEWAY, kubeconfig=self.plane.kubeconfig("admin")))
        self.plane.spawn("coredns", [binaries.find("coredns"), "-conf", core_file])
        for node in self.nodes.values():
            node.start()
            for archive in archives:
                node.import_image(archive)
        for node in self.nodes.values():
            for other in self.nodes.values():
                if other is not node:
                    node.connect(other)

    def mend(self) -> None:
        """Starts whatever a test left ended."""
        self.plane.start_again()
        for node in self.nodes.values():
            node.recover()

    def stop(self) -> None:
        """Stops and removes everything."""
        for node in self.nodes.values():
            node.destroy()
        self.plane.stop()
        for node in self.nodes.values():
            call("ip", "route", "delete", node.pods, quiet=True)
        call("ip", "link", "delete", _BRIDGE, quiet=True)

    def helm(self, namespace: str) -> Config:
        """Returns Helm for a namespace of this cluster."""
        return Config(kubeconfig_path=str(self.plane.kubeconfig("admin")), namespace=namespace)

    def tails(self) -> dict[str, str]:
        """Returns the end of every log."""
        found = self.plane.tails(15)
        for node in self.nodes.values():
            found |= node.tails()
        return found
