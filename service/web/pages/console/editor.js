/* The dialogs that create, change and remove a row. */

import * as api from "./api.js";
import { compare } from "./conflict.js";
import { announce, confirmed, h, openDialog } from "./dom.js";
import { Inputs } from "./form.js";
import { parse, stringify } from "./json.js";
import * as words from "./words.js";

/**
 * Open the dialog for a new row.
 *
 * @param resource - of the row.
 * @param saved - called with the new row.
 */
export function create(resource, saved) {
  const inputs = new Inputs(resource.newFields);
  // A request that is repeated, because its answer was lost, must not create a second row.
  const keys = new Map();
  const save = async () => {
    const body = inputs.values();
    if (body === null) return false;
    const text = stringify(body);
    if (!keys.has(text)) keys.set(text, randomKey());
    const headers = { "Idempotency-Key": keys.get(text) };
    const row = await api.json("POST", resource.path, { body, headers });
    announce(`Created ${name(resource, row)}.`, "good");
    saved(row);
    return true;
  };
  return formDialog(`New ${resource.one.toLowerCase()}`, inputs, "Create", save);
}

/**
 * Open the dialog for a row, as the database has it now.
 *
 * @param resource - of the row.
 * @param id - of the row.
 * @param saved - called with the row after a change, with null after a removal.
 */
export async function edit(resource, id, saved) {
  const path = `${resource.path}/${id}`;
  const { row, etag } = await api.row(path);
  open(row, etag);

  function open(row, etag) {
    const inputs = new Inputs(resource.changeFields, row);
    const save = async () => {
      const body = inputs.changes();
      if (body === null) return false;
      if (Object.keys(body).length === 0) {
        announce("Nothing was changed.");
        return true;
      }
      try {
        await change(body, etag);
        return true;
      } catch (error) {
        if (error.status !== 412) throw error;
      }
      return solve(row, body);
    };
    const remove = h(
      "button",
      { type: "button", class: "danger", onclick: () => removal(row, etag) },
      "Delete permanently…",
    );
    const more = [facts(resource, row), resource.can.remove ? remove : null];
    const dialog = formDialog(`Edit ${name(resource, row)}`, inputs, "Save", save, more);
    const removal = async (row, etag) => {
      if (await removeForGood(resource, row, etag)) {
        dialog.close();
        saved(null);
      }
    };
  }

  async function change(body, etag) {
    const response = await api.send("PATCH", path, {
      body,
      headers: etag ? { "If-Match": etag } : {},
    });
    const row = parse(await response.text());
    announce(`Saved ${name(resource, row)}.`, "good");
    saved(row);
  }

  /** Another client has changed the row: let the user choose. Return whether the form is done. */
  async function solve(base, mine) {
    const { row: theirs, etag } = await api.row(path);
    const chosen = await compare(resource, base, mine, theirs);
    if (chosen === null) return false; // back to the form
    if (Object.keys(chosen).length === 0) {
      announce(`Kept ${name(resource, theirs)} as the other client left it.`);
      saved(theirs);
      return true;
    }
    try {
      await change(chosen, etag);
    } catch (error) {
      if (error.status !== 412) throw error;
      return solve(theirs, chosen); // changed once more
    }
    return true;
  }
}

/** Delete a row that can be restored, or restore it. Return the row. */
export async function setActive(resource, row, active) {
  const path = `${resource.path}/${row.id}`;
  const headers = row.version === undefined ? {} : { "If-Match": `"${row.version}"` };
  const found = active
    ? await api.json("PATCH", path, { body: { is_active: true }, headers })
    : await api.json("DELETE", path, { headers });
  announce(`${active ? "Restored" : "Deleted"} ${name(resource, found)}.`, "good");
  return found;
}

/** Ask, and remove a row that can't be restored. Return whether it is removed. */
export async function removeForGood(resource, row, etag) {
  const title = `Delete ${name(resource, row)} permanently?`;
  const text = `${summary(row)} It can't be restored.`;
  if (!(await confirmed(title, text, "Delete permanently"))) return false;
  const query = resource.can.softDelete ? { permanent: "true" } : {};
  try {
    await api.send("DELETE", `${resource.path}/${row.id}`, {
      query,
      headers: etag ? { "If-Match": etag } : {},
    });
  } catch (error) {
    const changed = error.status === 412;
    announce(
      changed ? "Not deleted: another client has changed it. Open it again." : api.words(error),
      "bad",
    );
    return false;
  }
  announce(`Deleted ${name(resource, row)} permanently.`, "good");
  return true;
}

/** Return what a row is called in messages: "Item 5". */
export const name = (resource, row) => `${resource.one} ${row.id}`;

function summary(row) {
  const text = Object.entries(row).find(
    ([key, value]) => key !== "id" && typeof value === "string",
  );
  return text ? `${words.label(text[0])}: ${text[1]}.` : "";
}

/** Show the fields of a row that a form does not have, such as its version. */
function facts(resource, row) {
  const editable = new Set(resource.changeFields.map((one) => one.name));
  const others = Object.entries(row).filter(([key]) => !editable.has(key));
  return h(
    "dl",
    { class: "facts" },
    others.map(([key, value]) => [
      h("dt", {}, words.label(key)),
      h("dd", {}, words.shown(value) || "-"),
    ]),
  );
}

/**
 * Open a dialog with a form.
 *
 * `save` returns a promise of whether the dialog closes; its errors are shown in the form.
 */
function formDialog(title, inputs, action, save, more = []) {
  let warned = false;
  const mayClose = () => {
    if (!inputs.changed || warned) return true;
    warned = true;
    inputs.show("Your changes are not saved. Press Escape again to discard them.");
    return false;
  };
  const submit = h("button", { type: "submit", class: "primary" }, action);
  const form = h(
    "form",
    {
      novalidate: true, // the service checks, so that there is one set of rules
      onsubmit: async (event) => {
        event.preventDefault();
        if (submit.disabled) return;
        submit.disabled = true;
        try {
          if (await save()) dialog.close();
        } catch (error) {
          inputs.show(api.words(error), error.problem?.errors);
        } finally {
          submit.disabled = false;
        }
      },
      oninput: () => {
        warned = false;
      },
    },
    inputs.element,
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      submit,
    ),
  );
  const dialog = openDialog(title, { mayClose }, form, more);
  dialog.querySelector("input, select, textarea")?.focus();
  return dialog;
}

function randomKey() {
  // crypto.randomUUID exists only on https and on loopback addresses.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
