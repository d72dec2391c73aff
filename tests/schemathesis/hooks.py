"""Rules that an OpenAPI document can't say: schemathesis must not send what breaks them."""

from decimal import Decimal
from typing import Any

import schemathesis

# Fields that must differ between the rows of one bulk request.
KEYS = ("sku", "email", "username")


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Round prices, and make keys differ."""
    del context
    if isinstance(body, dict):
        rows = body.get("items")
        for row in [body, body.get("set"), *(rows if isinstance(rows, list) else ())]:
            if isinstance(row, dict) and _is_price(row.get("price")):
                row["price"] = _rounded(row["price"])
        if isinstance(rows, list) and len({_key(row) for row in rows}) < len(rows):
            body["items"] = rows[:1]
    return body


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Round prices, and leave out the page beside a cursor."""
    del context
    if isinstance(query, dict):
        for name in ("min_price", "max_price"):
            if _is_price(query.get(name)):
                query[name] = _rounded(query[name])
        if "cursor" in query:
            query.pop("page", None)
    return query


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**10


def _rounded(value: float) -> float:
    """Return the price with four decimals: `multipleOf` in the document would refuse 29.99."""
    exact = min(Decimal(repr(value)), Decimal(9_999_999_999))
    return float(round(exact, 4))


def _key(row: object) -> tuple[object, ...]:
    return tuple(str(row.get(name)).lower() for name in KEYS) if isinstance(row, dict) else (row,)
