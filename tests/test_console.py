"""The console in a real browser, on a server with authentication."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from accounts import Account, account
from browser import Browser, Page, needs_chromium, open_browser
from conftest import EMPTY_TABLES, ROOT, SERVER, Service, query

from service.web import pages

SCRIPTS = sorted((pages.FOLDER / "console").glob("*.js"))


def test_the_page_is_open_and_has_no_data(client: httpx.Client) -> None:
    answer = client.get("/console")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-cache"
    assert client.get("/console", headers={"if-none-match": "*"}).status_code == 304
    for script in SCRIPTS:
        assert client.get(f"/docs/console/{script.name}").text == script.read_text()
    assert client.get("/docs/console/nothing.js").status_code == 404


class Console(NamedTuple):
    """A server with authentication, and the account of an admin."""

    service: Service
    admin: Account
    url: str
    http: httpx.Client


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as running:
        yield running


def serve(log: Path, database_url: str, *options: str) -> Service:
    return Service(
        log,
        *("--server", SERVER, *options),
        DATABASE_URL=database_url,
        REDIS_URL="off",
        SERVICE_AUTH="on",
        SERVICE_LOG="json",
    )


@pytest.fixture(scope="module")
def console(own_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    service = serve(tmp_path_factory.mktemp("console") / "service.log", own_database_url)
    try:
        service.wait_until_ready()
        query(own_database_url, EMPTY_TABLES)
        admin = account(own_database_url, "admin", ["read", "write", "admin"])
        with httpx.Client(base_url=service.url, headers=admin.headers) as http:
            yield Console(service, admin, own_database_url, http)
        assert service.stop() == 0
        assert "Traceback" not in service.log.read_text(), service.log.read_text()
    finally:
        service.process.kill()
        service.process.wait()


@pytest.fixture
def page(browser: Browser, console: Console) -> Iterator[Page]:
    """A tab whose user has entered the key of the admin; the items are empty."""
    query(console.url, "DELETE FROM items")
    one = browser.page()
    one.look(1280, 900)
    key = json.dumps(console.admin.key)
    one.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source=f"if (location.protocol !== 'about:') sessionStorage.setItem('swiftlet.key', {key})",
    )
    yield one
    assert one.problems == []
    assert [
        url for url in one.requests if not url.startswith((console.service.url, "blob:", "data:"))
    ] == []


def slow(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that needs a browser."""
    marked: Callable[..., None] = needs_chromium(pytest.mark.slow(test))
    return marked


def show(page: Page, console: Console, view: str = "items") -> None:
    page.open(f"{console.service.url}/console#/{view}")
    page.wait("(document.querySelector('.summary')?.textContent ?? 'Loading…') !== 'Loading…'")


def add(console: Console, **fields: Any) -> dict[str, Any]:
    answer = console.http.post("/items", json=fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def item(console: Console, number: int) -> dict[str, Any]:
    found: dict[str, Any] = console.http.get(f"/items/{number}").json()
    return found


def shown(page: Page) -> list[str]:
    """Return the names in the table."""
    found: list[str] = page.run(
        "[...document.querySelectorAll('.rows td[data-label=name]')].map((it) => it.innerText)"
    )
    return found


def wait_for_rows(page: Page, *names: str) -> None:
    page.wait(
        "JSON.stringify([...document.querySelectorAll('.rows td[data-label=name]')]"
        f".map((it) => it.innerText)) === JSON.stringify({json.dumps(names)})"
    )


@slow
def test_a_key_is_asked_for_and_said_to_be_wrong(browser: Browser, console: Console) -> None:
    add(console, name="Widget")
    page = browser.page()
    page.open(f"{console.service.url}/console#/items")
    assert "needs an API key" in page.text(".notice.bad:not([hidden])")
    page.click("#key")
    page.fill("#key-field", "svc_live_wrong")
    page.press("Enter")
    page.wait("document.querySelector('.notice.bad').innerText.includes('refuses this key')")
    page.click("#key")
    page.fill("#key-field", console.admin.key)
    page.press("Enter")
    wait_for_rows(page, "Widget")
    # The key is in the tab's storage only if the user has ticked that.
    assert page.run("Object.keys(sessionStorage).length + Object.keys(localStorage).length") == 0
    page.click("#key")
    page.click("#key-remember")
    page.click("dialog [type=submit]")
    page.wait("sessionStorage.length === 1")
    page.call("Page.reload")
    wait_for_rows(page, "Widget")
    assert page.problems == []


@slow
def test_a_row_is_created_by_keyboard_and_errors_are_at_their_fields(
    page: Page, console: Console
) -> None:
    add(console, name="Lamp", sku="L1")
    show(page, console)
    page.press("n")
    page.wait("document.activeElement?.name === 'sku'")
    page.type("L1")
    page.press("Tab")
    page.type("Second lamp")
    page.press("Tab")
    page.press("Tab")
    page.type("-1")
    page.press("Enter")
    page.wait("document.querySelector('[aria-invalid]')")
    assert page.run("document.activeElement.name") == "price"
    assert ">= 0" in page.text(".field.number .error")
    page.fill("dialog [name=price]", "19.9900")
    page.press("Enter")
    page.wait("document.activeElement?.name === 'sku'")  # 409
    assert "taken" in page.text("dialog .field.text .error")
    page.fill("dialog [name=sku]", "L2")
    page.press("Enter")
    wait_for_rows(page, "Lamp", "Second lamp")
    assert "Created Item" in page.text("#status")
    (created,) = console.http.get("/items", params={"q": "second"}).json()["items"]
    assert (created["sku"], created["price"]) == ("L2", 19.99)


@slow
def test_escape_closes_a_changed_form_at_the_second_time(page: Page, console: Console) -> None:
    add(console, name="Lamp")
    show(page, console)
    page.focus(".rows td button")
    page.press("Enter")
    page.wait("document.activeElement?.closest('dialog')")
    page.type("L9")
    page.press("Escape")
    assert "not saved" in page.text("dialog .error:not([hidden])")
    page.press("Escape")
    page.wait("!document.querySelector('dialog')")
    # The focus is where it was, and nothing is saved.
    assert page.run("document.activeElement.textContent") == "Edit"
    assert page.run("document.querySelector('td[data-label=version]').innerText") == "1"


@slow
def test_a_conflict_is_shown_and_solved_field_by_field(page: Page, console: Console) -> None:
    row = add(console, name="Widget", price=10, description="First")
    show(page, console)
    path = f"/items/{row['id']}"
    page.click(".rows td button")
    page.fill("dialog [name=name]", "My widget")
    page.fill("dialog [name=description]", "Mine")
    theirs = {"price": 12.5, "description": "Theirs"}
    assert console.http.patch(path, json=theirs).status_code == 200
    page.click("dialog [type=submit]")
    page.wait("document.querySelector('dialog.conflict')")
    table = page.text("dialog.conflict table")
    for told in ("My widget", "Mine", "Theirs", "12.5", "both changed"):
        assert told in table
    page.click("dialog.conflict input[name=choose-description][value=theirs]")
    page.click("dialog.conflict [type=submit]")
    wait_for_rows(page, "My widget")
    found = console.http.get(path).json()
    assert (found["name"], found["description"], found["price"]) == ("My widget", "Theirs", 12.5)
    assert found["version"] == 3


@slow
def test_a_conflict_is_solved_for_one_side(page: Page, console: Console) -> None:
    row = add(console, name="Widget")
    show(page, console)
    path = f"/items/{row['id']}"
    for button, expected, version in (("All theirs", "Theirs", 2), ("All yours", "Mine", 4)):
        page.click(".rows td button")
        page.fill("dialog [name=name]", "Mine")
        theirs = console.http.patch(path, json={"name": "Theirs" if version == 2 else "Others"})
        assert theirs.status_code == 200
        page.click("dialog [type=submit]")
        page.wait("document.querySelector('dialog.conflict')")
        page.run(
            "[...document.querySelectorAll('dialog.conflict button')]"
            f".find((it) => it.textContent === '{button}').click()"
        )
        page.click("dialog.conflict [type=submit]")
        wait_for_rows(page, expected)
        found = console.http.get(path).json()
        assert (found["name"], found["version"]) == (expected, version)


@slow
def test_rows_are_searched_sorted_paged_deleted_and_restored(page: Page, console: Console) -> None:
    for number in range(12):
        add(console, name=f"Part {number:02}", price=100 - number)
    lamp = add(console, name="Lamp")
    show(page, console, "items?per_page=10")
    assert page.text(".summary") == "1 to 10 of 13 rows"
    page.click("[aria-label='Next page']")
    wait_for_rows(page, "Part 10", "Part 11", "Lamp")
    page.press("/")
    page.type("part")
    page.wait("document.querySelector('.summary').innerText === '1 to 10 of 12 rows'")
    page.click("th[data-name=price] button")
    page.wait("document.querySelector('th[data-name=price]').ariaSort === 'ascending'")
    page.wait("document.querySelector('.rows td[data-label=name]').innerText === 'Part 11'")
    assert "q=part" in page.run("location.hash")
    page.fill("#filter-q", "lamp")
    wait_for_rows(page, "Lamp")
    page.click(f"[aria-label='Delete Item {lamp['id']}']")
    page.wait("document.querySelector('tr.inactive')")
    assert item(console, lamp["id"])["is_active"] is False
    page.click(f"[aria-label='Restore Item {lamp['id']}']")
    page.wait("document.querySelector('.rows tr:not(.inactive) td')")
    page.wait("document.querySelector('td[data-label=version]').innerText === '3'")
    page.click(f"[aria-label='Edit Item {lamp['id']}']")
    page.click("dialog .danger")
    page.click("dialog:last-of-type .danger")
    page.wait("document.querySelector('.summary').innerText.startsWith('No row')")
    assert console.http.get(f"/items/{lamp['id']}").status_code == 404


@slow
def test_a_file_is_imported_and_exported(page: Page, console: Console, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("sku,name,price\nA1,Anvil,5\nA2,,6\nA3,Axe,7\n")
    show(page, console)
    page.click("#import")
    page.choose_file("#import-file", file)
    page.click("dialog [type=submit]")
    page.wait("document.querySelector('dialog .result td')")
    assert (
        page.run("[...document.querySelectorAll('dialog .result td')].map((it) => it.innerText)")[0]
        == "3"
    )
    assert "Nothing is written" in page.text("dialog [role=status]")
    page.run("document.querySelector('#import-errors').value = 'skip'")
    page.click("dialog [type=submit]")
    page.wait("document.querySelector('dialog .facts')")
    counts = "created 2 updated 0 unchanged 0 failed 1"
    assert page.text("dialog .facts").split() == counts.split(" ")
    page.press("Escape")
    wait_for_rows(page, "Anvil", "Axe")
    page.fill("#filter-q", "axe")
    wait_for_rows(page, "Axe")
    page.download_to(tmp_path)
    page.click("#export")
    assert "axe" in page.text("dialog")
    page.click("dialog [type=submit]")
    page.wait("!document.querySelector('dialog')")
    expected = console.http.get("/items/export", params={"format": "csv", "q": "axe"}).text
    saved = tmp_path / "items.csv"
    assert "Exported" in page.text("#status")
    found = sorted(tmp_path.glob("items*.csv"))
    assert any(one.read_text() == expected.replace("\r\n", "\n") for one in found), (
        saved.read_text()
    )


@slow
def test_live_figures_are_those_of_the_requests(page: Page, console: Console) -> None:
    row = add(console, name="Widget")
    page.open(f"{console.service.url}/console")
    page.wait("document.querySelector('[data-state=ok]') && document.querySelector('.plot path')")
    for number in range(20):
        console.http.get(f"/items/{row['id'] + number}", headers={"Cache-Control": "no-cache"})
    page.wait("document.querySelector('main').innerText.includes('GET /items/{id}')")
    routes = page.text("[aria-labelledby=routes] table")
    assert "Errors/s" in routes
    assert "/health" not in routes  # what the page itself asks for does not count
    statements = page.text("[aria-labelledby=statements]")
    assert "items" in statements
    for title in ("Requests per second", "Latency", "Requests per batch", "Jobs"):
        assert page.text(f"[aria-label='{title}'] .figure") not in ("", "-")
    # The plan of a statement is one click away.
    page.click("[aria-labelledby=slow] button")
    assert "Scan" in page.text("dialog pre") or "Insert" in page.text("dialog pre")


@slow
def test_the_modules_read_metrics_numbers_and_documents(page: Page, console: Console) -> None:
    page.open(f"{console.service.url}/console")
    run = f"import('{console.service.url}/docs/console/%s.js').then((it) => %s)"
    text = (
        "# TYPE a counter\\n"
        'a_total{name="x\\\\"y\\\\\\\\",b="1"} 3 1700000000\\n'
        'a_total{name="z"} 4\\n'
        'h_bucket{le="1"} 10\\nh_bucket{le="2"} 30\\nh_bucket{le="+Inf"} 40\\n'
        "h_sum 70\\nh_count 40\\n"
    )
    assert page.run(run % ("metrics", f"it.sum(it.parse('{text}'), 'a_total')")) == 7
    labels = page.run(run % ("metrics", f"it.parse('{text}').get('a_total')[0].labels"))
    assert labels == {"name": 'x"y\\', "b": "1"}
    histogram = f"it.histogram(new Map(), it.parse('{text}'), 'h')"
    quantiles = page.run(
        run % ("metrics", f"[0.25, 0.5, 1].map((p) => it.quantile({histogram}, p))")
    )
    assert quantiles == [1, 1.5, 2]
    refusals = "[429, 403, 503].map((it) => new api.Refused(it, {detail: 'why'}, 3))"
    said = page.run(run % ("api", f"((api) => {refusals}.map(api.words))(it)"))
    assert said == [
        "Too many requests. Try again in 3 seconds.",
        "This key may not do that: why.",
        "The service can't answer now: why. Try again in 3 seconds.",
    ]
    missing = (
        "[it.histogram(new Map(), new Map(), 'h'), it.sum(new Map(), 'h'), it.quantile(null, 1)]"
    )
    assert page.run(run % ("metrics", missing)) == [None] * 3
    assert (
        page.run(run % ("words", "[it.number(null), it.duration(null), it.bytes(null)]"))
        == ["-"] * 3
    )
    kept = page.run(
        run % ("json", 'it.stringify(it.parse(\'{"id": 9007199254740993, "p": 29.99}\'))')
    )
    assert kept == '{"id":9007199254740993,"p":29.99}'
    # As in the form of a field that is an object, and in a cell.
    nested = page.run(run % ("json", "JSON.stringify({a: it.parse('[9007199254740993, 1.10]')})"))
    assert nested == '{"a":[9007199254740993,1.10]}'


@slow
def test_resources_of_another_application_have_their_tables(page: Page, console: Console) -> None:
    sys.path.insert(0, str(ROOT / "examples" / "notes"))
    from notes import app as notes

    from service.web.openapi import document

    described = json.dumps(document(notes.operations, notes.about, "", notes.checks))
    page.open(f"{console.service.url}/console")
    found = page.run(
        f"import('{console.service.url}/docs/console/resources.js')"
        f".then((it) => it.resources({described}))"
    )
    assert [one["name"] for one in found] == ["users", "notes"]
    columns = [one["name"] for one in found[0]["columns"]]
    assert columns == ["id", "email", "username", "full_name", "role", "is_active"]
    fields = {
        one["name"]: (one["kind"], one["nullable"], one["required"])
        for one in found[1]["newFields"]
    }
    assert fields == {
        "slug": ("text", True, False),
        "title": ("text", False, True),
        "body": ("long", True, False),
        "owner_id": ("integer", True, False),
        "pinned": ("boolean", False, False),
    }
    assert [one["name"] for one in found[1]["filters"]] == ["owner_id", "pinned", "q"]
    assert found[1]["can"]["import"] is True
    assert found[1]["can"]["softDelete"] is False


@slow
def test_pages_fit_a_phone_and_a_desktop_in_light_and_dark(page: Page, console: Console) -> None:
    row = add(console, name="A name of many words " * 8, sku="W" * 64, description="text " * 60)
    for view in ("", "items", "users"):
        page.open(f"{console.service.url}/console#/{view}")
        page.wait("document.querySelector('main h1')")
        for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
            page.look(width, 900, dark=dark)
            assert not page.too_wide(), f"{view} at {width}"
    page.look(390, 844)
    show(page, console)
    for button in (f"[aria-label='Edit Item {row['id']}']", "#import", "#export", "#new", "#key"):
        page.click(button)
        page.wait("document.querySelector('dialog')")
        assert not page.too_wide()
        box = page.run("document.querySelector('dialog').getBoundingClientRect().toJSON()")
        assert box["left"] >= 0
        assert box["right"] <= 390
        sides = "((it) => it.scrollWidth - it.clientWidth)(document.querySelector('dialog'))"
        assert page.run(sides) == 0, button
        page.press("Escape")
        page.wait("!document.querySelector('dialog')")


@slow
def test_the_page_says_that_the_service_is_away_and_recovers(
    page: Page, console: Console, tmp_path: Path
) -> None:
    """The last test: its server replaces that of the others."""
    show(page, console)
    assert console.service.stop() == 0
    page.wait("!document.querySelector('#banner').hidden")
    assert "has not answered since" in page.text("#banner")
    again = serve(tmp_path / "again.log", console.url, "--port", str(console.service.port))
    try:
        page.wait("document.querySelector('#banner').hidden")
        page.wait("document.querySelector('.summary').innerText.includes('no rows')")
    finally:
        again.stop()
