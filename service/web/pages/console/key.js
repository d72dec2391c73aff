/* The API key of this tab: in memory, or in sessionStorage if the user asks for it. */

const STORED = "swiftlet.key"; // as on /docs, so that a tab has one key
let key = stored() ?? "";

function stored() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null; // the browser forbids storage
  }
}

/** Return the key, or an empty string. */
export const current = () => key;

/** Whether the key outlives a reload of this tab. */
export const isRemembered = () => stored() !== null;

/** Use a key from now on; an empty one removes it. */
export function use(text, remember) {
  key = text.trim();
  try {
    if (remember && key) sessionStorage.setItem(STORED, key);
    else sessionStorage.removeItem(STORED);
  } catch {
    // the browser forbids storage: the key stays in memory
  }
}
