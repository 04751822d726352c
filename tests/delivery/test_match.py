"""The match-rate doctor: names how the other side made its digests, counts rightly, and shows no value."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import os
import random
import subprocess
import sys

import pytest
import zstandard
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from partnerenrich import Secret, recipes
from partnerenrich_server.cli import main
from partnerenrich_server.delivery.match import written
from partnerenrich_server.delivery.match.diagnosis import chance, diagnose, interval
from partnerenrich_server.delivery.match.doctor import search
from partnerenrich_server.delivery.match.hashing import hashings
from partnerenrich_server.delivery.match.normalising import Normalising, steps_for
from partnerenrich_server.delivery.match.sample import Thinned, read_sample
from partnerenrich_server.delivery.match.wording import as_dict, as_text

EMAILS = [
    "pat@example.test",
    " Pat.A+news@gmail.com",
    "P.A.T+x@GoogleMail.com ",
    "pat.a+x@example.test",
    "Évà.É@example.test",
    "pa t@example.test",
]
PHONES = ["+44 7700 900123", "07700 900124", " 0044 7700 900125", "+16505551212", "(020) 7946-0123", "+39 02 1234 5678"]
VALUES = {"email": EMAILS, "phone": PHONES}
SALT = Secret("pepper and salt")
HASHINGS = {kind: hashings(written.SIZES.values(), kind, SALT) for kind in VALUES}
NORMALISING = {kind: Normalising(steps_for(kind, "GB")) for kind in VALUES}


def normalised(kind: str, way: int, value: str) -> str:
    """One value along one way, step by step."""
    for step, option in zip(NORMALISING[kind].steps, NORMALISING[kind].options(way)):
        variants = step.vary(value)
        value = variants[step.options.index(option)] if variants else value
    return value


def digests(kind, hashing, way):
    first, last = hashing.first_digest(), hashing.last_digest()
    return [last(first(normalised(kind, way, value))).hex() for value in VALUES[kind]]


def diagnosed(ours, theirs, *, kind="email", **options):
    values = list(ours)
    found = search(lambda _: values, read_sample(theirs), kind=kind, **{"recipe": "sha256", **options})
    return diagnose(found)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def basic(value: str) -> str:
    return sha256(value.strip().lower())


# It names what was done


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=50)
@given(data=st.data())
def test_every_composed_form_is_named(kind, data):
    """Whatever way to hash and way to normalise made the digests: the best form has them, and explains all digests."""
    hashing = data.draw(st.sampled_from(HASHINGS[kind]))
    way = data.draw(st.integers(0, NORMALISING[kind].count - 1))
    theirs = digests(kind, hashing, way)

    diagnosis = diagnosed(VALUES[kind], theirs, kind=kind, default_region="GB", salt=SALT if hashing.salting else None)

    best = diagnosis.best.form
    assert best.count == diagnosis.size == len(set(theirs))
    assert (best.hashing, best.ways >> way & 1) == (hashing, 1)


@pytest.mark.parametrize("kind", VALUES)
def test_every_way_to_hash_hits_what_it_made(kind):
    """And nothing else: each of them has hashed one value."""
    salt = SALT if kind == "email" else None
    ways = [way for way in HASHINGS[kind] if salt or not way.salting]
    values = [f"pat{n}@example.test" if kind == "email" else f"+4477{n:08}" for n in range(len(ways))]
    made_by = dict(zip(values, ways))
    theirs = [way.last_digest()(way.first_digest()(value)).hex() for value, way in made_by.items()]

    found = search(lambda _: values, read_sample(theirs), kind=kind, recipe="sha256", salt=salt, tries=None)

    assert {way: list(hits) for way, hits in found.hits.items()} == {way: [number] for number, way in enumerate(ways)}


@pytest.mark.parametrize(
    ("value", "hashed", "words"),
    [
        ("Pat@Example.test", "pat@example.test", "as we do"),
        ("Pat@Example.test", "Pat@Example.test", "with capitals as typed; we in lower case"),
        ("Pat@Example.test", "PAT@EXAMPLE.TEST", "in upper case; we in lower case"),
        (" pat@example.test ", " pat@example.test ", "with the white space around them; we trimmed"),
        ("pa t@example.test", "pat@example.test", "without any white space"),
        ("p.a.t@gmail.com", "pat@gmail.com", "without dots at gmail.com; we with their dots"),
        ("pat+x@gmail.com", "pat@gmail.com", "without what follows a plus at gmail.com; we with"),
        ("p.at+x@gmail.com", "pat@gmail.com", "without dots at gmail.com and without what follows a plus at gmail.com"),
        ("p.at@googlemail.com", "pat@googlemail.com", "without dots at gmail.com and googlemail.com"),
        ("pat@googlemail.com", "pat@gmail.com", "with gmail.com for googlemail.com; we with googlemail.com as it is"),
        ("p.at@example.test", "pat@example.test", "without dots at any domain"),
        ("pat+x@example.test", "pat@example.test", "without what follows a plus at any domain"),
        ("jos\u00e9@example.test", "jose\u0301@example.test", "with decomposed accents (NFD)"),
        ("\u00c9va@example.test", "\u00e9va@example.test", "with accented letters in lower case"),
        ("pat@example.test", "pat@example.test\n", "by SHA-256 of the text with a line feed behind; we by SHA-256"),
        ("pat@example.test", "pat@example.test\r\n", "with a carriage return and a line feed behind"),
        ("pat@example.test", '"pat@example.test"', "with quotes around"),
        ("pat@example.test", "mailto:pat@example.test", "with mailto: before"),
        ("pat@example.test", "\ufeffpat@example.test", "with a byte-order mark before"),
    ],
)
def test_what_they_do_to_an_email_is_said_in_words(value, hashed, words):
    """Beside what we do instead."""
    assert words in as_text(diagnosed([value], [sha256(hashed)])).splitlines()[0]


@pytest.mark.parametrize(
    ("value", "hashed", "words"),
    [
        ("07700 900123", "+447700900123", "as we do"),
        ("07700 900123", "447700900123", "without the plus; we with the plus"),
        ("07700 900123", "00447700900123", "with 00 for the plus; we with the plus"),
        ("07700 900123", "7700900123", "without the country code; we with the plus"),
        ("07700 900123", "+4407700900123", "with the trunk prefix (mostly 0); we without a trunk prefix"),
        ("07700 900123", "07700 900123", "not brought to E.164 and with separators; we brought to"),
        ("+44 7700 900123", "07700900123", "with the trunk prefix (mostly 0) and without the country code"),
        ("+44 7700 900123", "+44 7700 900123", "not brought to E.164 and with separators"),
        ("+36 20 123 4567", "06201234567", "with the trunk prefix (mostly 0) and without the country code"),
        ("0044 7700 900123", "447700900123", "without the plus"),
        ("+390212345678", "390212345678", "without the plus"),
        ("+390212345678", "212345678", "without the country code and without leading zeros"),
        ("+447700900123", "tel:+447700900123", "with tel: before"),
    ],
)
def test_what_they_do_to_a_phone_is_said_in_words(value, hashed, words):
    """Beside what we do instead."""
    diagnosis = diagnosed([value], [sha256(hashed)], kind="phone", default_region="GB")

    assert words in as_text(diagnosis).splitlines()[0]


def made(text: str, how: str) -> str:
    """Digests by plain means, in hexadecimal."""
    content, salt = text.encode(), b"pepper"
    return {
        "SHA-1": lambda: hashlib.sha1(content).hexdigest(),
        "MD5": lambda: hashlib.md5(content).hexdigest(),
        "SHA-256 of the text in UTF-16": lambda: hashlib.sha256(text.encode("utf-16-le")).hexdigest(),
        "SHA-256 of the lower-case hexadecimal text of SHA-256": lambda: sha256(sha256(text)),
        "SHA-256 of the upper-case hexadecimal text of MD5": lambda: sha256(made(text, "MD5").upper()),
        "SHA-256 of the bytes of SHA-1": lambda: hashlib.sha256(bytes.fromhex(made(text, "SHA-1"))).hexdigest(),
        "MD5 of the base64 text of SHA-256": lambda: hashlib.md5(
            base64.b64encode(bytes.fromhex(sha256(text)))
        ).hexdigest(),
        "SHA-256 with the salt before it": lambda: hashlib.sha256(salt + content).hexdigest(),
        "SHA-256 with the salt behind it": lambda: hashlib.sha256(content + salt).hexdigest(),
        "SHA-256 with the salt as the key (HMAC)": lambda: hmac.digest(salt, content, "sha256").hex(),
        "SHA-256 with the salt before it of the lower-case hexadecimal text of SHA-256": lambda: sha256(
            f"pepper{sha256(text)}"
        ),
    }[how]()


@pytest.mark.parametrize(
    "how",
    [
        "SHA-1",
        "MD5",
        "SHA-256 of the text in UTF-16",
        "SHA-256 of the lower-case hexadecimal text of SHA-256",
        "SHA-256 of the upper-case hexadecimal text of MD5",
        "SHA-256 of the bytes of SHA-1",
        "MD5 of the base64 text of SHA-256",
        "SHA-256 with the salt before it",
        "SHA-256 with the salt behind it",
        "SHA-256 with the salt as the key (HMAC)",
        "SHA-256 with the salt before it of the lower-case hexadecimal text of SHA-256",
    ],
)
def test_how_they_hash_is_said_in_words(how):
    """Hash, characters, hashing twice, salt."""
    diagnosis = diagnosed(["pat@example.test"], [made("pat@example.test", how)], salt=Secret("pepper"))

    assert f"They hash e-mails by {how}; we by SHA-256." in as_text(diagnosis)


def test_a_salt_may_be_given_in_hexadecimal_or_base64():
    """Its bytes are tried beside its text."""
    theirs = [hashlib.sha256(b"\x00\xffpat@example.test").hexdigest()]

    for written_salt, reading in (("00ff", "hexadecimal"), ("AP8=", "base64")):
        diagnosis = diagnosed(["pat@example.test"], theirs, salt=Secret(written_salt))

        assert f"SHA-256 with the salt (read as {reading}) before it" in as_text(diagnosis)


# How digests are written


WRITTEN = {
    written.Writing.HEX: lambda digest: digest.hex(),
    written.Writing.HEX_UPPER: lambda digest: digest.hex().upper(),
    written.Writing.HEX_PREFIXED: lambda digest: f"0x{digest.hex()}",
    written.Writing.BASE64: lambda digest: base64.b64encode(digest).decode(),
    written.Writing.BASE64_BARE: lambda digest: base64.b64encode(digest).decode().rstrip("="),
    written.Writing.URL_SAFE: lambda digest: base64.urlsafe_b64encode(digest).decode(),
    written.Writing.URL_SAFE_BARE: lambda digest: base64.urlsafe_b64encode(digest).decode().rstrip("="),
    written.Writing.BASE64_OF_HEX: lambda digest: base64.b64encode(digest.hex().encode()).decode(),
}


@pytest.mark.parametrize("writing", WRITTEN)
@pytest.mark.parametrize("name", ["md5", "sha1", "sha256"])
def test_the_writing_of_digests_is_seen(name, writing):
    """Of each hash, and the rate does not depend on it."""
    ours = [f"pat{n}@example.test" for n in range(30)]
    theirs = [WRITTEN[writing](hashlib.new(name, value.encode()).digest()) for value in ours]

    diagnosis = diagnosed(ours, theirs, tries=1)

    assert diagnosis.found.sample.writings == {writing: 30}
    assert diagnosis.best.form.count == 30
    if writing != written.Writing.HEX:
        assert f"write {writing.value}; we lower-case hexadecimal" in as_text(diagnosis)


@given(st.text() | st.from_regex(r"[0-9a-fA-F+/=_-]{20,90}", fullmatch=True))
def test_only_digests_are_digests(text):
    """What is read as a digest has the size of one, and other text does no harm."""
    found = written.read(text)

    assert found is None or len(found[0]) in written.SIZES


@pytest.mark.parametrize("text", ["", "a" * 63, "g" * 64, "=" * 44, "pat@example.test", "ab " * 21 + "a", "é" * 64])
def test_what_is_no_digest(text):
    assert written.read(text) is None


# It counts rightly


def test_the_rates_under_both_forms():
    """Of a thousand of theirs 873 are ours by Gmail's rules, and 410 as we hash today."""
    ours = [f"pat{n}@example.test" for n in range(410)] + [f"pat.{n}+x@gmail.com" for n in range(463)]
    ours += [f"sam{n}@example.test" for n in range(500)]
    theirs = [sha256(f"pat{n}@example.test") for n in range(410)] + [sha256(f"pat{n}@gmail.com") for n in range(463)]
    theirs += [sha256(f"kim{n}@example.test") for n in range(127)]

    diagnosis = diagnosed(ours, theirs, tries=1)
    text = as_text(diagnosis)

    assert text.startswith(
        "They hash e-mails without dots at gmail.com and without what follows a plus at gmail.com;"
        " we with their dots and with what follows a plus."
        " Under their form 87.3 % of their sample is ours, today 41.0 %."
    )
    assert (diagnosis.best.form.count, diagnosis.best.adds) == (873, 0)
    assert diagnosis.today == 410
    assert not diagnosis.may_be_chance
    assert "chance" not in text


def test_a_recipe_that_gives_their_form_is_named():
    """By the names that a configuration and a blueprint know."""
    ours = ["p.at+x@gmail.com", "sam@example.test"]
    theirs = [recipes.apply("uid2", "email", value) for value in ours]

    text = as_text(diagnosed(ours, theirs))

    assert "There is a recipe for it: hash: uid2 in a linking key, transform: uid2 in a blueprint." in text


@pytest.mark.parametrize("kind", VALUES)
def test_every_recipe_is_found_again(kind):
    """Digests made by a recipe: the doctor says to use it, or one that does the same, or that it is in use."""
    ours = ["+1 202 555 0123", "+1 202 555 0124"] if kind == "phone" else EMAILS
    for recipe in (name for name in recipes.HASHES if name != "none" and recipes.fits(name, kind)):
        theirs = [text for value in ours if (text := recipes.apply(recipe, kind, value))]

        diagnosis = diagnosed(ours, theirs, kind=kind)

        top = next(iter(diagnosis.recipes))
        assert {recipes.apply(top, kind, value) for value in ours} - {None} == set(theirs)
        assert diagnosis.recipes[top] == diagnosis.best.form.count == len(set(theirs))


def test_no_recipe_for_it():
    """Then that is said, with the nearest if there is one."""
    ours = ["p.at@gmail.com", "sam@example.test"]

    upper = as_text(diagnosed(ours, [sha256(value.upper()) for value in ours]))
    dotless = as_text(diagnosed(ours, [sha256("pat@gmail.com")]))

    assert "No recipe gives exactly this.\nAgree with them on a form that both sides can make." in upper
    assert (
        "No recipe gives exactly this.\n"
        "The same digests, only written otherwise, are given by uid2 in base64: ask whether they take that." in dotless
    )


def test_nothing_to_change():
    """They do as we do: a low rate is for other reasons."""
    text = as_text(diagnosed(["pat@example.test"], [basic("pat@example.test"), basic("sam@example.test")]))

    assert text.startswith("They hash e-mails as we do. Under their form 50.0 % of their sample is ours, today 50.0 %.")
    assert "Nothing to change: that is what sha256 gives." in text


def test_today_is_what_the_recipe_gives_as_text():
    """The same digests in capitals do not match where a partner compares text."""
    theirs = [basic(value).upper() for value in EMAILS]

    diagnosis = diagnosed(EMAILS, theirs)

    assert (diagnosis.today, diagnosis.best.form.count) == (0, len(theirs))


def test_the_recipe_of_today_can_be_another():
    """Then the comparison is with that one."""
    ours = ["p.at@gmail.com"]

    diagnosis = diagnosed(ours, [recipes.apply("uid2", "email", ours[0])], recipe="uid2")

    assert diagnosis.today == 1
    assert as_text(diagnosis).startswith("They hash e-mails as we do.")


def test_a_mixture_of_two_forms_is_seen():
    """What the best form leaves unexplained and another explains."""
    ours = [f"Pat{n}@example.test" for n in range(100)]
    theirs = [sha256(value.lower()) for value in ours[:70]] + [sha256(value) for value in ours[70:]]

    text = as_text(diagnosed(ours, theirs))

    assert (
        "They mix forms: a further 30.0 % of their sample comes out as: trimmed, with capitals as typed; SHA-256."
        in text
    )


def test_what_the_sample_does_not_settle_is_said():
    """Nobody in it has a dot before gmail.com."""
    [row, *_] = as_dict(diagnosed(["Pat@example.test"], [basic("pat@example.test")]))["forms"]

    assert {"dots", "suffix", "alias", "white space"} <= set(row["not_settled"])
    assert "case" not in row["not_settled"]


@settings(max_examples=30)
@given(st.lists(st.sampled_from(range(20)), min_size=1), st.lists(st.sampled_from(range(20)), min_size=1))
def test_the_rate_counts_different_digests(our_people, their_people):
    """The share of their people who are ours, however often each is in either file."""
    ours, theirs = ([f"pat{n}@example.test" for n in people] for people in (our_people, their_people))

    diagnosis = diagnosed(ours, map(basic, theirs), tries=1)

    assert diagnosis.today == len(set(our_people) & set(their_people))
    assert diagnosis.size == len(set(their_people))
    assert (diagnosis.best.form.count if diagnosis.best else 0) == diagnosis.today


# It says what is not certain


def test_a_small_sample_is_called_small():
    """Four of eight may be anything between a fifth and four fifths."""
    theirs = [basic(f"pat{n}@example.test") for n in range(8)]

    text = as_text(diagnosed([f"pat{n}@example.test" for n in range(4)], theirs))

    assert "The sample is small: of all that they have, 21.5 % to 78.5 % may be ours under their form (95 %)." in text


def test_a_difference_that_could_be_chance_is_called_so():
    """Three digests are no proof that another recipe does better; thirty are."""

    def said(count):
        ours = [f"pat{n}@example.test" for n in range(100)] + [f"p.{n}@gmail.com" for n in range(count)]
        theirs = [basic(value) for value in ours[:100]] + [sha256(f"p{n}@gmail.com") for n in range(count)]
        return as_text(diagnosed(ours, theirs))

    assert "The difference to today is 3 digests: it could be chance." in said(3)
    assert "chance" not in said(30)


@pytest.mark.parametrize(
    ("hits", "size", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)],
)
def test_the_interval_is_wilsons(hits, size, low, high):
    """Rows of Newcombe, Statistics in Medicine 17 (1998), and the closed form at the ends."""
    assert interval(hits, size) == pytest.approx((low, high), abs=5e-5)


def test_chance_is_the_sign_test():
    """In its exact form, and for many digests by the normal distribution."""
    assert chance(5, 0) == 0.0625
    assert chance(3, 3) == 1.0
    assert chance(530, 470) == pytest.approx(chance(531, 470), abs=0.01)
    assert chance(100_000, 0) == 0.0


def test_no_hit_at_all():
    """Then the bound, and what may be the cause."""
    text = as_text(diagnosed(["pat@example.test"], [basic(f"sam{n}@example.test") for n in range(100)]))

    assert "None of their 100 digests comes out of ours, by 96 ways to hash and 1,728 ways to normalise." in text
    assert "So at most 3.7 % of all that they have is ours in one of these forms (95 %)." in text
    assert "or they use a salt that was not given (--salt)" in text


def test_unusual_ways_that_hit_on_a_part_are_counted_on_all():
    """The rate is exact though they were first tried on a few values only."""
    ours = [f"pat{n}@example.test" for n in range(500)]
    theirs = [hashlib.sha256(f"{value}\n".encode()).hexdigest() for value in ours]

    diagnosis = diagnosed(ours, theirs, tries=10_000)

    assert diagnosis.found.part < 100
    assert diagnosis.best.form.count == 500
    assert "unusual ways to hash were tried on" in as_text(diagnosis)


def test_thorough_leaves_no_way_for_a_part():
    """All is tried on all."""
    found = diagnosed(["pat@example.test"], [basic("sam@example.test")], tries=None).found

    assert (found.tried, found.tried_on_part, found.part) == (len(hashings(["SHA-256"], "email")), 0, 0)


# Values that are hashed already


def test_ours_may_be_hashed_in_another_writing():
    """Digests are compared, not texts."""
    theirs = [base64.b64encode(bytes.fromhex(basic(value))).decode() for value in EMAILS]

    text = as_text(diagnosed([basic(value).upper() for value in EMAILS], theirs))

    assert text.startswith("They hash identifiers as we do, but write base64; we lower-case hexadecimal.")
    assert "hash: sha256_b64" in text
    assert "Our values are hashed already: only other ways to write them" in text


def test_theirs_may_be_ours_hashed_once_more():
    """Which needs no plain value."""
    text = as_text(diagnosed([basic("pat@example.test")], [sha256(basic("pat@example.test"))]))

    assert "They hash identifiers by SHA-256 of the lower-case hexadecimal text of SHA-256; we by SHA-256." in text


def test_another_hash_cannot_be_made_of_ours():
    """That is said in place of guesses."""
    text = as_text(diagnosed([hashlib.sha1(b"pat@example.test").hexdigest()], [basic("pat@example.test")]))

    assert "Ours are digests by SHA-1, theirs by SHA-256: one cannot be made of the other." in text


def test_a_mixture_of_plain_and_hashed_values():
    """Both are counted under their form."""
    ours = ["Pat@example.test", sha256("Sam@example.test")]

    diagnosis = diagnosed(ours, [sha256("Pat@example.test"), sha256("Sam@example.test")])

    assert diagnosis.best.form.count == 2
    assert "with capitals as typed" in as_text(diagnosis)
    assert "1 value of ours are hashed already" in as_text(diagnosis)


# What is in the files


@pytest.mark.parametrize("word", ["", "null", "None", "undefined", "N/A"])
@pytest.mark.parametrize("name", ["md5", "sha1", "sha256"])
def test_digests_of_nothing_are_left_out(word, name):
    """They would lower every rate."""
    sample = read_sample([basic("pat@example.test"), hashlib.new(name, word.encode()).hexdigest()])

    assert (sample.size, sample.of_nothing) == (1, 1)


def test_what_is_left_out_is_counted():
    """In words, on both sides."""
    ours = ["pat@example.test", "no address", "pa\udce9t@example.test", " "]
    theirs = [basic("pat@example.test"), "no digest", sha256(""), ""]

    diagnosis = diagnosed(ours, theirs)
    text = as_text(diagnosis)

    assert "sha256 gives nothing for 1 of our 3 values: they are no addresses." in text
    assert "1 value of ours were left out: they are not UTF-8." in text
    assert "1 value of theirs were left out: they are no digests." in text
    assert "1 value of theirs were left out: digests of an empty text" in text
    assert diagnosis.best.form.count == 1


def test_a_sample_of_several_hashes_and_writings():
    """Their shares are told."""
    theirs = [basic(f"pat{n}@example.test") for n in range(3)] + [hashlib.md5(b"x").hexdigest().upper()]

    text = as_text(diagnosed(["pat@example.test"], theirs))

    assert "Their digests are by several hashes: SHA-256 75.0 %, MD5 25.0 %." in text
    assert "lower-case hexadecimal 75.0 %, upper-case hexadecimal 25.0 %" in text


def test_a_part_is_random_bounded_and_does_not_depend_on_order():
    """Nor on repetition."""
    keys = [str(n) for n in range(10_000)]
    shuffled = random.Random(1).sample(keys, len(keys))
    parts = [Thinned(1000), Thinned(1000)]
    for part, order in zip(parts, (keys, shuffled + keys)):
        for key in order:
            part.add(key, key.encode())

    assert parts[0].items == parts[1].items
    assert 400 < len(parts[0].items) <= 1000
    assert len(parts[0].items) / len(keys) == pytest.approx(parts[0].share, rel=0.2)
    assert set(parts[0].in_random_order()) == set(parts[0].items)


def test_of_many_digests_a_part_is_used():
    """With about the same rate, and saying so."""
    ours = [f"pat{n}@example.test" for n in range(2000)]
    sample = read_sample([basic(f"pat{n}@example.test") for n in range(4000)], limit=1000)

    diagnosis = diagnose(search(lambda _: ours, sample, kind="email", recipe="sha256", tries=1))

    assert diagnosis.today / diagnosis.size == pytest.approx(0.5, abs=0.1)
    assert "A random part of their digests was used" in as_text(diagnosis)


# The command


@pytest.fixture
def match(tmp_path):
    """Run the command on two files, given by their contents and further arguments; the result has its output."""

    def run(ours, theirs, *arguments, **options):
        paths = []
        for name, content in (("ours", ours), ("theirs", theirs)):
            paths.append(tmp_path / name)
            paths[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
        return CliRunner().invoke(main, ["match", *map(str, paths), *arguments], **options)

    return run


PEOPLE = [f"Pat.{n}@gmail.com" for n in range(20)]
THEIRS = "\n".join(sha256(f"pat{n}@gmail.com") for n in range(30))
LINES = "\n".join(PEOPLE)


def parquet(path, query) -> bytes:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


FORMATS = {
    "lines": LINES,
    "lines with a header": f"mail\r\n{LINES}\r\n",
    "csv": "id,email\n" + "".join(f'{n},"{value}"\n' for n, value in enumerate(PEOPLE)),
    "csv of one column": "".join(f'"{value}"\n' for value in ["email", *PEOPLE]),
    "csv without a header": "".join(f"{n};{value};\n" for n, value in enumerate(PEOPLE)),
    "tabs, blank lines and a mark": "\ufeffemail\tname\n\n" + "".join(f"{value}\tn\n\n" for value in PEOPLE),
    "lines broken in quotes": "note,email\n" + "".join(f'"a\nb, c",{value}\n' for value in PEOPLE),
    "utf-16": f"email,name\n{LINES}".encode("utf-16"),
    "latin-1 in another column": b"name,email\n" + b"".join(b"J\xe9r,%s\n" % value.encode() for value in PEOPLE),
    "ndjson": "".join(json.dumps({"n": 1, "traits": {"email": value, "x": [1]}}) + "\n" for value in PEOPLE),
    "gzip": gzip.compress(LINES.encode()),
    "zstd": zstandard.compress(f"email,id\n{LINES}".encode()),
    "two frames": zstandard.compress(LINES[:100].encode()) + zstandard.compress(LINES[100:].encode()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read(match, name):
    """What it is shows in the content; the column is found."""
    result = match(FORMATS[name], THEIRS, "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told["ours"]["values"] == 20
    assert (told["forms"][0]["hits"], told["theirs"]["digests"]) == (20, 30)


def test_parquet_is_read(match, tmp_path):
    """Also with digests as bytes, numbers and nulls."""
    ours = parquet(
        tmp_path / "[1]",
        f"SELECT n, unnest({[*PEOPLE, None]!r:}) AS email FROM range(1) AS t(n)".replace("None", "NULL"),
    )
    theirs = parquet(tmp_path / "2", f"SELECT true AS flag, unhex(unnest({THEIRS.split()!r})) AS 'di\"gest'")

    told = json.loads(match(ours, theirs, "--json").stdout)

    assert (told["ours"]["values"], told["forms"][0]["hits"], told["theirs"]["digests"]) == (20, 20, 30)


def test_phones_may_be_numbers(match):
    """In JSON, without a plus; then a region tells the country."""
    ours = "".join(json.dumps({"id": n, "phone": 7700900000 + n}) + "\n" for n in range(20))
    theirs = "\n".join(sha256(f"+4477009000{n:02}") for n in range(20))

    told = json.loads(match(ours, theirs, "--json", "--default-region", "GB").stdout)
    without = match(ours, theirs).stdout

    assert (told["kind"], told["today"]["hits"]) == ("phone", 20)
    assert "sha256 gives nothing for 20 of our 20 values" in without
    assert "those without a country code need --default-region" in without


def test_the_output_for_people(match):
    """A sentence, what to do, and a table."""
    result = match(
        "pat@example.test\np.at+x@gmail.com\n", "\n".join([basic("pat@example.test"), sha256("pat@gmail.com")])
    )

    sentence, *advice, blank, heads, best, ours, today = result.stdout.splitlines()
    assert sentence == (
        "They hash e-mails without dots at gmail.com and without what follows a plus at gmail.com;"
        " we with their dots and with what follows a plus."
        " Under their form 100.0 % of their sample is ours, today 50.0 %."
    )
    assert advice == [
        "No recipe gives exactly this.",
        "The same digests, only written otherwise, are given by uid2 in base64: ask whether they take that.",
        "The sample is small: of all that they have, 34.2 % to 100.0 % may be ours under their form (95 %).",
        "The difference to today is 1 digest: it could be chance. Ask for a larger sample.",
        "Not settled, for it makes no difference in this sample: white space, accents, case, case of accents, alias,"
        " dots, suffix.",
    ]
    assert (blank, heads) == ("", "of their sample           95 %  beside the best  form")
    assert best == (
        "        100.0 %  34.2 to 100.0                   trimmed, in lower case, without dots at gmail.com,"
        " without what follows a plus at gmail.com; SHA-256"
    )
    assert ours == (
        "         50.0 %    9.5 to 90.5                   but with their dots and with what follows a plus (as we hash)"
    )
    assert today == "         50.0 %    9.5 to 90.5                   sha256, written in lower-case hexadecimal (today)"


def test_the_salt_comes_from_the_environment_or_stdin(match):
    """Never from the command line."""
    theirs = hashlib.sha256(b"pepperpat@example.test").hexdigest()

    from_variable = match("pat@example.test", theirs, "--salt", "THEIR_SALT", env={"THEIR_SALT": "pepper"})
    from_stdin = match("pat@example.test", theirs, "--salt", "-", input="pepper\n")

    assert "SHA-256 with the salt before it" in from_variable.stdout
    assert from_variable.stdout == from_stdin.stdout


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments", "said"),
    [
        ("", THEIRS, [], "ours: is empty"),
        (LINES, "\n", [], "theirs: is empty"),
        ("a,b\n1,2\n", THEIRS, [], "--our-column: no column holds e-mails or phones or digests"),
        (LINES, LINES, [], "--their-column: no column holds digests; if"),
        (LINES, "hash\nx\n", ["--their-column", "hash"], "theirs: no value of the column is a digest; if"),
        (LINES, THEIRS, ["--our-column", "mail"], "--our-column: there is no column 'mail'"),
        ("email\n\n", THEIRS, ["--our-column", "email", "--kind", "email"], "ours: the column holds no value"),
        ("x,y\na,b\n", THEIRS, ["--our-column", "x"], "--kind: say what the identifiers are: email or phone"),
        (
            "home_mail,work_mail\npat@example.test,pat@example.test\n",
            THEIRS,
            [],
            "--our-column: say which column is meant: 'home_mail', 'work_mail'; --kind may settle it, too",
        ),
        (LINES, THEIRS, ["--recipe", "none"], "--recipe: must be one of sha256, sha256_lower_trim, sha256_b64, uid2"),
        (LINES, THEIRS, ["--default-region", "UK"], "--default-region: must be a country in two capital letters"),
        (
            LINES,
            THEIRS,
            ["--salt", "pepper"],
            "--salt: must name an environment variable that is set, or be - for stdin",
        ),
        (LINES, THEIRS, ["--salt", "-"], "--salt: must name an environment variable that is set, or be - for stdin"),
    ],
)
def test_bad_usage_is_told_with_the_way_out(match, ours, theirs, arguments, said):
    """Exit code 2, one line."""
    result = match(ours, theirs, *arguments)

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ('{"email": "pat@example.test"}\n{"email": \n', "line 2 is no JSON object"),
        (gzip.compress(LINES.encode() * 1000)[:-20], "the compressed input ends too early"),
        (zstandard.compress(LINES.encode() * 1000)[:-20], "the compressed input ends too early"),
        (b"x" * (1 << 20) + b"\n", "so it is no table"),
        ('email,n\npat@example.test,"' + "x" * 200_000, "cannot be read as CSV"),
        (b"PAR1 and then nothing", "is Parquet, and damaged or cut"),
    ],
)
def test_damaged_files_are_a_failure(match, ours, said):
    """Exit code 1, one line."""
    result = match(ours, THEIRS)

    assert (result.exit_code, said in result.stderr, result.stderr.count("\n")) == (1, True, 1)


def test_a_pipe_is_refused(match, tmp_path):
    """It could not be read twice."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "theirs").write_text(THEIRS)

    result = CliRunner().invoke(main, ["match", str(tmp_path / "pipe"), str(tmp_path / "theirs")])

    assert (result.exit_code, "not a pipe" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ("id,email,phone\n1,pat@example.test,+447700900123\n", ["--kind", "email"]),
        ("customer_id,email\n7700900123,pat@example.test\n", []),
        ("customer_id,email_sha256\n7700900123," + sha256("pat@example.test") + "\n", []),
        ("email_sha256,email\n" + f"{sha256('x')},pat@example.test\n", []),
        ("email,email\npat@example.test,sam@example.test\n", []),
        ("a,b\npat@example.test,+447700900123\n", ["--our-column", "a"]),
        ("1,pat@example.test,+447700900123\n", ["--our-column", "2"]),
    ],
)
def test_the_column_is_found_or_named(match, ours, said):
    """By what is in it, by its name, or by what was said."""
    told = json.loads(match(ours, basic("pat@example.test"), "--json", *said).stdout)

    assert (told["kind"], told["today"]["hits"]) == ("email", 1)


def test_their_column_is_that_of_our_kind(match):
    """Where a file has digests of both."""
    theirs = "phone_sha256,email_sha256,n\n" + f"{sha256('+447700900123')},{basic('pat@example.test')},1\n"

    for ours in ("pat@example.test", "+447700900123"):
        assert json.loads(match(ours, theirs, "--json").stdout)["today"]["hits"] == 1


def test_hashed_values_take_their_kind_from_a_name(match):
    """For the recipes of phones."""
    ours = f"phone_sha1\n{hashlib.sha1(b'2025550123').hexdigest()}\n"

    told = json.loads(match(ours, ours, "--json").stdout)

    assert (told["kind"], told["recipes"]["sha1_national_hex"]["hits"]) == ("phone", 1)


# It shows no value


CANARY = "canary7349"
PLANTED = {
    "lines": f"{CANARY}@example.test\n{CANARY}@gmail.com",
    "first line no address": f"{CANARY}\n{LINES}",
    "first line a broken address": f"{CANARY}(at)example.test,{CANARY}\n{LINES}",
    "columns that are not clear": f"{CANARY} at x,{CANARY} at y\n" + f"{CANARY}@example.test,{CANARY}@gmail.com\n" * 3,
    "no identifiers": f"{CANARY},{CANARY}\n{CANARY},{CANARY}\n",
    "broken JSON": f'{{"email": "{CANARY}@example.test"}}\n{{"email": "{CANARY}',
    "other JSON": f'{{"{CANARY}@example.test": "{CANARY}@example.test", "{CANARY}@gmail.com": "x@example.test"}}\n[1]',
    "a field too long": f'email,n\n{CANARY}@example.test,"{CANARY}' + "x" * 200_000,
    "not UTF-8": f"{CANARY}@example.test\n".encode() + f"{CANARY}".encode() + b"\xe9@example.test\n",
    "half a character": f'{{"email": "{CANARY}\\ud800@example.test"}}\n',
    "hashed": f"{sha256(CANARY)}\n{sha256(CANARY)}",
    "phones": "+447349734934\n+447349734935\nextension 7349\n",
}


@pytest.mark.parametrize("arguments", [[], ["--json", "--kind", "email"], ["--our-column", "1"]])
@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("side", ["ours", "theirs", "both"])
def test_no_value_is_shown(match, name, arguments, side):
    """Neither on stdout nor on stderr, whatever is wrong with the files."""
    ours = LINES if side == "theirs" else PLANTED[name]
    theirs = THEIRS if side == "ours" else PLANTED[name]

    result = match(ours, theirs, *arguments, "--salt", "THEIR_SALT", env={"THEIR_SALT": f"salt-{CANARY}"})

    assert result.exit_code in {0, 1, 2}
    assert not result.exception or isinstance(result.exception, SystemExit)
    for shown in (CANARY, sha256(CANARY), "7349734934", "7349"):
        assert shown not in result.output


def test_a_salt_on_the_command_line_is_not_repeated(match):
    """A mistake that is easily made."""
    assert CANARY not in match(LINES, THEIRS, "--salt", CANARY).output


def test_nothing_found_shows_a_value():
    """Not in a repr either."""
    found = diagnosed([f"{CANARY}@example.test"], [basic(f"{CANARY}@example.test")], salt=Secret(CANARY)).found

    assert CANARY not in repr(found)
    assert basic(f"{CANARY}@example.test") not in repr(found)


def test_nothing_heavy_is_imported():
    """Only a Parquet file needs more than what is installed anyway."""
    code = (
        "import sys, partnerenrich_server.commands.match;"
        "print({'duckdb', 'pyarrow', 'numpy', 'obstore', 'sqlalchemy', 'asyncio', 'httpx'} & {*sys.modules})"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
