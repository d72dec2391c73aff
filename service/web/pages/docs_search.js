// The search: every word must be in an operation's method, path, summary, tag or fields.

export function startSearch(field, count) {
  const links = new Map();
  for (const link of document.querySelectorAll("nav a")) links.set(link.hash.slice(1), link);
  const entries = [...document.querySelectorAll("main details[data-words]")].map((box) => ({
    box,
    words: box.dataset.words,
    line: links.get(box.id)?.parentElement,
    operation: box.classList.contains("operation"),
  }));
  const intro = document.querySelector(".intro");
  const groups = [...document.querySelectorAll("main .group, nav section")];

  const apply = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let [operations, shapes] = [0, 0];
    for (const { box, words: has, line, operation } of entries) {
      const found = words.every((word) => has.includes(word));
      box.hidden = !found;
      if (line) line.hidden = !found;
      if (found) operation ? operations++ : shapes++;
    }
    for (const group of groups) {
      group.hidden = !group.querySelector(":scope > details:not([hidden]), li:not([hidden])");
    }
    intro.hidden = words.length > 0;
    count.textContent = words.length ? told(operations, shapes) : "";
  };

  field.addEventListener("input", apply);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      field.value = "";
      apply();
    } else if (event.key === "Enter" || event.key === "ArrowDown") {
      event.preventDefault();
      // To the first that is found: in the list on the left, or in the page where it is not shown.
      const first = entries.find(({ box }) => !box.hidden);
      if (!first) return;
      const link = first.line?.firstChild;
      if (event.key === "ArrowDown" && link?.offsetParent) link.focus();
      else location.hash = first.box.id;
    }
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
  apply(); // a browser may restore the text of the field
}

function told(operations, shapes) {
  if (operations + shapes === 0) return "Nothing found: try fewer letters";
  const parts = [
    [operations, "operation"],
    [shapes, "shape"],
  ].filter(([number]) => number > 0);
  return parts.map(([number, name]) => `${number} ${name}${number === 1 ? "" : "s"}`).join(", ");
}
