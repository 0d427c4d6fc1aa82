"""The package as a whole: what its README shows, its synchronous half, and the wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import unasync
from hosts import Host

FOLDER = Path(__file__).resolve().parent.parent
README = (FOLDER / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_readme_run(host: Host, number: int, tmp_path: Path) -> None:
    example = EXAMPLES[number].replace("http://127.0.0.1:8080", host.url)
    assert host.url in example, "an example has to say which host it means"
    environment = {**os.environ, "PYTHONPATH": str(FOLDER / "src")}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) >= 4


def test_the_synchronous_modules_are_made_from_the_asynchronous_ones() -> None:
    for source, target in unasync.MODULES.items():
        made = unasync.converted((unasync.PACKAGE / source).read_text("utf-8"), Path(source).name)
        assert (unasync.PACKAGE / target).read_text("utf-8") == made, "run `python tools/unasync.py`"
        assert "async" not in re.sub(r"`[^`]*`", "", made)
        assert "await" not in made


def test_the_wheel_has_all_it_needs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=FOLDER, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("memcell_client-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    sources = {str(path.relative_to(FOLDER / "src")) for path in (FOLDER / "src").rglob("*.py")}
    assert sources | {"memcell_client/py.typed"} <= names
    assert [line for line in text.splitlines() if line.startswith("Requires-Dist")] == ["Requires-Dist: httpx<1,>=0.27"]
    assert "License-Expression: Apache-2.0" in text
