/* Reads the Prometheus text format, and computes rates and quantiles from two scrapes. */

const LINE = /^([A-Za-z_:][\w:]*)(\{.*\})?[ \t]+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n" };

/** Return the samples of a scrape: a Map from a name to a list of `{labels, value}`. */
export function parse(text) {
  const scrape = new Map();
  for (const line of text.split("\n")) {
    const found = LINE.exec(line); // null for comments and empty lines
    if (found === null) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, one) => ESCAPES[one] ?? one);
    }
    const samples = scrape.get(found[1]) ?? [];
    samples.push({ labels, value: number(found[3]) });
    scrape.set(found[1], samples);
  }
  return scrape;
}

function number(text) {
  return { "+Inf": Infinity, "-Inf": -Infinity }[text] ?? Number(text);
}

/**
 * Return the sum of the samples of a name; null if there is none.
 *
 * @param keep - a function from labels to whether a sample counts.
 */
export function sum(scrape, name, keep = () => true) {
  const values = (scrape.get(name) ?? []).filter((one) => keep(one.labels));
  return values.length ? values.reduce((total, one) => total + one.value, 0) : null;
}

/**
 * Return how much a counter has grown between two scrapes; null if the later one lacks it.
 *
 * A counter without a first sample began at 0: a series appears with its first event.
 */
export function growth(earlier, later, name, keep) {
  const now = sum(later, name, keep);
  return now === null ? null : now - (sum(earlier, name, keep) ?? 0);
}

/** Return the distinct values of a label, or of several labels in a list. */
export function groups(scrape, name, labels) {
  const found = new Map();
  for (const one of scrape.get(name) ?? []) {
    const values = labels.map((label) => one.labels[label]);
    found.set(values.join("\n"), values);
  }
  return [...found.values()];
}

/**
 * Return the growth of a histogram: `{bounds, counts, count, sum}`; null if the later one lacks it.
 *
 * `counts` has the observations of each bucket alone; `bounds` their upper bounds, the last
 * Infinity.
 */
export function histogram(earlier, later, name, keep = () => true) {
  const cumulative = new Map();
  for (const [scrape, sign] of [
    [later, 1],
    [earlier, -1],
  ]) {
    for (const { labels, value } of scrape.get(`${name}_bucket`) ?? []) {
      if (!keep(labels)) continue;
      const bound = number(labels.le);
      if (sign < 0 && !cumulative.has(bound)) continue;
      cumulative.set(bound, (cumulative.get(bound) ?? 0) + sign * value);
    }
  }
  if (cumulative.size === 0) return null;
  const bounds = [...cumulative.keys()].sort((a, b) => a - b);
  const counts = bounds.map(
    (bound, place) => cumulative.get(bound) - (place ? cumulative.get(bounds[place - 1]) : 0),
  );
  return {
    bounds,
    counts,
    count: counts.reduce((total, one) => total + one, 0),
    sum: growth(earlier, later, `${name}_sum`, keep) ?? 0,
  };
}

/**
 * Return a quantile of a histogram, as Prometheus' histogram_quantile: the values of a bucket are
 * taken as evenly spread. Null without observations; the last bound if the value is beyond it.
 */
export function quantile(found, part) {
  if (found === null || found.count <= 0) return null;
  const rank = part * found.count;
  let before = 0;
  for (const [place, count] of found.counts.entries()) {
    if (before + count >= rank && count > 0) {
      const low = place ? found.bounds[place - 1] : 0;
      const high = found.bounds[place];
      if (high === Infinity) return low;
      return low + (high - low) * ((rank - before) / count);
    }
    before += count;
  }
  return found.bounds.at(-2) ?? null;
}

/** Return the mean of a histogram; null without observations. */
export const mean = (found) => (found !== null && found.count > 0 ? found.sum / found.count : null);
