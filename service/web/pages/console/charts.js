/* Small line charts of the last minutes. */

import { svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 64;
// Free pixels above the highest and below the lowest point, for the width of the line.
const EDGE = 2;

/**
 * Return an SVG with one line for each list of values; null is a gap.
 *
 * @param lines - lists of values, the oldest first.
 * @param options - `points`: how many points the whole width has; `least`: the least height of the
 *   scale, so that noise near 0 does not look like a peak; `marked`: a point with a cursor, counted
 *   from the newest.
 */
export function chart(lines, { points, least = 0, marked = null }) {
  const values = lines.flat().filter((value) => value !== null);
  const top = Math.max(least, ...values) || 1;
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }),
    marked === null ? null : cursor(points - 1 - marked, points),
    lines.map((line, place) => svg("path", { class: `line-${place}`, d: path(line, points, top) })),
  );
}

/** Return which point is at a place of the width, from 0 to 1, counted from the newest. */
export const pointAt = (part, points) => Math.round((1 - part) * (points - 1));

function cursor(place, points) {
  const x = (place * WIDTH) / (points - 1);
  return svg("line", { class: "cursor", x1: x, x2: x, y1: 0, y2: HEIGHT });
}

function path(line, points, top) {
  const step = WIDTH / (points - 1);
  const first = points - line.length;
  let drawn = "";
  let joined = false;
  for (const [place, value] of line.entries()) {
    if (value === null) {
      joined = false;
      continue;
    }
    const x = ((first + place) * step).toFixed(1);
    const y = (HEIGHT - EDGE - (value / top) * (HEIGHT - 2 * EDGE)).toFixed(1);
    // A point between two gaps is a short line, since a path of one point is not drawn.
    drawn += joined ? `L${x} ${y}` : `M${x} ${y}h.5`;
    joined = true;
  }
  return drawn;
}
