"""Ledgers in both databases, a stage in a folder, and a partner that does as it is told."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import psycopg
import pytest

from partnerenrich import Delivery, Partner, hookimpl, plugins
from partnerenrich.configuration import DeliverSettings, Integration, bind, load_file
from partnerenrich.models import TTL, Limits, StagedFile
from partnerenrich_server.delivery.entries import Entry
from partnerenrich_server.delivery.ledger import Ledger
from partnerenrich_server.delivery.manifest import Manifest, new_id
from partnerenrich_server.delivery.pace import Pace
from partnerenrich_server.delivery.shipping import Shipper, open_destinations
from partnerenrich_server.delivery.step import Destination

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
LEASE = "8"
"""Seconds; longer than a busy machine lets a living worker wait."""
HOW_TO_INSTALL = "no PostgreSQL on this machine: apt-get install -y postgresql"


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)


class PostgreSQL:
    """Debian's server on a free port of 127.0.0.1; it refuses to run as root."""

    def __init__(self, folder, port):
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self._folder = folder
        if self._as:
            shutil.chown(folder, "postgres", "postgres")
        self._tools = self._find_tools()
        self._port = port
        options = ["-D", folder / "data", "-U", "tester", "--auth=trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [self._tools / "initdb", *options], check=True, stdout=subprocess.DEVNULL, cwd=folder, **self._as
        )
        self._process = None
        self.start()

    @staticmethod
    def _find_tools():
        found = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
        found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        if found:
            return found[0]
        may_be_missing = "postgresql" in os.environ.get("PARTNERENRICH_TESTS_WITHOUT", "").split(",")
        return pytest.skip(HOW_TO_INSTALL) if may_be_missing else pytest.fail(HOW_TO_INSTALL)

    def start(self):
        command = [self._tools / "postgres", "-D", self._folder / "data", "-p", str(self._port), "-k", self._folder]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it makes one system call
                cwd=self._folder,
                **self._as,
            )
        until = time.monotonic() + 20
        while True:
            try:
                self.ask("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self._folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self):
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def ask(self, query):
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(query)

    def url(self, database):
        return f"postgresql://tester@127.0.0.1:{self._port}/{database}"


@pytest.fixture(scope="session")
def postgresql(free_port):
    """A server for all tests of the session, started when it is first asked for."""
    folder = Path(tempfile.mkdtemp(prefix="partnerenrich-test-", dir="/tmp"))
    try:
        server = PostgreSQL(folder, free_port())
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_numbers = itertools.count(1)


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request):
    """An empty database of each kind."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url")
    return request.getfixturevalue("new_database")()


class Clock:
    """Unix seconds that stand still until they are moved."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def ledger(ledger_url, clock):
    async with Ledger.open(ledger_url, clock=clock) as ledger:
        yield ledger


@pytest.fixture
async def other(ledger, ledger_url, clock):
    """A second worker's view of the ledger."""
    async with Ledger.open(ledger_url, clock=clock) as other:
        yield other


@pytest.fixture
def entry():
    """Make an entry; its number is its name."""

    def make(number, **fields):
        given = {
            "id": f"batch-{number}",
            "org": "acme",
            "integration": "club",
            "provider": "club",
            "mode": "staged",
            "replaces": True,
            "rows": 2,
            "bytes": 10,
            "files": 1,
        }
        return Entry(**{**given, **fields})

    return make


# A stage, and a partner


class FolderStage:
    """What a shipper asks of a stage, in a folder of the test."""

    def __init__(self, folder):
        self._folder = folder
        self._manifests = {}
        self._marks = {}
        self.withdrawn = set()
        self.due = []
        self.broken = None

    def seal(self, batch_id, rows=("p1", "p2"), supersedes=None):
        """Put a batch into the stage."""
        path = self._folder / f"{batch_id}.csv"
        path.write_text("".join(f"{row}\n" for row in rows))
        content = path.read_bytes()
        files = (StagedFile(path.as_uri(), len(rows), len(content), hashlib.sha256(content).hexdigest()),)
        self._manifests[batch_id] = Manifest(
            batch_id=batch_id,
            org="acme",
            integration="club",
            mode="staged",
            columns=("id",),
            files=files,
            rows=len(rows),
            rejected={"no e-mail": 3},
            recipe_version="1",
            created=0.0,
            next_id="",
            supersedes=supersedes,
        )
        return self._manifests[batch_id]

    def _check(self):
        if self.broken:
            raise self.broken

    async def flush(self, *, now, force=False):
        self._check()
        return self.seal(self.due.pop(0)) if self.due and force else None

    async def batches(self):
        self._check()
        superseded = {manifest.supersedes for manifest in self._manifests.values()}
        return [batch_id for batch_id in self._manifests if batch_id not in superseded]

    async def manifest(self, batch_id):
        self._check()
        return self._manifests[batch_id]

    async def recheck(self, manifest):
        self._check()
        rows = (self._folder / f"{manifest.batch_id}.csv").read_text().split()
        if not self.withdrawn & set(rows):
            return manifest
        kept = [row for row in rows if row not in self.withdrawn]
        return self.seal(f"{manifest.batch_id}-again", kept, supersedes=manifest.batch_id)

    async def delete(self, batch_ids):
        self._check()
        for batch_id in batch_ids:
            self._manifests.pop(batch_id, None)
            (self._folder / f"{batch_id}.csv").unlink(missing_ok=True)

    async def begin(self, batch_id, mark):
        self._check()
        return self._marks.setdefault(batch_id, mark)

    def open_file(self, file):
        return Path(file.url.removeprefix("file://")).open("rb")

    def rows(self, manifest):
        self._check()
        for file in manifest.files:
            with self.open_file(file) as lines:
                yield from ({"id": line.decode().strip()} for line in lines)


@pytest.fixture
def stage(tmp_path):
    return FolderStage(tmp_path)


@attrs.frozen
class Settings:
    pass


class Club:
    """A partner that answers what the test has put down for it, and remembers what it was given."""

    def __init__(self, *, resumes=True):
        self.resumes = resumes
        self.answers = []
        self.batches = []
        self.rows = []

    @hookimpl
    def partner(self):
        delivery = Delivery(formats=("csv",), default_blueprint="", modes=("staged",), resumes=self.resumes)
        return Partner(title="Club", config=Settings, delivery=delivery)

    @hookimpl
    async def deliver_batch(self, batch, call):
        self.batches.append((batch.id, dict(batch.progress)))
        self.rows = [row["id"] for row in batch.rows()]
        answer = self.answers.pop(0)
        if callable(answer):
            answer = await answer(batch, call)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def club():
    return Club()


@pytest.fixture
async def ship(ledger, stage, club):
    """Make a shipper of the club's batches."""
    opened = []

    def make(ledger=ledger, *, collect="snapshot", deadline=7200, name="club", stage=stage, budget=None, **options):
        integration = Integration(
            org="acme",
            name=name,
            partner=plugins.bind("club", club),
            config=Settings(),
            linking_keys=(),
            allowlist=frozenset(),
            attributes=None,
            consent=(),
            ttl=TTL(),
            limits=Limits(),
            version="1",
        )
        settings = DeliverSettings(staging="folder", collect=collect, deadline=deadline)
        destination = Destination(integration, settings, stage, budget)
        opened.append(destination)
        quick = Pace(first_poll=0, longest_poll=0, first_retry=0, longest_retry=0, sweep=0.05)
        return Shipper(ledger, [destination], **{"pace": quick, **options})

    yield make
    for destination in opened:
        await destination.close()


# A partner behind HTTP, for processes that get killed


PARTNER = '''
import attrs
from partnerenrich import BadResponse, Delivery, Partner, Receipt, Secret, hookimpl

BLUEPRINT = "global: {{mappings: [{{source: user_id, target: customer_id}}]}}"


@attrs.frozen
class Settings:
    """
    Settings.

    Attributes:
        base_url: Where the partner is.
        token: The credential.
    """

    base_url: str
    token: Secret


@hookimpl
def partner():
    delivery = Delivery(formats=("csv",), default_blueprint=BLUEPRINT, modes=("staged",), resumes={resumes})
    return Partner(title="Club", config=Settings, delivery=delivery)


@hookimpl
async def deliver_batch(config, http, batch):
    {body}
'''

CAREFUL = """
    progress = dict(batch.progress)
    for name in ("import", "publish"):
        url = f"{config.base_url}/{name}/{batch.id}"
        if progress.get(name) is None:
            progress[name] = "asked"
            await batch.save(progress)
            (await http.post(url, content=batch.open(batch.files[0]).read())).raise_for_status()
            progress[name] = "granted"
            await batch.save(progress)
            return Receipt("submitted" if name == "import" else "running")
        answer = await http.get(url)
        if answer.status_code == 404:
            progress[name] = None
            await batch.save(progress)
            return Receipt("running")
        answer.raise_for_status()
        progress[name] = "granted"
        if answer.json()["running"]:
            return Receipt("running")
    return Receipt("published", accepted=sum(file.rows for file in batch.files))
"""

CARELESS = """
    for name in ("import", "publish"):
        answer = await http.post(f"{config.base_url}/{name}/{batch.id}", content=b"rows")
        answer.raise_for_status()
    return Receipt("handed_over")
"""


class Held:
    """A moment at the partner at which somebody waits."""

    def __init__(self):
        self.reached = threading.Event()
        self.goes_on = threading.Event()


class PartnerServer:
    """
    Imports and publishes batches, counts what it was asked, and stops at any moment.

    Attributes:
        imported: Batch id to how often it was imported.
        published: Batch id to how often it was published.
        status: What every request is answered with instead, if anything.
        endless: Whether an import never ends.
    """

    def __init__(self):
        self.imported, self.published = Counter(), Counter()
        self.status = None
        self.endless = False
        self._held = {}
        self._lost = set()
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        self._server = server
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def hold(self, method, name, moment, *, lose=False):
        """Stop at the first such request ``before`` it is acted upon or ``after``; one that is lost never is."""
        held = self._held[method, name, moment] = Held()
        if lose:
            self._lost.add((method, name))
        return held

    def _stop_at(self, method, name, moment):
        held = self._held.pop((method, name, moment), None)
        if held is not None:
            held.reached.set()
            held.goes_on.wait(60)
            if (method, name) in self._lost:
                raise ConnectionAbortedError

    def close(self):
        for held in self._held.values():
            held.goes_on.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self):
        partner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer("POST", lambda counts, batch_id: counts.update([batch_id]))

            def do_GET(self):
                self._answer("GET", lambda counts, batch_id: None)

            def _answer(self, method, act):
                _, name, batch_id = self.path.split("/")
                counts = partner.imported if name == "import" else partner.published
                try:
                    partner._stop_at(method, name, "before")
                    if partner.status is None:
                        act(counts, batch_id)
                    partner._stop_at(method, name, "after")
                    body = json.dumps({"running": partner.endless}).encode()
                    self.send_response(partner.status or (200 if counts[batch_id] else 404))
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except ConnectionError:
                    self.close_connection = True  # whoever asked is dead, or the request was lost

            def log_message(self, *arguments):
                pass

        return Handler


class Place:
    """One partner, one configuration with a stage in a folder, and processes that ship."""

    def __init__(self, folder, ledger, *, careful=True, body=None, **deliver):
        self.folder = folder
        self.partner = PartnerServer()
        self.ledger = ledger
        self.processes = []
        (folder / "partners").mkdir(parents=True)
        body = (body or (CAREFUL if careful else CARELESS)).strip("\n").removeprefix("    ")
        (folder / "partners" / "club.py").write_text(PARTNER.format(resumes=careful, body=body))
        self.config = folder / "config.yaml"
        integration = {
            "provider": "club",
            "settings": {"base_url": self.partner.url, "token": "canary-token-4711"},
            "deliver": {"staging": "staging", "collect": "append", **deliver},
        }
        written = {"org": "acme", "plugins_dir": "partners", "ledger": ledger, "integrations": [integration]}
        self.config.write_text(json.dumps(written))

    def seal(self, rows=2):
        """One more batch, as a stage leaves it; its id."""
        batch_id = new_id(time.time())
        folder = self.folder / "staging" / "acme" / "club" / "batches" / batch_id
        folder.mkdir(parents=True)
        part = folder / "part-00001.csv"
        part.write_text("customer_id\n" + "".join(f"canary-person-{number}\n" for number in range(rows)))
        content = part.read_bytes()
        manifest = Manifest(
            batch_id=batch_id,
            org="acme",
            integration="club",
            mode="staged",
            columns=("customer_id",),
            files=(StagedFile(part.as_uri(), rows, len(content), hashlib.sha256(content).hexdigest()),),
            rows=rows,
            rejected={},
            recipe_version="1",
            created=time.time(),
            next_id=new_id(time.time() + 0.001),
        )
        (folder / "manifest.json").write_bytes(manifest.as_json())
        return batch_id

    def start(self, *arguments, **options):
        """A process that ships; its output is kept."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(self._command("ship", "--lease", LEASE, *arguments), **{**pipes, **options})
        self.processes.append(process)
        return process

    def run(self, *arguments):
        return subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=120, check=False)

    def ship(self):
        """See everything through to its end, in this process and without long waits; the report."""

        async def once():
            integrations, _ = bind(load_file(self.config))
            async with (
                open_destinations(integrations["acme"], self.folder / "scratch") as destinations,
                self._open_ledger() as ledger,
            ):
                return await Shipper(
                    ledger, destinations, pace=Pace(first_poll=0.05, first_retry=0.05, sweep=0.2)
                ).once()

        return asyncio.run(once())

    def entries(self):
        """What the ledger holds now."""

        async def look():
            async with self._open_ledger() as ledger:
                return await ledger.entries()

        return asyncio.run(look())

    def _open_ledger(self):
        return Ledger.open(load_file(self.config).ledger, lease_seconds=float(LEASE))

    def _command(self, *words):
        command = [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", *words]
        return [*command, "--config", str(self.config)]

    def close(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        self.partner.close()


@pytest.fixture
def new_place(tmp_path):
    """Make a place of its own for one story."""
    places = []

    def make(ledger="sqlite:///ledger.db", **options):
        places.append(Place(tmp_path / f"place-{next(_numbers)}", ledger, **options))
        return places[-1]

    yield make
    for place in places:
        place.close()


@pytest.fixture
def new_database(postgresql):
    """Make an empty database; its URL."""

    def make():
        name = f"test_{os.getpid()}_{next(_numbers)}"
        postgresql.ask(f"CREATE DATABASE {name}")
        return postgresql.url(name)

    return make
