"""etcd, API server, controller manager, scheduler and kwok as processes on free ports of this machine."""

from __future__ import annotations

import base64
import itertools
import json
import os
import secrets
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from . import binaries
from .client import Kube
from .fake_nodes import FakeNodes, PodScript, ordinary_stages, stage_crds
from .processes import DEADLINE, Process, free_ports, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .client import Manifest

_HOST = "127.0.0.1"
_ISSUER = "https://kubernetes.default.svc.cluster.local"
_COMPONENTS = ("admin", "controller-manager", "scheduler", "kwok")
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


class ControlPlane:
    """A control plane, from :meth:`start` to :meth:`stop`.

    Args:
        folder: An empty folder for data, keys and logs.
        host: The address that the API server listens on.
        fake_nodes: Whether kwok plays kubelets; without it, real ones may register.
        unreachable_seconds: How long pods stay bound to a node that is not ready (Kubernetes' default is 300).
        api_server_flags: More flags of the API server.
        controller_manager_flags: More flags of the controller manager.

    Attributes:
        kube: A client with an administrator's rights.
        nodes: The fake nodes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = _HOST,
        fake_nodes: bool = True,
        unreachable_seconds: int = 2,
        api_server_flags: Sequence[str] = (),
        controller_manager_flags: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.host = host
        self._fake_nodes = fake_nodes
        self._processes: dict[str, Process] = {}
        ports = free_ports(7, host=host)
        self._etcd_port, self._etcd_peer_port, self._api_port, self._kwok_port, *self._health_ports = ports
        self.url = f"https://{host}:{self._api_port}"
        self.ca_file = folder / "certificates" / "apiserver.crt"
        self._tokens = {name: secrets.token_hex(16) for name in _COMPONENTS}
        self.kube = Kube(url=self.url, ca_file=self.ca_file, token=self._tokens["admin"])
        self.nodes = FakeNodes(self.kube)
        self._unreachable_seconds = unreachable_seconds
        self._api_server_flags = list(api_server_flags)
        self._controller_manager_flags = list(controller_manager_flags)

    def start(self) -> ControlPlane:
        """Starts everything and waits until it is ready."""
        self._write_files()
        self._run("etcd", self._etcd_flags())
        self._run("kube-apiserver", self._apiserver_flags())
        self.wait_ready()
        if self._fake_nodes:
            for crd in stage_crds():
                self.kube.create(crd)
        self._run("kube-controller-manager", self._controller_manager())
        self._run("kube-scheduler", self._scheduler())
        if self._fake_nodes:
            for crd in stage_crds():
                self.kube.wait("CustomResourceDefinition", crd["metadata"]["name"], None, _established)
            wait_for(self._stages_are_served, describe="the Stage resource to be served")
            for stage in ordinary_stages():
                self.kube.create(stage)
            self._run("kwok", self._kwok())
        for port, name in zip(self._health_ports, ("kube-controller-manager", "kube-scheduler"), strict=False):
            self._wait_healthy(name, f"https://{self.host}:{port}/healthz")
        return self

    def stop(self) -> None:
        """Stops everything that runs, each by its process id, the newest first."""
        for process in reversed(self._processes.values()):
            process.stop(timeout=5)

    def start_again(self) -> None:
        """Starts every process that has ended, and waits until the API server is ready."""
        for process in self._processes.values():
            if not process.running:
                process.start()
        self.wait_ready()

    def wait_ready(self, *, timeout: float = DEADLINE) -> None:
        """Waits until the API server is ready to serve."""
        self._wait_healthy("kube-apiserver", f"{self.url}/readyz", timeout=timeout)

    def restart_api_server(self, *, kill: bool = True) -> None:
        """Ends the API server, at once or in order, starts it again and waits for it."""
        self.stop_api_server(kill=kill)
        self.start_api_server()

    def stop_api_server(self, *, kill: bool = True) -> None:
        """Ends the API server: every request fails from now on."""
        process = self._processes["kube-apiserver"]
        process.kill() if kill else process.stop(timeout=30)

    def start_api_server(self) -> None:
        """Starts a stopped API server again, on the same port."""
        self._processes["kube-apiserver"].start()
        self.wait_ready()

    def restart_etcd(self) -> None:
        """Kills etcd, starts it again with its data, and waits until the API server serves again."""
        self._processes["etcd"].kill()
        self._processes["etcd"].start()
        wait_for(lambda: self._http_ok(f"http://{self.host}:{self._etcd_port}/health"), describe="etcd to be healthy")
        # The API server may take itself to be ready for a while although it has lost etcd.
        wait_for(self._stores, describe="the API server to write to etcd again")
        self.wait_ready()

    def compact_etcd(self) -> None:
        """Lets etcd forget every revision but the newest: a watch from an older one gets 410."""
        url = f"http://{self.host}:{self._etcd_port}/v3/kv"
        with requests.Session() as session:
            session.trust_env = False
            key = base64.b64encode(b"/").decode()
            found = session.post(f"{url}/range", json={"key": key, "limit": 1}, timeout=10).json()
            body = {"revision": found["header"]["revision"], "physical": True}
            session.post(f"{url}/compaction", json=body, timeout=10).raise_for_status()

    def starve(self, user: str) -> None:
        """Has the API server turn every request of a user away with 429; nobody's for an empty name."""
        group = "flowcontrol.apiserver.k8s.io/v1"
        limited = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}
        level = {"type": "Limited", "limited": limited}
        rules = {
            "subjects": [{"kind": "User", "user": {"name": user or "nobody"}}],
            "resourceRules": [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
            ],
        }
        schema = {
            "priorityLevelConfiguration": {"name": "starved"},
            "matchingPrecedence": 1000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [rules],
        }
        for kind, spec in (("PriorityLevelConfiguration", level), ("FlowSchema", schema)):
            self.kube.apply({"apiVersion": group, "kind": kind, "metadata": {"name": "starved"}, "spec": spec})

    def process(self, name: str) -> Process:
        """Returns a process by its program's name, or by the name given to :meth:`spawn`."""
        return self._processes[name]

    def spawn(
        self, name: str, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Process:
        """Starts a program of the test's; it ends with the control plane at the latest.

        A name that is taken gets a number, so that two replicas may have the same one.
        """
        return self.adopt(Process(self.free_name(name), command, folder=self.folder / "logs", env=env, cwd=cwd))

    def free_name(self, name: str) -> str:
        """Returns a name that no process has had, so that its log is its own: this one, or with a number."""
        names = (f"{name}#{number}" if number else name for number in itertools.count())
        return next(one for one in names if one not in self._processes and not self._log(one).exists())

    def adopt(self, process: Process) -> Process:
        """Starts a process that ends with the control plane at the latest, and has its log in the reports."""
        self._processes[process.name] = process
        return process.start()

    def forget(self, process: Process) -> None:
        """Stops a spawned program and drops it from the list, not its log."""
        process.stop()
        self._processes = {name: one for name, one in self._processes.items() if one is not process}

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Lets a process do nothing for a while."""
        process = self._processes[name]
        process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)

    def pods(self, namespace: str) -> PodScript:
        """Returns the script of a namespace's pods."""
        return PodScript(self.kube, namespace=namespace, folder=self.folder / "logs")

    def create_namespace(self, name: str, *, labels: dict[str, str] | None = None) -> None:
        """Creates a namespace and waits until pods may be created in it."""
        self.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}})
        # Admission refuses pods as long as the controller manager has not made the account.
        self.kube.wait("ServiceAccount", "default", name, lambda _: True)

    def service_account(
        self,
        *,
        name: str,
        namespace: str,
        cluster_role: str = "",
        rules: Sequence[Manifest] = (),
        only_namespace: bool = False,
    ) -> Path:
        """Creates a service account with rights, and returns the path of its kubeconfig when the rules hold.

        Args:
            name: The account's name.
            namespace: The account's namespace.
            cluster_role: An existing ClusterRole to bind.
            rules: Or rules for a role of its own.
            only_namespace: Whether the rights hold in ``namespace`` only.
        """
        metadata = {"name": name, "namespace": namespace}
        self.kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        rbac = "rbac.authorization.k8s.io/v1"
        role = cluster_role
        if rules:
            role = f"{namespace}-{name}"
            self.kube.apply(
                {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": role}, "rules": list(rules)}
            )
        if role:
            binding = "RoleBinding" if only_namespace else "ClusterRoleBinding"
            self.kube.apply(
                {
                    "apiVersion": rbac,
                    "kind": binding,
                    "metadata": {"name": f"{namespace}-{name}"} | ({"namespace": namespace} if only_namespace else {}),
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                    "subjects": [{"kind": "ServiceAccount", **metadata}],
                }
            )
        user, place = f"system:serviceaccount:{namespace}:{name}", namespace if only_namespace else ""
        wait_for(lambda: all(self.kube.may(user, rule, place) for rule in rules), describe=f"the rights of {user}")
        return self.kubeconfig(f"{namespace}-{name}", token=self.token(name=name, namespace=namespace))

    def token(self, *, name: str, namespace: str, seconds: int = 7200) -> str:
        """Returns a token of a service account."""
        answer = self.kube.request(
            "POST",
            f"api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": seconds},
            },
        )
        token: str = answer["status"]["token"]
        return token

    def client(self, *, token: str) -> Kube:
        """Returns a client with the rights of a token."""
        return Kube(url=self.url, ca_file=self.ca_file, token=token)

    def kubeconfig(self, name: str, *, token: str = "", namespace: str = "default") -> Path:
        """Writes a kubeconfig for a token (one of the components' by ``name`` without one), and returns its path."""
        path = self.folder / f"{name}.kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}],
            "users": [{"name": name, "user": {"token": token or self._tokens[name]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name, "namespace": namespace}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    def kubectl(
        self, *arguments: str, kubeconfig: Path | None = None, manifest: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl, as the administrator unless told otherwise; ``manifest`` is its standard input.

        Raises:
            AssertionError: If it fails and ``check`` is set; the message is what kubectl said.
        """
        done = subprocess.run(
            [binaries.find("kubectl"), *arguments],
            input=manifest,
            env=os.environ
            | {"KUBECONFIG": str(kubeconfig or self.kubeconfig("admin")), "KUBECACHEDIR": str(self.folder / "kubectl")},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done

    def requests(self, user: str) -> list[Manifest]:
        """Returns the finished API requests of a service account so far: verb, requestURI, responseStatus, objectRef.

        Args:
            user: Such as ``system:serviceaccount:<namespace>:<name>``.
        """
        log = self.folder / "logs" / "audit.log"
        lines = log.read_text().splitlines() if log.exists() else []
        events = [json.loads(line) for line in lines if user in line]
        return [one for one in events if one["user"]["username"] == user and one["stage"] == "ResponseComplete"]

    def tails(self, lines: int = 25) -> dict[str, str]:
        """Returns the end of every log, by name."""
        return {name: process.tail(lines) for name, process in self._processes.items()}

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _run(self, program: str, flags: list[str]) -> None:
        process = Process(program, [binaries.find(program), *flags], folder=self.folder / "logs")
        self._processes[program] = process
        process.start()

    def _write_files(self) -> None:
        for name in ("logs", "certificates", "etcd"):
            (self.folder / name).mkdir(parents=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "account.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        users = [f'{token},{name},{name},"system:masters"' for name, token in self._tokens.items()]
        (self.folder / "tokens.csv").write_text("\n".join(users))
        (self.folder / "audit.yaml").write_text(yaml.safe_dump(_AUDIT_POLICY))

    def _etcd_flags(self) -> list[str]:
        client = f"http://{self.host}:{self._etcd_port}"
        peer = f"http://{self.host}:{self._etcd_peer_port}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _apiserver_flags(self) -> list[str]:
        return [
            f"--etcd-servers=http://{self.host}:{self._etcd_port}",
            f"--secure-port={self._api_port}",
            f"--bind-address={self.host}",
            f"--advertise-address={self.host}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            f"--service-account-issuer={_ISSUER}",
            f"--service-account-signing-key-file={self.folder / 'account.key'}",
            f"--service-account-key-file={self.folder / 'account.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--kubelet-preferred-address-types=InternalIP",
            f"--default-unreachable-toleration-seconds={self._unreachable_seconds}",
            f"--default-not-ready-toleration-seconds={self._unreachable_seconds}",
            "--allow-privileged",
            "--profiling=false",
            f"--audit-policy-file={self.folder / 'audit.yaml'}",
            f"--audit-log-path={self.folder / 'logs' / 'audit.log'}",
            # A loopback address can't be an endpoint of the kubernetes Service.
            *(["--endpoint-reconciler-type=none"] if self.host == _HOST else []),
            *self._api_server_flags,
        ]

    def _controller_manager(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig('controller-manager')}",
            "--leader-elect=false",
            "--controllers=*",
            f"--bind-address={self.host}",
            f"--secure-port={self._health_ports[0]}",
            *self._serving_certificate(),
            f"--service-account-private-key-file={self.folder / 'account.key'}",
            f"--root-ca-file={self.ca_file}",
            "--authorization-always-allow-paths=/healthz,/metrics",
            "--node-monitor-period=1s",
            # Fake nodes fail when a test says so, not when this machine is too busy for their heartbeats.
            *(["--node-monitor-grace-period=1h"] if self._fake_nodes else []),
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            *self._controller_manager_flags,
        ]

    def _scheduler(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig('scheduler')}",
            "--leader-elect=false",
            f"--bind-address={self.host}",
            f"--secure-port={self._health_ports[1]}",
            *self._serving_certificate(),
            "--authorization-always-allow-paths=/healthz,/metrics",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        ]

    def _kwok(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig('kwok')}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-label-selector=kwok.x-k8s.io/node=fake",
            "--enable-crds=Stage,ClusterLogs,ClusterExec",
            f"--node-ip={_HOST}",
            f"--node-port={self._kwok_port}",
            f"--server-address={_HOST}:{self._kwok_port}",
            *self._serving_certificate(),
            # Whoever calls a pod stays on this machine.
            "--cidr=127.100.0.0/16",
        ]

    def _serving_certificate(self) -> list[str]:
        # All components serve on one address: the certificate that the API server made for itself fits.
        return [f"--tls-cert-file={self.ca_file}", f"--tls-private-key-file={self.ca_file.with_suffix('.key')}"]

    def _stores(self) -> bool:
        """Whether something can be written, and read again from etcd itself."""
        stamp = secrets.token_hex(8)
        try:
            self.kube.patch("Namespace", "default", None, {"metadata": {"annotations": {"kube-testing/stored": stamp}}})
            found = self.kube.get("Namespace", "default")
        except (RuntimeError, requests.RequestException):
            return False
        return found is not None and found["metadata"]["annotations"]["kube-testing/stored"] == stamp

    def _stages_are_served(self) -> bool:
        try:
            self.kube.list("Stage")
            self.kube.list("ClusterLogs")
            self.kube.list("ClusterExec")
        except RuntimeError:
            return False
        return True

    def _wait_healthy(self, name: str, url: str, *, timeout: float = DEADLINE) -> None:
        process = self._processes[name]

        def healthy() -> bool:
            if not process.running:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{process.tail()}")
            return self._http_ok(url)

        wait_for(healthy, timeout=timeout, describe=lambda: f"{name} to be healthy; its log:\n{process.tail()}")

    def _http_ok(self, url: str) -> bool:
        try:
            with requests.Session() as session:
                session.trust_env = False
                session.verify = str(self.ca_file)
                headers = {"Authorization": f"Bearer {self._tokens['admin']}"}
                return session.get(url, headers=headers, timeout=5).ok
        except (requests.RequestException, OSError):
            return False


def _established(crd: dict[str, Any]) -> bool:
    return any(
        one["type"] == "Established" and one["status"] == "True" for one in crd.get("status", {}).get("conditions", [])
    )
