"""The statements of jobs against a model: workers that claim, lose and end jobs in any order.

A ticket is what a worker was given by a claim. Workers never forget a ticket, so that each stale
one is tried again and again. A lease ends, and a pause is over, when a rule says so.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.db.statement import Statement
from service.jobs import statements

KINDS = ("a", "b")
FREE = st.fixed_dictionaries({kind: st.integers(1, 3) for kind in KINDS})
LATER = 3600.0


class Ticket(NamedTuple):
    """A job that a worker was given, and the number of the claim."""

    id: int
    claim: int


class Modelled:
    """A job as it must be in the table."""

    def __init__(self, kind: str, *, due: bool) -> None:
        self.kind = kind
        self.state = "queued"
        self.due = due
        self.attempts = self.claims = 0

    @property
    def row(self) -> tuple[str, int, int]:
        return self.state, self.attempts, self.claims


class Jobs(RuleBasedStateMachine):
    """The table, and what is known of it."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.connection = self.wait(asyncpg.connect(self.url))
        self.wait(self.connection.execute("TRUNCATE jobs"))
        self.jobs: dict[int, Modelled] = {}
        self.tickets: list[Ticket] = []

    def wait(self, work: Any) -> Any:
        async def run() -> Any:
            return await work

        return self.runner.run(run())

    def teardown(self) -> None:
        self.wait(self.connection.close())
        self.runner.close()

    async def fetch(self, statement: Statement[Any], args: Sequence[object]) -> list[Any]:
        """Run a statement: this is the Runner of its statements."""
        found: list[Any] = await self.connection.fetch(statement.sql, *args)
        return found

    def ask(self, statement: Statement[Any], **values: object) -> list[Any]:
        found: list[Any] = self.wait(statement.records(self, **values))
        return found

    def holds(self, ticket: Ticket) -> bool:
        job = self.jobs[ticket.id]
        return job.state == "running" and job.claims == ticket.claim

    @rule(kind=st.sampled_from(KINDS), number=st.integers(1, 3), due=st.booleans())
    def enqueue(self, kind: str, number: int, due: bool) -> None:
        delay = 0.0 if due else LATER
        values = {"kind": kind, "user_id": None, "place": None, "delay": delay}
        for record in self.ask(statements.enqueue, arguments=["{}"] * number, **values):
            assert record[0] not in self.jobs
            self.jobs[record[0]] = Modelled(kind, due=due)

    @rule(free=FREE)
    def claim(self, free: dict[str, int]) -> None:
        waiting = [job for job in self.jobs.values() if job.state in {"queued", "running"}]
        later = any(not job.due for job in waiting)
        records = self.ask(
            statements.claim,
            kinds=list(free),
            frees=list(free.values()),
            places=[],
            lease=LATER,
        )
        found = [record[1:] for record in records if record[1] is not None]
        for kind, most in free.items():
            due = [
                name
                for name, job in self.jobs.items()
                if job.kind == kind and job.due and job.state in {"queued", "running"}
            ]
            taken = [record for record in found if record[1] == kind]
            assert len(taken) == min(most, len(due))
            assert {record[0] for record in taken} <= {*due}
        for name, _, _, _, attempts, claims in found:
            job = self.jobs[name]
            job.state, job.due = "running", False
            job.attempts, job.claims = attempts, claims
            ticket = Ticket(name, claims)
            assert ticket not in self.tickets, "a number is never given twice"
            self.tickets.append(ticket)
        assert (records[0][0] is not None) == later, "the seconds until the next one is due"

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        """The lease of a job ends, or its pause is over."""
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[name]
        job.due = job.due or job.state in {"queued", "running"}
        times = "run_at = least(run_at, now()), leased_until = least(leased_until, now())"
        self.wait(self.connection.execute(f"UPDATE jobs SET {times} WHERE id = {name}"))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), way=st.sampled_from(("done", "failed")))
    def end(self, data: st.DataObject, way: str) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        job = self.jobs[ticket.id]
        statement = statements.finish if way == "done" else statements.fail
        values = {"done": 0, "total": None, "result": None, "error": None}
        ended = self.ask(statement, **values, **ticket._asdict())
        again = way == job.state == "done" and job.claims == ticket.claim
        assert bool(ended) == (self.holds(ticket) or again)
        if ended:
            job.state, job.due = way, False

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), counts=st.booleans(), delay=st.sampled_from((0.0, LATER)))
    def release(self, data: st.DataObject, counts: bool, delay: float) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        job = self.jobs[ticket.id]
        attempts = job.attempts if counts else job.attempts - 1
        values = {"done": 0, "total": None, "error": None, "attempts": attempts, "delay": delay}
        released = self.ask(statements.release, **values, **ticket._asdict())
        assert bool(released) == self.holds(ticket)
        if released:
            job.state, job.due, job.attempts = "queued", delay == 0.0, attempts

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(self.tickets), unique=True))
        ids, claims = [one.id for one in some], [one.claim for one in some]
        kept = self.ask(statements.renew, ids=ids, claims=claims, lease=LATER)
        held = {ticket for ticket in some if self.holds(ticket)}
        assert {Ticket(*record) for record in kept} == held
        for ticket in held:
            self.jobs[ticket.id].due = False

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        kept = self.ask(statements.progress, done=1, total=2, **ticket._asdict())
        assert bool(kept) == self.holds(ticket)

    @rule()
    def retry(self) -> None:
        retried = {record[0] for record in self.ask(statements.retry, ids=sorted(self.jobs))}
        assert retried == {name for name, job in self.jobs.items() if job.state == "failed"}
        for name in retried:
            self.jobs[name].state, self.jobs[name].due, self.jobs[name].attempts = "queued", True, 0

    @invariant()
    def the_table_is_the_model(self) -> None:
        rows = self.wait(self.connection.fetch("SELECT id, state, attempts, claims FROM jobs"))
        assert {row[0]: tuple(row)[1:] for row in rows} == {
            name: job.row for name, job in self.jobs.items()
        }


def test_no_job_is_lost_and_only_the_worker_that_has_it_changes_it(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "url", own_database_url)
    run_state_machine_as_test(
        Jobs,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate,),
        ),
    )
