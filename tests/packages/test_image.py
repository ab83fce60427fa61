# SPDX-License-Identifier: GPL-2.0-or-later
"""The image: built as it is shipped, run with no more rights than the documents say."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pyfailover.lab import eventually
from pyfailover.place import Roots
from tests.support.image import (
    CAPABILITIES,
    IMAGE,
    ROOT,
    Container,
    Engine,
    container,
)
from tests.support.scraping import answers, scrape
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import Tool
from tests.support.tools import tool as program
from tests.support.topology import Duo

pytestmark = pytest.mark.timeout(900)  # a base image and an image are made

SECCOMP = ROOT / "deploy" / "seccomp.json"
HEALTH = (
    "CMD",
    "sh",
    "-c",
    "pyfailover status --json | grep -q '\"controller\": true'",
)


def ready(made: Container) -> None:
    """Wait for its controller."""
    eventually(lambda: " ready " in made.log(), timeout=60, what="a controller")


def alive(made: Container) -> bool:
    """What the health check of the image says."""
    words = HEALTH[3].replace("pyfailover ", f"pyfailover --pin-root={made.pins} ")
    said = made.engine.run(
        "podman", "exec", made.name, "sh", "-c", f"{words} && echo yes", check=False
    )
    return said.strip() == "yes"


def test_the_dockerfile_is_clean() -> None:
    """By hadolint; what is ignored has its reason in the file."""
    subprocess.run([program("hadolint"), "Dockerfile"], cwd=ROOT, check=True)


def test_the_profile_lets_pass_what_is_needed() -> None:
    """bpf() with CAP_BPF, and what the exporter confines itself with."""
    rules = json.loads(SECCOMP.read_text())["syscalls"]
    passed = {
        name: rule["includes"].get("caps", [])
        for rule in rules
        if rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }
    assert passed["bpf"] == ["CAP_BPF"]
    assert passed["landlock_restrict_self"] == []


def test_what_is_in_the_image(built: Engine) -> None:
    """No compiler of C, no pip; the health check and the user are there."""
    (found,) = json.loads(built.run("podman", "image", "inspect", IMAGE))
    assert tuple(found["Healthcheck"]["Test"]) == HEALTH
    assert found["Config"]["Entrypoint"] == ["pyfailover"]
    assert built.size() < 800e6
    script = "id pyfailover && ! command -v gcc && ! command -v pip && echo good"
    said = built.run(
        *("podman", "run", "--rm", "--network=none", "--no-healthcheck"),
        *("--entrypoint=sh", IMAGE, "-c", script),
    )
    assert said.strip().endswith("good")


def test_it_fails_over_and_is_upgraded(
    built: Engine, pair: Duo, tool: Tool, tmp_path: Path
) -> None:
    """With four capabilities and the profile it loads its programs, though the host's
    headers are not there for it; it fails over; it is stopped and another one started
    in its place without a packet lost."""
    host, roots = pair.host, tool.roots
    run = tmp_path / "run"
    run.mkdir()
    first = container(built, host, roots.pins, run, seccomp=SECCOMP)
    second = container(built, host, roots.pins, run, seccomp=SECCOMP)
    with first as made:
        ready(made)
        slaves = ("--primary=eth1", "--standby=eth2")
        made.pyfailover("create", "fo0", *slaves)
        pair.address()
        pair.settle()
        seen = Tool(replace(roots, run=run))
        with exchange(host, pair.far, rate=2_000) as streams:
            deliver(*streams)
            pair.cut(1)
            eventually(lambda: seen.status(host).active == "eth2", what="failing over")
            deliver(*streams)
        assert "degraded" in made.pyfailover("status", check=False)
        assert alive(made)  # a link that is down is no reason to restart it
        eventually(lambda: answers(host), timeout=20, what="an exporter")
        assert scrape(host).get("group_usable_slaves", master="fo0") == 1
        pair.mend(1)
        eventually(lambda: seen.status(host).active == "eth1", what="going back")
        with exchange(host, pair.far, rate=2_000) as streams:
            deliver(*streams)
            made.stop()
            deliver(*streams)
            with second as other:
                ready(other)
                deliver(*streams)
                assert damage(*streams) == [(0, 0)] * 4
                assert alive(other)
                other.pyfailover("destroy", "fo0")
    assert not seen.pins(host).exists()


@pytest.mark.parametrize("missing", CAPABILITIES[:2])
def test_without_a_capability(
    built: Engine, pair: Duo, roots: Roots, missing: str
) -> None:
    """What is missing is said in one line."""
    held = [f"--cap-add={cap}" for cap in CAPABILITIES if cap != missing]
    said = built.run(
        *("podman", "run", "--rm", "--no-healthcheck", "--cap-drop=ALL", *held),
        f"--network=ns:/run/netns/{pair.host.name}",
        f"--security-opt=seccomp={SECCOMP}",
        "--volume=/sys/fs/bpf:/sys/fs/bpf",
        *(IMAGE, f"--pin-root={roots.pins}", "create", "fo0", "--standby=eth1"),
        check=False,
    )
    assert said.startswith("Error: "), said
    assert "Traceback" not in said
