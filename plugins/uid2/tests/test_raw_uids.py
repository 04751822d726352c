"""The imitation reads identities and makes raw UIDs as operators do: vectors of both, and of their own fixtures."""

from __future__ import annotations

import base64

import pytest

from partnerenrich import recipes
from partnerenrich_uid2._sandbox import identities
from partnerenrich_uid2._sandbox.bucket_ids import bucket_id
from partnerenrich_uid2._sandbox.identities import Kind, normalised_email
from partnerenrich_uid2._sandbox.raw_uids import Key, bucket_index, first_level, raw_uid
from partnerenrich_uid2._sandbox.salts import DAY, Bucket, Calendar, Table


def b64(data):
    return base64.b64encode(data).decode()


# Identities


@pytest.mark.parametrize(
    ("written", "normalised", "hexadecimal", "sent"),
    [
        (
            " USER@example.com ",
            "user@example.com",
            "b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514",
            "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ=",
        ),
        (
            "Jane.Saoirse+Work@GMail.com",
            "janesaoirse@gmail.com",
            "92ee26057ed9dea2535d6c8b141d48373932476599196e00352254896db5888f",
            "ku4mBX7Z3qJTXWyLFB1INzkyR2WZGW4ANSJUiW21iI8=",
        ),
        (
            "Jane.Saoirse@example.com",
            "jane.saoirse@example.com",
            "b196432c7b989a2ca91c83799957c515da53e6c13abf20b78fea94f117e90bf8",
            "sZZDLHuYmiypHIN5mVfFFdpT5sE6vyC3j+qU8RfpC/g=",
        ),
        (
            "JaneSaoirse+Work@example.com",
            "janesaoirse+work@example.com",
            "28aaee4815230cd3b4ebd88c515226550666e91ac019929e3adac3f66c288180",
            "KKruSBUjDNO069iMUVImVQZm6RrAGZKeOtrD9mwogYA=",
        ),
        ("MyEmail@example.com", "myemail@example.com", None, "FsGNM28LJQ8OLZB0Us65ZYp07NrovJSGTCMSKnLMJ6U="),
        ("test.test@gmail.com", "testtest@gmail.com", None, "LkLfFrut8Tc3h/fIvYDiBKSbaMiau/DtaLBPQYszdMw="),
        ("+test@test.com", "+test@test.com", None, "weFizOVVWKlLfyorbBU8oxYDv4HJtTZCPMyZ4THzUQE="),
        ("😊testtest@test.com", "😊testtest@test.com", None, "fAFEUqApQ0V/M9mLj/IO54CgKgtQuARKsOMqtFklD4k="),
        (
            "optout@example.com",
            "optout@example.com",
            "0d8b2727caf9f9c8d10c7b9ef7c8081832af2c832ea809bf4512ce0eb8ea2b9d",
            "DYsnJ8r5+cjRDHue98gIGDKvLIMuqAm/RRLODrjqK50=",
        ),
        (
            "refresh-optout@example.com",
            "refresh-optout@example.com",
            None,
            "NaNI8RU0bL1Jpp1jJLC5aJO/lchc6gGhgXQIAwJ7cV4=",
        ),
        ("validate@example.com", "validate@example.com", None, "ntI244ZRTXwAwpki6/M5cyBYW7h/Wq576lnN3l9+W/c="),
    ],
)
def test_email_vectors(written, normalised, hexadecimal, sent):
    """At the imitation, and with the recipe that makes what we send."""
    digest = identities.email(written).digest

    assert normalised == normalised_email(written)
    assert hexadecimal in {None, digest.hex()}
    assert sent == b64(digest) == recipes.apply("uid2", "email", written)


@pytest.mark.parametrize(
    ("written", "region", "normalised", "hexadecimal", "sent"),
    [
        (
            "1 (234) 567-8901",
            "US",
            "+12345678901",
            "10e6f0b47054a83359477dcb35231db6de5c69fb1816e1a6b98e192de9e5b9ee",
            "EObwtHBUqDNZR33LNSMdtt5cafsYFuGmuY4ZLenlue4=",
        ),
        (
            "65 1243 5678",  # no number of Singapore, and the page prints another result
            "SG",
            "+6512435678",
            "95850a41296287dbaf24673ac91688da6945daf7b2150eddfe67ca5217affe31",
            "lYUKQSlih9uvJGc6yRaI2mlF2veyFQ7d/mfKUhev/jE=",
        ),
        (
            "0491 570 006",
            "AU",
            "+61491570006",
            "858658053d2e122b7d9ddef2f65e42e738e7421be32b7a91df35aeb3e8fcce8f",
            "hYZYBT0uEit9nd7y9l5C5zjnQhvjK3qR3zWus+j8zo8=",
        ),
        ("+441234567890", None, "+441234567890", None, "Rx8SW4ZyKqbPypXmswDNuq0SPxStFXBTG/yvPns/2NQ="),
        ("+44 7700 900123", None, "+447700900123", None, "qKzDqQp7Tk3GXpPbkkDtJlIwUO91TWO3W1Fh3nZ4FDY="),
    ],
)
def test_phone_vectors(written, region, normalised, hexadecimal, sent):
    """At the imitation, which takes the normalised form only, and with the recipe that makes what we send."""
    digest = identities.phone(normalised).digest

    assert hexadecimal in {None, digest.hex()}
    assert sent == b64(digest) == recipes.apply("uid2", "phone", written, region)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("+00000000000", "313yQvZOTb0vjjEU7sTO/UWxGPzVppIbCyQEJEnfxLo="),
        ("+00000000002", "0VoxsIuk88qt7TnZaTC//C9Vur3pR1zBMIr1cJe7xjE="),
    ],
)
def test_phone_vectors_that_are_no_phones(written, sent):
    """
    An operator takes any digits, and knows these as test identities. To the core they are none, as any filler is.

    As hashes they are sent.
    """
    assert sent == b64(identities.phone(written).digest) == recipes.apply("uid2", "phone", sent)
    assert recipes.apply("uid2", "phone", written) is None


@pytest.mark.parametrize(
    ("written", "normalised", "hashed"),
    [
        ("a+@gmail.com", "a@gmail.com", "a@gmail.com"),
        ("a@GMAIL.COM ", "a@gmail.com", "a@gmail.com"),
        ("a@gmail.com.", "a@gmail.com.", "a@gmail.com."),
        ("a.b.c+d@googlemail.com", "a.b.c+d@googlemail.com", "a.b.c+d@googlemail.com"),
        ("É@example.com", "É@example.com", "É@example.com"),
        ("test@x .com", "test@x .com", None),
        ("te st@x.com", "test@x.com", None),
        ("user@localhost", "user@localhost", None),
        ("\ta@example.com", "\ta@example.com", "a@example.com"),
    ],
)
def test_what_an_operator_makes_of_an_address(written, normalised, hashed):
    """And what the recipe hashes: less where many people would share an address, or nobody has it."""
    assert normalised == normalised_email(written)
    assert recipes.apply("uid2", "email", written) == (hashed and b64(identities.email(hashed).digest))


@pytest.mark.parametrize(
    "written",
    [
        *(
            "",
            " ",
            "@",
            " @",
            "a@",
            "@b",
            "@b.com",
            "+",
            "+@gmail.com",
            ".+@gmail.com",
            "+a@gmail.com",
            "...@gmail.com",
        ),
        *("a@b@c.com", "  @b.com", "a@ "),
    ],
)
def test_what_is_no_address(written):
    assert identities.email(written) is None
    assert recipes.apply("uid2", "email", written) is None


@pytest.mark.parametrize(
    "written",
    ["1234567890", "+123456789", "+1234567890123456", "+1234567890A", "+12345+67890", "(555) 555-5555", ""],
)
def test_what_is_no_phone(written):
    assert identities.phone(written) is None
    assert recipes.apply("uid2", "phone", written) is None


@pytest.mark.parametrize("written", ["+1 2345678901", "+١٢٣٤٥٦٧٨٩٠١", "+12345678901\n"])
def test_an_operator_repairs_no_phone(written):
    """The recipe does, before it hashes."""
    assert identities.phone(written) is None
    assert recipes.apply("uid2", "phone", written) == b64(identities.phone("+12345678901").digest)


@pytest.mark.parametrize(
    "written",
    [
        "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ=",
        "b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514",
        "B4C9A289323B21A01C3E940F150EB9B8C542587F1ABFD8F0E1CC1FFC5E475514",
    ],
)
def test_a_hash_in_base64_or_in_hexadecimal(written):
    assert identities.email_hash(written) == identities.email("user@example.com")
    assert identities.phone_hash(written).kind is Kind.PHONE


@pytest.mark.parametrize(
    "written",
    [
        "",
        "oops",
        "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ",
        "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf_F5HVRQ=",
        b64(b"b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514"),
        "é" * 44,
    ],
)
def test_what_is_no_hash(written):
    assert identities.email_hash(written) is None


# Raw UIDs

OWN = ("sandbox-first-level", "sandbox-rotating", Key(7, b"k" * 32, b"s" * 32))
FIXTURE = ("fOGY/aRE44peL23i+cE9MkJrzmEeNZZziNZBfq7qqk8=", "vgv1BwiNRCW7F3VcNXHlZh+7oHJ4G4gCshbGcVOLnss=", None)
UNIT_TESTS = ("first-level-salt", "salt123", None)


@pytest.mark.parametrize(
    ("salts", "who", "first", "index", "second_form", "third_form", "fourth_form"),
    [
        (
            OWN,
            "user@example.com",
            "c6KFs3lMzkLHctN7URgNF4ua2YjEVMHpYFmRUAhqz28=",
            473637,
            "P2haFtWBKtwHM40KTWj09mglCcPKtlkIHHLLHpvzoB4=",
            "ED9oWhbVgSrcBzONCk1o9PZoJQnDyrZZCBxyyx6b86Ae",
            "IAAAB6226Neuws5zhoQT6K8FVwuJkwszXwoU+S87ee3H",
        ),
        (
            OWN,
            "janesaoirse@gmail.com",
            "kuACY9WKLUwtVwcW6w+r9jWVkAao7fcfc6G/bGN+enY=",
            601602,
            "y7JHUV+bPcNihD4g47mb9cYjI8fTv6lW6ABAvxelTaw=",
            "EMuyR1Ffmz3DYoQ+IOO5m/XGIyPH07+pVugAQL8XpU2s",
            "IAAAB4Bco2qW7LnzN4fr38ZDuf1RIs3I01RCdv6weuxa",
        ),
        (
            OWN,
            "+12345678901",
            "lu3dADvHYZYsH1u5KYJ8sdUZTQaat+N8oNJVixUMEUQ=",
            618205,
            "5KHkbrh6UaFc7IWp7/jiV4twhLwsEuiINHoSSJtqDCE=",
            "FOSh5G64elGhXOyFqe/44leLcIS8LBLoiDR6Ekibagwh",
            "JAAAB4/DAqa0zREGJZcu3WphUSRdrzajfCRf3u3QZr/A",
        ),
        (
            FIXTURE,
            "user@example.com",
            "sNucuuqRSevxEAlg4mdhE+VFd+d/XOb6N/kYA5QS/zE=",
            724412,
            "6bnjfis0XfGLD4gL3zNdHoUh07VHgiIWfcAksL4aLC4=",
            "EOm5434rNF3xiw+IC98zXR6FIdO1R4IiFn3AJLC+Giwu",
            None,
        ),
        (
            FIXTURE,
            "jane.saoirse@example.com",
            "gDnTSIc4A1ssLp2L6AXk2UP7tgGcTNx2oqL8GiUhWSI=",
            525203,
            "1+nfzqwU3CHzxv/bqH09vPCv5OGSJh4CSxcZcOfkatU=",
            "ENfp386sFNwh88b/26h9Pbzwr+ThkiYeAksXGXDn5GrV",
            None,
        ),
        (
            FIXTURE,
            "+12345678901",
            "urve3oGxLtO2WGhlQFKMzqhXOdYqSB53Rrgqpp9CFjY=",
            764862,
            "EYgbUgD8Fu9NiQZaSo7Ea1EjNE9ClW74BHj0hNuK/Mg=",
            "FBGIG1IA/BbvTYkGWkqOxGtRIzRPQpVu+AR49ITbivzI",
            None,
        ),
        (
            FIXTURE,
            "+61491570006",
            "61Z+MqYIfGetx4js5c7oD64QOvDv6FEdLSpE/N5zqQc=",
            963950,
            "Xxemsnn7OBrjENt3WFcAtglysJXsF4sVF7ZZeEi2vl0=",
            "FF8XprJ5+zga4xDbd1hXALYJcrCV7BeLFRe2WXhItr5d",
            None,
        ),
        (
            UNIT_TESTS,
            "test@uid2.com",
            "9AHKx+yUYrSMVUukO1gdJiRWjR2Bs+P/VyzX5mf4m+I=",
            None,
            "LlUZvYMaC2XKB/N15z6248T65GwMkkrpmJU/N70/7uM=",
            "EC5VGb2DGgtlygfzdec+tuPE+uRsDJJK6ZiVPze9P+7j",
            None,
        ),
    ],
)
def test_raw_uid_vectors(salts, who, first, index, second_form, third_form, fourth_form):
    """Our own vectors, the operator's public fixture (first salt for all), the constants of its unit tests."""
    first_salt, salt, key = salts
    identity = identities.email(who) if "@" in who else identities.phone(who)
    hashed = first_level(identity.digest, first_salt)

    assert first == b64(hashed)
    assert index in {None, bucket_index(hashed)}
    assert second_form == raw_uid("UID2", identity, hashed, salt)
    assert third_form == raw_uid("EUID", identity, hashed, salt)
    if fourth_form:
        assert fourth_form == raw_uid("UID2", identity, hashed, key)


@pytest.mark.parametrize(
    ("who", "place"),
    [("user@example.com", 2), ("jane.saoirse@example.com", 3), ("+12345678901", 2), ("+61491570006", 0)],
)
def test_few_buckets_are_used_in_turn(who, place):
    identity = identities.email(who) if "@" in who else identities.phone(who)

    assert place == bucket_index(first_level(identity.digest, FIXTURE[0]), 5)


@pytest.mark.parametrize(
    ("scope", "who", "first_letter"),
    [
        ("EUID", "user@example.com", "E"),
        ("EUID", "+12345678901", "F"),
        ("UID2", "user@example.com", "I"),
        ("UID2", "+12345678901", "J"),
        ("EUID key", "user@example.com", "M"),
        ("EUID key", "+12345678901", "N"),
    ],
)
def test_the_first_letter_tells_scope_and_kind(scope, who, first_letter):
    identity = identities.email(who) if "@" in who else identities.phone(who)
    salt = OWN[1] if scope == "EUID" else OWN[2]

    uid = raw_uid(scope.split()[0], identity, first_level(identity.digest, OWN[0]), salt)

    assert uid[0] == first_letter
    assert len(uid) == 44


def test_bucket_name_vectors():
    """The operator's public fixture."""
    names = [bucket_id(1_000_000 + n, "HF6Qz42HBbVHINxhh191dB09BCuTWyBkNtrNicO4ZCw=") for n in range(5)]

    assert names == ["bKaoveQoPR", "b1aZVGl7aB", "bv3WM92zaA", "bl5yy6kr58", "be58Mjz13q"]


@pytest.mark.parametrize("number", [0, 1, 43, 44, 99, 100, 2**20, 2**40])
def test_bucket_names_are_never_shorter(number):
    assert len(bucket_id(number, "salt")) >= 10


# Salts


def bucket(rotated_at, refresh_from, previous="before"):
    return Bucket(1, "now", previous, rotated_at, refresh_from)


def test_the_previous_salt_is_told_for_90_days():
    rotated = bucket(10 * DAY, 400 * DAY)

    assert rotated.previous_salt(10 * DAY) == "before"
    assert rotated.previous_salt(100 * DAY - 1) == "before"
    assert rotated.previous_salt(100 * DAY) is None


def test_a_refresh_that_is_past_is_due_at_midnight():
    rotated = bucket(0, 30 * DAY)

    assert rotated.refresh_at(30 * DAY - 1) == 30 * DAY
    assert rotated.refresh_at(30 * DAY) == 31 * DAY
    assert rotated.refresh_at(30 * DAY + 0.5) == 31 * DAY


@pytest.mark.parametrize("index", [0, 3, 359, 360, 1079])
def test_a_bucket_of_the_calendar_rotates_only_when_it_was_announced(index):
    calendar = Calendar("UID2")
    today = 20_454

    for day in range(today, today + 800):
        before, after = (calendar.bucket(index, moment * DAY) for moment in (day, day + 1))
        rotates = before.salt != after.salt

        assert before.rotated_at <= day * DAY < before.refresh_from <= (day + 30) * DAY
        assert not rotates or before.refresh_from == after.rotated_at == (day + 1) * DAY
        assert not rotates or after.previous == before.salt


def test_a_few_buckets_rotate_each_day():
    calendar = Calendar("EUID")

    for now in (20_454 * DAY, 20_600.5 * DAY):
        assert sum(bucket.rotated_at == now // DAY * DAY for bucket in calendar.buckets(now)) == 3


def test_scopes_have_no_salt_in_common():
    ours, theirs = ({str(bucket.salt) for bucket in Calendar(scope).buckets(0)} for scope in ("UID2", "EUID"))

    assert not ours & theirs


def test_a_table_stays_as_it_is():
    rows = [bucket(0, 1), bucket(2, 3)]
    table = Table("first", rows)

    assert table.size == 2
    assert table.bucket(1, now=99.0) is rows[1]
    assert list(table.buckets(now=0.0)) == rows
