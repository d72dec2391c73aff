"""What schemathesis reports and is no fault: each with its reason."""

import os
from typing import Any

import schemathesis

# The user of the key that the run uses. To change or delete it would end the run.
OWN_USER = os.environ.get("OWN_USER", "")
# Parts of a 400 or 422 whose rule an OpenAPI document can't say.
UNSAYABLE = (
    "with at most 4 decimals",  # multipleOf: 0.0001 would make common validators refuse 29.99
    "a number in digits",  # a price in a query has no exponent; a type of number has
    "exclude each other",  # parameters that depend on each other
    "a CSV has no trailer",  # as well
    "is not in the future",  # a time that depends on now
    "the cursor is not from this service",  # it is opaque and signed
    "was used for another request",  # an Idempotency-Key; the example is one for all
    "of length >= 1",  # of a string that is stripped first
    "only an admin's key may have",  # a scope that depends on the user
    "the same as",  # a key twice in one bulk request: uniqueItems compares whole rows
)


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave the user of the key alone."""
    del context
    own = OWN_USER and str((case.path_parameters or {}).get("id")) == OWN_USER
    return not (own and case.path.startswith("/users/{id}") and case.method not in ("GET", "HEAD"))


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Wait for changes a second at most."""
    del context
    wait = str((query or {}).get("wait"))
    return {**query, "wait": 1} if wait.isdecimal() and 1 < int(wait) <= 60 else query


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Return whether it is a fault."""
    del context
    told = response.text
    match type(failure).__name__:
        case "RejectedPositiveData":
            # The columns of a CSV file are no part of a schema.
            file = case.path.endswith("/import") and response.status_code == 422
            return not (file or any(part in told for part in UNSAYABLE))
        case "AcceptedNegativeData":
            # With included rows a user has no ETag, so preconditions are ignored. An id beyond
            # int64 is reported as missing, as any other that does not exist. A position that is not
            # of the log is 410.
            if response.status_code == 410:
                return False
            return "include" not in (case.query or {}) and '"missing":[' not in told
        case "UseAfterFree":
            return '"is_active":false' not in told  # a soft delete, which is shown
    return True
