# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel has what the checkout has beside the package."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_wheel_holds_programs_and_dashboards(tmp_path: Path) -> None:
    """bpf/ and dashboards/ are inside the package, complete."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    beside = {
        f"pyfailover/{path.relative_to(ROOT)}"
        for folder in ("bpf", "dashboards")
        for path in (ROOT / folder).iterdir()
    }
    assert beside <= inside
    assert {"pyfailover/cli/app.py", "pyfailover/doctor/host.py"} <= inside
    assert not any(name.startswith("tests/") for name in inside)
