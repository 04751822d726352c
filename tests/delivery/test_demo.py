"""The last act of the demo."""

import re
import subprocess
import sys

import pytest


@pytest.mark.timeout(120)
def test_the_demo_delivers_its_people_and_shows_what_was_published():
    done = subprocess.run(
        [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", "demo", "--once"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    )

    staged, published = re.search(
        r"InfoSum: (\d+) people of [\d,]+ events, .*: published, (\d+) records", done.stdout
    ).groups()
    assert int(staged) == int(published) > 1
