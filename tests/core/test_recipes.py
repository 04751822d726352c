"""
Recipes against published vectors, and what holds for any value.

Vectors are facts of these public documents, or were computed from their rules:
IABTechLab/uid2docs docs/getting-started/gs-normalization-encoding.md, the tests
of IABTechLab/uid2-client-python, Meta's
conversions-api/parameters/customer-information-parameters and LiveRamp's
connect/en/hashing-identifiers.
"""

import base64
import hashlib
import re
import string

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import recipes
from partnerenrich.recipes import (
    HASHES,
    apply,
    fits,
    kind_of,
    normalise_email,
    normalise_id,
    normalise_phone,
    to_captured,
)

USER = "user@example.com"
USER_HEX = "b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514"
USER_B64 = "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="

# raw, capture form, sha256 in hexadecimal, uid2
EMAILS = [
    (
        "  Jane.Doe+Promo@Example.COM ",
        "jane.doe+promo@example.com",
        "c3374bcfe3572e09f37602e0e179782352c5e117a4a3767824abbaa21bbdef8b",
        "wzdLz+NXLgnzdgLg4Xl4I1LF4Reko3Z4JKu6ohu974s=",
    ),
    (
        "Jane.Doe+Promo@GMAIL.com",
        "jane.doe+promo@gmail.com",
        "5f0d1df1fc49e30424381b57b1d4c73e067772a4267dde043a19b026935602c8",
        "1hFzBkhe0OUK+rOshx6Y+BaZFR8wKBUn1j/18jNlbGk=",
    ),
    (
        "J.a.n.e+x@GoogleMail.com",
        "j.a.n.e+x@googlemail.com",
        "dab1be23afb637aa53f32fe09bae53fa9bdffa9e434d85162331efd8c5931f57",
        "2rG+I6+2N6pT8y/gm65T+pvf+p5DTYUWIzHv2MWTH1c=",
    ),
    (USER, USER, USER_HEX, USER_B64),
    (" USER@example.com ", USER, USER_HEX, USER_B64),
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
    (
        "optout@example.com",
        "optout@example.com",
        "0d8b2727caf9f9c8d10c7b9ef7c8081832af2c832ea809bf4512ce0eb8ea2b9d",
        "DYsnJ8r5+cjRDHue98gIGDKvLIMuqAm/RRLODrjqK50=",
    ),
]

UID2_EMAILS = [
    ("Jane.Saoirse+Work@GMail.com", "ku4mBX7Z3qJTXWyLFB1INzkyR2WZGW4ANSJUiW21iI8="),
    ("MyEmail@example.com", "FsGNM28LJQ8OLZB0Us65ZYp07NrovJSGTCMSKnLMJ6U="),
    ("test.test@gmail.com", "LkLfFrut8Tc3h/fIvYDiBKSbaMiau/DtaLBPQYszdMw="),
    ("+test@test.com", "weFizOVVWKlLfyorbBU8oxYDv4HJtTZCPMyZ4THzUQE="),
    ("😊testtest@test.com", "fAFEUqApQ0V/M9mLj/IO54CgKgtQuARKsOMqtFklD4k="),
    ("refresh-optout@example.com", "NaNI8RU0bL1Jpp1jJLC5aJO/lchc6gGhgXQIAwJ7cV4="),
    ("validate@example.com", "ntI244ZRTXwAwpki6/M5cyBYW7h/Wq576lnN3l9+W/c="),
]

UID2_SAME_AS = [
    ("a+@gmail.com", "a@gmail.com"),
    ("a@GMAIL.COM ", "a@gmail.com"),
]

UID2_REFUSED = [
    *("", " ", "@", " @", "a@", "@b", "@b.com", "+", "+@gmail.com", ".+@gmail.com", "+a@gmail.com"),
    *("...@gmail.com", "a@b@c.com"),
]

# raw, region, E.164, sha256, sha256 of the digits, uid2, sha1 of the national number
PHONES = [
    (
        "+44 7700 900123",
        None,
        "+447700900123",
        "a8acc3a90a7b4e4dc65e93db9240ed26523050ef754d63b75b5161de76781436",
        "033134b911b137918338415ee3d20a064b24773d36a3b02e8b99fdd3fcd6b4cd",
        "qKzDqQp7Tk3GXpPbkkDtJlIwUO91TWO3W1Fh3nZ4FDY=",
        None,
    ),
    (
        "(650) 555-1212",
        "US",
        "+16505551212",
        "1e231c66011e7a2d867a9cfae267a6aff103cf4913640b6e71a99850fc0ffbc8",
        "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176",
        "HiMcZgEeei2Gepz64memr/EDz0kTZAtucamYUPwP+8g=",
        "f02288e672259432fe70d036212140bf2f4745af",
    ),
    (
        "+1 (555) 123-4567",
        None,
        "+15551234567",
        "8a59780bb8cd2ba022bfa5ba2ea3b6e07af17a7d8b30c1f9b3390e36f69019e4",
        "d6736136ea896c1bfdc553e0e86e702c70d060d805696ca3e4e9e0961353860a",
        "ill4C7jNK6Aiv6W6LqO24Hrxen2LMMH5szkONvaQGeQ=",
        "b8e04c986aa87857dfb4d364371d1a4195abf1bb",
    ),
    (
        "1 (234) 567-8901",
        "US",
        "+12345678901",
        "10e6f0b47054a83359477dcb35231db6de5c69fb1816e1a6b98e192de9e5b9ee",
        "254aa248acb47dd654ca3ea53f48c2c26d641d23d7e2e93a1ec56258df7674c4",
        "EObwtHBUqDNZR33LNSMdtt5cafsYFuGmuY4ZLenlue4=",
        "bd0888b5c8172bbe418736b952d5d50d277ce7aa",
    ),
    (
        "02 1234 5678",
        "IT",
        "+390212345678",
        "cd53ded8dc564b9d1743105e4533289635fe59304336f1ed1aaf04b484ab1a18",
        "1f200f081cbff31a573a503814dba23be33cad689cacef18e55de8c7f0e89f5a",
        "zVPe2NxWS50XQxBeRTMoljX+WTBDNvHtGq8EtISrGhg=",
        None,
    ),
]

NAMES = [
    (" Mary ", "6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec"),
    ("Valéry", "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c"),
    ("Jane", "81f8f6dde88365f3928796ec7aa53f72820b06db8664f5fe76a7eb13e24546a2"),
    ("Doe", "799ef92a11af918e3fb741df42934f3b568ed2d93ac1df74f1b8d41a27932a6f"),
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(st.characters(categories=["Cs"])),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
REGIONS = st.sampled_from([None, "GB", "US", "IT", "DE", "BR", "MX", "AR", "XX"])
EMAIL_TEXTS = st.builds(
    "{}{}@{}.{}".format,
    st.sampled_from(["", " ", "\ufeff", "\u00a0"]),
    st.text("Aa.+\u00c9\u0301\u200b\u0130\u212a\u1e96H\u0331", min_size=1, max_size=8) | st.text(max_size=8),
    st.text("Bb-\u00df", max_size=6) | st.text(max_size=6),
    st.sampled_from(["test", "Test ", "co.test", "", " x"]),
)
PHONE_TEXTS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["+", "00", "", "++", "(+", "+ ", "+(", "011", "tel:+"]),
    st.sampled_from(["", "44", "1", "39", "49", "7", "52", "54", "55", "800", "883", "999", "0", "44 (0)"]),
    st.text("0123456789" * 4 + " -.()/x#", max_size=22),
)


# E-mails, as they are captured


@pytest.mark.parametrize(("raw", "captured", "_hex", "_uid2"), EMAILS)
def test_email_is_trimmed_and_lowered(raw, captured, _hex, _uid2):
    assert captured == normalise_email(raw)


@pytest.mark.parametrize(
    "raw",
    ["\ufeffuser@example.com", "user@example.com\n", "us\u200ber@example.com", "\u00a0User@Example.com\u00a0"],
)
def test_email_loses_invisible_characters(raw):
    """Byte-order marks, zero-width characters and outer white space of every kind go."""
    assert normalise_email(raw) == USER


def test_email_is_composed():
    """Both spellings of an accent are one address."""
    assert (
        normalise_email("jose\u0301@example.com") == normalise_email("jos\u00e9@example.com") == "jos\u00e9@example.com"
    )


def test_email_lowers_ascii_letters_only():
    """`str.lower` would turn U+0130 into two code points."""
    assert normalise_email("\u0130REM@EXAMPLE.com") == "\u0130rem@example.com"


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "null", "None", "undefined", "n/a", "pat", "@", "a@", "@b.test", "a@b@c.test", "a@localhost"),
        *("a@.test", "a@test.", "jane doe@example.com", "a@b .test", "a\u00a0b@c.test", "a\tb@c.test", "a\0@c.test"),
        *("\ud800@example.test", "\ufffd@example.test", "Pat <pat@example.test>", USER_HEX, USER_B64),
        *(None, True, False, 5, 1.5, ["a@b.test"], {"a": "a@b.test"}),
    ],
)
def test_what_is_no_email(value):
    assert normalise_email(value) is None


# Phones, as they are captured


@pytest.mark.parametrize(("raw", "region", "e164"), [row[:3] for row in PHONES])
def test_phone_becomes_e164(raw, region, e164):
    assert e164 == normalise_phone(raw, region)


@pytest.mark.parametrize(
    ("raw", "region"),
    [
        ("0044 7700 900123", None),
        ("0044 7700 900123", "US"),
        ("07700 900123", "GB"),
        ("+44 (0)7700 900123", None),
        ("+4407700900123", None),
        ("+44 7700 900123 ext. 12", None),
        ("\u202a+44\u00a07700\u00a0900123\u202c", None),
        ("＋４４７７００９００１２３", None),
        (447700900123, "GB"),
        (7700900123, "GB"),
    ],
)
def test_phone_in_many_spellings(raw, region):
    assert normalise_phone(raw, region) == "+447700900123"


@pytest.mark.parametrize("raw", ["+39 02 1234 5678", "0039 02 1234 5678", "+390212345678"])
def test_italy_keeps_its_leading_zero(raw):
    assert normalise_phone(raw, None) == "+390212345678"


@pytest.mark.parametrize(
    ("value", "region"),
    [
        ("07700 900123", None),
        ("07700 900123", "XX"),
        ("+44 77", None),
        ("+44 7700 900123 456 789", None),
        ("+999 123 456 789", None),
        ("+", None),
        ("00", "GB"),
        ("pat", "GB"),
        ("null", "GB"),
        ("", "GB"),
        (USER_HEX, "GB"),
        (USER_B64, "GB"),
        (None, "GB"),
        (True, "GB"),
        (7700900123.0, "GB"),
        (["+447700900123"], "GB"),
        ("+447700900123\ufffd", "GB"),
    ],
)
def test_what_is_no_phone(value, region):
    assert normalise_phone(value, region) is None


def test_a_number_of_many_people_is_refused():
    """Seven digits without an area code reach another person in every area."""
    assert normalise_phone("555-1212", "US") is None
    assert normalise_phone("+1 555 1212", None) is None


def library(text, region):
    """E.164 as the phone library alone makes it."""
    text = text.strip()
    try:
        number = phonenumbers.parse("+" + text[2:] if text.startswith("00") else text, region)
    except phonenumbers.NumberParseException:
        return None
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return e164 if possible and len(e164) <= 16 else None


def settled(text, region):
    """The same; None where the library reads its own answer otherwise."""
    e164 = library(text, region)
    return e164 if e164 is not None and library(e164, None) == e164 else None


@given(PHONE_TEXTS, REGIONS)
def test_the_quick_way_gives_what_the_library_gives(text, region):
    """A phone is what the library makes of it, or refused where the library reads its own answer otherwise."""
    assert settled(text, region) == normalise_phone(text, region)


def numbers_of_every_country():
    """Ten numbers of each possible length of each country calling code."""
    for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
        region = phonenumbers.region_code_for_country_code(code)
        metadata = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
        for length in metadata.general_desc.possible_length:
            yield from (f"+{code}{f'{first}23456789012345678'[:length]}" for first in range(10))


def test_the_quick_way_holds_for_every_country():
    quick = {number: e164 for number in numbers_of_every_country() if (e164 := recipes._plain_e164(number))}

    assert len(quick) > 3000
    assert quick == {number: library(number, None) for number in quick}


@pytest.mark.parametrize(
    ("raw", "region", "e164"),
    [
        ("65 1243 5678", "SG", "+6512435678"),
        (6512435678, "SG", "+6512435678"),
        ("(852) 1111-1111", "HK", "+85211111111"),
        ("90 100 000 00 00", "TR", "+901000000000"),
    ],
)
def test_a_country_code_may_lack_its_plus(raw, region, e164):
    """The library does not know the number, and nobody has one so long without the code."""
    assert e164 == normalise_phone(raw, region)


@pytest.mark.parametrize(
    ("raw", "region", "e164"),
    [
        ("9100012345", "IN", "+919100012345"),
        ("491 1234567", "DE", "+494911234567"),
        ("3912345678", "IT", "+393912345678"),
        ("065 1243 5678", "SG", "+6506512435678"),
        ("+65 65 1243 5678", "SG", "+656512435678"),
        ("800 123 4567", "SG", "+658001234567"),
    ],
)
def test_a_number_that_may_be_one_at_home_is_read_so(raw, region, e164):
    """Also where it begins as its country code does, and the library does not know it."""
    assert e164 == normalise_phone(raw, region)


def numbers_of_every_kind():
    """An example of each kind of number of each region, as it is written there, without prefix, and without plus."""
    for region in phonenumbers.SUPPORTED_REGIONS:
        for kind in phonenumbers.PhoneNumberType.values():
            number = phonenumbers.example_number_for_type(region, kind)
            if number is not None:
                at_home = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
                national = phonenumbers.national_significant_number(number)
                yield from ((text, region) for text in (at_home, national, f"{number.country_code}{national}"))


def test_a_known_number_is_read_as_the_library_reads_it():
    numbers = list(numbers_of_every_kind())
    known = {(text, region): e164 for text, region in numbers if (e164 := settled(text, region))}

    assert len(known) > 3000
    assert known == {(text, region): normalise_phone(text, region) for text, region in known}


# Other ids, as they are captured


@pytest.mark.parametrize(
    ("raw", "captured"),
    [
        (" U-1009 ", "U-1009"),
        (1009, "1009"),
        (10**29, "1" + "0" * 29),
        (0, "0"),
        ("\ufeffabc\u200b", "abc"),
        ("two words", "two words"),
    ],
)
def test_id_is_trimmed_and_keeps_its_case(raw, captured):
    assert captured == normalise_id(raw)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            "\u200b",
            "null",
            "NULL",
            "None",
            "undefined",
            "n/a",
            "NaN",
            "[object Object]",
            "a\ud800",
            "a\ufffd",
        ),
        *(None, True, False, 1.0, [], {}, pytest.param(10**5000, id="5001 digits")),
    ],
)
def test_what_is_no_id(value):
    assert normalise_id(value) is None


# Recipes


@pytest.mark.parametrize(("raw", "captured", "hexadecimal", "uid2"), EMAILS)
def test_email_vectors(raw, captured, hexadecimal, uid2):
    assert captured == apply("none", "email", raw)
    assert hexadecimal == apply("sha256", "email", raw)
    assert hexadecimal == apply("sha256_lower_trim", "email", raw)
    assert base64.b64encode(bytes.fromhex(hexadecimal)).decode() == apply("sha256_b64", "email", raw)
    assert uid2 == apply("uid2", "email", raw)


@given(
    st.sampled_from(HASHES),
    st.tuples(st.just("email"), EMAIL_TEXTS)
    | st.tuples(st.just("phone"), PHONE_TEXTS)
    | st.tuples(st.just("user_id"), st.text() | st.text("0123456789abcdef", min_size=64, max_size=64)),
    REGIONS,
)
def test_of_a_capture_form_the_same_is_sent_as_of_the_value(hash_name, identifier, region):
    source, value = identifier
    captured = apply("none", source, value, region)
    if captured is not None:
        assert to_captured(hash_name, source)(captured) == apply(hash_name, source, value, region)


@pytest.mark.parametrize(("raw", "uid2"), UID2_EMAILS)
def test_uid2_email_vectors(raw, uid2):
    assert uid2 == apply("uid2", "email", raw)


@pytest.mark.parametrize(("raw", "normalised"), UID2_SAME_AS)
def test_uid2_drops_what_gmail_ignores(raw, normalised):
    assert base64.b64encode(hashlib.sha256(normalised.encode()).digest()).decode() == apply("uid2", "email", raw)


@pytest.mark.parametrize("raw", ["a.b@gmail.com.", "a.b.c+d@googlemail.com"])
def test_uid2_knows_one_gmail_only(raw):
    """Google's other domain, and the same one with a final dot, keep dots and suffix."""
    assert base64.b64encode(hashlib.sha256(raw.encode()).digest()).decode() == apply("uid2", "email", raw)


@pytest.mark.parametrize("raw", UID2_REFUSED)
def test_uid2_refuses(raw):
    assert apply("uid2", "email", raw) is None


@pytest.mark.parametrize(("raw", "region", "e164", "hexadecimal", "digits", "uid2", "national"), PHONES)
def test_phone_vectors(raw, region, e164, hexadecimal, digits, uid2, national):
    assert e164 == apply("none", "phone", raw, region)
    assert hexadecimal == apply("sha256", "phone", raw, region)
    assert hexadecimal == apply("sha256_lower_trim", "phone", raw, region)
    assert base64.b64encode(bytes.fromhex(hexadecimal)).decode() == apply("sha256_b64", "phone", raw, region)
    assert digits == apply("sha256_digits_hex", "phone", raw, region)
    assert uid2 == apply("uid2", "phone", raw, region)
    assert national == apply("sha1_national_hex", "phone", raw, region)


@pytest.mark.parametrize(
    ("raw", "region", "uid2"),
    [
        ("+65 1243 5678", None, "lYUKQSlih9uvJGc6yRaI2mlF2veyFQ7d/mfKUhev/jE="),
        ("+441234567890", None, "Rx8SW4ZyKqbPypXmswDNuq0SPxStFXBTG/yvPns/2NQ="),
    ],
)
def test_uid2_phone_vectors(raw, region, uid2):
    assert uid2 == apply("uid2", "phone", raw, region)


def test_uid2_takes_no_phone_of_fewer_than_ten_digits():
    """The operator's limit; E.164 itself is shorter in small countries."""
    assert apply("none", "phone", "+298 201234") == "+298201234"
    assert apply("uid2", "phone", "+298 201234") is None


@pytest.mark.parametrize(("raw", "hexadecimal"), NAMES)
def test_name_vectors(raw, hexadecimal):
    assert hexadecimal == apply("sha256", "$traits.first_name", raw)


def test_ids_are_sent_as_they_are_and_hashed_in_lower_case():
    assert apply("none", "user_id", " U-1009 ") == "U-1009"
    assert hashlib.sha256(b"u-1009").hexdigest() == apply("sha256", "user_id", "U-1009")


@pytest.mark.parametrize(
    ("source", "raw", "wrong"),
    [
        ("email", "User@Example.com", "24299c4b99779e0b3e7742511429c3faa5f9419efb020605493afe2e70d5e6e3"),
        ("email", "user@example.com ", "589c979f9e6408b5e3fefe7d70a12fe5366ba3591fe0a21e5e98eafe1b47d808"),
        ("email", "user@example.com\n", "fd911bd8cac2e603a80efafca2210b7a917c97410f0c29d9f2bfb99867e5a589"),
        ("email", USER_HEX, "043e3ef5e76e423c9d3d3a5605bcb8904496c654fcd16180386298150d8e1b8f"),
        ("email", "\ufeffuser@example.com", "edb0772665c71cf9915e9e7287d83d69b4676f5cccbff1c398952f825ed9cc94"),
        ("email", "jose\u0301@example.com", "70d72e4a4d0b058a595bd869112d4662c14264676acff2c866e0a29888d9d62d"),
        ("email", "\u0130REM@example.com", "ec5c2d02e54b84a7278bed6fde2679f8b37f55d4358bbee6cf17123ef3d47b2c"),
        ("user_id", "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("user_id", "null", "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"),
        ("user_id", "None", "dc937b59892604f5a86ac96936cd7ff09e25f18ae6b758e8014a24c7fa039e91"),
        ("user_id", "undefined", "eb045d78d273107348b0300c01d29b7552d622abbc6faf81b3ec55359aa9950c"),
        ("phone", "+44 7700 900123", "fc3148c6db01531fef914ed2bc6ba76bc7f4a58d789e21494bed0fcd2aa11de6"),
        ("phone", "+447700900123", "033134b911b137918338415ee3d20a064b24773d36a3b02e8b99fdd3fcd6b4cd"),
        ("phone", "07700900123", "ef03a7ae0c135a3e6bb6e0898460efc32a64aea33676b8b628bdc40ee1fe3dcc"),
        ("phone", "00447700900123", "970d5abc6624b35e0e3848baf9b76535f2f5c49045593e9b812327a667f2bf83"),
        ("phone", "+44 (0)7700 900123", "041848028f704aa4c9576b48ffbb172248d238bdf48ecc1d9dd8492738fcae05"),
    ],
)
def test_known_mistakes_are_not_made(source, raw, wrong):
    """Each digest is one that somebody once sent for this value and that matches nobody."""
    assert wrong != apply("sha256", source, raw, "GB")


def test_both_spellings_of_an_accent_give_one_digest():
    expected = "b0a53cf19e34d05b57bced7365c6b00ddbe38d62957e863de2a66a56c3b42cea"

    assert expected == apply("sha256", "email", "jose\u0301@example.com")
    assert expected == apply("sha256", "email", "jos\u00e9@example.com")


@pytest.mark.parametrize("value", [USER_HEX, USER_HEX.upper(), USER_B64, f" {USER_HEX} "])
@pytest.mark.parametrize("source", ["email", "phone"])
def test_a_digest_is_written_anew_and_not_hashed_twice(value, source):
    assert apply("sha256", source, value) == USER_HEX
    assert apply("sha256_lower_trim", source, value) == USER_HEX
    assert apply("sha256_b64", source, value) == USER_B64
    assert apply("uid2", source, value) == USER_B64
    assert apply("sha1_national_hex", source, value) is None
    assert apply("none", source, value) is None


def test_a_sha1_digest_passes_its_own_recipe_only():
    digest = "f02288e672259432fe70d036212140bf2f4745af"

    assert apply("sha1_national_hex", "phone", digest.upper()) == digest
    assert apply("sha256", "phone", digest) is None


def test_recipes_fit_some_kinds_only():
    assert {h for h in HASHES if fits(h, "email")} == {*HASHES} - {"sha256_digits_hex", "sha1_national_hex"}
    assert {h for h in HASHES if fits(h, "phone")} == {*HASHES}
    assert {h for h in HASHES if fits(h, "user_id")} == {"none", "sha256", "sha256_lower_trim", "sha256_b64"}


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        *((s, "email") for s in ("email", "$traits.email", "properties.workEmail", "email_address", "emailAddress")),
        *((s, "email") for s in ("EMAIL", "e-mail", "traits.email2", "customer.emailaddress")),
        *((s, "phone") for s in ("phone", "$traits.phone", "phoneNumber", "home_phone", "mobile", "telephone")),
        *((s, "phone") for s in ("MSISDN", "mobile_number", "mobilePhone", "phone_1")),
        *((s, "other") for s in ("user_id", "$traits.loyalty_id", "email.id", "email_sha256", "headphone", "emailed")),
    ],
)
def test_kind_is_told_by_the_last_step(source, kind):
    assert kind == kind_of(source)


# Any value


@given(JSON | EMAIL_TEXTS | PHONE_TEXTS, REGIONS)
def test_capture_never_raises_and_is_idempotent(value, region):
    email, phone, other = normalise_email(value), normalise_phone(value, region), normalise_id(value)

    assert email is None or normalise_email(email) == email
    assert phone is None or normalise_phone(phone, region) == phone
    assert other is None or normalise_id(other) == other


@given(EMAIL_TEXTS)
def test_shape_of_an_email(text):
    email = normalise_email(text)

    if email is not None:
        assert re.fullmatch(r"[^@\s]+@[^@\s.]+\.[^@\s]+", email)
        assert not set(email) & set(string.ascii_uppercase)


@given(PHONE_TEXTS, REGIONS)
def test_shape_of_a_phone(text, region):
    phone = normalise_phone(text, region)

    assert phone is None or re.fullmatch(r"\+[1-9][0-9]{3,14}", phone)


@given(
    st.sampled_from([h for h in HASHES if h != "none"]),
    st.sampled_from(["email", "phone", "user_id"]),
    JSON | EMAIL_TEXTS | PHONE_TEXTS,
    REGIONS,
)
def test_shape_of_a_digest(hash_name, source, value, region):
    """Every recipe gives nothing or a digest of its size, and its own digest once more as it is."""
    digest = apply(hash_name, source, value, region)

    if digest is not None:
        shape = {"sha1_national_hex": "[0-9a-f]{40}", "sha256_b64": "[A-Za-z0-9+/]{43}=", "uid2": "[A-Za-z0-9+/]{43}="}
        assert re.fullmatch(shape.get(hash_name, "[0-9a-f]{64}"), digest)
        assert apply(hash_name, source, digest, region) == digest


@given(st.sampled_from(HASHES), EMAIL_TEXTS | PHONE_TEXTS, REGIONS)
def test_the_capture_form_gives_what_the_raw_value_gives(hash_name, value, region):
    for source, captured in (("email", normalise_email(value)), ("phone", normalise_phone(value, region))):
        if captured is not None:
            assert apply(hash_name, source, captured, region) == apply(hash_name, source, value, region)


@pytest.mark.parametrize("name", recipes.HASHES)
def test_the_length_of_a_digest_is_known(name):
    """So that a plain value in its place can be told."""
    source = next(source for source in ("email", "phone") if recipes.fits(name, source))
    made = recipes.apply(name, source, {"email": "pat@example.test", "phone": "+12125550123"}[source])

    assert recipes.length(name) == (None if name == "none" else len(made))
