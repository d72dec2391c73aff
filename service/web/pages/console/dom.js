/* Build and find elements. Text is always a text node, so data can't become markup. */

/**
 * Return a new element: h("button", {type: "button", onclick: save}, "Save").
 *
 * An attribute whose name begins with "on" is a listener; true is an empty attribute, and null,
 * undefined and false are none. A child is a node, a string, a list of children, or null.
 */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return a new SVG element, with the same arguments as `h`. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
  return element;
}

/** Return the element with an id of console.html. */
export const byId = (id) => document.getElementById(id);

/** Say something to the user: it is shown for some seconds, and read by screen readers. */
export function announce(text, kind = "") {
  const place = byId("status");
  place.textContent = text;
  place.className = `toast ${kind}`;
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => place.replaceChildren(), 6000);
}

/**
 * Open a modal dialog and return it. It is removed when it closes, and the focus goes back.
 *
 * @param title - of the dialog.
 * @param options - `wide`, and `mayClose`: called before Escape closes it, returns whether it may.
 * @param content - its children, below the title.
 */
export function openDialog(title, { wide = false, mayClose = () => true } = {}, ...content) {
  const opener = document.activeElement;
  const id = `dialog-${++openDialog.count}`;
  const dialog = h(
    "dialog",
    { class: wide ? "wide" : null, "aria-labelledby": id },
    h("h2", { id }, title),
    content,
  );
  dialog.addEventListener("cancel", (event) => {
    if (event.target === dialog && !mayClose()) event.preventDefault();
  });
  // Chromium closes a dialog at the second Escape even if `cancel` is prevented.
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented) return;
    event.preventDefault();
    if (mayClose()) dialog.close();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (opener?.isConnected) opener.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
openDialog.count = 0;

/** Ask before something that can't be undone. Return a promise of whether the user agreed. */
export function confirmed(title, text, action) {
  return new Promise((resolve) => {
    const dialog = openDialog(
      title,
      {},
      h("p", {}, text),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Cancel"),
        h(
          "button",
          { type: "button", class: "danger", onclick: () => dialog.close("yes") },
          action,
        ),
      ),
    );
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"));
  });
}
