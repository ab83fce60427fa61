# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifests: good by the API's own schemas; the pod run, though not by a kubelet.

There is no API server to be had: podman runs the pod of the DaemonSet, with what
only a kubelet could give it replaced.
"""

import copy
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyfailover.lab import Namespace, eventually
from pyfailover.place import Roots
from tests.support.image import CAPABILITIES, IMAGE, ROOT, Engine
from tests.support.scraping import answers, scrape
from tests.support.tools import tool
from tests.support.topology import Duo

pytestmark = pytest.mark.timeout(900)  # an image may have to be made

KUBERNETES = ROOT / "deploy" / "kubernetes"
SECCOMP = ROOT / "deploy" / "seccomp.json"
VALID = ("daemonset", "groups", "serviceaccount")

Object = dict[str, Any]


def manifest(name: str) -> Object:
    """One of them."""
    found = yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())
    assert isinstance(found, dict)
    return found


def verdict(path: Path) -> tuple[int, str]:
    """What the schemas of Kubernetes say."""
    argv = [str(tool("kubernetes-validate")), "--strict", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", VALID)
def test_manifest_is_valid(name: str) -> None:
    """By the newest schemas, with no key that they do not know."""
    code, said = verdict(KUBERNETES / f"{name}.yaml")
    assert code == 0, said


def test_a_fault_is_seen(tmp_path: Path) -> None:
    """Of a wrong type, and of a wrong name."""
    for path, value in (("hostNetwork", "yes"), ("hostNetworking", True)):
        faulty = copy.deepcopy(manifest("daemonset"))
        faulty["spec"]["template"]["spec"][path] = value
        file = tmp_path / "faulty.yaml"
        file.write_text(yaml.safe_dump(faulty))
        assert verdict(file)[0] != 0, path


def test_they_fit_each_other() -> None:
    """All are named, and what one refers to is there."""
    kustomization = manifest("kustomization")["resources"]
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization) == there
    pod = manifest("daemonset")["spec"]["template"]
    monitor = manifest("podmonitor")["spec"]
    assert pod["metadata"]["labels"] == monitor["selector"]["matchLabels"]
    (container,) = pod["spec"]["containers"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    assert (
        pod["spec"]["serviceAccountName"]
        == manifest("serviceaccount")["metadata"]["name"]
    )
    maps = {v["configMap"]["name"] for v in pod["spec"]["volumes"] if "configMap" in v}
    assert maps == {manifest("groups")["metadata"]["name"]}
    capabilities = container["securityContext"]["capabilities"]
    assert capabilities == {"drop": ["ALL"], "add": list(CAPABILITIES)}


def runnable(name: str, roots: Roots, scratch: Path) -> Object:
    """The pod of the DaemonSet for podman."""
    template = copy.deepcopy(manifest("daemonset")["spec"]["template"])
    spec = template["spec"]
    (container,) = spec["containers"]
    del spec["serviceAccountName"], spec["priorityClassName"]
    container |= {"image": IMAGE, "imagePullPolicy": "Never"}
    del container["ports"]  # no mapping beside the host's network
    del container["securityContext"]["seccompProfile"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        del container[probe]  # podman has a systemd ask them
    container["env"] = [
        {"name": "NODE_IP", "value": "127.0.0.1"},
        {"name": "PYFAILOVER_PIN_ROOT", "value": str(roots.pins)},
    ]
    for volume in spec["volumes"]:
        if volume["name"] in ("run", "cache"):
            volume["hostPath"]["path"] = str(scratch / volume["name"])
        if volume["name"] == "groups":
            volume.pop("configMap")
            volume["hostPath"] = {"path": str(scratch / "groups"), "type": "Directory"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "annotations": {
                "seccomp.security.alpha.kubernetes.io/pod": f"localhost/{SECCOMP.name}"
            },
        },
        "spec": spec,
    }


@contextmanager
def playing(engine: Engine, ns: Namespace, pod: Object, file: Path) -> Iterator[str]:
    """The pod runs in a namespace; yields the name of its container."""
    file.write_text(yaml.safe_dump(pod))
    inside = ("nsenter", f"--net=/run/netns/{ns.name}", "podman", "kube")
    try:
        profiles = f"--seccomp-profile-root={SECCOMP.parent}"
        engine.run(*inside, "play", profiles, str(file))
        yield f"{pod['metadata']['name']}-pyfailover"
    finally:
        engine.run(*inside, "down", str(file), check=False)


def test_the_pod_fails_over(
    built: Engine, pair: Duo, roots: Roots, tmp_path: Path
) -> None:
    """With the groups of the ConfigMap, four capabilities, and metrics; and its probe
    succeeds while a link is down."""
    host, scratch = pair.host, tmp_path
    (scratch / "groups").mkdir()
    for name, text in manifest("groups")["data"].items():
        (scratch / "groups" / name).write_text(text)
    (scratch / "groups").chmod(0o777)  # as a ConfigMap is mounted
    pod = runnable(host.name, roots, scratch)
    probe = manifest("daemonset")["spec"]["template"]["spec"]["containers"][0][
        "livenessProbe"
    ]["exec"]["command"]
    with playing(built, host, pod, scratch / "pod.yaml") as name:

        def inside(*words: str, check: bool = True) -> str:
            # Of the "host" network podman means the one that it is called in.
            joined = ("nsenter", f"--net=/run/netns/{host.name}")
            return built.run(*joined, "podman", "exec", name, *words, check=check)

        def active() -> float | None:
            return scrape(host).get("group_active_rank", master="fo0")

        eventually(lambda: answers(host), timeout=60, what="metrics")
        eventually(lambda: active() == 0, timeout=30, what="the primary")
        asked = "--format={{.HostConfig.NetworkMode}} {{.EffectiveCaps}}"
        said = built.run("podman", "inspect", asked, name)
        assert set(re.findall(r"CAP_\w+", said)) == {f"CAP_{c}" for c in CAPABILITIES}
        assert said.startswith("host ")
        pair.cut(1)
        eventually(lambda: active() == 1, timeout=30, what="the standby")
        inside(*probe)
        inside("pyfailover", "destroy", "fo0", "--persist", check=False)
