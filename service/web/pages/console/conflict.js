/* A row that two clients have changed: the user chooses, field by field. */

import { h, openDialog } from "./dom.js";
import { same } from "./json.js";
import * as words from "./words.js";

/**
 * Return the fields that differ, `{name, kind, mine, theirs, both}`. A field that only one side has
 * changed is taken from that side; with `both` the user must look.
 *
 * @param fields - of the resource.
 * @param base - the row that both began with.
 * @param mine - the changed fields of this user.
 * @param theirs - the row as it is now.
 */
export function differences(fields, base, mine, theirs) {
  return fields
    .map(({ name, kind }) => {
      const own = name in mine ? mine[name] : base[name];
      const changedHere = name in mine;
      const changedThere = !same(base[name], theirs[name]);
      return { name, kind, mine: own, theirs: theirs[name], changedHere, changedThere };
    })
    .filter((one) => !same(one.mine, one.theirs))
    .map(({ changedHere, changedThere, ...one }) => ({
      ...one,
      own: changedHere,
      both: changedHere && changedThere,
    }));
}

/**
 * Show a conflict. Return a promise of the fields to save over their row: none to keep it as it is;
 * null to go back to the form.
 */
export function compare(resource, base, mine, theirs) {
  const found = differences(resource.changeFields, base, mine, theirs);
  if (found.length === 0) return Promise.resolve({}); // both made the same change
  const rows = found.map((one) => ({ ...one, radios: radios(one) }));
  const set = (side) => {
    for (const { radios: pair } of rows) pair[side].checked = true;
  };
  return new Promise((resolve) => {
    let result = null;
    const form = h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          const own = rows.filter((one) => one.radios.mine.checked);
          result = Object.fromEntries(own.map((one) => [one.name, one.mine]));
          dialog.close();
        },
      },
      h(
        "p",
        {},
        "Another client has changed it since you opened it: it was at version " +
          `${base.version ?? "-"} and is now at version ${theirs.version ?? "-"}. ` +
          "Choose what to keep.",
      ),
      h("div", { class: "scroll" }, table(rows)),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", class: "quiet", onclick: () => set("mine") }, "All yours"),
        h("button", { type: "button", class: "quiet", onclick: () => set("theirs") }, "All theirs"),
        h("span", { class: "space" }),
        h("button", { type: "button", onclick: () => dialog.close() }, "Back"),
        h("button", { type: "submit", class: "primary" }, "Save the choice"),
      ),
    );
    const dialog = openDialog("Changed by another client", { wide: true }, form);
    dialog.classList.add("conflict");
    dialog.addEventListener("close", () => resolve(result));
    dialog.querySelector("input")?.focus();
  });
}

function radios({ name, own }) {
  const radio = (side, checked) =>
    h("input", {
      type: "radio",
      name: `choose-${name}`,
      value: side,
      checked,
      "aria-label": `${words.label(name)}: ${side === "mine" ? "yours" : "theirs"}`,
    });
  return { mine: radio("mine", own), theirs: radio("theirs", !own) };
}

function table(rows) {
  const cell = (one, side) =>
    h(
      "td",
      {},
      h(
        "label",
        {},
        one.radios[side],
        " ",
        h("span", {}, words.shown(one[side], one.kind) || "(empty)"),
      ),
    );
  return h(
    "table",
    {},
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["Field", "Yours", "Theirs"].map((it) => h("th", { scope: "col" }, it)),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((one) =>
        h(
          "tr",
          { class: one.both ? "both" : null },
          h(
            "th",
            { scope: "row" },
            words.label(one.name),
            one.both ? h("small", {}, " both changed") : null,
          ),
          cell(one, "mine"),
          cell(one, "theirs"),
        ),
      ),
    ),
  );
}
