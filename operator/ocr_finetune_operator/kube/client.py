"""Requests to the API server: plain dictionaries in and out, each counted.

What failed is not tried again here, but for what the server was too busy to begin with: retries are the work queue's,
and are decided anew from what is true then.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import ApiException, RESTClientObject

from ocr_finetune_api import GROUP, PLURAL, VERSION
from ocr_finetune_operator.kube.errors import ApiError, BusyError, NotFoundError, UnreachableError, error_of
from ocr_finetune_operator.metrics import Metrics

Manifest = dict[str, Any]

RUNS = f"apis/{GROUP}/{VERSION}/{PLURAL}"
_RESOURCES: Mapping[str, str] = {
    "OCRFineTune": RUNS,
    "Job": "apis/batch/v1/jobs",
    "Pod": "api/v1/pods",
    "ConfigMap": "api/v1/configmaps",
    "Service": "api/v1/services",
    "Secret": "api/v1/secrets",
    "Event": "api/v1/events",
    "Node": "api/v1/nodes",
    "PersistentVolumeClaim": "api/v1/persistentvolumeclaims",
    "NetworkPolicy": "apis/networking.k8s.io/v1/networkpolicies",
    "StorageClass": "apis/storage.k8s.io/v1/storageclasses",
    "Workload": "apis/kueue.x-k8s.io/v1beta1/workloads",
    "Lease": "apis/coordination.k8s.io/v1/leases",
}
_BUSY_RETRIES = 3
_LONGEST_WAIT = 5.0
_NAME = re.compile(r"^[A-Za-z0-9][-A-Za-z0-9.:_]{0,252}$")
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Client:
    """One connection pool with the rights of the operator."""

    def __init__(self, configuration: Configuration, *, metrics: Metrics, seconds: float = 30.0) -> None:
        # Not False: that the library takes for a number, and tries again for ever, with growing pauses.
        configuration.retries = None
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._metrics = metrics
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    @classmethod
    async def connect(cls, *, metrics: Metrics, seconds: float = 30.0) -> Client:
        """Finds the cluster: `KUBECONFIG`, the user's configuration, or the service account of this pod."""
        configuration = Configuration()
        named = os.environ.get("KUBECONFIG")
        where = {"config_file": named} if named else {}
        await kubernetes_config.load_config(client_configuration=configuration, **where)
        return cls(configuration, metrics=metrics, seconds=seconds)

    async def close(self) -> None:
        """Closes the connections."""
        await self._rest.close()

    async def get(self, kind: str, name: str, namespace: str = "", *, metadata_only: bool = False) -> Manifest | None:
        """An object; None if there is none."""
        try:
            return await self._json(
                "GET", _path(kind, namespace, name), accept=_METADATA_ONLY if metadata_only else "application/json"
            )
        except NotFoundError:
            return None

    async def pages(
        self, kind: str, namespace: str = "", *, limit: int = 500, labels: str = ""
    ) -> AsyncIterator[Manifest]:
        """All objects, read page by page: never more than one page is in memory."""
        token = ""
        while True:
            query = {"limit": str(limit)} | ({"continue": token} if token else {})
            if labels:
                query["labelSelector"] = labels
            page = await self._json("GET", _path(kind, namespace), query=query)
            for item in page.get("items") or ():
                yield item
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def version(self) -> tuple[int, int]:
        """Major and minor version of the API server."""
        found = await self._json("GET", "version")
        digits = [re.match(r"\d+", str(found.get(part, ""))) for part in ("major", "minor")]
        return int(digits[0][0]) if digits[0] else 0, int(digits[1][0]) if digits[1] else 0

    async def serves(self, group: str, plural: str) -> bool:
        """Whether the API server has a resource; `group` is a path such as `apis/batch/v1`."""
        try:
            found = await self._json("GET", group)
        except NotFoundError:
            return False
        return any(resource["name"] == plural for resource in found["resources"])

    async def may(self, verb: str, *, group: str, resource: str, namespace: str) -> bool:
        """Whether this client has a right; without a namespace, in the whole cluster."""
        name, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": name, "subresource": subresource}
        review = await self._json(
            "POST",
            "apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes | {"namespace": namespace}},
            },
        )
        return bool(review["status"]["allowed"])

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Creates an object, or only lets the API server check it.

        Raises:
            ConflictError: It exists.
        """
        path = _path(manifest["kind"], manifest["metadata"].get("namespace", ""))
        return await self._json("POST", path, body=manifest, query={"dryRun": "All"} if dry_run else None)

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replaces an object, guarded by its resourceVersion."""
        metadata = manifest["metadata"]
        path = _path(manifest["kind"], metadata.get("namespace", ""), metadata["name"])
        return await self._json("PUT", path, body=manifest)

    async def apply(self, manifest: Manifest, *, manager: str) -> Manifest:
        """Applies an object on the server's side; what others changed in its fields is put right."""
        metadata = manifest["metadata"]
        return await self._json(
            "PATCH",
            _path(manifest["kind"], metadata.get("namespace", ""), metadata["name"]),
            body=manifest,
            query={"fieldManager": manager, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    async def patch_status(self, kind: str, name: str, namespace: str, patch: Manifest) -> Manifest:
        """Merges a patch into a status; a resourceVersion in it makes it fail if the object has changed."""
        return await self._json(
            "PATCH", _path(kind, namespace, name) + "/status", body=patch, content_type="application/merge-patch+json"
        )

    async def delete(
        self, kind: str, name: str, namespace: str, *, uid: str = "", propagation: str = "", grace: int | None = None
    ) -> bool:
        """Deletes an object, if it still has the UID; one that is not there is fine.

        Returns:
            Whether it was there.

        Raises:
            ConflictError: There is another object under its name.
        """
        options: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if propagation:
            options["propagationPolicy"] = propagation
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._json("DELETE", _path(kind, namespace, name), body=options)
        except NotFoundError:
            return False
        return True

    async def log_tail(self, pod: str, namespace: str, *, container: str, lines: int, limit: int) -> str:
        """The last lines of a pod's log; empty if it has none any more."""
        query = {"container": container, "tailLines": str(lines)}
        try:
            data = await self._request("GET", _path("Pod", namespace, pod) + "/log", query=query, accept="*/*")
        except (ApiError, UnreachableError):
            return ""
        return data[-limit:].decode(errors="replace")

    async def _json(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Manifest:
        data = await self._request(method, path, body=body, query=query, content_type=content_type, accept=accept)
        document: Manifest = json.loads(data)
        return document

    async def _request(self, method: str, path: str, **options: Any) -> bytes:
        """Sends a request; one that the API server was too busy to begin with is sent again when it says so."""
        for _ in range(_BUSY_RETRIES):
            try:
                return await self._send(method, path, **options)
            except BusyError as error:
                if error.code != 429 or not error.retry_after:
                    raise
                await asyncio.sleep(min(error.retry_after, _LONGEST_WAIT))
        return await self._send(method, path, **options)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        url = f"{self._configuration.host}/{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "ocr-finetune-operator"}
        token = await self._configuration.get_api_key_with_prefix("BearerToken", "authorization")
        if token:
            headers["Authorization"] = token
        code = "error"
        try:
            response = await self._rest.request(method, url, headers=headers, body=body, _request_timeout=self._timeout)
            code = str(response.status)
            data: bytes = await response.read()
        except ApiException as error:
            code, data = str(error.status), _bytes(error.body)
            raise _refusal(int(error.status or 0), data, dict(error.headers or {})) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"{method} /{path}: {type(error).__name__}: {error}") from error
        finally:
            self._metrics.request(method=method, code=code)
        if int(code) >= 400:
            raise _refusal(int(code), data, dict(response.headers))
        return data


def _bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return str(body or "").encode()


def _refusal(code: int, data: bytes, headers: Mapping[str, str]) -> ApiError:
    try:
        status = json.loads(data)
        reason, message = status.get("reason", ""), status.get("message", "")
    except (ValueError, AttributeError):
        reason, message = "", data[:500].decode(errors="replace")
    wait = re.match(r"^\d+$", headers.get("Retry-After", ""))
    return error_of(code)(code=code, reason=reason, message=message, retry_after=float(wait[0]) if wait else 0.0)


def _path(kind: str, namespace: str, name: str = "") -> str:
    # A name that a user wrote must not lead the request elsewhere.
    for part in (name, namespace):
        if part and (not _NAME.match(part) or ".." in part):
            raise NotFoundError(code=404, reason="NotFound", message=f"{part[:60]!r} is no name of a {kind}")
    prefix, _, plural = _RESOURCES[kind].rpartition("/")
    parts = [prefix, *(["namespaces", quote(namespace, safe="")] if namespace else []), plural]
    return "/".join([*parts, *([quote(name, safe="")] if name else [])])
