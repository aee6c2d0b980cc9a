"""Claims that several nodes can mount at once: folders of the machine, which all nodes see."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .machine import call

if TYPE_CHECKING:
    from kube_testing.client import Kube


class SharedVolumes:
    """ReadWriteMany claims backed by folders.

    Args:
        kube: The cluster's client.
        folder: Where the folders are made.
    """

    def __init__(self, kube: Kube, folder: Path) -> None:
        self._kube = kube
        self._folder = folder
        self._mounts: list[Path] = []

    def small(self, name: str, *, megabytes: int) -> Path:
        """Makes a folder that holds only so much. Call it before the nodes start: they see mounts made before them."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        call("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=2777", "tmpfs", folder)
        self._mounts.append(folder)
        return folder

    def claim(self, name: str, namespace: str, *, folder: Path | None = None) -> Path:
        """Creates a volume and a bound claim, and returns the folder with its content."""
        path = folder or self._folder / f"{namespace}-{name}"
        path.mkdir(parents=True, exist_ok=True)
        # Any user of a pod may write; what is made belongs to the group that the pods have.
        path.chmod(0o2777)
        size = {"storage": "10Gi"}
        access = ["ReadWriteMany"]
        volume = f"{namespace}-{name}"
        self._kube.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {
                    "capacity": size,
                    "accessModes": access,
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "",
                    "claimRef": {"namespace": namespace, "name": name},
                    "hostPath": {"path": str(path), "type": "Directory"},
                },
            }
        )
        self._kube.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "accessModes": access,
                    "storageClassName": "",
                    "volumeName": volume,
                    "resources": {"requests": size},
                },
            }
        )
        self._kube.wait("PersistentVolumeClaim", name, namespace, lambda claim: claim["status"].get("phase") == "Bound")
        return path

    def fill(self, name: str, namespace: str, content: Path) -> Path:
        """Creates a claim that holds a copy of a folder."""
        return Path(shutil.copytree(content, self.claim(name, namespace), dirs_exist_ok=True))

    def unmount(self) -> None:
        """Removes the mounts of :meth:`small`."""
        for folder in self._mounts:
            call("umount", folder, quiet=True)
