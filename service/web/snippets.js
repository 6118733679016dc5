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
  const key = keyed ? '-H "X-API-Key: $LIMPID_KEY" ' : "";
  const command = `curl ${key}-F ${quoted(`image=@${picture.name}`)} \\\n  ${quoted(`${address(path)}?${query}`)}`;
  const fetched = fromGallery(picture) ? `curl -O ${quoted(address(`web/gallery/${picture.name}`))}\n` : "";
  const kept = path === "demo/attack" ? " \\\n  | jq -r .attacked_png_base64 | base64 -d > attacked.png" : "";
  return fetched + command + kept;
}

/** @param {import("./defence.js").Call[]} calls @param {boolean} keyed */
function python(calls, keyed) {
  const attacking = calls.some(({ path }) => path === "demo/attack");
  const lines = [
    ...(attacking ? ["import base64"] : []),
    ...(keyed ? ["import os"] : []),
    ...(attacking || keyed ? [""] : []),
    "import httpx",
    "",
  ];
  const key = keyed ? ', headers={"X-API-Key": os.environ["LIMPID_KEY"]}' : "";
  lines.push(`with httpx.Client(base_url=${JSON.stringify(address(""))}, timeout=130${key}) as client:`);
  for (const { path, query, picture } of calls) {
    const source = fromGallery(picture)
      ? `client.get(${JSON.stringify(`web/gallery/${picture.name}`)}).content`
      : `open(${JSON.stringify(picture.name)}, "rb").read()`;
    const parameters = JSON.stringify(Object.fromEntries(query)).replaceAll('":"', '": "').replaceAll('","', '", "');
    if (path === "demo/attack" || !attacking) lines.push(`    image = ${source}`);
    lines.push(`    answer = client.post(${JSON.stringify(path)}, params=${parameters}, files={"image": image})`);
    lines.push("    answer.raise_for_status()");
    if (path === "demo/attack") lines.push('    image = base64.b64decode(answer.json()["attacked_png_base64"])');
    else lines.push('    print(answer.json()["predictions"][0])');
  }
  return lines.join("\n");
}

/** @param {import("./types.js").Picture} picture */
const fromGallery = ({ name, label }) => label !== null && /^\d{5}-[a-z]+\.png$/.test(name);

/** For a shell. @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
