"""When a certificate is valid: the two dates, read from its file."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
SEQUENCE, VERSION = 0x30, 0xA0
UTC_TIME = 0x17  # two digits of the year; the other form, GeneralizedTime, has four


class Validity(NamedTuple):
    """From when until when."""

    begins: datetime
    ends: datetime


def validity(path: Path) -> Validity:
    """Return the dates of the first certificate of a PEM file: that of the server.

    The standard library has no public function for it. The dates are at a fixed place of the
    DER form (RFC 5280, section 4.1): version, serial number, signature, issuer, validity.

    Raises:
        OSError: the file can't be read.
        ValueError: it has no certificate.
    """
    text = path.read_text("ascii", "replace")
    begin = text.find(BEGIN)
    end = text.find(END, begin)
    if begin < 0 or end < 0:
        raise ValueError(f"{path} has no certificate in PEM format")
    try:
        return _validity(ssl.PEM_cert_to_DER_cert(text[begin : end + len(END)]))
    except (IndexError, ValueError):
        raise ValueError(f"the certificate in {path} can't be read") from None


def _validity(der: bytes) -> Validity:
    _, certificate, _ = _element(der)
    _, fields, _ = _element(certificate)
    if fields[0] == VERSION:
        _, _, fields = _element(fields)
    for _ in ("serial number", "signature", "issuer"):
        _, _, fields = _element(fields)
    _, dates, _ = _element(fields)
    first, begins, rest = _element(dates)
    second, ends, _ = _element(rest)
    return Validity(_time(first, begins), _time(second, ends))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and content of the first element of DER, and what follows it."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    return tag, data[at : at + length], data[at + length :]


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == UTC_TIME:  # years up to 49 are of this century
        text = f"{'20' if int(text[:2]) < 50 else '19'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
