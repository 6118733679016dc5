/** Small charts in SVG: lines over steps, intervals of shares. Each has its numbers in words beside it. */

import { s } from "./dom.js";
import { interval, percent } from "./format.js";

const WIDTH = 400;
const HEIGHT = 190;
const LEFT = 52;
const BOTTOM = 30;
const TOP = 10;
const RIGHT = 12;

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{points: Point[], name?: string, dashed?: boolean, dots?: boolean, bars?: {low: number, high: number}[]}} Line
 * @typedef {{x: string, y: string, label: string, xs?: [number, number], ys?: [number, number],
 *   formatY?: (value: number) => string}} Axes `label` is what a screen reader says
 */

/**
 * @param {Line[]} lines
 * @param {Axes} axes
 * @returns {SVGSVGElement}
 */
export function lineChart(lines, axes) {
  const all = lines.flatMap((line) => line.points);
  const xs = axes.xs ?? span(all.map((point) => point.x));
  const ys = axes.ys ?? span(all.map((point) => point.y));
  const toX = (/** @type {number} */ x) => LEFT + ((x - xs[0]) / (xs[1] - xs[0])) * (WIDTH - LEFT - RIGHT);
  const toY = (/** @type {number} */ y) => HEIGHT - BOTTOM - ((y - ys[0]) / (ys[1] - ys[0])) * (HEIGHT - BOTTOM - TOP);
  const chart = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": axes.label });
  const format = axes.formatY ?? short;
  for (const y of ticks(ys, 3)) {
    chart.append(s("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: toY(y), y2: toY(y), class: "grid" }));
    chart.append(s("text", { x: LEFT - 8, y: toY(y) + 4, class: "tick end" }, format(y)));
  }
  for (const x of ticks(xs, 5)) {
    chart.append(s("text", { x: toX(x), y: HEIGHT - BOTTOM + 16, class: "tick middle" }, short(x)));
  }
  chart.append(s("text", { x: WIDTH - RIGHT, y: HEIGHT - 2, class: "tick end" }, axes.x));
  chart.append(s("text", { x: LEFT + 6, y: TOP + 10, class: "tick" }, axes.y));
  lines.forEach((line, number) => chart.append(drawn(line, number, toX, toY)));
  return chart;
}

/**
 * @param {Line} line
 * @param {number} number
 * @param {(x: number) => number} toX
 * @param {(y: number) => number} toY
 */
function drawn(line, number, toX, toY) {
  const group = s("g", { class: `line line-${number}${line.dashed ? " dashed" : ""}` });
  const path = line.points.map(({ x, y }, at) => `${at ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`);
  group.append(s("path", { d: path.join(""), fill: "none" }));
  line.points.forEach(({ x, y }, at) => {
    const bar = line.bars?.[at];
    if (bar) group.append(s("line", { x1: toX(x), x2: toX(x), y1: toY(bar.low), y2: toY(bar.high), class: "bar" }));
    if (line.dots) group.append(s("circle", { cx: toX(x), cy: toY(y), r: 3 }));
  });
  return group;
}

/**
 * A share with its interval, from 0 to 1, as a mark in one row of a table.
 * @param {import("./types.js").Share} share
 * @param {string} kind a class of its colour
 */
export function intervalMark(share, kind) {
  const x = (/** @type {number} */ value) => (2 + 96 * value).toFixed(2);
  const label = `${percent(share.accuracy)} ${interval(share)}`;
  const chart = s("svg", {
    viewBox: "0 0 100 10",
    preserveAspectRatio: "none",
    class: `interval ${kind}`,
    role: "img",
  });
  chart.setAttribute("aria-label", label);
  chart.append(
    s("line", { x1: x(0), x2: x(1), y1: 5, y2: 5, class: "track" }),
    s("line", { x1: x(share.low), x2: x(share.high), y1: 5, y2: 5, class: "range" }),
    s("line", { x1: x(share.accuracy), x2: x(share.accuracy), y1: 1, y2: 9, class: "mark" }),
  );
  return chart;
}

/** @param {number[]} values @returns {[number, number]} */
function span(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - margin, high + margin];
}

/** Round values inside a range. @param {[number, number]} range @param {number} count */
function ticks([low, high], count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough) ?? rough;
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high; at += 1) found.push(at * step);
  return found;
}

/** @param {number} value */
const short = (value) => String(Number(value.toPrecision(6))).replace("-", "\u2212");
