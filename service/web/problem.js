/** An error in words: a problem's title and detail, with the request it is about. */

import { ProblemError } from "./api.js";
import { h } from "./dom.js";

/**
 * Throws again what is no problem but a fault of the page.
 * @param {HTMLElement} place
 * @param {unknown} error null takes the last one away
 */
export function showProblem(place, error) {
  place.hidden = error === null;
  if (error === null) return;
  const problem =
    error instanceof ProblemError ? error.problem : { title: "The page failed", detail: String(error), request_id: "" };
  const id = problem.request_id ? h("span", { class: "hint" }, ` Request ${problem.request_id}`) : null;
  place.replaceChildren(h("strong", {}, problem.title), h("p", {}, problem.detail, id));
  if (!(error instanceof ProblemError)) throw error;
}
