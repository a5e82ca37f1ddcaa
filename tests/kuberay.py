"""The fields of KubeRay's ray.io/v1 and of Kubernetes that a RayJob's manifest may use, by their API references.

In a schema a mapping lists fields, of which those with a star must be there; a list has the schema of its items; a
tuple lists the values; else it is a type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

AMOUNTS = {"cpu": str, "memory": str, "nvidia.com/gpu": int}
CONTAINER = {
    "*name": str,
    "*image": str,
    "resources": {"limits": AMOUNTS, "requests": AMOUNTS},
    "volumeMounts": [{"*name": str, "*mountPath": str}],
}
POD = {
    "securityContext": {"fsGroup": int},
    "*containers": [CONTAINER],
    "tolerations": [{"key": str, "operator": ("Exists", "Equal"), "effect": ("NoSchedule", "NoExecute")}],
    "volumes": [{"*name": str, "persistentVolumeClaim": {"*claimName": str}}],
}
GROUP = {"rayStartParams": {}, "*template": {"*spec": POD}}
CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": ("token", "disabled")},
    "*headGroupSpec": GROUP,
    "workerGroupSpecs": [
        {**GROUP, "*groupName": str, "replicas": int, "*minReplicas": int, "*maxReplicas": int},
    ],
}
JOB = {
    "*apiVersion": ("ray.io/v1",),
    "*kind": ("RayJob",),
    "*metadata": {"*name": str},
    "*spec": {
        "entrypoint": str,
        "submissionMode": ("K8sJobMode", "HTTPMode"),
        "runtimeEnvYAML": str,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": CLUSTER,
    },
}
CLAIM = {
    "*apiVersion": ("v1",),
    "*kind": ("PersistentVolumeClaim",),
    "*metadata": {"*name": str},
    "*spec": {
        "accessModes": [("ReadWriteMany", "ReadWriteOnce", "ReadOnlyMany", "ReadWriteOncePod")],
        "storageClassName": str,
        "resources": {"requests": {"storage": str}},
    },
}


def faults(value: Any, schema: Any, where: str = "") -> Iterator[str]:
    """Yield what of a manifest is unknown, missing or of another type than the schema says."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{where} is no mapping"
            return
        known = {name.lstrip("*"): of for name, of in schema.items()}
        yield from (
            f"{where}.{name} is missing" for name in known if f"*{name}" in schema and name not in value
        )
        for name, inner in value.items():
            if name in known:
                yield from faults(inner, known[name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is unknown"
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for i, inner in enumerate(value):
            yield from faults(inner, schema[0], f"{where}[{i}]")
    elif isinstance(schema, tuple):
        if value not in schema:
            yield f"{where} is {value!r}, not one of {schema}"
    elif type(value) is not schema:
        yield f"{where} is {value!r}, no {schema.__name__}"
