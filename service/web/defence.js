/** The Defence tab's flow: pick, attack, purify, and what is shown of it. */

import { events, getJson, ProblemError, request, upload } from "./api.js";
import { chosen, classifyQuery, offerChoices } from "./choices.js";
import { byId } from "./dom.js";
import { duration, pngBlob } from "./format.js";
import { clearGallery, showGallery } from "./gallery.js";
import { startPicker } from "./picker.js";
import { Results } from "./results.js";

const USUAL_BUDGET = 8;

/**
 * @typedef {import("./types.js").Picture} Picture
 * @typedef {{path: string, query: URLSearchParams, picture: Picture}} Call
 * @typedef {{onProblem: (error: unknown) => void, onCalls: (calls: Call[]) => void}} Listener
 */

/**
 * @param {import("./types.js").Info} info
 * @param {import("./types.js").Report} report
 * @param {Listener} listener
 */
export function startDefence(info, report, listener) {
  /** @type {Picture | null} */
  let picture = null;
  /** @type {AbortController | null} */
  let running = null;
  const [status, progress] = [byId("status", HTMLElement), byId("progress", HTMLProgressElement)];
  const gallery = byId("gallery", HTMLElement);

  const budget = report.robustness?.threat;
  offerChoices(info, budget?.norm === "linf" ? budget.budget : USUAL_BUDGET);

  /** @param {Picture} picked */
  const pick = (picked) => {
    running?.abort();
    picture = picked;
    listener.onProblem(null);
    new Results(byId("outcome", HTMLElement), picked, report);
    status.textContent = `${picked.name} is ready.`;
    setProgress(0);
  };
  startPicker(byId("drop", HTMLElement), byId("file", HTMLInputElement), (own) => {
    clearGallery(gallery);
    pick(own);
  });
  showGallery(gallery, info, pick).catch(listener.onProblem);
  if (!picture)
    status.textContent = `Pick a picture: ${info.image.width} \u00d7 ${info.image.height} pixels, others are stretched to that.`;

  const form = byId("controls", HTMLFormElement);
  form.inert = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const attackFirst = event.submitter?.id === "attack";
    if (picture) run(picture, attackFirst);
    else status.textContent = "Pick a picture first.";
  });
  byId("stop", HTMLElement).addEventListener("click", () => running?.abort());

  /** @param {Picture} subject @param {boolean} attackFirst */
  async function run(subject, attackFirst) {
    running?.abort();
    const mine = (running = new AbortController());
    setBusy(true);
    byId("idle", HTMLElement).hidden = true;
    bringIntoView(byId("results", HTMLElement));
    listener.onProblem(null);
    const results = new Results(byId("outcome", HTMLElement), subject, report);
    /** @type {Call[]} */
    const calls = [];
    try {
      const defended = attackFirst ? await attack(subject, results, calls, mine.signal) : subject;
      await defend(defended, results, calls, mine.signal);
    } catch (error) {
      if (!mine.signal.aborted) {
        // In this order: what is no ProblemError is thrown on.
        status.textContent = error instanceof ProblemError ? `${error.problem.title}.` : "Something went wrong.";
        listener.onProblem(error);
      } else if (running === mine) status.textContent = "Stopped.";
    } finally {
      listener.onCalls(calls);
      if (running === mine) {
        running = null;
        setBusy(false);
      }
    }
  }

  /**
   * @param {Picture} subject
   * @param {Results} results
   * @param {Call[]} calls
   * @param {AbortSignal} signal
   * @returns {Promise<Picture>} the attacked one
   */
  async function attack(subject, results, calls, signal) {
    const { budget } = chosen();
    const query = new URLSearchParams({ budget: String(budget), resize: "true" });
    if (subject.label) query.set("label", subject.label);
    status.textContent = `Attacking: ${info.demo?.steps} steps of PGD on the bare classifier.`;
    progress.removeAttribute("value");
    calls.push({ path: "demo/attack", query, picture: subject });
    const answer = await request(`demo/attack?${query}`, upload(subject.blob, signal, "application/json"));
    /** @type {import("./types.js").Attacked} */
    const attacked = await answer.json();
    results.showAttack(attacked);
    return { blob: pngBlob(attacked.attacked_png_base64), name: "attacked.png", label: subject.label };
  }

  /**
   * @param {Picture} subject
   * @param {Results} results
   * @param {Call[]} calls
   * @param {AbortSignal} signal
   */
  async function defend(subject, results, calls, signal) {
    const query = classifyQuery(chosen(), info.class_names.length);
    calls.push({ path: "classify", query, picture: subject });
    results.startFilm();
    status.textContent = "Waiting for the engine.";
    setProgress(0);
    const path = info.demo ? "demo/classify" : "classify";
    for await (const { name, data } of events(`${path}?${query}`, upload(subject.blob, signal, "text/event-stream"))) {
      if (name === "progress") {
        setProgress(data.fraction);
        status.textContent = `Purifying: ${data.steps_done} of ${data.steps_total} steps of all chains.`;
      } else if (name === "preview") results.showPreview(data);
      else if (name === "votes") results.showVotes(data.votes);
      else if (name === "result") {
        if (!info.demo) results.showFurther(await purify(subject, query, calls, signal));
        results.showAnswer(data);
        setProgress(1);
        status.textContent = `Done in ${duration(data.timings.total_ms)}: ${data.predictions[0].label}.`;
      }
    }
  }

  /**
   * @param {Picture} subject
   * @param {URLSearchParams} like
   * @param {Call[]} calls
   * @param {AbortSignal} signal
   * @returns {Promise<import("./types.js").Purification>}
   */
  async function purify(subject, like, calls, signal) {
    const query = new URLSearchParams([...like].filter(([name]) => ["preset", "steps", "resize"].includes(name)));
    calls.push({ path: "purify", query, picture: subject });
    return getJson(`purify?${query}`, upload(subject.blob, signal, "application/json"));
  }

  /** @param {number} share */
  function setProgress(share) {
    progress.value = share;
  }

  /** @param {boolean} busy */
  function setBusy(busy) {
    byId("results", HTMLElement).setAttribute("aria-busy", String(busy));
    byId("stop", HTMLElement).hidden = !busy;
    if (!busy && !progress.hasAttribute("value")) setProgress(0);
  }
}

/** On a phone the results stand below the form. @param {HTMLElement} results */
function bringIntoView(results) {
  if (results.getBoundingClientRect().top < innerHeight / 2) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  results.scrollIntoView({ behavior: still ? "instant" : "smooth" });
}
