"""Tests that every resource passes, also in your own service; they need pytest and httpx.

```python
# tests/test_conformance.py
from service.conformance import Conformance

class TestNotes(Conformance):
    app = "notes:app"
```

Each test runs for each resource that serves the tested operations. The application runs on a real
server with its own PostgreSQL, which is migrated with the application's migrations.
"""

from service.conformance.bulk_tests import BulkTests
from service.conformance.change_tests import ChangeTests
from service.conformance.file_tests import FileTests
from service.conformance.list_tests import ListTests
from service.conformance.row_tests import RowTests
from service.conformance.statement_tests import StatementTests

__all__ = ["Conformance"]


class Conformance(RowTests, ListTests, BulkTests, FileTests, ChangeTests, StatementTests):
    """All tests. Set `app` to the `MODULE:NAME` of the application; see base.Base."""
