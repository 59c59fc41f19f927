"""config/kubernetes as a cluster would read it: by its schema, and as kustomize puts it together."""

import importlib
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.containers.pods import KUBERNETES, documents
from tests.nginxes import IN_CI

VARIANTS = ("all-in-one", "sidecar")
# the first with native sidecars that are on by default
OLDEST = "1.29"


def validate(document: dict[str, Any], version: str) -> None:
    """Raise if ``document`` has a field that Kubernetes ``version`` does not know, or lacks one."""
    if IN_CI:
        schema = importlib.import_module("kubernetes_validate")
    else:
        schema = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    schema.validate(document, version, strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_field_is_one_that_kubernetes_knows(variant: str) -> None:
    found = documents(variant)
    assert sorted(each["kind"] for each in found) == ["Deployment", "PersistentVolumeClaim", "Service"]
    for document in found:
        validate(document, OLDEST)
    found[-1]["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(Exception, match="readinesProbe"):
        validate(found[-1], OLDEST)


@pytest.mark.parametrize("variant", VARIANTS)
def test_kustomize_puts_it_together(variant: str) -> None:
    """Debian has only a kubectl from before kustomize could do this, so it is not asked for in CI."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    result = subprocess.run(
        [kubectl, "kustomize", KUBERNETES / variant], capture_output=True, text=True, check=True, timeout=30
    )
    made = list(yaml.safe_load_all(result.stdout))
    for document in made:
        validate(document, OLDEST)
    (deployment,) = [each for each in made if each["kind"] == "Deployment"]
    (service,) = [each for each in made if each["kind"] == "Service"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_container_has_a_right_that_it_can_do_without(variant: str) -> None:
    (deployment,) = [each for each in documents(variant) if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
