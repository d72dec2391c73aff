"""The Structs of a resource that are derived from those of its declaration."""

from msgspec import Struct

from service.resource import shapes
from service.resource.owner_rules import replacement
from service.resource.statements import Row, Statements


class DerivedStructs(Statements[Row]):
    """The Structs of bodies, queries and responses."""

    words: shapes.Words
    version: str | None

    def derive_structs(self, change: type[Struct] | None, summary: type[Struct] | None) -> None:
        """Derive those that the declaration does not give."""
        names, given = self.words, self.fields
        key = given[self.key] if self.key else None
        self.change = change or shapes.change(names, given)
        self.summary_row: type[Struct] = summary or self.row
        self.summary = shapes.listed(names, self.summary_row, self.include)
        self.pages = shapes.pages(names, self.summary)
        filters = shapes.filter_fields(given, self.filters, q=bool(self.search))
        self.filter_names = [filter_[0] for filter_ in filters]
        self.query = shapes.list_query(names, self.sorts, filters, list(self.include))
        self.export_query = shapes.export_query(names, filters)
        self.new_rows = shapes.many(f"New{names.Many}", self.new, "The body of a bulk POST.")
        self.replacement = replacement(self.new, given, self.rules.admin_fields)
        self.keyed = self.new if key is None else shapes.keyed(names, self.new, key)
        self.keyed_rows = (
            self.new_rows
            if self.keyed is self.new
            else shapes.many(f"Keyed{names.Many}", self.keyed, "The body of a bulk PUT.")
        )
        self.answers = shapes.bulk_answers(names, self.row, key, versioned=self.version is not None)
