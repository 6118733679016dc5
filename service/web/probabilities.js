/** Probabilities of the likeliest classes, side by side, as bars with their numbers. */

import { h, s } from "./dom.js";
import { percent } from "./format.js";

const ROWS = 5;

/** @typedef {{title: string, predictions: import("./types.js").Prediction[]}} Column */

/**
 * @param {Column[]} columns
 * @param {string | null} truth the true class, if it is known
 */
export function probabilityTable(columns, truth) {
  const found = columns.map(
    ({ predictions }) => new Map(predictions.map(({ label, probability }) => [label, probability])),
  );
  const labels = [...new Set(found.flatMap((each) => [...each.keys()]))];
  const most = (/** @type {string} */ label) => Math.max(...found.map((each) => each.get(label) ?? 0));
  const rows = labels.sort((a, b) => most(b) - most(a)).slice(0, ROWS);
  return h(
    "table",
    { class: "probabilities" },
    h("caption", {}, "Probabilities"),
    h(
      "thead",
      {},
      h("tr", {}, h("th", { scope: "col" }, "Class"), ...columns.map(({ title }) => h("th", { scope: "col" }, title))),
    ),
    h(
      "tbody",
      {},
      ...rows.map((label) =>
        h(
          "tr",
          { class: label === truth ? "truth" : null },
          h("th", { scope: "row" }, label, label === truth ? h("span", { class: "hint" }, " true") : null),
          ...found.map((each) => h("td", {}, bar(each.get(label) ?? null))),
        ),
      ),
    ),
  );
}

/** @param {number | null} share null where the server sent none */
function bar(share) {
  if (share === null) return h("span", { class: "hint" }, "\u2013");
  const amount = s("rect", { x: 0, y: 0, width: (100 * share).toFixed(1), height: 6 });
  const drawing = s(
    "svg",
    { class: "amount", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    amount,
  );
  return h("div", { class: "share" }, drawing, h("span", {}, percent(share)));
}
