"""What tests ask the API server for: plain dictionaries in, plain dictionaries out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import requests

from .processes import DEADLINE, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Manifest = dict[str, Any]

_CLUSTER_SCOPED = {
    "Namespace",
    "Node",
    "PersistentVolume",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "PriorityClass",
    "StorageClass",
    "Stage",
    "ClusterLogs",
    "ClusterExec",
    "FlowSchema",
    "PriorityLevelConfiguration",
}
_PATHS = {
    "api/v1": (
        "ConfigMap Endpoints Event Namespace Node PersistentVolume PersistentVolumeClaim Pod ResourceQuota Secret "
        "Service ServiceAccount"
    ),
    "apis/apps/v1": "DaemonSet Deployment StatefulSet",
    "apis/batch/v1": "Job",
    "apis/coordination.k8s.io/v1": "Lease",
    "apis/networking.k8s.io/v1": "NetworkPolicy",
    "apis/policy/v1": "PodDisruptionBudget",
    "apis/rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "apis/apiextensions.k8s.io/v1": "CustomResourceDefinition",
    "apis/scheduling.k8s.io/v1": "PriorityClass",
    "apis/storage.k8s.io/v1": "StorageClass",
    "apis/kwok.x-k8s.io/v1alpha1": "Stage ClusterLogs ClusterExec",
    "apis/ocrfinetune.dev/v1alpha1": "OCRFineTune",
    "apis/kueue.x-k8s.io/v1beta1": "Workload",
    "apis/kubeflow.org/v1": "PaddleJob",
    "apis/flowcontrol.apiserver.k8s.io/v1": "FlowSchema PriorityLevelConfiguration",
}
_GROUP = {kind: path for path, kinds in _PATHS.items() for kind in kinds.split()}
_PLURALS = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses", "StorageClass": "storageclasses"}
_UNCHANGED_PLURAL = {"Endpoints", "ClusterLogs"}


class ApiError(RuntimeError):
    """The API server refused a request.

    Attributes:
        code: The HTTP status.
        reason: Kubernetes' reason, such as ``Invalid`` or ``Forbidden``.
        message: The message that a user sees.
    """

    def __init__(self, response: requests.Response) -> None:
        try:
            status = response.json()
        except ValueError:
            status = {}
        self.code = response.status_code
        self.reason = status.get("reason", "")
        self.message = status.get("message", response.text)
        super().__init__(f"{response.request.method} {response.request.path_url}: {self.code} {self.message}")


class Kube:
    """A client with one user's rights.

    Args:
        url: The API server's address.
        ca_file: Its certificate.
        token: The bearer token.

    Attributes:
        token: The bearer token.
    """

    def __init__(self, *, url: str, ca_file: Path, token: str) -> None:
        self.token = token
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca_file)
        self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Returns the object, None where there is none."""
        try:
            return self.request("GET", _path(kind, namespace, name))
        except ApiError as error:
            if error.code == requests.codes.not_found:
                return None
            raise

    def list(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Manifest]:
        """Returns the objects of a namespace, of all namespaces without one, by label and field selectors."""
        found = self.request("GET", _path(kind, namespace), params={"labelSelector": labels, "fieldSelector": fields})[
            "items"
        ]
        return [{"kind": kind, **one} for one in found]

    def watch(self, kind: str, namespace: str | None = None) -> Iterator[tuple[str, Manifest]]:
        """Yields what there is, then each change as it comes: the type of the event, and the object."""
        url = f"{self._url}/{_path(kind, namespace)}"
        with self._session.get(url, params={"watch": "true"}, stream=True, timeout=(30, None)) as response:
            for line in response.iter_lines(chunk_size=None):
                event = json.loads(line)
                yield event["type"], event["object"]

    def create(self, manifest: Manifest, *, strict: bool = True) -> Manifest:
        """Creates an object; with ``strict``, unknown fields are an error as with ``kubectl --validate=strict``."""
        params = {"fieldValidation": "Strict"} if strict else {}
        return self.request("POST", _path(manifest["kind"], _namespace(manifest)), body=manifest, params=params)

    def apply(self, manifest: Manifest, *, manager: str = "test") -> Manifest:
        """Applies an object on the server's side, by force."""
        return self.request(
            "PATCH",
            _path(manifest["kind"], _namespace(manifest), manifest["metadata"]["name"]),
            body=manifest,
            params={"fieldManager": manager, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    def patch(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        body: Manifest,
        *,
        subresource: str = "",
        strategic: bool = False,
    ) -> Manifest:
        """Merges a patch into an object or its subresource."""
        return self.request(
            "PATCH",
            _path(kind, namespace, name, subresource),
            body=body,
            content_type=f"application/{'strategic-' if strategic else ''}merge-patch+json",
        )

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str = "Background",
        grace: int | None = None,
    ) -> None:
        """Deletes an object; one that is not there is fine."""
        body: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            self.request("DELETE", _path(kind, namespace, name), body=body)
        except ApiError as error:
            if error.code != requests.codes.not_found:
                raise

    def evict(self, pod: str, namespace: str) -> None:
        """Deletes a pod as ``kubectl drain`` does: it gets the condition ``DisruptionTarget``."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        self.request("POST", _path("Pod", namespace, pod, "eviction"), body=body)

    def may(self, user: str, rule: Manifest, namespace: str = "") -> bool:
        """Returns whether a user has the first right of an RBAC rule; without a namespace, in the whole cluster."""
        resource, _, subresource = rule["resources"][0].partition("/")
        attributes = {"verb": rule["verbs"][0], "group": rule["apiGroups"][0], "namespace": namespace}
        attributes |= {"resource": resource, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        answer = self.request("POST", "apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
        return bool(answer["status"]["allowed"])

    def would_create(self, manifest: Manifest) -> int:
        """Returns the HTTP status that creating an object would have now."""
        try:
            self.request("POST", _path(manifest["kind"], _namespace(manifest)), body=manifest, params={"dryRun": "All"})
        except ApiError as error:
            return error.code
        created: int = requests.codes.created
        return created

    def logs(self, pod: str, namespace: str, **params: str | int) -> str:
        """Returns a pod's log."""
        return self._call("GET", _path("Pod", namespace, pod, "log"), params=params).text

    def kubelet_has_log(self, node: Manifest, pod: str, namespace: str, container: str) -> bool:
        """Returns whether a node's kubelet, asked itself, has a log of a container."""
        port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        (address,) = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
        url = f"https://{address}:{port}/containerLogs/{namespace}/{pod}/{container}"
        return self._session.get(url, timeout=30).ok

    def wait(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        holds: Callable[[Manifest], object],
        *,
        timeout: float = DEADLINE,
    ) -> Manifest:
        """Waits until an object exists and ``holds`` says yes to it, and returns the object."""
        last: list[Manifest | None] = [None]

        def look() -> Manifest | None:
            last[0] = self.get(kind, name, namespace)
            return last[0] if last[0] is not None and holds(last[0]) else None

        return wait_for(
            look,
            timeout=timeout,
            describe=lambda: (
                f"{kind} {namespace}/{name}; its state: {json.dumps((last[0] or {}).get('status'), indent=1)}"
            ),
        )

    def wait_gone(self, kind: str, name: str, namespace: str | None = None, *, timeout: float = DEADLINE) -> None:
        """Waits until an object is no longer there."""
        wait_for(lambda: self.get(kind, name, namespace) is None, timeout=timeout, describe=f"{kind} {name} to be gone")

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        params: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        """Sends a request and returns the answer's document.

        Raises:
            ApiError: If the API server refuses it.
        """
        answer: Manifest = self._call(method, path, body=body, params=params, content_type=content_type).json()
        return answer

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        params: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> requests.Response:
        def send() -> tuple[requests.Response] | None:
            answer = self._session.request(
                method,
                f"{self._url}/{path}",
                params={key: value for key, value in (params or {}).items() if value != ""},
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": content_type},
                timeout=30,
            )
            # It has not begun with the request, as its caches are filled anew, and asks to come again.
            busy = answer.status_code == requests.codes.too_many_requests and "Retry-After" in answer.headers
            return None if busy else (answer,)

        (response,) = wait_for(send, describe=f"the API server to have time for {method} {path}")
        if not response.ok:
            raise ApiError(response)
        return response


def condition(manifest: Manifest, kind: str, status: str = "True") -> Manifest | None:
    """Returns an object's condition of a type if it has the given status."""
    for one in manifest.get("status", {}).get("conditions") or ():
        if one["type"] == kind and one["status"] == status:
            found: Manifest = one
            return found
    return None


def _namespace(manifest: Manifest) -> str | None:
    namespace: str | None = manifest["metadata"].get("namespace")
    return namespace


def _path(kind: str, namespace: str | None, name: str = "", subresource: str = "") -> str:
    plural = kind.lower() if kind in _UNCHANGED_PLURAL else _PLURALS.get(kind, kind.lower() + "s")
    scope = [] if namespace is None or kind in _CLUSTER_SCOPED else ["namespaces", namespace]
    return "/".join(part for part in [_GROUP[kind], *scope, plural, name, subresource] if part)
