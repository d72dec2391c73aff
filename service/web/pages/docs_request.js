// From the fields of an operation to a request, and to the same request as a curl command.

// A request: method, url, headers (list of pairs), type (of the body), body (text or File), secret
// (the API key).
export function readForm(form, root, key) {
  const { method, path, type: firstType } = form.dataset;
  let where = path;
  const query = [];
  const headers = [];
  for (const field of form.querySelectorAll("[data-in]")) {
    const value = field.value;
    switch (field.dataset.in) {
      case "path":
        where = where.replace(`{${field.name}}`, encodeURIComponent(value.trim()));
        break;
      case "query":
        if (value !== "" || sendsEmpty(form, field)) {
          query.push(`${encodeURIComponent(field.name)}=${encode(value)}`);
        }
        break;
      case "header":
        if (value !== "") headers.push([field.name, value]);
        break;
    }
  }
  const request = {
    method,
    url: location.origin + root + where + (query.length ? `?${query.join("&")}` : ""),
    headers,
    type: form.querySelector("[data-in=type]")?.value ?? firstType,
    body: null,
    secret: key,
  };
  const text = form.querySelector("[data-in=body]");
  if (text) {
    request.body = form.querySelector("[data-in=file]")?.files[0] ?? text.value;
    headers.push(["Content-Type", request.type]);
  }
  return request;
}

function sendsEmpty(form, field) {
  const box = [...form.querySelectorAll("[data-empty]")].find((one) => one.dataset.empty === field.id);
  return box?.checked ?? false;
}

// Commas separate the values of a list, and need no escape in a query.
function encode(value) {
  return encodeURIComponent(value).replaceAll("%2C", ",");
}

// The command for a shell. The key is a variable of the shell, so that it is neither shown nor
// copied; inside double quotes the shell replaces it.
export function commandOf({ method, url, headers, body, secret }) {
  const words = [method === "GET" ? quote(url) : `-X ${method} ${quote(url)}`];
  if (secret) words.push('-H "Authorization: Bearer $API_KEY"');
  for (const [name, value] of headers) words.push(`-H ${quote(`${name}: ${value}`)}`);
  if (body === "") words.push("--data-binary @file");
  else if (body instanceof File) words.push(`--data-binary ${quote(`@${body.name}`)}`);
  // After --data-binary, a text that begins with @ is the name of a file.
  else if (body?.startsWith("@")) words.push(`--data-raw ${quote(body)}`);
  else if (body !== null) words.push(`--data-binary ${quote(shorten(body))}`);
  return `curl ${words.join(" \\\n  ")}`;
}

// JSON on one line, as far as no value changes: a number with 20 digits would lose some of them.
function shorten(text) {
  try {
    const short = JSON.stringify(JSON.parse(text));
    const plain = (one) => one.replace(/\s+/g, "");
    return plain(short) === plain(text) ? short : text;
  } catch {
    return text;
  }
}

function quote(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
