// /docs: what the page can do beyond showing itself. The server has rendered all operations, shapes
// and fields; this reads them from the page.

import { Answer } from "./docs_answer.js";
import { commandOf, readForm } from "./docs_request.js";
import { startSearch } from "./docs_search.js";

const root = document.documentElement.dataset.root;
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// The API key: in memory, and in the tab's storage only if the reader wants that.

const KEPT = "swiftlet.key";
let key = "";

function startKey() {
  const form = find("#the-key");
  if (!form) return; // the service asks for no key
  const [value, kept, box] = [find("#the-key-value"), find("#the-key-kept"), form.parentElement];
  const use = (given) => {
    key = given.trim();
    find("#the-key-state").textContent = key ? "set" : "none";
    try {
      if (key && kept.checked) sessionStorage.setItem(KEPT, key);
      else sessionStorage.removeItem(KEPT);
    } catch {
      // The reader allows no storage.
    }
    for (const operation of all("details.operation > form")) showCommand(operation);
  };
  const close = () => {
    box.open = false;
    find("summary", box).focus();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    use(value.value);
    close();
  });
  find("#the-key-forget").addEventListener("click", () => {
    value.value = "";
    kept.checked = false;
    use("");
    close();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && box.open) close();
  });
  box.addEventListener("toggle", () => box.open && value.focus());
  addEventListener("click", (event) => {
    if (!box.contains(event.target)) box.open = false;
  });
  try {
    const stored = sessionStorage.getItem(KEPT);
    if (stored) {
      value.value = stored;
      kept.checked = true;
      use(stored);
    }
  } catch {
    // As above.
  }
}

// One operation: its command follows its fields, and its button sends the request.

function showCommand(form) {
  const request = readForm(form, root, key);
  find(".request code", form).textContent = commandOf(request);
  return request;
}

function checkBody(form) {
  const [body, problem] = [find("[data-in=body]", form), find(".problem", form)];
  if (!body) return;
  let wrong = "";
  if (readForm(form, root, key).type === "application/json") {
    try {
      JSON.parse(body.value);
    } catch (error) {
      wrong = `This is not JSON: ${error.message}`;
    }
  }
  body.ariaInvalid = String(wrong !== "");
  problem.textContent = wrong;
  problem.hidden = wrong === "";
}

async function send(form) {
  const missing = all("input[required]", form).find((one) => !one.value.trim());
  const answer = new Answer(find(".answer", form));
  find(".example", form)?.remove();
  if (missing) {
    answer.fail(`Fill in ${missing.name}: it is a part of the path.`);
    missing.focus();
    return;
  }
  const [submit, stop] = [find("button.primary", form), find("[data-stop]", form)];
  const control = new AbortController();
  stop.onclick = () => control.abort();
  submit.disabled = true;
  stop.hidden = false;
  try {
    await answer.show(showCommand(form), control.signal);
  } finally {
    submit.disabled = false;
    stop.hidden = true;
  }
}

function startOperation(form) {
  showCommand(form);
  form.addEventListener("input", () => {
    showCommand(form);
    checkBody(form);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  find("[data-copy]", form).addEventListener("click", ({ target }) => {
    copy(find(".request code", form), target);
  });
}

// Copy a text. The clipboard exists only on https and localhost; else the text is selected.
async function copy(element, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(element.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(element);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = label), 2000);
}

// Addresses: #createItem opens the operation, and an opened operation is in the address.

function openTarget() {
  const id = location.hash.slice(1);
  const target = all("main details[id]").find((one) => one.id === id);
  if (!target) return;
  target.hidden = false; // the search may have hidden it
  target.closest(".group").hidden = false;
  target.open = true;
  target.scrollIntoView();
  find("summary", target).focus({ preventScroll: true });
}

function markCurrent(id) {
  for (const link of all("nav a")) {
    if (link.hash === `#${id}`) link.ariaCurrent = "true";
    else link.removeAttribute("aria-current");
  }
}

function startAddresses() {
  for (const one of all("main details[id]")) {
    one.addEventListener("toggle", () => {
      if (!one.open) return;
      history.replaceState(null, "", `#${one.id}`);
      markCurrent(one.id);
    });
  }
  // Also for a second click on the same link, which changes no address.
  addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    if (link && link.hash === location.hash) setTimeout(openTarget);
  });
  addEventListener("hashchange", openTarget);
  openTarget();
}

find("#the-base").hidden = true;
startKey();
for (const form of all("details.operation > form")) startOperation(form);
startSearch(find("#the-search"), find("#the-count"));
startAddresses();
