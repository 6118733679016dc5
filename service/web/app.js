/** The page's start: who serves what, a key if one is needed, and the tabs. */

import { getJson, ProblemError, useKey } from "./api.js";
import { startDefence } from "./defence.js";
import { byId } from "./dom.js";
import { startOperations } from "./operations.js";
import { showProblem } from "./problem.js";
import { showRobustness } from "./robustness.js";
import { showSnippets } from "./snippets.js";
import { startTabs } from "./tabs.js";

/** @param {unknown} error null takes the last one away */
const tell = (error) => showProblem(byId("problem", HTMLElement), error);

async function start() {
  /** @type {import("./types.js").Info} */
  let info;
  /** @type {import("./types.js").Report} */
  let report;
  try {
    [info, report] = await Promise.all([getJson("info"), getJson("report")]);
  } catch (error) {
    const form = byId("key", HTMLFormElement);
    const locked = error instanceof ProblemError && error.problem.status === 401;
    // The first 401 is only how the page learns that the server wants keys.
    tell(locked && form.hidden ? null : error);
    if (locked) form.hidden = false;
    return;
  }
  byId("key", HTMLFormElement).hidden = true;
  tell(null);
  byId("served", HTMLElement).textContent = `${info.name} \u00b7 ${info.device}`;
  showRobustness(byId("panel-robustness", HTMLElement), report);
  const api = byId("panel-api", HTMLElement);
  showSnippets(api, [], info.auth_required);
  startDefence(info, report, {
    onProblem: tell,
    onCalls: (calls) => showSnippets(api, calls, info.auth_required),
  });
  const watch = startOperations(byId("panel-operations", HTMLElement));
  startTabs(byId("tabs", HTMLElement), (name) => watch(name === "operations"));
  document.documentElement.dataset.ready = "true";
  performance.mark("usable");
}

byId("key", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key-secret", HTMLInputElement).value.trim());
  start().catch(tell);
});

start().catch(tell);
