/** The purification as a film: frames arrive in a burst, and are shown slowly enough to be seen. */

import { h } from "./dom.js";
import { dataUrl } from "./format.js";

const FRAME_MS = 90;

/** @typedef {{step: number, url: string}} Frame */

/** A picture with a slider over the steps; without motion it shows the newest frame at once. */
export class Film {
  /** @param {string} start what the chain starts from, as a URL */
  constructor(start) {
    /** @type {Frame[]} */
    this.frames = [{ step: 0, url: start }];
    this.at = 0;
    this.timer = 0;
    this.image = h("img", { src: start, alt: "The picture as the first replicate's chain changes it" });
    this.slider = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Step of the chain to show" });
    this.caption = h("span", { class: "hint" });
    this.controls = h("div", { class: "film" }, this.slider, this.caption);
    this.slider.addEventListener("input", () => {
      this.pause();
      this.show(Number(this.slider.value));
    });
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.show(0);
  }

  /** @param {{step: number, png_base64: string}[]} frames */
  add(frames) {
    this.frames.push(...frames.map(({ step, png_base64 }) => ({ step, url: dataUrl(png_base64) })));
    this.slider.max = String(this.frames.length - 1);
    if (this.still) this.show(this.frames.length - 1);
    else if (!this.timer) this.timer = setInterval(() => this.next(), FRAME_MS);
  }

  next() {
    if (this.at + 1 < this.frames.length) this.show(this.at + 1);
    else this.pause();
  }

  pause() {
    clearInterval(this.timer);
    this.timer = 0;
  }

  /** @param {number} at */
  show(at) {
    this.at = at;
    const { step, url } = this.frames[at];
    this.image.src = url;
    this.slider.value = String(at);
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.caption.textContent = `Step ${step}`;
  }
}
