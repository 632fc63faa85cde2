"""Whether an Ed25519 signature is good (RFC 8032, 5.1.7), with the standard library alone.

Everything in it is public, so it need not take the same time for all values; signing, which must, is not here.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

KEY_BYTES, SIGNATURE_BYTES = 32, 64
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


class Point(NamedTuple):
    """A point of the curve in extended coordinates: x = X/Z, y = Y/Z, x * y = T/Z."""

    x: int
    y: int
    z: int
    t: int


def is_good(key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether the holder of the secret half of `key` signed the message.

    What has a second encoding is refused in all but one, and so is a key whose point is of small order, as every
    message would be signed by it.
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    point, factor = _decoded(key), int.from_bytes(signature[32:], "little")
    if point is None or factor >= ORDER or _is_neutral(_times(8, point)):
        return False
    digest = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    minus = Point(P - point.x, point.y, point.z, P - point.t)
    return _encoded(_sum(_times(factor, BASE), _times(digest, minus))) == signature[:32]


def _sum(a: Point, b: Point) -> Point:
    left, right = (a.y - a.x) * (b.y - b.x) % P, (a.y + a.x) * (b.y + b.x) % P
    c, d = 2 * a.t * b.t * D % P, 2 * a.z * b.z % P
    e, f, g, h = right - left, d - c, d + c, right + left
    return Point(e * f % P, g * h % P, f * g % P, e * h % P)


def _times(factor: int, point: Point) -> Point:
    result = Point(0, 1, 1, 0)
    while factor:
        if factor & 1:
            result = _sum(result, point)
        point = _sum(point, point)
        factor >>= 1
    return result


def _is_neutral(point: Point) -> bool:
    return point.x % P == 0 and (point.y - point.z) % P == 0


def _encoded(point: Point) -> bytes:
    inverse = pow(point.z, -1, P)
    x, y = point.x * inverse % P, point.y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decoded(encoded: bytes) -> Point | None:
    """The point of an encoding; None where there is none, or it is not the only one of its point."""
    number = int.from_bytes(encoded, "little")
    y, is_odd = number & (2**255 - 1), number >> 255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT_OF_MINUS_ONE % P
    if x * x % P != square or (x == 0 and is_odd):
        return None
    if x & 1 != is_odd:
        x = P - x
    return Point(x, y, 1, x * y % P)


BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
BASE_Y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
BASE = Point(BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)
