/** The form beside the pictures: what the server offers, and what was chosen. */

import { byId, h } from "./dom.js";

/** @typedef {import("./types.js").Choices} Choices */

const preset = () => byId("preset", HTMLSelectElement);
const steps = () => byId("steps", HTMLInputElement);
const replicates = () => byId("replicates", HTMLInputElement);
const budget = () => byId("budget", HTMLInputElement);

/**
 * Fill the form with what this server has.
 * @param {import("./types.js").Info} info
 * @param {number} usualBudget
 */
export function offerChoices(info, usualBudget) {
  preset().replaceChildren(...Object.keys(info.presets).map((name) => h("option", { value: name }, name)));
  preset().value = info.default_preset;
  steps().max = String(info.limits.max_steps);
  replicates().max = String(info.limits.max_replicates);
  const showPreset = () => {
    const chosen = info.presets[preset().value];
    steps().placeholder = chosen.settle === null ? String(chosen.steps) : `up to ${chosen.steps}`;
    replicates().placeholder = String(chosen.replicates);
  };
  preset().addEventListener("change", showPreset);
  showPreset();
  byId("attack-settings", HTMLElement).hidden = info.demo === null;
  byId("no-demo", HTMLElement).hidden = info.demo !== null;
  byId("defend", HTMLElement).classList.toggle("primary", info.demo === null);
  if (info.demo === null) return;
  budget().max = String(info.demo.max_budget);
  budget().value = String(Math.min(usualBudget, info.demo.max_budget));
  const showBudget = () => {
    const text = `${budget().value}/255`;
    byId("budget-shown", HTMLOutputElement).value = text;
    budget().setAttribute("aria-valuetext", `${budget().value} of 255`);
  };
  budget().addEventListener("input", showBudget);
  showBudget();
}

/** @returns {Choices} */
export function chosen() {
  return {
    preset: preset().value,
    steps: steps().value,
    replicates: replicates().value,
    certify: byId("certify", HTMLInputElement).checked,
    budget: Number(budget().value),
  };
}

/**
 * The query of /classify: only what differs from the server's own.
 * @param {Choices} choices
 * @param {number} classes
 */
export function classifyQuery(choices, classes) {
  const query = new URLSearchParams({ preset: choices.preset, top_k: String(classes), resize: "true" });
  if (choices.steps) query.set("steps", choices.steps);
  if (choices.replicates) query.set("replicates", choices.replicates);
  if (choices.certify) query.set("certify", "true");
  return query;
}
