/* The console: finds the resources of the application, and shows the view of the address. */

import * as api from "./api.js";
import { byId, h, openDialog } from "./dom.js";
import * as key from "./key.js";
import { overview } from "./overview.js";
import { resources } from "./resources.js";
import { rowsView } from "./rows.js";
import { Watch } from "./watch.js";

// State of a view that is not kept in the address, because it is the default.
const DEFAULTS = { page: "1", per_page: "25", sort: "" };

const watch = new Watch();
let found = null; // the resources; null while the document has not been read
let view = null;

async function start() {
  byId("key").addEventListener("click", askKey);
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the part behind # names the view
    byId("main").focus();
  });
  addEventListener("hashchange", show);
  addEventListener("keydown", shortcut);
  watch.addEventListener("down", showDown);
  watch.addEventListener("up", showUp);
  showKey();
  show();
  await readDocument();
  watch.start();
}

async function readDocument() {
  try {
    const described = await api.json("GET", "/openapi.json");
    found = resources(described);
    byId("name").textContent = `${described.info.title} console`;
    document.title = `${described.info.title} console`;
  } catch (error) {
    byId("main").replaceChildren(h("p", { class: "notice bad", role: "alert" }, api.words(error)));
    return;
  }
  byId("views").replaceChildren(
    link("", "Overview"),
    ...found.map((one) => link(one.name, api.capital(one.title))),
  );
  show();
}

const link = (name, text) => h("a", { href: `#/${name}`, "data-view": name }, text);

/** Show the view of the address. */
function show() {
  const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
  if (found === null) return;
  view?.leave?.();
  for (const one of byId("views").children) {
    if (one.dataset.view === name) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  const resource = found.find((one) => one.name === name);
  if (resource) {
    const state = Object.fromEntries(new URLSearchParams(query));
    view = rowsView(resource, state, (changed) => keep(name, changed));
  } else {
    view = overview(watch);
  }
  byId("main").replaceChildren(view);
}

/** Keep the state of a view in the address, so that a reload or a link shows the same. */
function keep(name, state) {
  const given = Object.entries(state).filter(([key, value]) => value && value !== DEFAULTS[key]);
  const query = new URLSearchParams(given).toString();
  history.replaceState(null, "", `#/${name}${query ? `?${query}` : ""}`);
}

/** Keys that work outside of fields and dialogs: / is the search, n a new row. */
function shortcut(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, dialog")) return;
  const target = { "/": byId("filter-q"), n: byId("new") }[event.key];
  if (!target) return;
  event.preventDefault();
  if (event.key === "n") target.click();
  else target.focus();
}

function showDown() {
  const since = watch.downSince.toLocaleTimeString("en", { hour12: false });
  byId("banner").textContent =
    `The service at ${location.host} has not answered since ${since}. ` +
    "This page asks again every second.";
  byId("banner").hidden = false;
  document.body.classList.add("down");
}

function showUp() {
  byId("banner").hidden = true;
  document.body.classList.remove("down");
  if (found === null) readDocument();
  else view?.reload?.();
}

/** Show whether there is a key. */
function showKey() {
  byId("key").textContent = key.current() ? "API key: set" : "API key";
}

function askKey() {
  const field = h("input", {
    type: "password",
    id: "key-field",
    value: key.current(),
    autocomplete: "off",
    spellcheck: "false",
  });
  const remember = h("input", {
    type: "checkbox",
    id: "key-remember",
    checked: key.isRemembered(),
  });
  const dialog = openDialog(
    "API key",
    {},
    h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          use(field.value, remember.checked);
        },
      },
      h(
        "div",
        { class: "fields" },
        h(
          "div",
          { class: "field" },
          h("label", { for: "key-field" }, "Key"),
          field,
          h("p", { class: "hint" }, "It is sent to this service only."),
        ),
        h(
          "div",
          { class: "field boolean" },
          remember,
          h("label", { for: "key-remember" }, "Remember it in this tab"),
          h("p", { class: "hint" }, "Until the tab is closed. Otherwise a reload forgets the key."),
        ),
      ),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", onclick: () => use("", false) }, "Forget the key"),
        h("button", { type: "submit", class: "primary" }, "Use"),
      ),
    ),
  );
  field.focus();

  function use(text, remembered) {
    key.use(text, remembered);
    showKey();
    dialog.close();
    watch.retry();
    show();
  }
}

start();
