"""Released files, and fresh environments to install them into."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def execute(*command: str | Path, folder: Path | None = None) -> str:
    """Run a command; a failure shows what it printed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds nothing but what was installed into it."""

    folder: Path

    def pip(self, *arguments: str | Path) -> str:
        return execute(self.folder / "bin" / "python", "-Im", "pip", *arguments)

    def python(self, program: str, *arguments: str | Path) -> str:
        """What a program prints, run where nothing of the checkout can be imported."""
        return execute(self.folder / "bin" / "python", "-Ic", program, *arguments, folder=self.folder)

    def script(self, name: str, *arguments: str | Path) -> str:
        return execute(self.folder / "bin" / name, *arguments, folder=self.folder)


@pytest.fixture(scope="session")
def dist() -> Path:
    """Folder of the sdists and wheels, which `tox -e wheels` builds."""
    if "PARTNERENRICH_DIST" not in os.environ:
        pytest.skip("needs built distributions: run tox -e wheels")
    return Path(os.environ["PARTNERENRICH_DIST"])


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory) -> Callable[[Sequence[Path]], Environment]:
    """Make an environment with some wheels and what they depend on."""

    def make(wheels: Sequence[Path]) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        uv = (sys.executable, "-m", "uv")
        execute(*uv, "venv", "--quiet", "--seed", "--allow-existing", "--python", sys.executable, folder)
        execute(*uv, "pip", "install", "--quiet", "--python", folder, *wheels)
        return Environment(folder)

    return make


@pytest.fixture(scope="session")
def core_alone(dist, new_environment) -> Environment:
    """The core's wheel and nothing else of ours."""
    return new_environment(list(dist.glob("partnerenrich-*.whl")))


@pytest.fixture(scope="session")
def everything(dist, new_environment) -> Environment:
    """All wheels together."""
    return new_environment(list(dist.glob("*.whl")))


@pytest.fixture
def build_wheel(tmp_path) -> Callable[[Path], Path]:
    """Build a wheel of a source folder."""

    def build(source: Path) -> Path:
        execute(sys.executable, "-m", "build", "--wheel", "--installer", "uv", "--outdir", tmp_path / "dist", source)
        [wheel] = (tmp_path / "dist").glob("*.whl")
        return wheel

    return build
