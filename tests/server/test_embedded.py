"""The embedded store: a real Valkey that lives as long as somebody uses it."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from partnerenrich import ConfigError
from partnerenrich_server import embedded
from partnerenrich_server.embedded import open_store

USER = """
import sys, time
from partnerenrich_server.embedded import open_store
with open_store(sys.argv[1]) as store:
    print(store.url, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def client(url: str):
    with redis.Redis.from_url(url) as connection:
        yield connection


def users_of(folder: Path) -> list[int]:
    """Ids of all processes that work for the store in this folder."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def wait_until(condition, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def user():
    """Start a process that uses a store; it says the URL and stays."""
    processes = []

    def start(url: str, *, wait: bool = True) -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen(
            [sys.executable, "-c", USER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process, process.stdout.readline().strip() if wait else ""

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_private_store_works_and_leaves_nothing():
    with open_store("embedded:") as store:
        folder = Path(store.url.removeprefix("unix://")).parent
        with client(store.url) as connection:
            connection.set("a", "1")
            assert connection.get("a") == b"1"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    assert wait_until(lambda: not folder.exists() and not users_of(folder))


def test_two_private_stores_are_apart():
    with open_store("embedded:") as one, open_store("embedded:") as other:
        assert one.url != other.url
        assert one.key != other.key


def test_a_kept_store_is_shared_by_processes_and_keeps_its_data(tmp_path, user):
    url = f"embedded:{tmp_path}/store"
    _, address = user(url)
    with open_store(url) as store:
        assert store.url == address
        with client(address) as connection:
            connection.set("a", "1")


def test_data_and_key_survive_a_restart(tmp_path):
    url = f"embedded:{tmp_path}/store"
    with open_store(url) as first, client(first.url) as connection:
        connection.set("a", "1")
    assert wait_until(lambda: not users_of(tmp_path))

    with open_store(url) as second, client(second.url) as connection:
        assert connection.get("a") == b"1"
        assert second.key == first.key


def test_a_newcomer_during_the_stop_of_the_last_server_starts_afresh(tmp_path):
    url = f"embedded:{tmp_path}/store"
    for round_ in range(8):
        with open_store(url) as store, client(store.url) as connection:
            assert connection.incr("rounds") == round_ + 1
        time.sleep(0.03 * round_)


def test_the_second_user_is_not_hurt_when_the_first_is_killed(tmp_path, user):
    url = f"embedded:{tmp_path}/store"
    first, address = user(url)
    with open_store(url), client(address) as connection:
        first.kill()
        first.wait()
        time.sleep(0.5)
        assert connection.ping()


def test_nothing_is_left_running_when_all_users_are_killed(tmp_path, user):
    url = f"embedded:{tmp_path}/store"
    processes = [user(url)[0] for _ in range(2)]
    assert len(users_of(tmp_path)) == 4  # two users, the supervisor, the server
    for process in processes:
        process.kill()
        process.wait()

    assert wait_until(lambda: not users_of(tmp_path))


def test_processes_that_start_at_once_share_one_server(tmp_path, user):
    url = f"embedded:{tmp_path}/store"
    processes = [user(url, wait=False)[0] for _ in range(5)]
    addresses = {process.stdout.readline() for process in processes}

    assert len(addresses) == 1
    assert (
        len([pid for pid in users_of(tmp_path) if b"valkey-server" in Path(f"/proc/{pid}/cmdline").read_bytes()]) == 1
    )


def test_a_killed_server_is_started_again(tmp_path):
    with open_store(f"embedded:{tmp_path}/store") as store:
        with client(store.url) as connection:
            connection.set("a", "1")
            server = connection.info("server")["process_id"]
        os.kill(server, signal.SIGKILL)

        def is_back() -> bool:
            with contextlib.suppress(redis.ConnectionError), client(store.url) as connection:
                return connection.get("a") == b"1"
            return False

        assert wait_until(is_back)


def test_a_killed_supervisor_takes_its_server_along_and_the_next_user_starts_afresh(tmp_path):
    url = f"embedded:{tmp_path}/store"
    with open_store(url) as store, client(store.url) as connection:
        connection.set("a", "1")
        (supervisor,) = [
            pid for pid in users_of(tmp_path) if b"_store_supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(supervisor, signal.SIGKILL)
        assert wait_until(lambda: not users_of(tmp_path))
    with open_store(url) as store, client(store.url) as connection:
        assert connection.get("a") == b"1"


def test_stale_files_of_a_crash_are_replaced(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    for name in ("users", "supervisor", "server", "valkey.sock"):
        (folder / name).touch()
    (folder / "address").write_text(str(folder / "valkey.sock"))

    with open_store(f"embedded:{folder}") as store, client(store.url) as connection:
        assert connection.ping()


def test_a_long_path_gets_its_socket_elsewhere(tmp_path):
    folder = tmp_path / ("x" * 120)
    with open_store(f"embedded:{folder}") as store:
        address = Path(store.url.removeprefix("unix://"))
        assert len(os.fsencode(address)) < 100
        assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700
        with client(store.url) as connection:
            assert connection.ping()
    assert wait_until(lambda: not address.parent.exists())


def test_only_the_owner_may_read_the_folder_and_the_key(tmp_path):
    folder = tmp_path / "store"
    with open_store(f"embedded:{folder}") as store:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
        assert base64.b64decode((folder / "key").read_bytes()) == store.key
        assert len(store.key) == 32
        assert repr(store.key) not in repr(store)


def test_the_memory_is_limited_and_evicts_only_what_expires():
    with open_store("embedded:") as store, client(store.url) as connection:
        assert connection.config_get("maxmemory")["maxmemory"] == str(1 << 30)
        assert connection.config_get("maxmemory-policy")["maxmemory-policy"] == "volatile-lru"


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(ConfigError, match="holds other files"), open_store(f"embedded:{tmp_path}"):
        pass


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(ConfigError, match=r"store: .*exists"), open_store(f"embedded:{tmp_path}/store"):
        pass


def test_a_damaged_key_is_refused(tmp_path):
    (tmp_path / "users").touch()
    (tmp_path / "key").write_text("c2hvcnQ=")
    with pytest.raises(ConfigError, match="damaged"), open_store(f"embedded:{tmp_path}"):
        pass


@pytest.mark.parametrize("lose", [Path.unlink, lambda key: key.write_bytes(b"")], ids=["missing", "empty"])
def test_a_key_that_is_lost_is_not_made_anew_beside_data(tmp_path, lose):
    """With another key the suppression list means nobody."""
    folder = tmp_path / "store"
    with open_store(f"embedded:{folder}") as store, client(store.url) as connection:
        connection.set("a", "1")
    assert wait_until(lambda: not users_of(tmp_path))
    lose(folder / "key")

    problem = r"store/key: is missing or empty, .*: restore it, or remove the whole folder"
    with pytest.raises(ConfigError, match=problem), open_store(f"embedded:{folder}"):
        pass
    assert not (folder / "key").exists() or (folder / "key").read_bytes() == b""


def test_a_restored_key_is_taken(tmp_path):
    folder = tmp_path / "store"
    with open_store(f"embedded:{folder}") as first:
        saved = (folder / "key").read_bytes()
    (folder / "key").unlink()
    with pytest.raises(ConfigError), open_store(f"embedded:{folder}"):
        pass
    (folder / "key").write_bytes(saved)

    with open_store(f"embedded:{folder}") as second:
        assert second.key == first.key


def test_a_key_of_ones_own_needs_none_in_the_folder_and_cannot_be_left_out_later(tmp_path):
    """What was made with it cannot be read with one that is made now."""
    url = f"embedded:{tmp_path}/store"
    with open_store(url, b"k" * 32) as store:
        assert store.key == b"k" * 32
    assert not (tmp_path / "store" / "key").exists()

    with pytest.raises(ConfigError, match="is missing or empty"), open_store(url):
        pass
    with open_store(url, b"k" * 32) as store:
        assert store.key == b"k" * 32


def test_a_first_start_that_was_killed_is_made_up_for(tmp_path):
    """Nothing is stored before the key is there, so that one which is not is no loss."""
    folder = tmp_path / "store"
    folder.mkdir()
    for name in ("users", "key", "key.new"):
        (folder / name).touch()

    with open_store(f"embedded:{folder}") as store:
        assert base64.b64decode((folder / "key").read_bytes()) == store.key
        assert not (folder / "key.new").exists()


def test_all_who_start_at_once_have_one_key(tmp_path):
    def key_of(url: str) -> bytes:
        with open_store(url) as store:
            return store.key

    with ThreadPoolExecutor(5) as threads:
        keys = set(threads.map(key_of, [f"embedded:{tmp_path}/store"] * 5))

    assert keys == {base64.b64decode((tmp_path / "store" / "key").read_bytes())}


def test_a_server_that_does_not_start_says_why(tmp_path):
    folder = tmp_path / "store"
    with open_store(f"embedded:{folder}") as store, client(store.url) as connection:
        connection.set("a", "1")
    assert wait_until(lambda: not users_of(tmp_path))
    (manifest,) = (folder / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense\n")

    with pytest.raises(embedded.StoreError, match=r"valkey-server ended.*log"), open_store(f"embedded:{folder}"):
        pass
