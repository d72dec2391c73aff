/* The view of a resource: its rows as a table, with search, filters, sort and pages. */

import * as api from "./api.js";
import { announce, h } from "./dom.js";
import * as editor from "./editor.js";
import { exportRows, importRows } from "./files.js";
import { choice } from "./form.js";
import * as words from "./words.js";

const PER_PAGE = [10, 25, 50, 100];
const TYPING = 250; // milliseconds without a key after which a search begins

/**
 * Return the view of a resource.
 *
 * @param resource - see resources.js.
 * @param given - the state in the address: filters, `sort`, `page` and `per_page`.
 * @param keep - called with a changed state, to keep it in the address.
 */
export function rowsView(resource, given, keep) {
  const state = { sort: "", page: "1", per_page: "25", ...given };
  const summary = h("p", { class: "summary", role: "status" }, "Loading…");
  const problem = h("p", { class: "notice bad", role: "alert", hidden: true });
  const body = h("tbody");
  const heads = resource.columns.map((field) => head(field));
  const filters = filterForm(resource, state, (name, value) => {
    state[name] = value;
    state.page = "1";
    load();
  });
  const pager = h("nav", { class: "pager", "aria-label": "Pages" });
  let running = null;

  const view = h(
    "div",
    {},
    h(
      "div",
      { class: "title" },
      h("h1", {}, api.capital(resource.title)),
      h("span", { class: "space" }),
      resource.can.import ? button("import", "Import…", () => importRows(resource, load)) : null,
      resource.can.export ? button("export", "Export…", () => exportRows(resource, query())) : null,
      resource.can.create
        ? h(
            "button",
            { type: "button", class: "primary", id: "new", onclick: create, title: "Shortcut: n" },
            `New ${resource.one.toLowerCase()}`,
          )
        : null,
    ),
    filters,
    problem,
    summary,
    h(
      "div",
      { class: "scroll rows" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h("tr", {}, heads, h("th", { scope: "col" }, h("span", { class: "spoken" }, "Actions"))),
        ),
        body,
      ),
    ),
    pager,
  );
  view.reload = load;
  view.leave = () => running?.abort();
  load();
  return view;

  /** Return the filters of the state: what list and export have in common. */
  function query() {
    const names = resource.filters.map((one) => one.name);
    return Object.fromEntries(
      names.filter((name) => state[name]).map((name) => [name, state[name]]),
    );
  }

  async function load() {
    running?.abort();
    const { signal } = (running = new AbortController());
    keep(state);
    showSort();
    view.setAttribute("aria-busy", "true");
    try {
      const { sort, page, per_page } = state;
      const asked = { ...query(), sort, page, per_page };
      show(await api.json("GET", resource.path, { query: asked, signal }));
      problem.hidden = true;
    } catch (error) {
      if (signal.aborted) return;
      fail(error);
    }
    view.removeAttribute("aria-busy");
  }

  function fail(error) {
    const fields = error.problem?.errors?.map((one) => `${words.label(one.field)}: ${one.message}`);
    problem.textContent = fields ? `${fields.join("; ")}.` : api.words(error);
    problem.hidden = false;
    summary.textContent = "Not loaded.";
  }

  function show(found) {
    const { items, total, page, per_page: perPage, pages } = found;
    if (items.length === 0 && page > 1 && pages > 0) {
      state.page = String(pages); // the last row of the last page was deleted
      load();
      return;
    }
    const focused = document.activeElement?.dataset?.action;
    body.replaceChildren(...items.map(line));
    if (focused) body.querySelector(`[data-action="${focused}"]`)?.focus();
    const from = (page - 1) * perPage + 1;
    const filtered = Object.keys(query()).length > 0;
    summary.textContent = items.length
      ? `${from} to ${from + items.length - 1} of ${words.counted(total, "row")}`
      : filtered
        ? "No row matches these filters."
        : "There are no rows yet.";
    showPager(page, pages);
  }

  function line(row) {
    const active = !resource.can.softDelete || row.is_active !== false;
    return h(
      "tr",
      { class: active ? null : "inactive" },
      resource.columns.map((field) =>
        h(
          "td",
          { class: isNumber(field) ? "number" : field.kind, "data-label": words.label(field.name) },
          cell(row[field.name], field.kind),
        ),
      ),
      h("td", { class: "buttons" }, actions(row, active)),
    );
  }

  function actions(row, active) {
    const made = (text, label, run) =>
      h(
        "button",
        {
          type: "button",
          class: "small",
          "aria-label": `${label} ${editor.name(resource, row)}`,
          "data-action": `${text}-${row.id}`,
          onclick: run,
        },
        text,
      );
    const { change, remove, softDelete } = resource.can;
    return [
      change ? made("Edit", "Edit", () => edit(row)) : null,
      remove && softDelete && active ? made("Delete", "Delete", () => activate(row, false)) : null,
      change && softDelete && !active
        ? made("Restore", "Restore", () => activate(row, true))
        : null,
      remove && !softDelete ? made("Delete…", "Delete", () => removal(row)) : null,
    ];
  }

  function create() {
    editor.create(resource, load);
  }

  async function edit(row) {
    await tried(() => editor.edit(resource, row.id, load));
  }

  async function activate(row, active) {
    await tried(() => editor.setActive(resource, row, active));
    await load();
  }

  async function removal(row) {
    await tried(async () => {
      const { etag } = await api.row(`${resource.path}/${row.id}`);
      await editor.removeForGood(resource, row, etag);
    });
    await load();
  }

  async function tried(run) {
    try {
      await run();
    } catch (error) {
      announce(api.words(error), "bad");
      if (error.status === 404 || error.status === 412) load();
    }
  }

  function head(field) {
    const { name } = field;
    const attributes = {
      scope: "col",
      class: isNumber(field) ? "number" : null,
      "data-name": name,
    };
    if (!resource.sorts.has(name)) return h("th", attributes, words.label(name));
    return h(
      "th",
      attributes,
      h(
        "button",
        { type: "button", class: "sort", onclick: () => sortBy(name) },
        words.label(name),
      ),
    );
  }

  function sortBy(name) {
    const up = resource.sorts.has(name) ? name : `-${name}`;
    const down = resource.sorts.has(`-${name}`) ? `-${name}` : name;
    state.sort = state.sort === up ? down : up;
    state.page = "1";
    load();
  }

  function showSort() {
    const sort = state.sort || "id";
    for (const one of heads) {
      const { name } = one.dataset;
      const order = { [name]: "ascending", [`-${name}`]: "descending" }[sort];
      if (order) one.setAttribute("aria-sort", order);
      else one.removeAttribute("aria-sort");
    }
  }

  function showPager(page, pages) {
    const to = (number, text, label) =>
      h(
        "button",
        {
          type: "button",
          disabled: number < 1 || number > pages || number === page,
          "aria-label": label,
          "data-to": label,
          onclick: () => turn(number),
        },
        text,
      );
    const focused = pager.contains(document.activeElement) && document.activeElement.dataset.to;
    pager.replaceChildren(
      to(1, "«", "First page"),
      to(page - 1, "‹", "Previous page"),
      h("span", {}, `Page ${page} of ${Math.max(1, pages)}`),
      to(page + 1, "›", "Next page"),
      to(pages, "»", "Last page"),
      h("span", { class: "space" }),
      h(
        "label",
        {},
        "Rows per page ",
        h(
          "select",
          {
            onchange: (event) => {
              state.per_page = event.target.value;
              turn(1);
            },
          },
          PER_PAGE.map((one) => h("option", { selected: String(one) === state.per_page }, one)),
        ),
      ),
    );
    if (focused) pager.querySelector(`[data-to="${focused}"]`)?.focus();
  }

  function turn(page) {
    state.page = String(page);
    load();
  }
}

const button = (id, text, onclick) => h("button", { type: "button", id, onclick }, text);
const isNumber = (field) => field.kind === "integer" || field.kind === "number";

function cell(value, kind) {
  if (value === null || value === undefined) return h("span", { class: "none" }, "–");
  if (kind === "date-time")
    return h("time", { datetime: value, title: value }, words.shown(value, kind));
  return h("span", { class: "value" }, words.shown(value, kind));
}

/** Return the form of search and filters; `set` is called with a name and its new text. */
function filterForm(resource, state, set) {
  let typing;
  const later = (name) => (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => set(name, event.target.value.trim()), TYPING);
  };
  const input = (field) => {
    const attributes = { id: `filter-${field.name}`, name: field.name };
    if (field.kind === "boolean" || field.kind === "enum") {
      const select = choice(field, attributes, state[field.name], "any");
      select.addEventListener("change", () => set(field.name, select.value));
      return select;
    }
    return h("input", {
      ...attributes,
      type: field.name === "q" ? "search" : "text",
      inputmode: isNumber(field) ? "decimal" : null,
      placeholder: field.name === "q" ? "Shortcut: /" : null,
      value: state[field.name] ?? "",
      autocomplete: "off",
      oninput: later(field.name),
    });
  };
  const label = (field) => (field.name === "q" ? "search" : words.label(field.name));
  const ordered = [...resource.filters].sort(
    (one, other) => (other.name === "q") - (one.name === "q"),
  );
  return h(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
    ordered.map((field) =>
      h(
        "div",
        { class: field.name === "q" ? "filter search" : "filter" },
        h("label", { for: `filter-${field.name}` }, api.capital(label(field))),
        input(field),
      ),
    ),
  );
}
