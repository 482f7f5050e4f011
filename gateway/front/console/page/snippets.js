// The same request as a command and as programs, to copy. What stands in quotation marks is quoted
// by the rules of its language, whatever the request holds. The key is read from the environment.

const KEY_NAME = "GATEWAY_KEY";

/** For a shell (POSIX, 2.2.2): nothing has a meaning between two single quotation marks. */
export const shellQuoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** JSON text as an expression of Python's. The escapes of JSON's strings mean the same there. */
export const asPython = (json) =>
  json.replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/gs, (token) =>
    ({ true: "True", false: "False", null: "None" })[token] ?? token.replaceAll("\\/", "/"));

/** JSON text as an expression of JavaScript's that makes the same JSON text. */
export function asJavaScript(json) {
  const exact = JSON.stringify(JSON.parse(json)) === compact(json) && !json.includes("__proto__");
  return exact ? `JSON.stringify(${json})` : JSON.stringify(json);
}

/** JSON text without the spaces between its tokens. */
export const compact = (json) => json.replace(/("(?:[^"\\]|\\.)*")|\s+/gs, (_, string) => string ?? "");

/** The request as curl, Python and TypeScript: `[[name, text]…]`. */
export function snippets({ url, json, streams, keyed }) {
  return [["curl", curl(url, json, streams, keyed)], ["Python", python(url, json, streams, keyed)], ["TypeScript", typescript(url, json, streams, keyed)]];
}

function curl(url, json, streams, keyed) {
  const lines = [`curl${streams ? " -N" : ""} ${shellQuoted(url)}`];
  if (keyed) lines.push(`-H "Authorization: Bearer $${KEY_NAME}"`);
  // A body that begins with @ would be a file's name; JSON text never does.
  lines.push("-H 'Content-Type: application/json'", `--data-binary ${shellQuoted(json)}`);
  return lines.join(" \\\n  ");
}

function python(url, json, streams, keyed) {
  const imports = [...(keyed ? ["import os", ""] : []), "import httpx", ""];
  const headers = keyed ? `    headers={"Authorization": f"Bearer {os.environ['${KEY_NAME}']}"},\n` : "";
  const body = indented(asPython(json), "    ");
  const options = `    ${JSON.stringify(url)},\n${headers}    json=${body},\n    timeout=None,\n`;
  const rest = streams
    ? `with httpx.stream(\n    "POST",\n${options}) as response:\n    for line in response.iter_lines():\n        print(line, flush=True)`
    : `response = httpx.post(\n${options})\nprint(response.text)`;
  return [...imports, rest].join("\n");
}

function typescript(url, json, streams, keyed) {
  const key = keyed ? `\n    Authorization: \`Bearer \${process.env.${KEY_NAME}}\`,` : "";
  const head = `const response = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: {${key}
    "Content-Type": "application/json",
  },
  body: ${indented(asJavaScript(json), "  ")},
});`;
  const rest = streams
    ? `for await (const text of response.body!.pipeThrough(new TextDecoderStream())) {
  process.stdout.write(text);
}`
    : "console.log(await response.text());";
  return `${head}\n${rest}`;
}

/** The lines after the first, moved to the right: between JSON's tokens, spaces mean nothing. */
const indented = (text, space) => text.replaceAll("\n", `\n${space}`);
