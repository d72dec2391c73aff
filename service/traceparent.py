"""Trace contexts of the W3C: who traces a request, as the headers traceparent and tracestate say.

https://www.w3.org/TR/trace-context/. A context with any mistake is as none.
"""

import re
from typing import NamedTuple

TRACEPARENT = b"traceparent"
# The header of a response that says which trace the request belongs to. In the draft of the W3C it
# has the form of a traceparent, with the id of the callee's span.
TRACERESPONSE = b"traceresponse"
# version, trace id, id of the caller's span, flags. A later version may append fields.
_FORM = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[^,]*)?"
)
# Flags: the caller records the trace; its id is random. Others are not known, and not passed on.
SAMPLED, RANDOM = 0x01, 0x02
# Members of a tracestate: at most so many, each a key and a value.
MEMBERS = 32
_MEMBER = re.compile(
    rb"([a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class TraceParent(NamedTuple):
    """A traceparent: ids in lower-case hexadecimal, and the flags SAMPLED and RANDOM."""

    trace_id: str
    parent_id: str
    flags: int

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"


def parse(value: bytes | None) -> TraceParent | None:
    """Return the context of a header traceparent; None without one, or if it is malformed.

    Several headers, joined by commas, are malformed too.
    """
    found = None if value is None else _FORM.fullmatch(value)
    if found is None or (found[1] == b"00" and found[5] is not None):
        return None
    return TraceParent(found[2].decode(), found[3].decode(), int(found[4], 16) & (SAMPLED | RANDOM))


def parse_state(value: bytes | None) -> str:
    """Return a tracestate as it is passed on; empty without one, or if it is malformed."""
    if value is None:
        return ""
    members = [one.strip(b" \t") for one in value.split(b",")]
    members = [one for one in members if one]
    found = [_MEMBER.fullmatch(one) for one in members]
    names = {one[1] for one in found if one is not None}
    if len(members) > MEMBERS or len(names) != len(members):
        return ""
    return b",".join(members).decode()


def trace_response(value: bytes | None) -> bytes | None:
    """Return the header of a response if no span is recorded: the caller's ids, not sampled.

    Args:
        value: the header traceparent.

    Returns:
        The header traceresponse; None if there is no valid traceparent.
    """
    found = None if value is None else _FORM.fullmatch(value)
    if value is None or found is None or (found[5] is not None and found[1] == b"00"):
        return None
    return b"00%b%02x" % (value[2:53], int(found[4], 16) & RANDOM)
