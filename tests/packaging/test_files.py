"""What an sdist and a wheel hold."""

from __future__ import annotations

import stat
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = [ROOT / "core", ROOT / "server", *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def stem(distribution: Path) -> str:
    project = tomllib.loads((distribution / "pyproject.toml").read_text("utf-8"))["project"]
    return f"{project['name'].replace('-', '_')}-{project['version']}"


def wheel_files(dist: Path, distribution: Path) -> dict[str, bytes]:
    """Regular files of a wheel by path."""
    with zipfile.ZipFile(dist / f"{stem(distribution)}-py3-none-any.whl") as archive:
        files = [info for info in archive.infolist() if not stat.S_ISLNK(info.external_attr >> 16)]
        return {info.filename: archive.read(info) for info in files}


def sdist_files(dist: Path, distribution: Path) -> dict[str, bytes]:
    """Regular files of an sdist by path inside its one folder; links are left out."""
    with tarfile.open(dist / f"{stem(distribution)}.tar.gz") as archive:
        files = [(member, archive.extractfile(member)) for member in archive.getmembers() if member.isreg()]
        return {member.name.partition("/")[2]: content.read() for member, content in files if content}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_a_wheel_holds_licence_and_type_marker(dist, distribution):
    """Types of an installed package are seen, and its licence goes with it."""
    files = wheel_files(dist, distribution)
    [package] = (path.parent.name for path in distribution.glob("src/*/__init__.py"))

    assert f"{package}/py.typed" in files
    assert (ROOT / "LICENSE").read_bytes() == files[f"{stem(distribution)}.dist-info/licenses/LICENSE"]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_an_sdist_holds_licence_and_type_marker(dist, distribution):
    """One can build from an sdist what one can build from a checkout."""
    files = sdist_files(dist, distribution)
    [package] = (path.parent.name for path in distribution.glob("src/*/__init__.py"))

    assert f"src/{package}/py.typed" in files
    assert (ROOT / "LICENSE").read_bytes() == files["LICENSE"]


def test_the_contract_is_a_real_file_of_the_core(dist):
    """The symlink of a checkout ends in a release as the file that it points to."""
    contract = (ROOT / "hookspecs.py").read_bytes()

    assert contract == wheel_files(dist, ROOT / "core")["partnerenrich/hookspecs.py"]
    assert contract == sdist_files(dist, ROOT / "core")["src/partnerenrich/hookspecs.py"]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_a_wheel_holds_one_package_and_no_tests(dist, distribution):
    """Installing it adds one name to what can be imported."""
    [package] = (path.parent.name for path in distribution.glob("src/*/__init__.py"))

    roots = {name.partition("/")[0] for name in wheel_files(dist, distribution)}

    assert {package, f"{stem(distribution)}.dist-info"} == roots
