"""One node: namespaces of its own, and in them containerd, kubelet and kube-proxy."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from kube_testing import binaries
from kube_testing.processes import Process, wait_for

from .machine import CNI_PLUGINS, call, controllers, processes_in

if TYPE_CHECKING:
    from kube_testing.control_plane import ControlPlane

_CONTAINERD = """
version = 2
root = "{folder}/containerd"
state = "{folder}/run"
oom_score = 0
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "runc"
SystemdCgroup = false
"""
_NETWORK = """
{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
    "ipam": {{"type": "host-local", "dataDir": "{folder}/addresses",
             "ranges": [[{{"subnet": "{pods}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}
"""


class Node:
    """A node, from :meth:`start` to :meth:`destroy`.

    Args:
        name: The node's name.
        number: Counts from 0; addresses derive from it.
        plane: The control plane it joins.
        folder: Where its state lies.
        bridge: The host's bridge that connects the nodes.
        gateway: The bridge's address, where control plane and CoreDNS listen.
        pause: The image of pods' first containers.
    """

    def __init__(
        self, name: str, *, number: int, plane: ControlPlane, folder: Path, bridge: str, gateway: str, pause: str
    ) -> None:
        self.name = name
        self.folder = folder
        self.address = str(ipaddress.ip_address(gateway) + 10 + number)
        self.pods = f"10.78.{number}.0/24"
        self.namespace = f"ocrft-{name}"
        self._plane = plane
        self._bridge = bridge
        self._gateway = gateway
        self._pause = pause
        self._link = f"ocrft{number}"
        self._cgroup = f"/ocrft-{name}"
        self._holder: Process | None = None
        self._services: dict[str, Process] = {}

    def start(self) -> None:
        """Makes the namespaces and starts all services."""
        self.sweep()
        self._make_network()
        self._make_cgroup()
        self._write_files()
        # Not `ip netns exec`: it mounts a /sys of its own, without cgroups.
        network = f"--net=/run/netns/{self.namespace}"
        holder = ["nsenter", network, "unshare", "--mount", "--uts", "--propagation", "private"]
        script = " && ".join(
            (
                "mount --make-rshared /",
                # Two kubelets on one folder of logs would each tidy up what is the other's.
                f"mount --bind {self.folder}/var-log /var/log",
                f"hostname {self.name}",
                f"touch {self.folder}/held",
                "exec sleep infinity",
            )
        )
        self._holder = Process("holder", [*holder, "sh", "-c", script], folder=self.folder / "logs").start()
        wait_for((self.folder / "held").exists, describe=f"the namespaces of {self.name}")
        environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        for name, command in {
            "containerd": ["containerd", "--config", self.folder / "containerd.toml"],
            "kubelet": self._kubelet(),
            "kube-proxy": self._kube_proxy(),
        }.items():
            inside = ["nsenter", f"--target={self._holder.pid}", "--mount", "--uts", "--net", "--", *command]
            self._services[name] = Process(name, inside, folder=self.folder / "logs", env=environment)
        self.start_services()
        self._plane.kube.wait("Node", self.name, None, _is_ready, timeout=60)

    def start_services(self, *names: str) -> None:
        """Starts services (all without names) that do not run."""
        for name in names or self._services:
            if not self._services[name].running:
                self._services[name].start()
                if name == "containerd":
                    # The file of one that was killed is still there, and a kubelet that finds nobody behind it ends.
                    wait_for(self._containerd_answers, describe="containerd to answer")

    def fail(self) -> None:
        """Ends kubelet and containerd at once, as a machine does that loses its connection; containers go on."""
        for name in ("kubelet", "containerd"):
            self._services[name].kill()

    def power_off(self) -> None:
        """Ends everything on the node at once, the containers too."""
        self.fail()
        self._kill_all(but={self._holder.pid} if self._holder else set())

    def recover(self) -> None:
        """Starts what :meth:`fail` or :meth:`power_off` ended and waits until the node is ready."""
        self.start_services()
        self._plane.kube.wait("Node", self.name, None, _is_ready, timeout=90)

    def import_image(self, archive: Path) -> None:
        """Hands an image archive to containerd."""
        address = self.folder / "containerd.sock"
        call("ctr", "--address", address, "--namespace", "k8s.io", "images", "import", archive)

    def destroy(self) -> None:
        """Ends everything on the node and removes namespaces, links, mounts and cgroups."""
        for process in self._services.values():
            process.stop(timeout=5)
        self.sweep()
        if self._holder:
            self._holder.stop()

    def sweep(self) -> None:
        """Removes what there is of a node of this name, also from a session that was killed before it could tidy up."""
        # With the last process of the mount namespace all its mounts go.
        self._kill_all(but=set())
        call("ip", "netns", "delete", self.namespace, quiet=True)
        call("ip", "link", "delete", self._link, quiet=True)
        self._remove_cgroup()

    def tails(self, lines: int = 15) -> dict[str, str]:
        """Returns the end of every log."""
        return {f"{self.name}/{name}": process.tail(lines) for name, process in self._services.items()}

    def processes(self) -> list[int]:
        """Returns the ids of all processes in the node's network namespace and in its pods."""
        found = set(processes_in(self.namespace))
        for controller in controllers():
            for tasks in (controller / self._cgroup.lstrip("/")).rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found |= {int(pid) for pid in tasks.read_text().split()}
        return sorted(found)

    def processes_of_pod(self, uid: str, *, program: str = "") -> list[int]:
        """Returns the ids of a pod's processes whose command line has ``program`` in it."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                if f"pod{uid}" in Path(f"/proc/{pid}/cgroup").read_text() and program in command:
                    found.append(pid)
        return found

    def _containerd_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.folder / "containerd.sock")) == 0

    def _kill_all(self, *, but: set[int]) -> None:
        def left() -> list[int]:
            return [pid for pid in self.processes() if pid not in but and Path(f"/proc/{pid}/exe").exists()]

        deadline = time.monotonic() + 20
        while (pids := left()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def _make_network(self) -> None:
        inside = ["ip", "-n", self.namespace]
        call("ip", "netns", "add", self.namespace)
        call("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        call("ip", "link", "set", self._link, "master", self._bridge, "up")
        call(*inside, "link", "set", "lo", "up")
        call(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        call(*inside, "link", "set", "eth0", "up")
        call(*inside, "route", "add", "default", "via", self._gateway)
        # Pods of this node are reached through it, from the host and, by the host's answer, from the other nodes.
        call("ip", "route", "replace", self.pods, "via", self.address)
        sysctl = ["net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1", "net.ipv4.conf.all.rp_filter=0"]
        call("ip", "netns", "exec", self.namespace, "sysctl", "-q", "-w", *sysctl)

    def connect(self, other: Node) -> None:
        """Adds the route to another node's pods."""
        call("ip", "-n", self.namespace, "route", "replace", other.pods, "via", other.address)

    def _make_cgroup(self) -> None:
        for controller in controllers():
            group = controller / self._cgroup.lstrip("/")
            group.mkdir(exist_ok=True)
            if controller.name == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (group / file).write_text((controller / file).read_text())

    def _remove_cgroup(self) -> None:
        # runc makes groups in the unified hierarchy, too, although it is not used.
        hierarchies = [path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir()]
        groups = [hierarchy / self._cgroup.lstrip("/") for hierarchy in hierarchies]

        def removed() -> bool:
            for group in groups:
                folders = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
                for folder in [*folders, group]:
                    # A group stays busy for a moment after its last process.
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            return not any(group.exists() for group in groups)

        wait_for(removed, timeout=10, describe=f"the cgroups of {self.name} to be gone")

    def _write_files(self) -> None:
        for name in ("logs", "cni", "kubelet", "run", "containerd", "var-log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "containerd.toml").write_text(
            _CONTAINERD.format(folder=self.folder, pause=self._pause, plugins=CNI_PLUGINS)
        )
        (self.folder / "cni" / "10-pods.conflist").write_text(_NETWORK.format(folder=self.folder, pods=self.pods))
        (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        runtime = f"unix://{self.folder}/containerd.sock"
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "containerRuntimeEndpoint": runtime,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "enforceNodeAllocatable": ["pods"],
            "clusterDNS": [self._gateway],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.folder / "resolv.conf"),
            # The whole cluster shares one disk with everything else on the machine.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "readOnlyPort": 0,
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": 8,
            "volumeStatsAggPeriod": "10s",
            "syncFrequency": "5s",
            "shutdownGracePeriod": "0s",
            "localStorageCapacityIsolation": True,
        }
        (self.folder / "kubelet.yaml").write_text(yaml.safe_dump(config))
        proxy = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": self.name,
            "clientConnection": {"kubeconfig": str(self._plane.kubeconfig("admin"))},
            "conntrack": {"maxPerCore": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
            "clusterCIDR": "10.78.0.0/16",
            "iptables": {"minSyncPeriod": "100ms"},
        }
        (self.folder / "kube-proxy.yaml").write_text(yaml.safe_dump(proxy))

    def _kubelet(self) -> list[str | Path]:
        return [
            binaries.find("kubelet"),
            f"--config={self.folder / 'kubelet.yaml'}",
            f"--kubeconfig={self._plane.kubeconfig('admin')}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet' / 'pki'}",
        ]

    def _kube_proxy(self) -> list[str | Path]:
        return [binaries.find("kube-proxy"), f"--config={self.folder / 'kube-proxy.yaml'}"]


def _is_ready(node: dict[str, object]) -> bool:
    status = node.get("status")
    assert isinstance(status, dict)
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
