"""The guard of an application: it checks API keys and rate limits before a handler runs."""

import math
from collections.abc import Callable
from time import perf_counter
from typing import Literal, NamedTuple

from starlette.types import Scope

from service.cache.writer import Writer
from service.db.database import Database
from service.errors import Forbidden, Problem, TooMany, Unauthorized
from service.http1.framing import READS_BODY
from service.limits.address import Addresses
from service.limits.limiter import Limiter
from service.limits.policy import Policy, Verdict
from service.metrics import Metrics
from service.settings import Settings
from service.settings.proxies import parse_proxies
from service.timing import timing
from service.web.api_keys import CHALLENGE, ApiKeys, key_in, no_key, only_key
from service.web.codec import Header
from service.web.local_request import is_local, is_on_loopback
from service.web.principal import Access, Principal, Private
from service.web.principal_cache import Admitted, PrincipalCache
from service.web.request import PRINCIPAL, VIEWER, Request

# In a scope: the guard has decided. The value is the Verdict of the rate limit, None without one.
ADMITTED = "swiftlet.admitted"
NO_KEYS = (
    "this application knows no API keys, so only requests on a loopback address are answered:"
    " set SERVICE_AUTH=off to answer all, or give create_app(auth=...)"
)
# Which requests need no key: all, those from and to a loopback address, or none.
Exempt = Literal["all", "loopback", "none"]


class Rule:
    """What an operation needs. Two rules are never equal, so one is found fast in a dictionary.

    Args:
        needs: of a key.
        private: whether its response depends on the principal; a function of the request's scope if
            that depends on the query.
        method: its method; with the path, it names the rate limit.
        path: its path; empty if it is not in the route table.
        local: whether a program on this machine needs no key, see local_request.is_local.
    """

    __slots__ = ("local", "method", "needs", "path", "private")

    def __init__(
        self,
        needs: Access,
        *,
        method: str,
        path: str = "",
        private: Private = False,
        local: bool = False,
    ) -> None:
        self.needs = needs
        self.private = private
        self.method = method
        self.path = path
        self.local = local


def peer(scope: Scope) -> str:
    """Return the address of the client, or of a proxy in front of us."""
    client = scope.get("client")
    return client[0] if client else ""


class Admission(NamedTuple):
    """An admitted request: its principal, its request.VIEWER or "", the verdict of its limit."""

    principal: Principal | None
    viewer: str
    verdict: Verdict | None

    @property
    def lines(self) -> bytes:
        """The headers of the rate limit as lines of HTTP/1.1."""
        return b"" if self.verdict is None else self.verdict.lines

    def mark(self, scope: Scope) -> None:
        """Set it in a scope."""
        if self.principal is not None:
            scope[PRINCIPAL] = self.principal
        if self.viewer:
            scope[VIEWER] = self.viewer
        scope[ADMITTED] = self.verdict


class Guard:
    """Admits requests, or raises what refuses them.

    Args:
        principals: the principals of API keys; None without keys.
        limiter: the rate limits; None without limits.
        exempt: which requests need no key.
        address: the function that returns the client's address.
        metrics: counts the decisions of rate limits; None to count nothing.
    """

    def __init__(
        self,
        principals: PrincipalCache | None,
        limiter: Limiter | None = None,
        exempt: Exempt = "none",
        address: Callable[[Scope], str] = peer,
        metrics: Metrics | None = None,
    ) -> None:
        self.principals = principals
        self.limiter = limiter
        self.exempt = exempt
        self.address = address
        self.metrics = metrics
        self._policies: dict[Rule, Policy | None] = {}

    def admit_at_once(self, scope: Scope, rule: Rule, now: float, key: Header | None) -> bool:
        """Admit a request without waiting; False if only `admit` can decide.

        Args:
            scope: gets the principal, the viewer and the verdict of the limit.
            rule: what the operation needs.
            now: perf_counter().
            key: the only header with a key, see api_keys.only_key.
        """
        admission = self.decide(lambda: scope, rule, now, key)
        if admission is None:
            return False
        admission.mark(scope)
        return True

    def decide(
        self, scope: Callable[[], Scope], rule: Rule, now: float, key: Header | None
    ) -> "Admission | None":
        """As admit_at_once, but return what a scope would get; `scope` makes it if needed."""
        found: Admitted | None = None
        if rule.needs != "open" and (self.exempt == "none" or self._needs_key(scope(), rule)):
            if self.principals is None or key is None:
                return None
            authorization = key[1] if key[0] == b"authorization" else b"Bearer " + key[1]
            found = self.principals.find(authorization, now)
            if found is None or rule.needs not in found.grants:
                return None
        verdict: Verdict | None = None
        if self.limiter is not None:
            policy = self._policies.get(rule) or self._policy(self.limiter, rule)
            if policy is not None:
                identity = self.address(scope()) if found is None else found.identity
                verdict = self.limiter.take(policy, identity)
                if verdict is None or not verdict.allowed:
                    return None
                if self.metrics is not None:
                    leases = self.limiter.leases
                    self.metrics.decision(policy.name, True, leases is not None and leases.up)
        if found is None:
            return Admission(None, "", verdict)
        private = rule.private and (rule.private is True or rule.private(scope()))
        return Admission(found.principal, found.viewer if private else "", verdict)

    async def admit(self, scope: Scope, rule: Rule) -> None:
        """Admit a request.

        Raises:
            Malformed: there is more than one key.
            Unauthorized: there is no key, or it is not valid.
            Forbidden: the key lacks the scope.
            TooMany: the rate limit is exhausted, or too many keys of this address were not valid.
            Problem: 503 or 504, the database is not available.
        """
        found: Admitted | None = None
        if rule.needs != "open" and self._needs_key(scope, rule):
            found = await self._authenticate(scope)
        if self.limiter is not None and (policy := self._policy(self.limiter, rule)) is not None:
            identity = self.address(scope) if found is None else found.identity
            verdict = self.limiter.take(policy, identity)
            if verdict is None:
                asked, spent = perf_counter(), timing.get()
                verdict = await self.limiter.ask(policy, identity)
                if spent is not None:
                    answered = perf_counter()
                    spent.cache += answered - asked
                    if spent.span is not None:
                        spent.span.child("look-up of the rate limit", asked, answered)
            scope[ADMITTED] = verdict
            if self.metrics is not None:
                leases = self.limiter.leases
                shared = leases is not None and leases.up
                self.metrics.decision(policy.name, verdict.allowed, shared)
            if not verdict.allowed:
                detail = f"too many requests: try again in {verdict.reset} s"
                raise TooMany(detail, retry_after=verdict.reset)
        if found is not None:
            if rule.needs not in found.grants:
                raise _forbidden(rule.needs)
            scope[PRINCIPAL] = found.principal
            if rule.private and (rule.private is True or rule.private(scope)):
                scope[VIEWER] = found.viewer

    async def check_again(self, scope: Scope, needs: Access) -> float:
        """Check the key of an admitted request again, for a response that takes long.

        Returns:
            Until when it is valid, by perf_counter().

        Raises:
            Unauthorized: it is not valid any more.
            Forbidden: it may not do this any more, or is limited to other rows than before.
            Problem: 503 or 504, the database is not available.
        """
        principal = scope.get(PRINCIPAL)
        if principal is None:
            return math.inf
        found = await self._authenticate(scope)
        if needs not in found.grants or found.principal.owner != principal.owner:
            raise _forbidden(needs)
        return found.valid_until

    def _policy(self, limiter: Limiter, rule: Rule) -> Policy | None:
        found = self._policies[rule] = limiter.policies.of(rule.method, rule.path)
        return found

    async def _authenticate(self, scope: Scope) -> Admitted:
        if self.principals is None:
            raise Unauthorized(NO_KEYS, headers=(CHALLENGE,))
        key = key_in(scope["headers"])
        if key is None:
            raise no_key()
        return await self.principals.authenticate(key, self.address(scope))

    def _needs_key(self, scope: Scope, rule: Rule) -> bool:
        if self.exempt == "all":
            return False
        if rule.local:
            return not is_local(scope)
        return self.exempt == "none" or not is_on_loopback(scope)


def guard_of(
    settings: Settings,
    keys: ApiKeys | None,
    db: Database,
    writer: Writer,
    limiter: Limiter | None,
    metrics: Metrics | None,
) -> Guard | None:
    """Return the guard that the settings demand; None if nothing is checked."""
    exempt: Exempt = "none"
    if settings.auth == "off":
        exempt = "all"
    elif not settings.authenticated:  # another server may listen on another address
        exempt = "loopback"
    if exempt == "all" and limiter is None:
        return None
    principals = None if keys is None or exempt == "all" else PrincipalCache(keys, db, writer)
    addresses = Addresses(parse_proxies(settings.trusted_proxies))
    return Guard(principals, limiter, exempt, addresses.identity, metrics)


def limit_headers(scope: Scope) -> tuple[Header, ...]:
    """Return the headers of the rate limit, for any response to the request."""
    verdict: Verdict | None = scope.get(ADMITTED)
    return () if verdict is None else verdict.headers


def _forbidden(needs: Access) -> Forbidden:
    challenge = b'Bearer error="insufficient_scope", scope="%b"' % needs.encode()
    whose = " of an admin" if needs == "admin" else ""
    return Forbidden(
        f"this needs an API key{whose} with the scope {needs}",
        headers=((b"www-authenticate", challenge),),
    )


async def admit(guard: Guard, rule: Rule, request: Request, started: float) -> None:
    """Let the guard check a request, before anything of its query or body is read.

    Args:
        guard: the guard of the application.
        rule: what the operation needs.
        request: the request.
        started: perf_counter() at its start.

    Raises:
        Problem: the guard refuses it.
    """
    scope = request.scope
    key = only_key(scope["headers"])
    if ADMITTED in scope or guard.admit_at_once(scope, rule, started, key):
        return
    try:
        await guard.admit(scope, rule)
    except Problem:
        if scope.get("method") in READS_BODY:  # many clients read the response after their body
            await request.drain(more=request.header(b"expect") is None)
        raise
