"""Tests that every resource passes, for a service of your own too; they need pytest and httpx.

```python
# tests/test_conformance.py
from service.conformance import Conformance

class TestNotes(Conformance):
    app = "notes:app"
```

Each test runs for each resource of the application that serves the operations in question, behind a
real server on a PostgreSQL of its own, which is migrated by the application's migrations.
"""

from service.conformance.bulk_tests import BulkTests
from service.conformance.file_tests import FileTests
from service.conformance.list_tests import ListTests
from service.conformance.row_tests import RowTests
from service.conformance.statement_tests import StatementTests

__all__ = ["Conformance"]


class Conformance(RowTests, ListTests, BulkTests, FileTests, StatementTests):
    """All of them. Set `app` to `MODULE:NAME` of the application; see base.Base."""
