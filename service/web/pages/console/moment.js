/* Figures of a span of time, from the scrapes at its begin and at its end. */

import * as metrics from "./metrics.js";

export const REQUESTS = "http_request_duration_seconds";
export const QUERIES = "db_query_duration_seconds";

/** Whether requests of this route count: those of this page and of probes do not. */
export const counts = ({ route }) =>
  !/^\/(metrics|health|console|docs|openapi\.json|admin)\b/.test(route);
export const hasStatus = (digit) => (labels) => counts(labels) && labels.status?.startsWith(digit);

/** Values of a span. Each is null if the later scrape lacks the metric. */
export class Moment {
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
