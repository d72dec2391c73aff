/* Import of a file, with progress; export of the rows of a view. */

import * as api from "./api.js";
import { announce, h, openDialog } from "./dom.js";
import { parse } from "./json.js";
import * as words from "./words.js";

const TYPES = { ndjson: "application/x-ndjson", csv: "text/csv" };
const SHOWN = 100; // errors of an import; the service reports as many

/**
 * Open the dialog that imports a file.
 *
 * @param resource - of the rows.
 * @param done - called after an import that has written.
 */
export function importRows(resource, done) {
  let request = null;
  const file = h("input", {
    type: "file",
    id: "import-file",
    accept: ".csv,.ndjson,.jsonl,.gz,text/csv,application/x-ndjson",
    onchange: () => {
      format.value = /\.csv(\.gz)?$/i.test(file.files[0]?.name ?? "") ? "csv" : "ndjson";
    },
  });
  const format = select("import-format", [
    ["ndjson", "NDJSON"],
    ["csv", "CSV with a header line"],
  ]);
  const onError = select("import-errors", [
    ["abort", "write nothing"],
    ["skip", "leave wrong lines out"],
  ]);
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Sent", hidden: true });
  const told = h("p", { role: "status" });
  const result = h("div", { class: "result" });
  const start = h("button", { type: "submit", class: "primary" }, "Import");
  const form = h(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        begin();
      },
    },
    h(
      "div",
      { class: "fields" },
      labelled(
        "File",
        file,
        "A row whose key exists is updated, any other is created. Also gzip (.gz).",
      ),
      labelled("Format", format),
      labelled("If a line is wrong", onError),
    ),
    progress,
    told,
    result,
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
      start,
    ),
  );
  const dialog = openDialog(`Import ${resource.title}`, { wide: true }, form);
  dialog.addEventListener("close", () => request?.abort()); // nothing of it is written then

  function begin() {
    const chosen = file.files[0];
    if (!chosen) {
      told.textContent = "Choose a file first.";
      file.focus();
      return;
    }
    result.replaceChildren();
    progress.hidden = false;
    progress.value = 0;
    start.disabled = true;
    // fetch does not tell how much is sent.
    request = new XMLHttpRequest();
    request.open("POST", api.address(`${resource.path}/import`, { on_error: onError.value }));
    const more = /\.gz$/i.test(chosen.name) ? { "Content-Encoding": "gzip" } : {};
    const all = api.headers({ "Content-Type": TYPES[format.value], ...more });
    for (const [name, value] of Object.entries(all)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      progress.value = event.loaded / event.total;
      told.textContent = `Sent ${words.bytes(event.loaded)} of ${words.bytes(event.total)}.`;
    };
    request.upload.onload = () => {
      progress.removeAttribute("value"); // a bar without an end: how long it takes is not known
      told.textContent = "Sent. The service writes the rows…";
    };
    request.onload = () => answered(request);
    request.onerror = () =>
      ended("The connection was lost. Either all rows are written or none: look at the table.");
    request.onabort = () => ended("Cancelled: nothing is written.");
    request.send(chosen);
  }

  function ended(text) {
    progress.hidden = true;
    start.disabled = false;
    told.textContent = text;
  }

  function answered({ status, responseText }) {
    if (status === 200) {
      const found = parse(responseText);
      ended(`Imported ${words.counted(found.read, "row")}.`);
      const names = ["created", "updated", "unchanged", "failed"];
      result.append(
        h(
          "dl",
          { class: "facts" },
          names.map((it) => [h("dt", {}, it), h("dd", {}, words.number(found[it]))]),
        ),
        lineErrors(found.errors),
      );
      done();
      return;
    }
    const error = api.refusal(status, responseText, request.getResponseHeader("Retry-After"));
    const lines = error.problem.errors?.filter((one) => "line" in one) ?? [];
    ended(lines.length ? "Nothing is written: there are wrong lines." : api.words(error));
    result.append(lineErrors(lines));
  }
}

function lineErrors(errors) {
  if (errors.length === 0) return "";
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col", class: "number" }, "Line"),
          h("th", { scope: "col" }, "Error"),
        ),
      ),
      h(
        "tbody",
        {},
        errors.map((one) =>
          h("tr", {}, h("td", { class: "number" }, String(one.line)), h("td", {}, one.message)),
        ),
      ),
    ),
    errors.length >= SHOWN ? h("p", { class: "muted" }, `The first ${SHOWN} errors.`) : null,
  );
}

/**
 * Open the dialog that exports rows.
 *
 * @param resource - of the rows.
 * @param query - the filters of the view.
 */
export function exportRows(resource, query) {
  let running = null;
  const format = select("export-format", [
    ["csv", "CSV"],
    ["ndjson", "NDJSON"],
  ]);
  const told = h("p", { role: "status" });
  const start = h("button", { type: "submit", class: "primary" }, "Export");
  const given = Object.entries(query).map(
    ([name, value]) => `${words.label(name === "q" ? "search" : name)}: ${value}`,
  );
  const form = h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        start.disabled = true;
        running = new AbortController();
        try {
          await save(format.value, running.signal);
          dialog.close();
        } catch (error) {
          // A response that is cut off is an error too, so no file is incomplete.
          told.textContent = api.words(error);
        } finally {
          start.disabled = false;
        }
      },
    },
    h("p", {}, given.length ? `The rows with ${given.join(", ")}.` : "All rows."),
    h("div", { class: "fields" }, labelled("Format", format)),
    told,
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
      start,
    ),
  );
  const dialog = openDialog(`Export ${resource.title}`, {}, form);
  dialog.addEventListener("close", () => running?.abort());

  async function save(kind, signal) {
    const response = await api.send("GET", `${resource.path}/export`, {
      query: { ...query, format: kind },
      signal,
    });
    // A link can't send the key in a header, so the page fetches the file.
    const parts = [];
    let size = 0;
    for (const reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read().catch(() => {
        throw new Error("The export was cut off. Nothing is saved.");
      });
      if (done) break;
      parts.push(value);
      size += value.length;
      told.textContent = `Received ${words.bytes(size)}.`;
    }
    const url = URL.createObjectURL(new Blob(parts, { type: TYPES[kind] }));
    h("a", { href: url, download: `${resource.name.replaceAll("/", "-")}.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    announce(`Exported ${words.bytes(size)}.`, "good");
  }
}

function select(id, options) {
  return h(
    "select",
    { id },
    options.map(([value, text]) => h("option", { value }, text)),
  );
}

function labelled(text, input, hint = "") {
  return h(
    "div",
    { class: "field" },
    h("label", { for: input.id }, text),
    input,
    h("p", { class: "hint" }, hint),
  );
}
