/* The first view: live figures of the service, its routes and statements, and its dependencies. */

import * as api from "./api.js";
import { chart, pointAt } from "./charts.js";
import { h } from "./dom.js";
import * as metrics from "./metrics.js";
import { KEPT } from "./watch.js";
import * as words from "./words.js";

// Seconds that figures and tables look back: one second has too few requests for a p99.
const WINDOW = 10;
const REQUESTS = "http_request_duration_seconds";
const QUERIES = "db_query_duration_seconds";
const SLOW_PERIOD = 10_000; // milliseconds between reads of /admin/slow
const SLOWEST = 10; // rows of a table of statements

/** Whether requests of this route count: those of this page and of probes do not. */
const counts = ({ route }) => !/^\/(metrics|health|console|docs|openapi\.json|admin)\b/.test(route);
const hasStatus = (digit) => (labels) => counts(labels) && labels.status?.startsWith(digit);

/** Values of one moment, from the scrapes at the begin and at the end of a span. */
class Moment {
  constructor(earlier, later) {
    this.earlier = earlier.samples;
    this.later = later.samples;
    this.seconds = later.at - earlier.at;
  }

  rate(name, keep) {
    const grown = metrics.growth(this.earlier, this.later, name, keep);
    return grown === null ? null : Math.max(0, grown) / this.seconds;
  }

  quantile(name, part, keep) {
    return metrics.quantile(this.histogram(name, keep), part);
  }

  mean(name, keep) {
    return metrics.mean(this.histogram(name, keep));
  }

  gauge(name, keep) {
    return metrics.sum(this.later, name, keep);
  }

  histogram(name, keep) {
    return metrics.histogram(this.earlier, this.later, name, keep);
  }

  /** The part of look-ups that a tier of the cache answered; null without look-ups. */
  hitRatio() {
    const rate = (tier, result) =>
      this.rate("cache_requests_total", (it) => it.tier === tier && it.result === result) ?? 0;
    const hits = rate("process", "hit") + rate("redis", "hit");
    // A look-up that misses in the process goes on to Redis: it is one look-up.
    const first = rate("process", "hit") + rate("process", "miss");
    const all = first || rate("redis", "hit") + rate("redis", "miss");
    return all ? hits / all : null;
  }
}

/*
 * The cards. `lines` are the values of the chart, the first is the figure; `text` writes it;
 * `more` adds a line of text; `least` is the least height of the scale.
 */
const CARDS = [
  {
    title: "Requests per second",
    lines: [(now) => now.rate(`${REQUESTS}_count`, counts)],
    text: words.number,
    more: (now) => `in flight: ${words.number(now.gauge("http_requests_in_flight"))}`,
    least: 5,
  },
  {
    title: "Latency",
    lines: [0.5, 0.95, 0.99].map((part) => (now) => now.quantile(REQUESTS, part, counts)),
    names: ["p50", "p95", "p99"],
    text: words.duration,
    least: 0.001,
  },
  {
    title: "Errors per second",
    lines: ["5", "4"].map((digit) => (now) => errors(now, digit)),
    names: ["5xx", "4xx"],
    text: words.number,
    more: (now) => `refused early: ${words.number(now.rate("http_refused_total"))}`,
    least: 1,
  },
  {
    title: "Cache hit ratio",
    lines: [(now) => now.hitRatio()],
    text: words.percent,
    more: (now) =>
      `${words.number(now.gauge("cache_entries"))} entries, ` +
      words.bytes(now.gauge("cache_bytes")),
    least: 1,
  },
  {
    title: "Requests per batch",
    lines: [(now) => now.mean("db_batch_size")],
    text: words.number,
    more: (now) => `wait p99: ${words.duration(now.quantile("db_batch_wait_seconds", 0.99))}`,
    least: 2,
  },
  {
    title: "Database connections",
    lines: ["in_use", "waiting"].map((name) => (now) => now.gauge(`db_pool_${name}`)),
    names: ["in use", "waiting"],
    text: words.number,
    more: (now) =>
      `of ${words.number(now.gauge("db_pool_size"))}, ` +
      `timeouts: ${words.number(now.gauge("db_pool_timeouts_total"))}`,
    least: 4,
  },
  {
    title: "Event loop lag",
    lines: [0.5, 0.99].map((part) => (now) => now.quantile("event_loop_lag_seconds", part)),
    names: ["p50", "p99"],
    text: words.duration,
    more: (now) => `CPU: ${words.percent(now.rate("process_cpu_seconds_total"))} of a core`,
    least: 0.01,
  },
  {
    title: "Memory",
    lines: [(now) => now.gauge("process_resident_memory_bytes")],
    text: words.bytes,
    more: (now) => {
      const workers = now.gauge("service_workers");
      const told = workers === null ? "-" : words.counted(workers, "worker");
      return `${told}, open files: ${words.number(now.gauge("process_open_fds"))}`;
    },
  },
];

function errors(now, digit) {
  const all = now.rate(`${REQUESTS}_count`, counts);
  // A route without errors has no series of them.
  return all === null ? null : (now.rate(`${REQUESTS}_count`, hasStatus(digit)) ?? 0);
}

/** Return the view. `watch` gives the scrapes. */
export function overview(watch) {
  const state = h("div", { class: "states" });
  const notice = h("p", { class: "notice", hidden: true });
  const cards = CARDS.map((card) => makeCard(card));
  const routes = h("div", { class: "scroll", tabindex: 0 });
  const statements = h("div", { class: "scroll", tabindex: 0 });
  const slow = h("div", {});
  const view = h(
    "div",
    {},
    h("h1", {}, "Overview"),
    state,
    notice,
    h("div", { class: "cards" }, cards.map((one) => one.element)),
    section("routes", "Routes", `The last ${WINDOW} seconds; a line is one method and route.`, routes),
    section("statements", "Statements", "Those that took the most time in total.", statements),
    slow,
  );

  const show = () => {
    showStates(state, watch);
    const last = watch.scrapes.at(-1);
    notice.hidden = watch.refused === null;
    if (watch.refused) notice.textContent = whyNone(watch.refused);
    if (!last || document.hidden) return;
    const recent = watch.scrapes.find((one) => last.at - one.at <= WINDOW + 0.5);
    const now = new Moment(recent === last ? { ...last, at: last.at - 1 } : recent, last);
    for (const card of cards) card.show(watch.scrapes, now);
    routes.replaceChildren(routeTable(now));
    statements.replaceChildren(statementTable(now));
  };
  watch.addEventListener("change", show);
  show();
  const stop = every(SLOW_PERIOD, () => showSlow(slow));
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

function makeCard({ title, lines, names, text, more, least }) {
  const figure = h("p", { class: "figure" }, "-");
  const plot = h("div", { class: "plot" });
  const under = h("p", { class: "muted" }, " ");
  const element = h("section", { class: "card", "aria-label": title }, h("h2", {}, title), figure, plot, under);
  const series = lines.map(() => []);
  let drawn = null; // the last scrape in the chart

  let marked = null; // the point below the pointer, counted from the newest
  let told = ""; // the line below the chart

  const write = (values) =>
    figure.replaceChildren(
      ...(names
        ? values.map((value, place) =>
            h("span", { class: `value line-${place}` }, text(value), h("small", {}, names[place])),
          )
        : [text(values[0])]),
    );
  const draw = (values) => {
    const past = marked === null ? null : series.map((one) => one.at(-1 - marked) ?? null);
    write(past ?? values);
    under.textContent = past ? `${words.age(marked)} ago` : told;
    plot.replaceChildren(chart(series, { points: KEPT - 1, least, marked }));
  };
  const show = (scrapes, now) => {
    latest = lines.map((line) => line(now));
    told = more?.(now) ?? "";
    // Only what is new is computed; everything if the scrapes begin again.
    let from = scrapes.indexOf(drawn);
    if (from < 0) {
      from = 0;
      series.forEach((one) => one.splice(0));
    }
    for (let place = from + 1; place < scrapes.length; place += 1) {
      const moment = new Moment(scrapes[place - 1], scrapes[place]);
      lines.forEach((line, number) => series[number].push(line(moment)));
    }
    for (const one of series) one.splice(0, one.length - (KEPT - 1));
    drawn = scrapes.at(-1);
    draw(latest);
  };
  let latest = lines.map(() => null);
  plot.addEventListener("pointermove", (event) => {
    const { left, width } = plot.getBoundingClientRect();
    marked = Math.max(0, pointAt((event.clientX - left) / width, KEPT - 1));
    draw(latest);
  });
  plot.addEventListener("pointerleave", () => {
    marked = null;
    draw(latest);
  });
  return { element, show };
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
      h("tr", {}, columns.map(([title, number]) => h("th", { scope: "col", class: number ? "number" : null }, title))),
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

function routeTable(now) {
  const rows = metrics
    .groups(now.later, `${REQUESTS}_count`, ["method", "route"])
    .filter(([, route]) => counts({ route }))
    .map(([method, route]) => {
      const keep = (it) => it.method === method && it.route === route;
      const found = now.histogram(REQUESTS, keep);
      const failed = now.rate(
        `${REQUESTS}_count`,
        (it) => keep(it) && /^[45]/.test(it.status),
      );
      return { name: `${method} ${route}`, rate: now.rate(`${REQUESTS}_count`, keep), found, failed };
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

function statementTable(now) {
  const rows = metrics
    .groups(now.later, `${QUERIES}_count`, ["query_type"])
    .map(([name]) => {
      const keep = (it) => it.query_type === name;
      const failed = now.rate(
        "db_query_total",
        (it) => keep(it) && it.status !== "success",
      );
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

/** Show what /admin/slow says, where it is there and this key may read it. */
async function showSlow(place) {
  let found;
  try {
    found = await api.json("GET", "/admin/slow");
  } catch {
    place.replaceChildren();
    return;
  }
  const rows = (found.statements ?? found.items ?? []).slice(0, SLOWEST);
  if (rows.length === 0) return;
  const names = Object.keys(rows[0]).filter((name) => typeof rows[0][name] !== "object");
  place.replaceChildren(
    section(
      "slow",
      "Slowest statements since the start",
      "From /admin/slow.",
      h(
        "div",
        { class: "scroll", tabindex: 0 },
        table(
          names.map((name) => [words.label(name), typeof rows[0][name] === "number"]),
          rows.map((row) =>
            names.map((name) =>
              typeof row[name] === "number" ? words.number(row[name]) : words.shown(row[name]),
            ),
          ),
        ),
      ),
    ),
  );
}
