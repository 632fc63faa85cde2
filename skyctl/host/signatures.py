"""Ed25519 keys as PEM texts, and what they sign: needs the library for it, which is slow to load."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


def make_key() -> str:
    """Return a new private key."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_half(key: bytes) -> bytes:
    """Return the 32 bytes of a private key's public half. Raises ValueError where it is no Ed25519 key."""
    return _read(key).public_key().public_bytes_raw()


def sign(key: bytes, statement: bytes) -> bytes:
    """Return the 64 bytes of a signature. Raises ValueError where it is no Ed25519 key."""
    return _read(key).sign(statement)


def _read(pem: bytes) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except TypeError as error:  # it has a password
        raise ValueError(str(error)) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is a key of another kind")
    return key
