"""Pods of config/kubernetes as containers of a dockerd: the same users, rights, mounts, shared
namespaces and probes. What a kubelet does beyond that is not tried here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.containers.engine import Engine
from tests.waiting import until

KUBERNETES = Path(__file__).parent.parent.parent / "config" / "kubernetes"
_SECONDS = 30.0


@dataclass(frozen=True)
class Pod:
    """A running pod: the names of its containers, and the address that they share."""

    containers: Mapping[str, str]
    address: str


def documents(variant: str) -> list[dict[str, Any]]:
    """The resources of a kustomization and of those that it names, as they are written."""
    directory = (KUBERNETES / variant).resolve()
    found = []
    for name in kustomization(variant)["resources"]:
        path = directory / name
        if path.is_dir():
            found += documents(str(path.relative_to(KUBERNETES)))
        else:
            found += list(yaml.safe_load_all(path.read_text()))
    return found


def kustomization(variant: str) -> dict[str, Any]:
    return dict(yaml.safe_load((KUBERNETES / variant / "kustomization.yaml").read_text()))


def start(docker: Engine, variant: str, name: str, *, images: Path, scratch: Path) -> Pod:
    """A pod of the variant's Deployment over the directory ``images``, once it is ready.

    ``scratch`` is where its emptyDirs are made.
    """
    (deployment,) = [each for each in documents(variant) if each["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    tags = {each["name"]: f"{each['newName']}:{each['newTag']}" for each in kustomization(variant)["images"]}
    sources = {volume["name"]: _volume(variant, volume, images, scratch) for volume in spec["volumes"]}
    docker.docker("run", "-d", "--name", name, "--entrypoint", "sleep", "scr-watchd:sidecar", "infinity")
    address = docker.inspect(name, "NetworkSettings.IPAddress")
    containers = {}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        made = f"{name}-{container['name']}"
        image = tags.get(container["image"], container["image"])
        docker.docker("run", "-d", "--name", made, *_options(spec, container, name, sources), image)
        containers[container["name"]] = made
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe := container.get(kind):
                until(partial(_passes, docker, address, made, probe), seconds=_SECONDS)
    return Pod(containers, address)


def _volume(variant: str, volume: Mapping[str, Any], images: Path, scratch: Path) -> Path:
    if "persistentVolumeClaim" in volume:
        return images
    made = scratch / str(volume["name"])
    made.mkdir()
    if "configMap" in volume:
        generated = {each["name"]: each["files"] for each in kustomization(variant)["configMapGenerator"]}
        for file in generated[volume["configMap"]["name"]]:
            (made / file).write_bytes((KUBERNETES / variant / file).read_bytes())
    else:
        made.chmod(0o777)  # as a kubelet makes an emptyDir
    return made


def _options(
    spec: Mapping[str, Any], container: Mapping[str, Any], pod: str, sources: Mapping[str, Path]
) -> Iterable[str]:
    yield f"--network=container:{pod}"
    if spec.get("shareProcessNamespace"):
        yield f"--pid=container:{pod}"
    who, rights = spec["securityContext"], container["securityContext"]
    yield f"--user={who['runAsUser']}:{who['runAsGroup']}"
    yield f"--read-only={str(rights['readOnlyRootFilesystem']).lower()}"
    yield from (f"--cap-drop={name}" for name in rights["capabilities"]["drop"])
    if not rights["allowPrivilegeEscalation"]:
        yield "--security-opt=no-new-privileges"
    for variable in container.get("env", []):
        yield f"--env={variable['name']}={variable['value']}"
    for mount in container["volumeMounts"]:
        mode = "ro" if mount.get("readOnly") else "rw"
        yield f"--volume={sources[mount['name']]}:{mount['mountPath']}:{mode}"


def _passes(docker: Engine, address: str, container: str, probe: Mapping[str, Any]) -> bool:
    if "exec" in probe:
        return docker.run("docker", "exec", container, *probe["exec"]["command"], check=False).returncode == 0
    return docker.status(f"{address}:8080", probe["httpGet"]["path"]) == 200
