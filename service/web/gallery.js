/** Pictures to start with: shown when the bundle takes pictures of their size. */

import { address } from "./api.js";
import { h } from "./dom.js";

/**
 * @typedef {{file: string, index: number, label: string}} Entry
 * @typedef {{data: string, width: number, height: number, channels: number, pictures: Entry[]}} Collection
 */

/**
 * Radio buttons, one a picture; does nothing for a bundle of other pictures.
 * @param {HTMLElement} place
 * @param {import("./types.js").Info} info
 * @param {(picture: import("./types.js").Picture) => void} onPick
 */
export async function showGallery(place, info, onPick) {
  const { width, height, channels } = info.image;
  /** @type {Collection} */
  const collection = await (await fetch(address("web/gallery/index.json"))).json();
  const fits = collection.width === width && collection.height === height && collection.channels === channels;
  place.hidden = !fits;
  if (!fits) return;
  place.append(...collection.pictures.map((entry) => choice(entry, collection)));
  const files = new Map(collection.pictures.map((entry) => [entry.file, entry]));
  place.addEventListener("change", async (event) => {
    const entry = event.target instanceof HTMLInputElement ? files.get(event.target.value) : undefined;
    if (entry) onPick(await fetched(entry, info));
  });
  const first = place.querySelector("input");
  if (first) first.checked = true;
  onPick(await fetched(collection.pictures[0], info));
}

/** No picture of the gallery is the chosen one any more. @param {HTMLElement} place */
export function clearGallery(place) {
  for (const input of place.querySelectorAll("input")) input.checked = false;
}

/** @param {Entry} entry @param {Collection} collection */
function choice(entry, collection) {
  const alt = `${entry.label}, number ${entry.index} of ${collection.data}`;
  return h(
    "label",
    { class: "thumb", title: alt },
    h("input", { type: "radio", name: "picture", value: entry.file, class: "unseen" }),
    h("img", { src: `web/gallery/${entry.file}`, alt, width: collection.width, height: collection.height }),
  );
}

/** @param {Entry} entry @param {import("./types.js").Info} info */
async function fetched(entry, info) {
  const blob = await (await fetch(address(`web/gallery/${entry.file}`))).blob();
  const label = info.class_names.includes(entry.label) ? entry.label : null;
  return { blob, name: entry.file, label };
}
