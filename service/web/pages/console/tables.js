/* The tables of the overview: routes and statements. */

import * as api from "./api.js";
import { h, openDialog } from "./dom.js";
import * as metrics from "./metrics.js";
import { QUERIES, REQUESTS, counts } from "./moment.js";
import * as words from "./words.js";

const SLOWEST = 10; // rows of a table of statements

/** Return the table of the routes that were requested. */
export function routeTable(now) {
  const rows = metrics
    .groups(now.later, `${REQUESTS}_count`, ["method", "route"])
    .filter(([, route]) => counts({ route }))
    .map(([method, route]) => {
      const keep = (it) => it.method === method && it.route === route;
      const found = now.histogram(REQUESTS, keep);
      const failed = now.rate(`${REQUESTS}_count`, (it) => keep(it) && /^[45]/.test(it.status));
      return {
        name: `${method} ${route}`,
        rate: now.rate(`${REQUESTS}_count`, keep),
        found,
        failed,
      };
    })
    .filter((one) => one.rate > 0)
    .sort((one, other) => other.rate - one.rate);
  return table(
    [["Route"], ["Requests/s", true], ["p50", true], ["p99", true], ["Errors/s", true]],
    rows.map((one) => [
      h("code", {}, one.name),
      words.number(one.rate),
      words.duration(metrics.quantile(one.found, 0.5)),
      words.duration(metrics.quantile(one.found, 0.99)),
      words.number(one.failed ?? 0),
    ]),
    "No requests.",
  );
}

/** Return the table of the statements that ran, the most expensive first. */
export function statementTable(now) {
  const rows = metrics
    .groups(now.later, `${QUERIES}_count`, ["query_type"])
    .map(([name]) => {
      const keep = (it) => it.query_type === name;
      const failed = now.rate("db_query_total", (it) => keep(it) && it.status !== "success");
      return {
        name,
        found: now.histogram(QUERIES, keep),
        rows: now.rate("db_rows_total", keep),
        batch: now.mean("db_batch_size", keep),
        failed,
      };
    })
    .filter((one) => one.found?.count > 0)
    .sort((one, other) => other.found.sum - one.found.sum)
    .slice(0, SLOWEST);
  return table(
    [
      ["Statement"],
      ["Runs/s", true],
      ["p50", true],
      ["p99", true],
      ["Rows/s", true],
      ["Requests/run", true],
      ["Failed/s", true],
    ],
    rows.map((one) => [
      h("code", {}, one.name),
      words.number(one.found.count / now.seconds),
      words.duration(metrics.quantile(one.found, 0.5)),
      words.duration(metrics.quantile(one.found, 0.99)),
      words.number(one.rows),
      words.number(one.batch),
      words.number(one.failed ?? 0),
    ]),
    "No statements ran.",
  );
}

/**
 * Return the table of what /admin/slow says; null if this key may not read it, or if it has nothing.
 */
export async function slowTable() {
  let found;
  try {
    found = await api.json("GET", "/admin/slow", { query: { limit: SLOWEST } });
  } catch {
    return null; // it is for admins, and needs metrics
  }
  if (found.statements.length === 0) return null;
  const rows = found.statements.map((one) => [
    h(
      "button",
      { type: "button", class: "small quiet", onclick: () => showPlan(one.statement) },
      h("code", {}, one.statement),
    ),
    words.number(one.calls),
    words.duration(one.total_ms / 1000),
    words.duration(one.mean_ms / 1000),
    words.duration(one.max_ms / 1000),
    words.number(one.rows),
    words.number(one.errors + one.timeouts),
  ]);
  const columns = ["Calls", "Total", "Mean", "Slowest", "Rows", "Failed"].map((it) => [it, true]);
  return table([["Statement"], ...columns], rows, "");
}

/** Show PostgreSQL's plan of a statement. */
async function showPlan(name) {
  let text;
  try {
    const { sql, lines, notes } = await api.json(
      "GET",
      `/admin/explain/${encodeURIComponent(name)}`,
    );
    text = [...lines, "", ...notes, sql].join("\n");
  } catch (error) {
    text = api.words(error);
  }
  const dialog = openDialog(
    `Plan of ${name}`,
    { wide: true },
    h("pre", { tabindex: 0 }, text),
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ),
  );
}

/** Return a table. A column is a title and whether it is a number; a cell may be a node. */
function table(columns, rows, nothing) {
  if (rows.length === 0) return h("p", { class: "muted" }, nothing);
  return h(
    "table",
    {},
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        columns.map(([title, number]) =>
          h("th", { scope: "col", class: number ? "number" : null }, title),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((cells) =>
        h(
          "tr",
          {},
          cells.map((cell, place) => h("td", { class: columns[place][1] ? "number" : null }, cell)),
        ),
      ),
    ),
  );
}
