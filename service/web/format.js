/** How numbers and pictures are written. */

/** @param {number} share */
export const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

/** @param {number} share */
export const points = (share) => `${(100 * share).toFixed(1)}`;

/** @param {import("./types.js").Share} share */
export const interval = (share) => `[${points(share.low)}, ${points(share.high)}]`;

/** @param {number} count @param {string} noun */
export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** @param {number} ms */
export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)}\u00a0ms` : `${(ms / 1000).toFixed(1)}\u00a0s`);

/** @param {{norm: string, budget: number}} threat */
export const threat = ({ norm, budget }) => `${norm === "linf" ? "L\u221e" : "L2"}\u00a0${budget}/255`;

/** A PNG as the API sends it. @param {string} base64 */
export const dataUrl = (base64) => `data:image/png;base64,${base64}`;

/** @param {string} base64 @returns {Blob} */
export function pngBlob(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}
