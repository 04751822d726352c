"""
The public name of a bucket: a prefix and a hashid of its number, as IABTechLab/uid2-operator makes them.

Hashids (hashids.org) write a number with an alphabet that a salt has shuffled. Written here and not
taken from a library, since nothing but one number has to be written, and nothing read.
"""

from __future__ import annotations

import functools

_ALPHABET = "abdegjklmnopqrvwxyzABDEGJKLMNOPQRVWXYZ1234567890"
"""Without the letters that hashids keep for separating several numbers."""
_GUARDS = 4


@functools.lru_cache(4096)
def bucket_id(number: int, salt: str, shortest: int = 9, prefix: str = "b") -> str:
    """
    The name of a bucket.

    Args:
        number: Of the bucket.
        salt: Shuffles the alphabet.
        shortest: Characters of the hashid.
        prefix: Before it.
    """
    shuffled = _shuffled(_ALPHABET, salt)
    guards, alphabet = shuffled[:_GUARDS], shuffled[_GUARDS:]
    checksum = number % 100
    lottery = alphabet[checksum % len(alphabet)]
    alphabet = _shuffled(alphabet, (lottery + salt + alphabet)[: len(alphabet)])
    text = lottery + _in_alphabet(number, alphabet)
    if len(text) < shortest:
        text = guards[(checksum + ord(text[0])) % _GUARDS] + text
    if len(text) < shortest:
        text += guards[(checksum + ord(text[2])) % _GUARDS]
    half = len(alphabet) // 2
    while len(text) < shortest:
        alphabet = _shuffled(alphabet, alphabet)
        text = alphabet[half:] + text + alphabet[:half]
        excess = max(0, len(text) - shortest)
        text = text[excess // 2 :][:shortest]
    return prefix + text


def _shuffled(text: str, salt: str) -> str:
    letters = list(text)
    total = 0
    for step, place in enumerate(range(len(letters) - 1, 0, -1)):
        turn = step % len(salt)
        total += ord(salt[turn])
        other = (ord(salt[turn]) + turn + total) % place
        letters[place], letters[other] = letters[other], letters[place]
    return "".join(letters)


def _in_alphabet(number: int, alphabet: str) -> str:
    text = ""
    while number or not text:
        number, digit = divmod(number, len(alphabet))
        text = alphabet[digit] + text
    return text
