"""`/docs` in a headless Chromium, on a server with SERVICE_AUTH=on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CTRL, PATIENCE, Browser, Page, needs_chromium, open_browser
from callers import World
from conftest import SERVER, Service

from service.asgi import app
from service.embedded.data_directory import Stores

pytestmark = [needs_chromium, pytest.mark.slow]
THEMES = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def world(own_database_url: str) -> Iterator[World]:
    made = World(own_database_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(
    world: World, own_database_url: str, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    one = Service(
        tmp_path_factory.mktemp("docs") / "log",
        "--server",
        SERVER,
        DATABASE_URL=own_database_url,
        REDIS_URL=stores.redis_url or "off",
        SERVICE_AUTH="on",
    )
    try:
        one.wait_until_ready()
        yield f"{one.url}/docs"
        assert one.stop() == 0
    finally:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as running:
        yield running


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page in a tab with a new profile; at the end, nothing has gone wrong."""
    tab = browser.page()
    tab.look(1280, 900)
    tab.open(url)
    yield tab
    assert tab.problems == [], "errors, or violations of the policy"
    host = url.removesuffix("/docs") + "/"
    assert [one for one in tab.requests if not one.startswith((host, "data:", "blob:"))] == []


def use_key(page: Page, key: str, *, remember: bool = False) -> None:
    page.click(".key > summary")
    page.wait("document.activeElement.id === 'the-key-value'")
    page.fill("#the-key-value", key)
    if remember:
        page.click("#the-key-kept")
    page.click("#the-key button.primary")
    page.wait("document.querySelector('#the-key-state').textContent === 'set'")


def send(page: Page, operation: str, **values: str) -> str:
    """Fill in the fields, send the request, and return the line with the status."""
    if not page.run(f"document.getElementById('{operation}').open"):
        page.click(f"#{operation} > summary")
    for name, value in values.items():
        page.fill(f'#{operation} [name="{name}"], #{operation} [data-in="{name}"]', value)
    page.run(f"document.querySelector('#{operation} .answer').replaceChildren()")
    page.click(f"#{operation} button.primary")
    page.wait(f"!document.querySelector('#{operation} button.primary').disabled")
    return page.text(f"#{operation} .answer .status")


def command(page: Page, operation: str) -> str:
    return page.text(f"#{operation} .request code")


def body(page: Page, operation: str) -> Any:
    return json.loads(page.text(f"#{operation} .answer pre"))


def save(page: Page, button: str, folder: Path) -> str:
    """Click a button that saves the answer, and return the content of the file."""
    before = {*folder.iterdir()}
    page.click(button)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for new in {*folder.iterdir()} - before:
            if new.suffix not in {".crdownload", ".tmp"} and (text := new.read_text()):
                return text
        time.sleep(0.02)
    raise AssertionError("nothing was saved")


def test_every_operation_is_shown(page: Page) -> None:
    found = page.run(
        "[...document.querySelectorAll('details.operation')].map(one => one.checkVisibility()"
        " && [one.querySelector('b').textContent, one.querySelector('code').textContent])"
    )
    assert sorted(map(tuple, found)) == sorted((one.method, one.path) for one in app.operations)


def test_a_request_is_sent_as_its_command_says(page: Page, world: World) -> None:
    assert send(page, "createItem").startswith("401 Unauthorized")
    assert "Enter a key" in page.text("#createItem .answer .status")
    assert body(page, "createItem")["detail"]
    key = world.callers["own"].key
    use_key(page, key)
    told = command(page, "createItem")
    assert '-H "Authorization: Bearer $API_KEY"' in told
    assert key not in page.run("document.documentElement.outerHTML"), "it stays out of sight"
    made = send(page, "createItem", body='{"name": "It\'s", "price": 12345678.1230}')
    assert made.startswith("201 Created")
    assert "-X POST" in command(page, "createItem")
    assert """--data-binary '{"name": "It'\\''s", "price": 12345678.1230}'""" in command(
        page, "createItem"
    )
    item = body(page, "createItem")
    assert (item["name"], item["price"]) == ("It's", 12345678.123)
    page.click("#createItem .answer summary")
    assert f"/items/{item['id']}" in page.text("#createItem .answer dl")
    read = send(page, "readItem", id=str(item["id"]), **{"If-None-Match": '"1"'})
    assert read.startswith("304")
    assert "The body is empty." in page.text("#readItem .answer")
    assert send(page, "readItem", id="x y").startswith("422")
    assert "/items/x%20y" in command(page, "readItem")


def test_a_list_is_asked_for_with_its_parameters(page: Page, world: World) -> None:
    use_key(page, world.callers["admin"].key)
    page.click("#listItems > summary")
    page.run("document.querySelector('#listItems [name=sort]').value = '-price'")
    page.click("#listItems [data-empty$=cursor]")
    assert send(page, "listItems", q="a&b,c", per_page="5").startswith("200 OK")
    assert "/items?per_page=5&cursor=&sort=-price&q=a%26b,c" in command(page, "listItems")
    assert body(page, "listItems") == {"items": [], "next_cursor": None}
    assert send(page, "listItems", per_page="x").startswith("422")
    assert body(page, "listItems")["errors"][0]["field"] == "per_page"


def test_a_body_that_is_not_json_is_marked_and_sent_all_the_same(page: Page, world: World) -> None:
    use_key(page, world.callers["own"].key)
    page.click("#createItem > summary")
    assert json.loads(page.text("#createItem .example pre"))["name"] == "Widget"
    assert send(page, "createItem", body='{"name": ').startswith("400")
    assert "not JSON" in page.text("#createItem .problem")
    assert page.run("document.querySelector('#createItem .example')") is None
    page.fill("#createItem [data-in=body]", "{}")
    page.wait("document.querySelector('#createItem .problem').hidden")
    page.press("Enter", CTRL)
    page.wait("document.querySelector('#createItem .status b').textContent.startsWith('422')")


def test_a_key_is_remembered_only_if_the_reader_wants_it(
    page: Page, world: World, url: str
) -> None:
    state = "document.querySelector('#the-key-state').textContent"
    key = world.callers["own"].key
    use_key(page, key)
    page.open(url)
    assert page.run(state) == "none"
    use_key(page, key, remember=True)
    assert page.run("JSON.stringify(localStorage)") == "{}"
    page.open(url)
    assert page.run(state) == "set"
    assert send(page, "listItems").startswith("200")
    page.click(".key > summary")
    page.click("#the-key-forget")
    page.open(url)
    assert page.run(state) == "none"


def test_files_go_in_and_out(page: Page, world: World, tmp_path: Path) -> None:
    use_key(page, world.callers["admin"].key)
    given = tmp_path / "the rows.csv"
    given.write_text("sku,name\nfile-1,Ä\nfile-2,B\n")
    page.click("#importItems > summary")
    page.run("document.querySelector('#importItems [data-in=type]').value = 'text/csv'")
    page.choose_file("#importItems [data-in=file]", given)
    assert send(page, "importItems").startswith("200")
    assert body(page, "importItems")["created"] == 2
    assert "--data-binary '@the rows.csv'" in command(page, "importItems")
    asked = "{method: 'POST', url: '/x', headers: [], body: '@name,sku'}"
    told = page.run(f"import('/docs/docs_request.js').then((it) => it.commandOf({asked}))")
    assert "--data-raw @name,sku" in told, "this text is no name of a file"
    page.download_to(tmp_path)
    assert send(page, "exportItems").startswith("200")
    saved = save(page, "#exportItems [data-save]", tmp_path)
    assert '"file-1"' in saved
    assert all(json.loads(line) for line in saved.splitlines())


def test_a_large_answer_is_cut_and_can_be_saved_whole(
    page: Page, world: World, tmp_path: Path
) -> None:
    use_key(page, world.callers["admin"].key)
    items = [{"name": "n" * 200, "sku": f"large-{number}"} for number in range(400)]
    page.click("#createItems > summary")
    text = json.dumps({"items": items})
    page.run(f"document.querySelector('#createItems [data-in=body]').value = {json.dumps(text)}")
    assert send(page, "createItems").startswith("201")
    assert (
        page.run("document.querySelector('#createItems .answer pre').textContent.length") < 150_000
    )
    assert "This is the beginning of" in page.text("#createItems .answer .warn")
    page.download_to(tmp_path)
    saved = save(page, "#createItems .answer .warn button", tmp_path)
    assert len(json.loads(saved)["items"]) == 400


def disturb(page: Page, *, offline: bool = False, latency: int = 0) -> None:
    """Disturb the network of a tab; `latency` is in milliseconds."""
    page.call(
        "Network.emulateNetworkConditions",
        offline=offline,
        latency=latency,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )


def test_an_error_of_the_network_is_said_in_words(page: Page) -> None:
    disturb(page, offline=True)
    assert "There is no answer from 127.0.0.1" in send(page, "listItems")
    assert "swiftlet serve" in page.text("#listItems .answer .status")


def test_a_request_can_be_stopped(page: Page) -> None:
    disturb(page, latency=60_000)
    page.click("#listItems > summary")
    page.click("#listItems button.primary")
    assert page.text("#listItems .answer .status") == "Waiting for the answer …"
    page.click("#listItems [data-stop]")
    page.wait("!document.querySelector('#listItems button.primary').disabled")
    assert page.text("#listItems .answer .status").startswith("You stopped it")


def test_the_search_is_for_the_keyboard(page: Page) -> None:
    visible = (
        "[...document.querySelectorAll('details.operation')]"
        ".filter(one => one.checkVisibility()).map(one => one.id)"
    )
    page.press("/")
    assert page.run("document.activeElement.id") == "the-search"
    page.type("patch sku")
    assert page.run(visible) == ["changeItem", "changeItems"]
    assert page.text("#the-count") == "2 operations"
    assert page.run("document.querySelector('#tag-users').checkVisibility()") is False
    page.press("ArrowDown")
    assert page.run("document.activeElement.hash") == "#changeItem"
    page.press("Enter")
    page.wait("document.querySelector('#changeItem').open")
    page.wait("document.activeElement.parentElement.id === 'changeItem'")
    page.click("#changeItem h3 a")
    page.wait("document.querySelector('#ItemChange').checkVisibility()")  # the search hid it
    page.fill("#the-search", "zzzz")
    assert page.text("#the-count").startswith("Nothing found")
    page.press("Escape")
    assert len(page.run(visible)) == len(app.operations)


def test_an_address_opens_its_operation_and_an_opened_one_is_in_the_address(
    page: Page, url: str
) -> None:
    page.open(f"{url}#changeItem")
    page.wait("document.querySelector('#changeItem').open")
    page.click("#changeItem h3 a")
    page.wait("location.hash === '#ItemChange' && document.querySelector('#ItemChange').open")
    page.click("#readUser > summary")
    page.wait("location.hash === '#readUser'")
    assert page.run("document.querySelector('nav [aria-current]').hash") == "#readUser"


def test_the_theme_is_the_systems_until_the_reader_chooses(page: Page, url: str) -> None:
    for theme, ground in THEMES.items():
        page.look(1280, 900, dark=theme == "dark")
        page.wait(f"{GROUND} === '{ground}'")
    page.wait("document.querySelector('[data-theme-toggle]').textContent === 'Light'")
    page.click("[data-theme-toggle]")
    page.wait(f"{GROUND} === '{THEMES['light']}'")
    page.open(url)
    assert page.run(GROUND) == THEMES["light"], "remembered, and before the first paint"
    assert page.text("[data-theme-toggle]") == "Dark"


def test_nothing_is_cut_off(page: Page) -> None:
    page.run("document.querySelectorAll('main details').forEach(one => one.open = true)")
    for width in (390, 768, 1280):
        page.look(width, 844)
        assert not page.too_wide(), width
        page.click(".key > summary")
        left, right = page.run(
            "(box => [box.left, box.right])(document.querySelector('#the-key')"
            ".getBoundingClientRect())"
        )
        assert 0 <= left < right <= width
        page.press("Escape")


def test_the_first_key_leads_past_the_list(page: Page) -> None:
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    page.press("Enter")
    page.wait("document.activeElement.id === 'the-operations'")


def test_without_scripts_the_page_still_shows_the_operations(browser: Browser, url: str) -> None:
    tab = browser.page()
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    tab.call("Page.navigate", url=url)
    found = tab.wait("document.readyState === 'complete' && document.body?.innerText")
    assert "curl" not in found, "operations are folded"
    for one in app.operations:
        assert one.path in found
    assert "$API stands for the address" in found
    for hidden in ("Search", "API key", "Send"):
        assert hidden not in found
    tab.run("document.querySelector('#createItem').open = true")
    assert "curl -X POST $API/items" in tab.run("document.body.innerText")
