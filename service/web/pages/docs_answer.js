// The answer to a request: status, time, headers and body, or what went wrong, in words.

// Characters of a body that are shown: more make the page slow. The rest is saved as a file.
const SHOWN = 50_000;

export class Answer {
  constructor(box) {
    this.box = box;
    this.box.replaceChildren();
    this.box.hidden = false;
    this.heading = add(box, "h3", "Answer");
    // Exists before its text, so that screen readers say the text.
    this.status = add(box, "p", "", { className: "status", role: "status" });
  }

  // Send the request and show its answer.
  async show(request, signal) {
    this.status.textContent = "Waiting for the answer …";
    const headers = [...request.headers];
    if (request.secret) headers.push(["Authorization", `Bearer ${request.secret}`]);
    const started = performance.now();
    let response;
    try {
      response = await fetch(request.url, {
        method: request.method,
        headers,
        body: request.body ?? undefined,
        signal,
      });
    } catch (error) {
      this.fail(whatFailed(error, signal));
      return;
    }
    const { blob, ended } = await this.receive(response, signal);
    const milliseconds = performance.now() - started;
    this.summarize(response, blob, milliseconds, ended);
    this.listHeaders(response);
    await this.showBody(response, blob);
  }

  // Read the body piece by piece: an endless one ends when the reader stops it.
  async receive(response, signal) {
    const pieces = [];
    let size = 0;
    let ended = "";
    try {
      const reader = response.body?.getReader();
      for (let next; reader && !(next = await reader.read()).done; ) {
        pieces.push(next.value);
        size += next.value.length;
        this.status.textContent = `Receiving … ${bytes(size)}`;
      }
    } catch (error) {
      ended = signal.aborted
        ? "You stopped it here."
        : "The connection ended before the end of the body.";
    }
    return { blob: new Blob(pieces), ended };
  }

  summarize(response, blob, milliseconds, ended) {
    const { status, statusText } = response;
    this.status.textContent = "";
    add(this.status, "b", `${status} ${statusText}`.trim(), { className: `s${String(status)[0]}` });
    const inside = 1000 * Number(response.headers.get("x-process-time"));
    const parts = [time(milliseconds), `${time(inside)} in the service`, bytes(blob.size)];
    this.status.append(`, ${parts.join(", ")}`);
    if (status === 401 && document.getElementById("the-key")) {
      add(this.status, "span", " Enter a key under API key, at the top.", { className: "warn" });
    }
    if (ended) add(this.status, "span", ` ${ended}`, { className: "bad" });
  }

  listHeaders(response) {
    const pairs = [...response.headers];
    const box = add(this.box, "details");
    add(box, "summary", `${pairs.length} headers`);
    const list = add(box, "dl");
    for (const [name, value] of pairs) {
      add(add(list, "dt"), "code", name);
      add(list, "dd", value);
    }
  }

  async showBody(response, blob) {
    if (blob.size === 0) {
      add(this.box, "p", "The body is empty.", { className: "muted" });
      return;
    }
    const type = response.headers.get("content-type") ?? "";
    const file = fileName(response, type);
    const save = add(this.box, "button", "Save", { type: "button", ariaLabel: `Save as ${file}` });
    save.dataset.save = file;
    save.className = "quiet";
    this.heading.after(save);
    save.addEventListener("click", () => download(blob, file));
    if (!/^text\/|json|xml/.test(type)) {
      add(this.box, "p", `A body of type ${type || "unknown"}: save it.`, { className: "muted" });
      return;
    }
    // Four bytes are the longest character.
    const text = await blob.slice(0, 4 * SHOWN).text();
    const shown = text.slice(0, SHOWN);
    const label = "The body of the answer";
    const pre = add(this.box, "pre", "", { tabIndex: 0, role: "group", ariaLabel: label });
    if (/[/+]json/.test(type)) pre.append(...pretty(shown));
    else pre.textContent = shown;
    if (shown.length < text.length || blob.size > 4 * SHOWN) {
      const cut = `This is the beginning of ${bytes(blob.size)}. `;
      const note = add(this.box, "p", cut, { className: "warn" });
      const whole = add(note, "button", "Save the whole body", { type: "button" });
      whole.addEventListener("click", () => download(blob, file));
    }
  }

  fail(text) {
    this.status.textContent = "";
    add(this.status, "span", text, { className: "bad" });
  }
}

function whatFailed(error, signal) {
  if (signal.aborted) return "You stopped it before there was an answer. It may have been done.";
  if (error instanceof TypeError && /header|bytestring|iso-8859-1/i.test(error.message)) {
    return "A header has a character that is not allowed there: use visible ASCII characters.";
  }
  return (
    `There is no answer from ${location.host}. The service does not run, the network is away, or` +
    " the connection was closed. Start it (swiftlet serve), then send the request again."
  );
}

// The name of Content-Disposition, else one from the path.
function fileName(response, type) {
  const given = /filename="?([^";]+)"?/.exec(response.headers.get("content-disposition") ?? "");
  if (given) return given[1];
  const ending = /json/.test(type) ? "json" : /csv/.test(type) ? "csv" : "txt";
  const last = new URL(response.url).pathname.split("/").filter(Boolean).join("-");
  return `${last || "answer"}.${ending}`;
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function time(milliseconds) {
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}

function bytes(count) {
  const thousands = [
    [1e9, "GB"],
    [1e6, "MB"],
    [1e3, "kB"],
  ].find(([least]) => count >= least);
  return thousands
    ? `${(count / thousands[0]).toFixed(1)} ${thousands[1]}`
    : `${count} ${count === 1 ? "byte" : "bytes"}`;
}

// JSON with line breaks and colours, as text and elements. It works on the text, because JSON.parse
// would change numbers of more than 15 digits; so it also shows JSON that was cut.
function pretty(json) {
  const tokens = json.match(/"(?:[^"\\]|\\.)*"?|[{}[\],:]|[^\s"{}[\],:]+/g) ?? [];
  const parts = [];
  let depth = 0;
  const line = () => parts.push(`\n${"  ".repeat(depth)}`);
  tokens.forEach((token, place) => {
    const next = tokens[place + 1];
    if (token === "{" || token === "[") {
      parts.push(token);
      if (next === "}" || next === "]") return;
      depth += 1;
      line();
    } else if (token === "}" || token === "]") {
      const before = tokens[place - 1];
      if (before !== "{" && before !== "[") {
        depth -= 1;
        line();
      }
      parts.push(token);
    } else if (token === ",") {
      parts.push(token);
      line();
    } else if (token === ":") {
      parts.push(": ");
    } else {
      const span = document.createElement("span");
      span.className = kindOf(token, next);
      span.textContent = token;
      parts.push(span);
    }
  });
  return parts;
}

function kindOf(token, next) {
  if (token[0] === '"') return next === ":" ? "j-name" : "j-text";
  return /^[-\d]/.test(token) ? "j-number" : "j-word";
}

function add(parent, name, text = "", properties = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  Object.assign(element, properties);
  parent.append(element);
  return element;
}
