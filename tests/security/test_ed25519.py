"""The agent's own verification of signatures: the vectors of RFC 8032, what a library says, and what it must refuse."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from skyagent import ed25519
from skyagent.ed25519 import ORDER, P

# RFC 8032, 7.1: public key, message, signature
VECTORS = {
    "empty": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "one byte": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "two bytes": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "a hash": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}
KEYS = st.binary(min_size=32, max_size=32).map(Ed25519PrivateKey.from_private_bytes)
MESSAGES = st.binary(max_size=200)
NEUTRAL = (1).to_bytes(32, "little")
# Every encoding of the eight points of small order; the last six are not the only one of their point.
SMALL_ORDER = [
    *(number.to_bytes(32, "little") for number in (1, P - 1, 0, 2**255)),
    *map(
        bytes.fromhex,
        (
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        ),
    ),
    *((number + sign).to_bytes(32, "little") for number in (P, P + 1) for sign in (0, 2**255)),
    *((number + 2**255).to_bytes(32, "little") for number in (1, P - 1)),
]


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS.values(), ids=VECTORS)
def test_the_vectors_of_the_rfc_are_good(key: str, message: str, signature: str) -> None:
    assert ed25519.is_good(*map(bytes.fromhex, (key, message, signature)))


def library_says(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@given(KEYS, MESSAGES)
def test_what_a_library_signs_is_good(key: Ed25519PrivateKey, message: bytes) -> None:
    assert ed25519.is_good(key.public_key().public_bytes_raw(), message, key.sign(message))


@given(KEYS, MESSAGES, st.integers(0, 96 * 8 - 1))
def test_with_any_bit_of_key_or_signature_changed_it_is_bad(key: Ed25519PrivateKey, message: bytes, bit: int) -> None:
    whole = bytearray(key.public_key().public_bytes_raw() + key.sign(message))
    whole[bit // 8] ^= 1 << bit % 8
    public, signature = bytes(whole[:32]), bytes(whole[32:])
    assert not library_says(public, message, signature)
    assert not ed25519.is_good(public, message, signature)


@given(KEYS, MESSAGES, MESSAGES)
def test_of_another_message_it_is_bad(key: Ed25519PrivateKey, message: bytes, other: bytes) -> None:
    good = ed25519.is_good(key.public_key().public_bytes_raw(), other, key.sign(message))
    assert good == (message == other)


@given(st.binary(min_size=32, max_size=32), MESSAGES, st.binary(min_size=64, max_size=64))
def test_what_is_no_signature_is_bad(key: bytes, message: bytes, signature: bytes) -> None:
    assert not ed25519.is_good(key, message, signature)


@given(KEYS, MESSAGES)
def test_a_signature_has_one_form_alone(key: Ed25519PrivateKey, message: bytes) -> None:
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    factor = int.from_bytes(signature[32:], "little") + ORDER
    assert not ed25519.is_good(public, message, signature[:32] + factor.to_bytes(32, "little"))
    for wrong in (b"", signature[:-1], signature + b"\0"):
        assert not ed25519.is_good(public, message, wrong)


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_a_key_of_small_order_signs_nothing(key: bytes) -> None:
    """With such a key and a factor of zero every eighth message, or every one, would be signed by nobody."""
    for message in range(32):
        for first in (NEUTRAL, *SMALL_ORDER):
            assert not ed25519.is_good(key, bytes([message]), first + bytes(32))
