/** What is shown of one run, part by part as it becomes known. */

import { lineChart } from "./chart.js";
import { h } from "./dom.js";
import { Film } from "./film.js";
import { dataUrl, duration, interval, percent, plural, threat } from "./format.js";
import { probabilityTable } from "./probabilities.js";

/**
 * @typedef {import("./types.js").Prediction} Prediction
 * @typedef {import("./types.js").Classification} Classification
 */

export class Results {
  /**
   * @param {HTMLElement} place is emptied
   * @param {import("./types.js").Picture} picture
   * @param {import("./types.js").Report} report
   */
  constructor(place, picture, report) {
    this.url = URL.createObjectURL(picture.blob);
    this.truth = picture.label;
    this.report = report;
    /** @type {import("./types.js").Attacked | null} */
    this.attacked = null;
    /** @type {number[][]} */
    this.energies = [];
    /** @type {Film | null} */
    this.film = null;
    /** Whether the chain that is shown has a vote. */
    this.voted = true;
    this.original = card("Picture", h("img", { src: this.url, alt: `The picture ${picture.name}` }));
    if (this.truth) describe(this.original, this.truth);
    this.pictures = h("div", { class: "pictures" }, this.original);
    this.verdict = h("p", { class: "verdict" });
    this.notice = h("p", { class: "notice", hidden: true });
    this.chart = h("figure", { class: "energies", hidden: true });
    this.voting = h("section", { class: "voting", hidden: true });
    this.table = h("div", { class: "scroll", hidden: true });
    this.facts = h("dl", { class: "facts", hidden: true });
    const pair = h("div", { class: "pair" }, this.chart, this.voting);
    place.replaceChildren(this.pictures, this.verdict, this.notice, pair, this.table, this.facts);
  }

  /** The class that the picture shows: known, or what the bare classifier said before the attack. */
  get reference() {
    return this.truth ?? this.attacked?.label ?? null;
  }

  /** @param {import("./types.js").Attacked} attacked */
  showAttack(attacked) {
    this.attacked = attacked;
    const [before, after] = [attacked.original[0], attacked.attacked[0]];
    const image = this.original.querySelector("img");
    if (image) image.src = dataUrl(attacked.original_png_base64);
    predict(this.original, before, this.reference);
    const altered = card(
      "Attacked",
      h("img", { src: dataUrl(attacked.attacked_png_base64), alt: "The attacked picture" }),
    );
    predict(altered, after, this.reference);
    const difference = card(
      "Difference \u00d7\u200a10",
      h("img", { src: dataUrl(attacked.difference_png_base64), alt: "Ten times the change, on grey" }),
    );
    describe(difference, `at most ${attacked.linf_255}/255`);
    this.pictures.append(altered, difference);
    this.verdict.textContent = this.attackSentence();
    this.showTable([]);
  }

  /** Room for the picture on its way. */
  startFilm() {
    this.film = new Film(this.attacked ? dataUrl(this.attacked.attacked_png_base64) : this.url);
    this.purified = card("Purified", this.film.image, this.film.controls);
    this.pictures.append(this.purified);
  }

  /** @param {import("./types.js").Preview} preview */
  showPreview(preview) {
    this.film?.add(preview.frames);
    preview.energies.forEach((news, number) => (this.energies[number] ??= []).push(...news));
    if (!this.energies[0]?.length) return;
    const lines = this.energies.map((energies) => ({ points: energies.map((y, x) => ({ x, y })) }));
    const longest = Math.max(...this.energies.map((energies) => energies.length));
    const [first, last] = [this.energies[0][0], this.energies[0].at(-1) ?? 0];
    const label = `Energy of ${plural(lines.length, "replicate")}: the first one's goes from ${first.toFixed(1)} to ${last.toFixed(1)}.`;
    this.chart.hidden = false;
    this.chart.replaceChildren(
      h("figcaption", {}, "Energy along the chains"),
      lineChart(lines, { x: "step", y: "", label, xs: [0, Math.max(longest - 1, 1)] }),
    );
  }

  /** @param {import("./types.js").Vote[]} votes */
  showVotes(votes) {
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const { label } of votes) counts.set(label, (counts.get(label) ?? 0) + 1);
    const summary = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count}\u00a0${label}`);
    const shown = votes.filter((vote) => vote.png_base64 !== null);
    this.voting.hidden = false;
    this.voting.replaceChildren(
      h("h2", {}, "Votes of the replicates"),
      h("p", { class: "hint" }, summary.join(", ")),
      h("ul", { class: "votes" }, ...shown.map((vote) => this.vote(vote))),
    );
    const last = this.energies[0]?.length ?? 0;
    const end = votes[0].png_base64;
    if (this.film && end && (this.film.frames.at(-1)?.step ?? 0) < last)
      this.film.add([{ step: last, png_base64: end }]);
  }

  /** @param {import("./types.js").Vote} vote */
  vote({ label, probability, png_base64 }) {
    const mark = this.reference === null ? "" : label === this.reference ? "right" : "wrong";
    const image = h("img", { src: dataUrl(png_base64 ?? ""), alt: "" });
    return h("li", { class: mark }, image, h("span", {}, label), h("span", { class: "hint" }, percent(probability)));
  }

  /**
   * Another chain's end, where chains can not be watched; the verdict is not about it.
   * @param {import("./types.js").Purification} purification
   */
  showFurther(purification) {
    this.film?.add([{ step: purification.steps, png_base64: purification.png_base64 }]);
    if (this.purified) describe(this.purified, "one further chain, not one of those that voted");
    this.voted = false;
  }

  /** @param {Classification} answer */
  showAnswer(answer) {
    const first = answer.predictions[0];
    if (this.purified && this.voted) predict(this.purified, first, this.reference);
    if (!this.attacked && answer.undefended) predict(this.original, answer.undefended, this.reference);
    this.verdict.textContent = [this.attackSentence(), this.defenceSentence(answer)].filter(Boolean).join(" ");
    this.showNotice();
    if (first.probability !== null) this.showTable(answer.predictions, answer.undefended);
    this.facts.hidden = false;
    this.facts.replaceChildren(...facts(answer).flatMap(([term, value, more]) => fact(term, value, more)));
  }

  attackSentence() {
    if (!this.attacked) return "";
    const after = this.attacked.attacked[0];
    const what = `PGD-${this.attacked.steps} within ${this.attacked.budget}/255`;
    if (after.label === this.reference) return `${what} failed: the bare classifier still says ${after.label}.`;
    return `${what} makes the bare classifier say ${after.label}.`;
  }

  /** @param {Classification} answer */
  defenceSentence(answer) {
    const { label } = answer.predictions[0];
    const votes =
      answer.agreement === null
        ? ""
        : `, as ${Math.round(answer.agreement * answer.replicates)} of ${plural(answer.replicates, "replicate")} do`;
    const judged =
      this.reference !== null && label !== this.reference ? ". The defence is wrong about this picture" : "";
    return `Purified, the classifier says ${label}${votes}${judged}.`;
  }

  /** What must be read with any success. */
  showNotice() {
    const known = this.report.robustness;
    const link = h("a", { href: "#robustness" }, "Robustness");
    const worst = known
      ? `one who does leaves ${percent(known.worst_case.accuracy)} ${interval(known.worst_case)} of ${plural(known.worst_case.total, "picture")} right, at ${threat(known.threat)} with preset ${known.preset_name}. `
      : "what one who does would leave was not measured for this bundle. ";
    const who = this.attacked ? "This attacker does not know the purifier; " : "An attacker may know the purifier; ";
    this.notice.replaceChildren(who, worst, "See ", link, ".");
    this.notice.hidden = false;
  }

  /** @param {Prediction[]} purified @param {Prediction | null} [undefended] */
  showTable(purified, undefended = null) {
    const columns = this.attacked
      ? [
          { title: "Bare, picture", predictions: this.attacked.original },
          { title: "Bare, attacked", predictions: this.attacked.attacked },
        ]
      : [];
    if (!this.attacked && undefended) columns.push({ title: "Bare", predictions: [undefended] });
    if (purified.length) columns.push({ title: "Purified", predictions: purified });
    this.table.replaceChildren(probabilityTable(columns, this.truth));
    this.table.hidden = false;
  }
}

/** @param {string} title @param {...HTMLElement} content */
function card(title, ...content) {
  return h(
    "figure",
    { class: "picture" },
    h("figcaption", {}, h("strong", {}, title), h("span", { class: "said" })),
    ...content,
  );
}

/** @param {HTMLElement} figure @param {...(string | HTMLElement)} words */
function describe(figure, ...words) {
  figure.querySelector(".said")?.replaceChildren(...words);
}

/**
 * @param {HTMLElement} figure
 * @param {Prediction} prediction
 * @param {string | null} reference
 */
function predict(figure, { label, probability }, reference) {
  const kind = reference === null ? "" : label === reference ? "right" : "wrong";
  const text = probability === null ? label : `${label} ${percent(probability)}`;
  describe(figure, h("span", { class: `answer ${kind}` }, text));
}

/** @param {Classification} answer @returns {[string, string, string][]} */
function facts(answer) {
  const share = (/** @type {number | null} */ value) => (value === null ? "\u2013" : percent(value));
  const steps = answer.mean_steps === null ? answer.steps : answer.mean_steps;
  return [
    [
      "Suspicion",
      share(answer.suspicion),
      answer.suspicion === null ? "not calibrated for these settings" : "of clean pictures look less unusual",
    ],
    [
      "Out of distribution",
      share(answer.ood),
      answer.ood === null ? "not known for these settings" : "of clean pictures have a more usual energy",
    ],
    certified(answer.certificate),
    ["Chains", `${answer.replicates} \u00d7 ${steps}`, "replicates \u00d7 steps"],
    ["Time", duration(answer.timings.total_ms), `of which chains ${duration(answer.timings.purify_ms)}`],
  ];
}

/** @param {import("./types.js").Certificate | null} found @returns {[string, string, string]} */
function certified(found) {
  if (found === null) return ["Certificate", "\u2013", "not asked for"];
  if (found.abstained) return ["Certificate", "none", `${found.draws} draws favour no class clearly`];
  const sure = `L2 radius around ${found.label}, of the smoothed classifier, confidence ${percent(found.confidence)}`;
  return ["Certificate", found.radius_l2.toFixed(3), sure];
}

/** @param {string} term @param {string} value @param {string} more */
function fact(term, value, more) {
  return [h("div", {}, h("dt", {}, term), h("dd", {}, h("strong", {}, value), h("span", { class: "hint" }, more)))];
}
