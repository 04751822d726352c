"""
Named recipes that normalise and hash identifiers.

An identifier is normalised once, when it is read from an event: that is its
*capture form*, the same for every partner. A recipe then makes of it what one
partner wants to be sent. The recipes and their public sources:

======================  ==========================================================
``none``                the capture form itself
``sha256``              lower case (phones: E.164), SHA-256, hexadecimal
``sha256_lower_trim``   the same under its long name
``sha256_b64``          the same digest as `sha256`, in base64
``sha256_digits_hex``   phones: the digits of E.164 without the plus. Meta,
                        conversions-api/parameters/customer-information-parameters
``sha1_national_hex``   phones of country code 1: the ten national digits, SHA-1.
                        LiveRamp, docs.liveramp.com/connect/en/hashing-identifiers
``uid2``                e-mails, without Gmail's dots and plus suffix, and phones:
                        base64. IABTechLab/uid2docs, gs-normalization-encoding
======================  ==========================================================

A value that is a digest already (64 hexadecimal digits, or 32 bytes in base64)
is written the way that the recipe writes digests, and never hashed again. As an
e-mail or a phone it has no capture form, and so nothing to give under ``none``.

Nothing here keeps a value or puts one in an error.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Literal

import attrs
import phonenumbers

Kind = Literal["email", "phone", "other"]

_INVISIBLE = dict.fromkeys(
    [0x00AD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x206A), 0xFEFF]
)
NO_VALUES = frozenset({"", "null", "none", "undefined", "nan", "n/a", "[object object]"})
"""What stands, in any case, where there is no identifier."""
_LONGEST_NO_VALUE = max(map(len, NO_VALUES))
_SEPARATORS = str.maketrans("", "", " -.()")
_LONGEST_QUICK_PHONE = 32
_E164_DIGITS = 15


# Capture


def normalise_email(value: object) -> str | None:
    """
    The capture form of an e-mail address: composed (NFC), no invisible characters, trimmed, A to Z in lower case.

    Other letters keep their case, because partners disagree on it.

    Args:
        value: Any JSON value.

    Returns:
        None for what is no address: not exactly one ``@``, nothing before it, no
        dot inside of the domain, white space, control characters or U+FFFD inside, a digest.
    """
    if not isinstance(value, str):
        return None
    # Letters beyond ASCII are composed once more at the end, for some have a composed form in lower case only.
    text = value.strip().lower() if value.isascii() else _composed(_ascii_lower(_cleaned(value)))
    local, _, domain = text.partition("@")
    name, _, top = domain.partition(".")
    if not (local and name and top) or "@" in domain or " " in text or not text.isprintable():
        return None
    return text


def normalise_phone(value: object, default_region: str | None) -> str | None:
    """
    The capture form of a phone number: E.164, without an extension.

    A leading ``00`` means ``+`` in every region. Digits that begin with the
    country code of the region are international where no number of a person is
    so long there, and one is without the code. A number that can be dialled only
    within its own area is refused: it belongs to many people.

    Args:
        value: Any JSON value; an integer is read as its digits.
        default_region: ISO 3166 country of numbers without a country code.

    Returns:
        None for what cannot be a phone number, or has no country code where no region is given.
    """
    text = _text(value)
    if not text:
        return None
    if text.startswith("00"):
        text = "+" + text[2:]
    return _plain_e164(text) or _parsed_e164(text, default_region)


def normalise_id(value: object) -> str | None:
    """
    The capture form of any other identifier: composed (NFC), no invisible characters, trimmed; case is kept.

    Args:
        value: Any JSON value; an integer is read as its digits.

    Returns:
        None for an empty text, one with U+FFFD, or a word that means "no value", such as ``null`` or ``undefined``.
    """
    text = value.strip() if isinstance(value, str) and value.isascii() else _text(value)
    if text is None or (len(text) <= _LONGEST_NO_VALUE and text.lower() in NO_VALUES):
        return None
    return text


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value.strip() if value.isascii() else _cleaned(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:  # more digits than Python agrees to write
            return None
    return None


def _cleaned(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character: it cannot be sent
        return ""
    if "\ufffd" in text:  # stands for what could not be read: two such texts may have been two
        return ""
    return _composed(text.translate(_INVISIBLE)).strip()


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _ascii_lower(text: str) -> str:
    return text.encode().lower().decode()


# Phones


@attrs.frozen
class NumberingPlan:
    """
    What the library knows of one country calling code.

    Attributes:
        lengths: Of possible numbers, without the code.
        rewritten: What it would take off, or rewrite, at the start of a number.
    """

    lengths: frozenset[int]
    rewritten: re.Pattern[str] | None


@functools.cache
def numbering_plan(country_code: str) -> NumberingPlan | None:
    """The plan of a country calling code; None where there is none."""
    if country_code.startswith("0") or int(country_code) not in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
        return None
    code = int(country_code)
    region = phonenumbers.region_code_for_country_code(code)
    metadata = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    if metadata is None or metadata.general_desc is None:
        return None
    lengths = frozenset(n for n in metadata.general_desc.possible_length if n + len(country_code) <= _E164_DIGITS)
    prefix = metadata.national_prefix_for_parsing
    return NumberingPlan(lengths, re.compile(prefix) if prefix else None)


def _plain_e164(text: str) -> str | None:
    """Ten times faster than `_parsed_e164`, and the same, where the library would do no more than drop separators."""
    if text[0] != "+" or len(text) > _LONGEST_QUICK_PHONE or not text.isascii():
        return None
    digits = text[1:].translate(_SEPARATORS)
    if not digits.isdigit():
        return None
    for size in (1, 2, 3):
        plan = numbering_plan(digits[:size])
        if plan is not None:
            national = digits[size:]
            if len(national) not in plan.lengths or (plan.rewritten and plan.rewritten.match(national)):
                return None
            return "+" + digits
    return None


def _parsed_e164(text: str, default_region: str | None) -> str | None:
    e164 = _library_e164(text, default_region)
    if e164 is None or e164 == text or _plain_e164(e164) or _library_e164(e164, None) == e164:
        return e164
    return None  # such as +49 00 30...: each reading takes off one more zero


def _library_e164(text: str, default_region: str | None) -> str | None:
    number = _library_number(text, default_region)
    if number is None:
        return None
    if _may_lack_its_plus(number, text):
        international = _library_number("+" + phonenumbers.normalize_digits_only(text), None)
        if international is not None and _has_a_length_of_people(international):
            number = international
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return e164 if len(e164) <= 1 + _E164_DIGITS else None


def _library_number(text: str, default_region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, default_region)
    except phonenumbers.NumberParseException:
        return None


def _may_lack_its_plus(number: phonenumbers.PhoneNumber, text: str) -> bool:
    """
    Whether digits begin with the country code of their region, and are no known number there nor as long as people's.

    The library sees so only what is longer than any number there, or known without the code.
    """
    digits = phonenumbers.national_significant_number(number)
    return (
        digits.startswith(str(number.country_code))
        and digits == phonenumbers.normalize_digits_only(text)
        and not _has_a_length_of_people(number)
        and not phonenumbers.is_valid_number(number)
    )


def _has_a_length_of_people(number: phonenumbers.PhoneNumber) -> bool:
    kind = phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE
    reason = phonenumbers.is_possible_number_for_type_with_reason(number, kind)
    return reason == phonenumbers.ValidationResult.IS_POSSIBLE


# Recipes


@attrs.frozen
class _Recipe:
    kinds: frozenset[Kind]
    prepare: Callable[[Kind, str], str | None]
    digest: Callable[[bytes], bytes]
    digest_size: int
    encode: Callable[[bytes], str]


def _lower(kind: Kind, text: str) -> str:
    return text.lower() if kind == "other" else text


def _digits(_: Kind, e164: str) -> str:
    return e164[1:]


def _north_american_national(_: Kind, e164: str) -> str | None:
    return e164[2:] if e164.startswith("+1") and len(e164) == 12 else None


def _uid2(kind: Kind, text: str) -> str | None:
    if kind == "phone":
        return text if 10 <= len(text) - 1 <= 15 else None
    local, _, domain = text.partition("@")
    if domain != "gmail.com":
        return text
    local = local.partition("+")[0].replace(".", "")
    return f"{local}@{domain}" if local else None


_NEW_SHA256 = hashlib.sha256()


def _sha256(data: bytes) -> bytes:
    hasher = _NEW_SHA256.copy()  # half the time of a new one
    hasher.update(data)
    return hasher.digest()


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _base64(digest: bytes) -> str:
    return binascii.b2a_base64(digest, newline=False).decode()


_ANY: frozenset[Kind] = frozenset({"email", "phone", "other"})
_PERSONAL: frozenset[Kind] = frozenset({"email", "phone"})
_PHONE: frozenset[Kind] = frozenset({"phone"})

_RECIPES: dict[str, _Recipe | None] = {
    "none": None,
    "sha256": _Recipe(_ANY, _lower, _sha256, 32, bytes.hex),
    "sha256_lower_trim": _Recipe(_ANY, _lower, _sha256, 32, bytes.hex),
    "sha256_b64": _Recipe(_ANY, _lower, _sha256, 32, _base64),
    "sha256_digits_hex": _Recipe(_PHONE, _digits, _sha256, 32, bytes.hex),
    "sha1_national_hex": _Recipe(_PHONE, _north_american_national, _sha1, 20, bytes.hex),
    "uid2": _Recipe(_PERSONAL, _uid2, _sha256, 32, _base64),
}

_DIGEST_SIZES = {recipe.digest_size for recipe in _RECIPES.values() if recipe}

HASHES = tuple(_RECIPES)
"""Names of all recipes."""


def apply(hash_name: str, source: str, value: object, default_region: str | None = None) -> str | None:
    """
    What is sent for one identifier.

    Args:
        hash_name: One of `HASHES`.
        source: Where the identifier comes from, such as ``email``, ``user_id`` or
            ``$traits.phone``; see `kind_of`.
        value: The identifier as it was found, or its capture form.
        default_region: See `normalise_phone`.

    Returns:
        None when the value is no identifier of this kind, or the recipe does not
        fit it, as ``sha1_national_hex`` does not fit a British phone.
    """
    kind = kind_of(source)
    recipe = _RECIPES[hash_name]
    if recipe is None:
        return _normalise(kind, value, default_region)
    if kind not in recipe.kinds:
        return None
    digest = _digest_in(value, recipe.digest_size)
    if digest is not None:
        return recipe.encode(digest)
    text = _normalise(kind, value, default_region)
    return None if text is None else to_captured(hash_name, source)(text)


def captured(source: str, value: object, default_region: str | None = None) -> str | None:
    """
    The capture form of an identifier, of the kind that its source tells. An e-mail or phone may be a digest already.

    Args:
        source: See `kind_of`.
        value: Any JSON value.
        default_region: See `normalise_phone`.

    Returns:
        None when it is no identifier of this kind.
    """
    kind = kind_of(source)
    text = _normalise(kind, value, default_region)
    return normalise_id(value) if text is None and kind != "other" and _is_digest(value) else text


@functools.lru_cache(1024)
def to_captured(hash_name: str, source: str) -> Callable[[str], str | None]:
    """What `apply` does with a value that is in its capture form already."""
    kind, recipe = kind_of(source), _RECIPES[hash_name]
    if recipe is None:
        return (lambda text: text) if kind == "other" else (lambda text: None if _is_digest(text) else text)
    if kind not in recipe.kinds:
        return lambda _: None
    prepare, digest, encode = recipe.prepare, recipe.digest, recipe.encode

    def digested_once(text: str) -> str | None:
        if (found := _digest_in(text, recipe.digest_size)) is not None:
            return encode(found)
        if kind != "other" and _is_digest(text):
            return None  # of another recipe
        prepared = prepare(kind, text)
        return None if prepared is None else encode(digest(prepared.encode()))

    return digested_once


def length(hash_name: str) -> int | None:
    """Characters of every digest that a recipe gives; None for ``none``, which gives no digest."""
    recipe = _RECIPES[hash_name]
    return None if recipe is None else len(recipe.encode(bytes(recipe.digest_size)))


def fits(hash_name: str, source: str) -> bool:
    """Whether a recipe can give anything at all for identifiers of this source."""
    recipe = _RECIPES[hash_name]
    return recipe is None or kind_of(source) in recipe.kinds


@functools.lru_cache(1024)
def kind_of(source: str) -> Kind:
    """
    What an identifier is, by the last step of the path where it is found.

    ``$traits.email``, ``properties.workEmail`` and ``email_address`` are e-mails;
    ``phone``, ``traits.phoneNumber`` and ``home_phone`` are phones.
    """
    step = source.rpartition(".")[2].replace("-", "_")
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", step).lower()
    if re.search(r"(^|_)e_?mail(_?address)?(_?\d+)?$", name):
        return "email"
    if re.search(r"(^|_)(tele|mobile_?)?(phone|mobile|msisdn)(_?(number|no))?(_?\d+)?$", name):
        return "phone"
    return "other"


def _normalise(kind: Kind, value: object, default_region: str | None) -> str | None:
    if kind == "email":
        return normalise_email(value)
    if kind == "phone":
        return normalise_phone(value, default_region)
    return normalise_id(value)


def _is_digest(value: object) -> bool:
    return any(_digest_in(value, size) is not None for size in _DIGEST_SIZES)


def _digest_in(value: Any, size: int) -> bytes | None:
    """The digest that `value` already is, in hexadecimal or in base64."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    try:
        if len(text) == 2 * size:
            digest = bytes.fromhex(text)
        elif len(text) == 4 * -(-size // 3):
            digest = base64.b64decode(text, validate=True)
        else:
            return None
    except ValueError:
        return None
    return digest if len(digest) == size else None
