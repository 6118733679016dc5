/** Prometheus' text format, as far as the Operations tab needs it. */

/**
 * The sum of each series by its name, over all labels.
 * @param {string} text
 * @returns {Map<string, number>}
 */
export function readMetrics(text) {
  /** @type {Map<string, number>} */
  const sums = new Map();
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{.*\})? (\S+)/.exec(line);
    if (match) sums.set(match[1], (sums.get(match[1]) ?? 0) + Number(match[2]));
  }
  return sums;
}
