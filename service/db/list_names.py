"""Statements of a list by their names, for `swiftlet explain` and the listing of statements."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args
from urllib.parse import parse_qsl

from service.db.adaptive import Total
from service.db.filters import LIMITED, Bound, Choice, Chosen
from service.db.keyset import Listing
from service.db.ownership import OWN
from service.db.statement import Statement


def named(listing: Listing[Any], name: str) -> Statement[Any]:
    """The statement of a name as `Listing._name` writes it.

    Raises:
        KeyError: no such statement.
    """
    start, _, query = name.partition("?")
    what = start.removeprefix(f"{listing.name}.").removesuffix(OWN)
    given = dict(parse_qsl(query, keep_blank_values=True))
    sort = given.pop("sort", "id")
    total: Any = given.pop("total", "exact" if what == "page" else "none")
    numbered = what == "page" and given.pop("page", None) is not None
    filters = chosen(listing, given, own=start.endswith(OWN))
    if sort not in listing.orders or total not in get_args(Total):
        raise KeyError(name)
    if what == "page":
        return listing.page(sort, filters, total, first=not numbered)
    return listing.after(sort, filters, total, start={"start": True, "after": False}[what])


def chosen(listing: Listing[Any], given: Mapping[str, str], *, own: bool) -> Chosen:
    """The filters as a name writes them; raises as `named`."""
    if own and listing.own is None:
        raise KeyError(OWN)
    found: list[tuple[str, object]] = [LIMITED] if own else []
    for name, value in given.items():
        one = listing.filters[name]
        values = (
            {str(known).lower(): known for known in one.clauses}
            if isinstance(one, Choice)
            else {"": None}
        )
        found.append((name, values[value]))
    return tuple(found)


def samples(listing: Listing[Any]) -> Iterator[Statement[Any]]:
    """Enough to read: every sort each way, then every filter and total in the default sort."""
    for sort in listing.orders:
        yield listing.page(sort, (), "exact", first=True)
        yield listing.after(sort, (), "none", start=True)
        yield listing.after(sort, (), "none", start=False)
    for name, one in listing.filters.items():
        for value in one.clauses if isinstance(one, Choice) else (None,):
            yield listing.page("id", ((name, value),), "exact", first=True)
    bound = [name for name, one in listing.filters.items() if isinstance(one, Bound)]
    for name in bound[:1]:
        yield listing.page("id", ((name, None),), "estimated", first=True)
        yield listing.page("id", ((name, None),), "none", first=True)
        sort = "-created_at" if "created_at" in listing.orders else "-id"
        yield listing.after(sort, ((name, None),), "none", start=False)
    yield listing.page("id", (), "none", first=True)
    yield listing.page("id", (), "exact", first=False)
    if listing.own is not None:
        for sort in list(listing.orders)[::2]:
            yield listing.page(sort, (LIMITED,), "exact", first=True)
        yield listing.after("id", (LIMITED,), "none", start=True)
        yield listing.after("id", (LIMITED,), "none", start=False)
        for name in bound[:1]:
            yield listing.page("id", (LIMITED, (name, None)), "exact", first=True)
