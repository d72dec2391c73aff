"""Tests of statements and of the OpenAPI document."""

from typing import Any

from service.conformance.base import Base, where
from service.conformance.served import Served
from service.resource import Resource


class StatementTests(Base):
    """Tests that need no rows."""

    def test_every_statement_has_a_unique_name(self, of: Resource[Any]) -> None:
        names = [statement.name for statement in of.statements()]
        assert len(names) == len(set(names))
        for statement in of.statements():
            assert of.statement(statement.name).sql == statement.sql
        assert set(of.prepared) <= set(of.statements())

    @where("list")
    def test_each_sort_and_each_filter_has_an_index(self, of: Resource[Any]) -> None:
        found = {str(index.name): index for index in of.table.indexes}
        for sort in of.sorts[1:]:
            assert _is_on(found[f"{of.table.name}_{sort}_idx"], sort), sort
        served = [
            index
            for one in of.listing.filters.values()
            for index in _indexes(one)
            if index is not None
        ]
        assert {index.name for index in served} <= found.keys()

    def test_the_document_has_every_operation(self, served: Served, of: Resource[Any]) -> None:
        told = served.client.get("/openapi.json").json()
        for operation in of.operations:
            described = told["paths"][operation.path][operation.method.lower()]
            assert described["summary"] == operation.summary
            assert str(operation.status) in described["responses"]
        assert of.tag.name in {tag["name"] for tag in told["tags"]}


def _is_on(index: Any, field: str) -> bool:
    return field in str(next(iter(index.expressions)))


def _indexes(one: Any) -> list[Any]:
    served_by = one.served_by
    return list(served_by.values()) if hasattr(served_by, "values") else [served_by]
