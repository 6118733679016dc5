/** The Robustness tab: the bundle's own report, the verdict first. Every number comes from the server. */

import { intervalMark, lineChart } from "./chart.js";
import { h } from "./dom.js";
import { interval, percent, plural, threat } from "./format.js";

/**
 * @typedef {import("./types.js").Robustness} Robustness
 * @typedef {import("./types.js").Share} Share
 */

/** @param {HTMLElement} place @param {import("./types.js").Report} report */
export function showRobustness(place, report) {
  const known = report.robustness;
  const parts = known
    ? measured(known)
    : [
        h("h1", {}, "Not measured"),
        h("p", {}, `Nothing is known about the robustness of ${report.name}: no evaluation was put into this bundle.`),
      ];
  place.replaceChildren(
    ...parts,
    ...(report.baseline ? [transfer(report.baseline)] : []),
    ...(known ? [remade(known)] : []),
  );
}

/** @param {Robustness} known */
function measured(known) {
  return [
    verdict(known),
    attacks(known),
    ...signs(known),
    curves(known),
    ...(known.certification ? [certified(known.certification)] : []),
    ...checklist(known),
  ];
}

/** @param {Robustness} known */
function verdict(known) {
  const { worst_case: worst, clean } = known;
  const last = known.first + known.images - 1;
  return h(
    "div",
    { class: "headline" },
    h("h1", {}, h("span", { class: "number" }, percent(worst.accuracy)), " stay right in the worst case"),
    h(
      "p",
      {},
      `An attacker who knows the defence leaves ${percent(worst.accuracy)} ${interval(worst)} of ${plural(worst.total, "picture")} right, with changes of at most ${threat(known.threat)}. Without an attack it is ${percent(clean.mean_logit.accuracy)}. A better attack can only lower the number.`,
    ),
    h(
      "p",
      { class: "hint" },
      `${known.data}, test images ${known.first} to ${last}, preset ${known.preset_name}. Brackets hold Wilson 95\u00a0% intervals.`,
    ),
  );
}

/** @param {Robustness} known */
function attacks(known) {
  const counted = known.attacks.filter((attack) => attack.on === "all" && !attack.fixed_randomness);
  counted.sort((a, b) => a.mean_logit.accuracy - b.mean_logit.accuracy);
  /** @type {[string, string, Share, string][]} */
  const rows = [
    ["Worst case of all attacks", "", known.worst_case, "worst"],
    ["Worst case, rounded to 256 levels", "as a file holds it", known.worst_case_rounded, ""],
    ...counted.map(
      (attack) =>
        /** @type {[string, string, Share, string]} */ ([
          attack.title,
          attack.knowledge === "none" ? "chance" : attack.knowledge,
          attack.mean_logit,
          "",
        ]),
    ),
    ["Clean", "", known.clean.mean_logit, "clean"],
  ];
  if (known.bare?.clean) rows.push(["Clean, bare classifier", "", known.bare.clean, "clean"]);
  const survivors = known.attacks.filter((attack) => attack.on === "survivors");
  const more = survivors.map((attack) =>
    h(
      "li",
      {},
      `${attack.title}: broke ${attack.attacked - attack.mean_logit.correct} of the ${attack.attacked} that were left.`,
    ),
  );
  return section(
    "What each attack leaves right",
    shares("Attack", rows),
    ...(more.length ? [h("ul", { class: "hint" }, ...more)] : []),
    h("p", { class: "hint" }, known.gradient_note),
  );
}

/**
 * @param {string} head
 * @param {[string, string, Share, string][]} rows title, detail, share, class
 * @param {Share[]} [cleans] what each row is without the attack, in a column of its own
 */
function shares(head, rows, cleans) {
  const number = (/** @type {Share} */ share) =>
    h("td", { class: "number" }, percent(share.accuracy), h("span", { class: "hint" }, ` ${interval(share)}`));
  const line = (/** @type {[string, string, Share, string]} */ [title, detail, share, kind], /** @type {number} */ at) =>
    h(
      "tr",
      { class: kind || null },
      h("th", { scope: "row" }, title, detail ? h("span", { class: "hint" }, ` ${detail}`) : null),
      h("td", { class: "marks" }, intervalMark(share, kind)),
      number(share),
      cleans ? number(cleans[at]) : null,
    );
  const header = h(
    "tr",
    {},
    h("th", { scope: "col" }, head),
    h("th", { scope: "col", class: "marks" }, "0 to 100\u00a0%"),
    h("th", { scope: "col", class: "number" }, cleans ? "Attacked" : "Right"),
    cleans ? h("th", { scope: "col", class: "number" }, "Clean") : null,
  );
  return h(
    "div",
    { class: "scroll" },
    h("table", { class: "shares" }, h("thead", {}, header), h("tbody", {}, ...rows.map(line))),
  );
}

/** @param {Robustness} known */
function signs(known) {
  const fired = (known.indicators ?? []).filter((sign) => sign.fired);
  if (!fired.length) return [];
  const items = fired.map((sign) =>
    h("li", {}, h("strong", {}, sign.title), `: ${sign.finding}. `, h("span", { class: "hint" }, sign.advice)),
  );
  return [section("To weigh before trusting it", h("ul", { class: "plain" }, ...items))];
}

/** @param {Robustness} known */
function curves(known) {
  const found = known.curves ?? [];
  if (!found.length)
    return section("Accuracy against budget and effort", h("p", { class: "hint" }, "Not run for this bundle."));
  return section("Accuracy against budget and effort", h("div", { class: "pair" }, ...found.map(curve)));
}

/** @param {import("./types.js").Curve} found */
function curve(found) {
  const names = [...new Set(found.points.flatMap((point) => Object.keys(point.accuracies)))];
  const lines = names.map((name) => {
    const points = found.points.filter((point) => name in point.accuracies);
    return shareLine(
      points.map((point) => [point.x, point.accuracies[name]]),
      name,
    );
  });
  const words = lines
    .map((line) => `${line.name}: ${line.points.map(({ x, y }) => `${percent(y)} at ${x}`).join(", ")}`)
    .join("; ");
  return h(
    "figure",
    {},
    h("figcaption", {}, found.title),
    lineChart(lines, { x: found.x_label, y: "", label: words, ys: [0, 1.02], formatY: percent }),
    h("p", { class: "hint" }, `${found.note}; ${plural(found.images, "image")}.`),
  );
}

/** @param {[number, Share][]} pairs @param {string} name */
function shareLine(pairs, name) {
  return {
    name,
    dots: true,
    points: pairs.map(([x, share]) => ({ x, y: share.accuracy })),
    bars: pairs.map(([, { low, high }]) => ({ low, high })),
  };
}

/** @param {NonNullable<Robustness["certification"]>} found */
function certified(found) {
  const line = shareLine(
    found.points.map((point) => [point.radius, point.accuracy]),
    "certified",
  );
  const words = `Certified accuracy: ${found.points.map((point) => `${percent(point.accuracy.accuracy)} at radius ${point.radius}`).join(", ")}`;
  const note = `Of the smoothed classifier, not of the served one: sigma ${found.sigma}, ${found.estimation} draws, confidence ${percent(1 - found.alpha)}, ${plural(found.images, "image")}.`;
  return section(
    "Certified accuracy",
    h(
      "figure",
      { class: "half" },
      lineChart([line], { x: "L2 radius", y: "", label: words, ys: [0, 1.02], formatY: percent }),
      h("p", { class: "hint" }, note),
    ),
  );
}

/** @param {import("./types.js").Baseline} found */
function transfer(found) {
  /** @type {[string, string, Share, string][]} */
  const rows = [
    ["Bare classifier", "", found.bare.attacked, "worst"],
    ...Object.entries(found.presets).map(
      ([name, row]) => /** @type {[string, string, Share, string]} */ ([`Purified, ${name}`, "", row.transfer, ""]),
    ),
  ];
  const cleans = [found.bare.clean, ...Object.values(found.presets).map((row) => row.clean)];
  const note = `PGD-${found.threat.steps} at L\u221e ${found.threat.budget}/255 on the bare classifier; ${plural(found.images, "test image")} from ${found.first}. This is an upper bound on what a knowing attacker would leave.`;
  return section(
    "Against an attacker who does not know the purifier",
    shares("Defence", rows, cleans),
    h("p", { class: "hint" }, note),
  );
}

/** @param {Robustness} known */
function checklist(known) {
  const items = (known.checklist ?? []).map(({ item, done, evidence }) =>
    h(
      "li",
      { class: done ? "done" : "open" },
      h("span", { class: "unseen" }, done ? "done: " : "not done: "),
      h("strong", {}, item),
      h("span", { class: "hint" }, ` ${evidence}`),
    ),
  );
  return items.length ? [section("Checklist", h("ul", { class: "checklist" }, ...items))] : [];
}

/** @param {Robustness} known */
function remade(known) {
  return section(
    "Remake it",
    h("pre", { tabindex: 0, role: "region", "aria-label": "Command" }, h("code", {}, known.command)),
    h("p", { class: "hint" }, `Commit ${known.commit.slice(0, 12)}.`),
  );
}

/** @param {string} title @param {...Node} content */
const section = (title, ...content) => h("section", {}, h("h2", {}, title), ...content);
