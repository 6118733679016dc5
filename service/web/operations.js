/** The Operations tab: how busy the server is, asked every second while somebody looks. */

import { getJson, ProblemError, request } from "./api.js";
import { lineChart } from "./chart.js";
import { h } from "./dom.js";
import { percent } from "./format.js";
import { readMetrics } from "./metrics.js";
import { showProblem } from "./problem.js";

const POLL_MS = 1000;
const KEPT = 120;
const REFUSALS = [401, 403];

/** @typedef {{time: number, steps: number, rate: number}} Sample */

/**
 * @param {HTMLElement} place
 * @returns {(visible: boolean) => void} to be told when the tab is shown or left
 */
export function startOperations(place) {
  /** @type {Sample[]} */
  let samples = [];
  let shown = false;
  let timer = 0;
  let refused = false;
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const tiles = h("dl", { class: "facts" });
  const chart = h("figure", { class: "throughput" });
  place.replaceChildren(
    h("h1", {}, "Operations"),
    problem,
    tiles,
    chart,
    h(
      "p",
      { class: "hint" },
      "From /info and from /metrics, for which a key needs the scope metrics; asked every second while this tab is open.",
    ),
  );

  async function poll() {
    try {
      const [info, text] = await Promise.all([getJson("info"), request("metrics").then((answer) => answer.text())]);
      const metrics = readMetrics(text);
      samples = [...samples, sample(metrics, samples.at(-1))].slice(-KEPT);
      tiles.replaceChildren(...tilesOf(metrics, info, samples.at(-1)?.rate ?? 0));
      chart.replaceChildren(h("figcaption", {}, "Throughput, image-steps a second"), throughput(samples));
      showProblem(problem, null);
    } catch (error) {
      samples = []; // a server that starts anew counts from zero
      refused = error instanceof ProblemError && REFUSALS.includes(error.problem.status);
      if (problem.hidden || refused) showProblem(problem, error);
    }
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    if (shown && !refused && !document.hidden) timer = setTimeout(poll, POLL_MS);
  }

  document.addEventListener("visibilitychange", schedule);
  return (visible) => {
    const opened = visible && !shown;
    shown = visible;
    clearTimeout(timer);
    if (opened) {
      samples = [];
      refused = false;
      poll();
    }
  };
}

/** @param {Map<string, number>} metrics @param {Sample | undefined} last @returns {Sample} */
function sample(metrics, last) {
  const [time, steps] = [performance.now() / 1000, metrics.get("ebm_steps_total") ?? 0];
  return { time, steps, rate: last ? (steps - last.steps) / (time - last.time) : 0 };
}

/** @param {Sample[]} samples */
function throughput(samples) {
  const now = samples.at(-1)?.time ?? 0;
  const points = samples.map(({ time, rate }) => ({ x: time - now, y: rate }));
  const most = Math.max(10, ...points.map(({ y }) => y));
  const label = `Throughput of the last ${samples.length} seconds: now ${Math.round(points.at(-1)?.y ?? 0)} image-steps a second.`;
  return lineChart([{ points }], { x: "seconds", y: "", label, xs: [-KEPT, 0], ys: [0, most * 1.1] });
}

/** @param {Map<string, number>} metrics @param {import("./types.js").Info} info @param {number} rate */
function tilesOf(metrics, info, rate) {
  const count = (/** @type {string} */ name) => Math.round(metrics.get(name) ?? 0).toLocaleString("en");
  return [
    tile("Queue", percent(info.queue.fraction), `${count("ebm_queue_depth")} chains wait`),
    tile("Slots", `${count("ebm_slots_active")} of ${count("ebm_slots_total")}`, `chains run, on ${info.device}`),
    tile("Throughput", Math.round(rate).toLocaleString("en"), "image-steps a second"),
    tile("Answered", count("ebm_images_total"), "images since the start"),
    tile("Refused", count("ebm_rejected_total"), "requests, before admission"),
    tile(
      "Heartbeat",
      `${(metrics.get("ebm_engine_heartbeat_age_seconds") ?? 0).toFixed(1)}\u00a0s`,
      "since the engine\u2019s last sign of life",
    ),
  ];
}

/** @param {string} term @param {string} value @param {string} more */
function tile(term, value, more) {
  return h("div", {}, h("dt", {}, term), h("dd", {}, h("strong", {}, value), h("span", { class: "hint" }, more)));
}
