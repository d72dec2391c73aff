"""Rate limits: policies, addresses, the window of one process, and the leases over Redis."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.limits.address import Addresses
from service.limits.limiter import Limiter
from service.limits.policy import Policies, Policy, parse, prefix
from service.limits.window import EXACT, MAX_IDENTITIES, SECOND, SLICES, LocalBook
from service.settings import Settings, SettingsError
from service.settings.proxies import ProxiesError, parse_proxies

US = 1000  # nanoseconds


class Time:
    """A clock that a test moves, in nanoseconds."""

    def __init__(self) -> None:
        self.now = 1_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


# --- policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit", "window"),
    (
        ("100/60s", 100, 60),
        ("10/s", 10, 1),
        ("5/m", 5, 60),
        ("1000/h", 1000, 3600),
        ("7/2d", 7, 172_800),
        ("999999999/99999s", 999_999_999, 99_999),
    ),
)
def test_a_limit_is_a_number_of_requests_in_a_time(text: str, limit: int, window: int) -> None:
    assert parse("default", text) == Policy("default", limit, window)
    assert Settings.load({"SERVICE_RATE_LIMIT": text}).rate_limit == text


@pytest.mark.parametrize(
    "text",
    ("", "10", "10/", "/s", "0/s", "10/0s", "-1/s", "1.5/s", "10/ss", "10 / s", "10/s ", "on",
     "1e3/s", "10/60", "10/S", "1000000000/s", "1/100000s", "1/100d", "010/s",
     "10/s\n", "\u0661/s"),
)  # fmt: skip
def test_a_wrong_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 100/60s, 10/s, 5/m, 1000/h or off"):
        parse("default", text)
    if not text:  # an empty variable counts as not set
        return
    for name in ("SERVICE_RATE_LIMIT", "SERVICE_RATE_LIMIT_WRITES"):
        with pytest.raises(SettingsError) as error:
            Settings.load({name: text})
        assert str(error.value) == f"{name}={text!r}: must be 100/60s, 10/s, 5/m, 1000/h or off"


def test_each_request_counts_under_one_policy() -> None:
    policies = Policies(
        "100/60s", "10/s", [("POST", "/a", "5/m"), ("GET", "/b/{id}", "2/h"), ("GET", "/c", "off")]
    )
    default, writes = Policy("default", 100, 60), Policy("writes", 10, 1)
    own = Policy("GET /b/{id}", 2, 3600)
    assert policies.all == (default, writes, Policy("POST /a", 5, 60), own)
    for method in ("GET", "HEAD", "OPTIONS"):
        assert policies.of(method, "/a") is policies.default
        assert policies.default == default
    for method in ("POST", "PUT", "PATCH", "DELETE", "BREW"):
        assert policies.of(method, "/b/{id}") == writes
    assert policies.of("POST", "/a") == Policy("POST /a", 5, 60)
    assert policies.of("GET", "/b/{id}") == policies.of("HEAD", "/b/{id}") == own
    assert policies.of("GET", "/c") is policies.of("HEAD", "/c") is None


def test_writes_count_with_the_reads_unless_they_have_a_limit() -> None:
    assert Policies("9/s").of("POST") == Policies("9/s").of("GET") == Policy("default", 9, 1)
    assert Policies("off", "9/s").of("GET") is None
    assert Policies("off", "9/s").of("PUT") == Policy("writes", 9, 1)
    assert Policies().all == ()


def test_a_wrong_limit_of_an_operation_names_the_operation() -> None:
    with pytest.raises(ValueError, match=r"the limit of POST /a: '5 per minute' is no rate limit"):
        Policies(declared=[("POST", "/a", "5 per minute")])


def test_the_headers_have_the_form_of_the_draft() -> None:
    verdict = LocalBook(Policy("default", 100, 60), clock=Time()).take("a")
    assert verdict.headers == (
        (b"ratelimit-policy", b'"default";q=100;w=60'),
        (b"ratelimit", b'"default";r=99;t=60'),
    )
    assert verdict.lines == (
        b'ratelimit-policy: "default";q=100;w=60\r\nratelimit: "default";r=99;t=60\r\n'
    )
    odd = Policy('GET /a"b\\', 1, 1)
    assert odd.header == rb'"GET /a\"b\\";q=1;w=1'
    assert prefix(odd).endswith(odd.quoted)
    assert Policy("GET /\u00e9", 1, 1).quoted == b'"GET /?"'


# --- addresses -----------------------------------------------------------------------------------

# trusted proxies, peer, headers, identity
ADDRESSES: tuple[tuple[str, str | None, list[tuple[str, str]], str], ...] = (
    # The peer, without any proxy: its headers are not believed.
    ("", "192.0.2.1", [], "192.0.2.1"),
    ("", "192.0.2.1", [("x-forwarded-for", "198.51.100.7")], "192.0.2.1"),
    ("", "192.0.2.1", [("forwarded", "for=198.51.100.7")], "192.0.2.1"),
    ("", "::ffff:192.0.2.1", [], "192.0.2.1"),
    ("", "2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
    ("", "2001:db8:1:2::ffff", [], "2001:db8:1:2::/64"),
    ("", "2001:db8:1:3::", [], "2001:db8:1:3::/64"),
    ("", "fe80::1%eth0", [], "fe80::/64"),
    ("", "", [], "unix"),
    ("", None, [("x-forwarded-for", "198.51.100.7")], "unix"),
    # A peer that is not in the list.
    ("10.0.0.0/8", "192.0.2.1", [("x-forwarded-for", "198.51.100.7")], "192.0.2.1"),
    ("10.0.0.0/8", None, [("x-forwarded-for", "198.51.100.7")], "unix"),
    ("unix", "192.0.2.1", [("x-forwarded-for", "198.51.100.7")], "192.0.2.1"),
    # One proxy: what it has added, at the right.
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "198.51.100.7")], "198.51.100.7"),
    ("10.0.0.1", "10.0.0.1", [("x-forwarded-for", "1.1.1.1, 198.51.100.7")], "198.51.100.7"),
    ("10.0.0.1", "10.0.0.1", [("x-forwarded-for", "unknown ,198.51.100.7 ")], "198.51.100.7"),
    ("10.0.0.0/8", "::ffff:10.0.0.1", [("x-forwarded-for", "198.51.100.7")], "198.51.100.7"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "::ffff:198.51.100.7")], "198.51.100.7"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "2001:db8::7")], "2001:db8::/64"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "198.51.100.7:1234")], "198.51.100.7"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "[2001:db8::7]:1234")], "2001:db8::/64"),
    ("2001:db8::/32", "2001:db8::1", [("x-forwarded-for", "198.51.100.7")], "198.51.100.7"),
    ("unix", None, [("x-forwarded-for", "198.51.100.7")], "198.51.100.7"),
    ("unix", "", [("forwarded", "for=198.51.100.7")], "198.51.100.7"),
    ("10.0.0.1", "10.0.0.1", [], "10.0.0.1"),
    # Several proxies, and several lines, which are one list.
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "198.51.100.7, 10.0.0.2")], "198.51.100.7"),
    (
        "10.0.0.0/8,203.0.113.0/24",
        "10.0.0.1",
        [("x-forwarded-for", "1.1.1.1, 198.51.100.7"), ("x-forwarded-for", "203.0.113.9")],
        "198.51.100.7",
    ),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
    # A malformed entry ends the list.
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "198.51.100.7, unknown")], "10.0.0.1"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "1.1.1.1, x, 10.0.0.2")], "10.0.0.2"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "")], "10.0.0.1"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "198.51.100.7,")], "10.0.0.1"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "198.51.100.007")], "10.0.0.1"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "198.51.100.7:999999")], "10.0.0.1"),
    ("10.0.0.0/8", "10.0.0.1", [("x-forwarded-for", "1\u00b2.0.0.1")], "10.0.0.1"),
    # Forwarded (RFC 7239).
    ("10.0.0.1", "10.0.0.1", [("forwarded", "For=198.51.100.7;proto=https")], "198.51.100.7"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", "by=10.0.0.1; for=198.51.100.7")], "198.51.100.7"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", 'for="198.51.100.7:80"')], "198.51.100.7"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", 'for="[2001:db8::7]"')], "2001:db8::/64"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", 'for="[2001:db8::7]:80"')], "2001:db8::/64"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", "for=1.1.1.1, for=198.51.100.7")], "198.51.100.7"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", 'for="x, for=198.51.100.7')], "198.51.100.7"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", "for=198.51.100.7, for=_hidden")], "10.0.0.1"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", "for=198.51.100.7, for=unknown")], "10.0.0.1"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", "for=198.51.100.7, proto=https")], "10.0.0.1"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", "for=1.1.1.1;for=198.51.100.7")], "10.0.0.1"),
    ("10.0.0.1", "10.0.0.1", [("forwarded", "198.51.100.7")], "10.0.0.1"),
    # Both headers: the client may have written one of them.
    (
        "10.0.0.1",
        "10.0.0.1",
        [("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "1.1.1.1, 198.51.100.7")],
        "198.51.100.7",
    ),
    (
        "10.0.0.1",
        "10.0.0.1",
        [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "198.51.100.7")],
        "10.0.0.1",
    ),
)


@pytest.mark.parametrize("case", ADDRESSES, ids=[f"case{place}" for place in range(len(ADDRESSES))])
def test_the_address_of_a_client(
    case: tuple[str, str | None, list[tuple[str, str]], str],
) -> None:
    trusted, peer, headers, identity = case
    scope = {
        "client": None if peer is None else (peer, 1234),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    addresses = Addresses(parse_proxies(trusted))
    assert [addresses.identity(scope) for _ in range(2)] == [identity] * 2


@given(st.lists(st.text('0123456789abcdef:.,;="[] for%_', max_size=40), max_size=3))
def test_no_header_breaks_the_search_for_the_address(values: list[str]) -> None:
    for name in (b"x-forwarded-for", b"forwarded"):
        scope = {"client": ("10.0.0.1", 1), "headers": [(name, one.encode()) for one in values]}
        assert Addresses(parse_proxies("10.0.0.1")).identity(scope)


@pytest.mark.parametrize(
    ("text", "message"),
    (
        ("*", r"\* would let every client choose its address: name the networks"),
        ("10.0.0.0/8, *", r"\* would let every client choose its address: name the networks"),
        ("10.0.0.1/8", r"'10.0.0.1/8' is no network: write 10.0.0.0/8, an address, or unix"),
        ("proxy.example", r"'proxy.example' is no network"),
    ),
)
def test_a_wrong_list_of_proxies_is_refused(text: str, message: str) -> None:
    with pytest.raises(ProxiesError, match=message):
        parse_proxies(text)
    with pytest.raises(SettingsError, match=f"SERVICE_TRUSTED_PROXIES=.*: {message}"):
        Settings.load({"SERVICE_TRUSTED_PROXIES": text})


def test_remembered_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.limits.address.REMEMBERED", 3)
    addresses = Addresses(parse_proxies(None))
    for place in range(10):
        assert addresses.identity({"client": (f"10.0.0.{place}", 1)}) == f"10.0.0.{place}"
        assert len(addresses._peers) <= 3


# --- the window of one process -------------------------------------------------------------------


def most_in_a_window(times: list[int], window: int) -> int:
    """Return the most of these times in any window."""
    most = first = 0
    for place, time in enumerate(times):
        while times[first] + window <= time:
            first += 1
        most = max(most, place - first + 1)
    return most


# Steps of time in hundredths of a window: a slice has two.
STEP = st.sampled_from((0, 0, 1, 1, 2, 3, 10, 30, 50, 96, 97, 98, 99, 100, 101, 102))


@given(
    st.sampled_from([1, 2, 7, EXACT, EXACT + 1, 150]),
    st.lists(st.tuples(STEP, st.sampled_from((1, 5, 60, 150))), max_size=30),
)
@example(150, [(0, 60), (1, 90), (99, 150)])
@settings(deadline=None)
def test_no_window_admits_more_than_its_limit(limit: int, steps: list[tuple[int, int]]) -> None:
    time = Time()
    book = LocalBook(Policy("default", limit, 10), clock=time)
    window, late = 10 * SECOND, book.width
    admitted: list[int] = []
    for step, requests in steps:
        time.now += step * window // 100
        for _ in range(requests):
            verdict = book.take("a")
            begun = [one for one in admitted if one + window + late > time.now]
            counted = [one for one in begun if one + window > time.now]
            if verdict.allowed:
                assert len(counted) < limit
                admitted.append(time.now)
                assert verdict.remaining <= limit - len(counted) - 1
            else:
                assert len(begun) >= limit, "it is refused only if the limit is used"
                assert verdict.remaining == 0
            if not late:
                assert verdict.allowed == (len(counted) < limit)
                first = (counted or [time.now])[0]
                assert verdict.reset == max(-(-(first + window - time.now) // SECOND), 1)
    assert most_in_a_window(admitted, window) <= limit


@pytest.mark.parametrize("limit", (1, EXACT, EXACT + 1, 1000))
def test_a_request_after_the_reset_passes_and_one_a_second_before_does_not(limit: int) -> None:
    time = Time()
    book = LocalBook(Policy("default", limit, 60), clock=time)
    chance = random.Random(1)
    refused = 0
    for _ in range(limit * 4):
        time.now += chance.randrange(60 * SECOND // limit)
        verdict = book.take("a")
        if verdict.allowed:
            continue
        refused += 1
        if verdict.reset > 1:
            time.now += (verdict.reset - 1) * SECOND
            assert not book.look("a").allowed
            time.now += SECOND
        else:
            time.now += SECOND
        assert book.take("a").allowed
    assert refused > 0


def test_slices_bound_the_memory_of_a_window() -> None:
    time = Time()
    book = LocalBook(Policy("default", 1_000_000, 60), clock=time)
    for _ in range(10_000):
        time.now += 60 * SECOND // 5000
        book.take("a")
    older = book.windows["a"].older
    assert older is not None
    assert len(older) <= 2 * (SLICES + 2)


def test_idle_identities_are_forgotten_in_small_steps() -> None:
    time = Time()
    book = LocalBook(Policy("default", 5, 10), clock=time)
    most = 0
    for place in range(5000):
        time.now += SECOND // 10
        assert book.take(f"10.0.{place // 256}.{place % 256}").allowed
        most = max(most, len(book.windows))
    assert most <= 210, "100 are active at a time"


def test_identities_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.limits.window.MAX_IDENTITIES", 100)
    book = LocalBook(Policy("default", 5, 10), clock=Time())
    for place in range(1000):
        assert book.take(str(place)).allowed
        assert len(book.windows) == len(book._queue) <= 100
    assert MAX_IDENTITIES == 100_000


def test_workers_without_redis_share_a_limit() -> None:
    time = Time()
    policies = Policies("10/s", "2/s")
    limiters = [Limiter(policies, workers=3, clock=time) for _ in range(3)]
    allowed = {"GET": 0, "POST": 0}
    for method in allowed:
        policy = policies.of(method)
        assert policy is not None
        for limiter in limiters:
            for _ in range(20):
                verdict = limiter.take(policy, "a")
                assert verdict is not None
                allowed[method] += verdict.allowed
    assert allowed == {"GET": 9, "POST": 3}
    assert limiters[0].local_decisions == 0
