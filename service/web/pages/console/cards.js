/* The cards of the overview: a figure, and a chart of the last minutes. */

import { chart, pointAt } from "./charts.js";
import { h } from "./dom.js";
import { Moment, REQUESTS, counts, hasStatus } from "./moment.js";
import { KEPT } from "./watch.js";
import * as words from "./words.js";

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
    more: (now) => `refused early: ${words.number(now.rate("http_refused_total") ?? 0)}`,
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
    title: "Jobs",
    lines: ["queued", "failed"].map((name) => (now) => now.gauge(`jobs_${name}`)),
    names: ["waiting", "failed"],
    text: words.number,
    more: (now) => `attempts per second: ${words.number(now.rate("jobs_total") ?? 0)}`,
    least: 1,
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

/**
 * Return the cards, `{element, show}`.
 *
 * `show` takes the scrapes, for the chart, and the Moment of the figure.
 */
export const makeCards = () => CARDS.map(makeCard);

function makeCard({ title, lines, names, text, more, least }) {
  const figure = h("p", { class: "figure" }, "-");
  const plot = h("div", { class: "plot" });
  const under = h("p", { class: "muted" }, " ");
  const element = h(
    "section",
    { class: "card", "aria-label": title },
    h("h2", {}, title),
    figure,
    plot,
    under,
  );
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
