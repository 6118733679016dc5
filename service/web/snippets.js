/** The API tab: what was just done, as commands and as a program. */

import { address } from "./api.js";
import { h } from "./dom.js";

/**
 * @param {HTMLElement} place
 * @param {import("./defence.js").Call[]} calls
 * @param {boolean} keyed whether the server asks for keys
 */
export function showSnippets(place, calls, keyed) {
  const docs = h("a", { href: address("docs") }, "interactive documentation");
  const head = [
    h("h1", {}, "The same without this page"),
    h("p", {}, "What was just done, to copy. Every parameter is in the ", docs, "."),
  ];
  if (!calls.length) {
    place.replaceChildren(...head, h("p", { class: "hint" }, "Nothing yet: purify or attack a picture first."));
    return;
  }
  place.replaceChildren(
    ...head,
    snippet("curl", calls.map((call) => curl(call, keyed)).join("\n")),
    snippet("Python", python(calls, keyed)),
  );
}

/** What each path is in the typed client. */
const CLIENT = /** @type {Record<string, {name: string, method: string, options: string}>} */ ({
  "demo/attack": { name: "attacked", method: "attack", options: "AttackOptions" },
  classify: { name: "answer", method: "classify", options: "ClassifyOptions" },
  purify: { name: "purified", method: "purify", options: "PurifyOptions" },
});

/** What a call's answer leaves behind. */
const AFTER = /** @type {Record<string, string>} */ ({
  classify: "print(answer.predictions[0])",
  purify: 'Path("purified.png").write_bytes(purified.png)',
});

/** @param {string} title @param {string} text */
function snippet(title, text) {
  const code = h("code", {}, text);
  const said = h("span", { role: "status", class: "hint" });
  const copy = h("button", { type: "button", class: "quiet" }, "Copy");
  copy.setAttribute("aria-label", `Copy the ${title} text`);
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied.";
    } catch {
      // Without TLS, or without leave, browsers keep the clipboard to themselves.
      getSelection()?.selectAllChildren(code);
      said.textContent = "Selected: copy it with the keyboard.";
    }
  });
  const block = h("pre", { tabindex: 0, "aria-label": title, role: "region" }, code);
  return h("section", { class: "snippet" }, h("header", {}, h("h2", {}, title), said, copy), block);
}

/** @param {import("./defence.js").Call} call @param {boolean} keyed */
function curl({ path, query, picture }, keyed) {
  const key = keyed ? '-H "X-API-Key: $LIMPID_API_KEY" ' : "";
  const command = `curl ${key}-F ${quoted(`image=@${curlFile(picture.name)}`)} \\\n  ${quoted(`${address(path)}?${query}`)}`;
  const fetched = fromGallery(picture) ? `curl -O ${quoted(address(`web/gallery/${picture.name}`))}\n` : "";
  const extract = `grep -o '"attacked_png_base64":"[^"]*' | cut -d '"' -f 4 | base64 -d`;
  const kept = { "demo/attack": ` \\\n  | ${extract} > attacked.png`, purify: " -o purified.png" }[path] ?? "";
  return fetched + command + kept;
}

/** @param {import("./defence.js").Call[]} calls @param {boolean} keyed */
function python(calls, keyed) {
  const paths = calls.map(({ path }) => path);
  const attacking = paths.includes("demo/attack");
  const first = calls[0].picture;
  const fetching = fromGallery(first);
  const modules = [
    ...(keyed ? ["import os"] : []),
    ...(paths.includes("purify") ? ["from pathlib import Path"] : []),
    ...(fetching ? ["from urllib.request import urlopen"] : []),
  ];
  const key = keyed ? ', os.environ["LIMPID_API_KEY"]' : "";
  const lines = [
    '# The client comes with Limpid: pip install -e ".[client]" in its folder.',
    ...modules,
    ...(modules.length ? [""] : []),
    `from service.client import ${[...new Set([...paths.map((path) => CLIENT[path].options), "Client"])].sort().join(", ")}`,
    "",
    `with Client(${JSON.stringify(address(""))}${key}) as client:`,
  ];
  if (fetching) lines.push(`    picture = urlopen(${JSON.stringify(address(`web/gallery/${first.name}`))}).read()`);
  for (const { path, query, picture } of calls) {
    const source = fetching ? "picture" : JSON.stringify(picture.name);
    const image = attacking && path !== "demo/attack" ? "attacked.png" : source;
    const { name, method, options } = CLIENT[path];
    lines.push(`    ${name} = client.${method}(${image}, ${options}(${literals(query)}))`);
    if (AFTER[path]) lines.push(`    ${AFTER[path]}`);
  }
  return lines.join("\n");
}

/** A query as Python's arguments; a class may be called 7. @param {URLSearchParams} query */
function literals(query) {
  const literal = (/** @type {string} */ name, /** @type {string} */ value) => {
    if (value === "true") return "True";
    return ["label", "preset"].includes(name) ? JSON.stringify(value) : value;
  };
  return [...query].map(([name, value]) => `${name}=${literal(name, value)}`).join(", ");
}

/** @param {import("./types.js").Picture} picture */
const fromGallery = ({ name, label }) => label !== null && /^\d{5}-[a-z]+\.png$/.test(name);

/** In a form of curl's, where commas and semicolons part what is not in quotes. @param {string} name */
const curlFile = (name) => (/^[\w.-]+$/.test(name) ? name : `"${name.replaceAll(/["\\]/g, "\\$&")}"`);

/** For a shell. @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
