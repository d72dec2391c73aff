/* The first view: live figures of the service, its routes and statements, and its dependencies. */

import * as api from "./api.js";
import { makeCards } from "./cards.js";
import { h } from "./dom.js";
import { Moment } from "./moment.js";
import { routeTable, slowTable, statementTable } from "./tables.js";
import * as words from "./words.js";

// Seconds that figures and tables look back: one second has too few requests for a p99.
const WINDOW = 10;
const SLOW_PERIOD = 10_000; // milliseconds between reads of /admin/slow

/** Return the view. `watch` gives the scrapes. */
export function overview(watch) {
  const state = h("div", { class: "states" });
  const notice = h("p", { class: "notice", hidden: true });
  const cards = makeCards();
  const routes = h("div", { class: "scroll", tabindex: 0 });
  const statements = h("div", { class: "scroll", tabindex: 0 });
  const slow = h("div", { class: "scroll", tabindex: 0 });
  const slowest = section(
    "slow",
    "Statements since the start",
    "Of all workers, the most expensive first. Choose one to see its plan.",
    slow,
  );
  slowest.hidden = true;
  const view = h(
    "div",
    {},
    h("h1", {}, "Overview"),
    state,
    notice,
    h(
      "div",
      { class: "cards" },
      cards.map((one) => one.element),
    ),
    section(
      "routes",
      "Routes",
      `The last ${WINDOW} seconds; a line is one method and route.`,
      routes,
    ),
    section(
      "statements",
      "Statements",
      `The last ${WINDOW} seconds, the most expensive first.`,
      statements,
    ),
    slowest,
  );

  const show = () => {
    showStates(state, watch);
    const last = watch.scrapes.at(-1);
    notice.hidden = watch.refused === null;
    if (watch.refused) notice.textContent = whyNone(watch.refused);
    if (!last || document.hidden) return;
    const recent = watch.scrapes.find((one) => last.at - one.at <= WINDOW + 0.5);
    // In the first scrape nothing has grown yet; a span of 0 seconds would make rates NaN.
    const now = new Moment(recent === last ? { ...last, at: last.at - 1 } : recent, last);
    for (const card of cards) card.show(watch.scrapes, now);
    routes.replaceChildren(routeTable(now));
    statements.replaceChildren(statementTable(now));
  };
  watch.addEventListener("change", show);
  show();
  const stop = every(SLOW_PERIOD, async () => {
    const found = await slowTable();
    if (slow.contains(document.activeElement)) return; // the user is choosing a row
    slow.replaceChildren(found ?? "");
    slowest.hidden = found === null;
  });
  view.leave = () => {
    watch.removeEventListener("change", show);
    stop();
  };
  return view;
}

function every(period, run) {
  run();
  const timer = setInterval(run, period);
  return () => clearInterval(timer);
}

function section(id, title, text, ...content) {
  return h(
    "section",
    { "aria-labelledby": id },
    h("h2", { id }, title),
    h("p", { class: "muted" }, text),
    content,
  );
}

function whyNone(refused) {
  return refused.status === 404
    ? "There are no live figures: /metrics does not exist here (SERVICE_METRICS=off)."
    : `There are no live figures. ${api.words(refused)}`;
}

/** Show the state of the service and of what it depends on. */
function showStates(place, watch) {
  const { ready, downSince } = watch;
  const chips = [chip("Service", downSince ? "away" : (ready?.status ?? "-"))];
  for (const name of ["database", "migrations", "redis"]) {
    const one = ready?.[name];
    chips.push(chip(name, one?.state ?? "-", one?.detail));
  }
  const last = watch.scrapes.at(-1)?.samples;
  const began = last && (last.get("process_start_time_seconds") ?? []).map((one) => one.value);
  const version = last?.get("service_info")?.[0]?.labels.version;
  if (version) chips.push(h("span", { class: "muted" }, `version ${version}`));
  if (began?.length) {
    const up = Date.now() / 1000 - Math.min(...began);
    chips.push(h("span", { class: "muted" }, `up ${words.age(Math.max(0, up))}`));
  }
  place.replaceChildren(...chips);
}

function chip(name, state, detail) {
  // The body of a 503 has a status code in place of a state.
  const told = typeof state === "number" ? "not ready" : state;
  return h(
    "span",
    { class: "chip", "data-state": told },
    h("span", { class: "dot", "aria-hidden": "true" }),
    `${api.capital(name)}: ${told}`,
    detail ? h("span", { class: "detail" }, ` (${detail})`) : null,
  );
}
