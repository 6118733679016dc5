/**
 * What the service answers, for the type checker alone: nothing imports this file when the page runs.
 *
 * @typedef {{type: string, title: string, status: number, detail: string, request_id?: string}} Problem
 * @typedef {{label: string, index: number, probability: number | null}} Prediction
 * @typedef {{steps: number, settle: number | null, replicates: number}} PresetInfo
 * @typedef {{steps: number, max_budget: number}} DemoInfo
 * @typedef {{
 *   name: string, description: string, bundle: string, version: string, device: string,
 *   image: {width: number, height: number, channels: number},
 *   class_names: string[], presets: Record<string, PresetInfo>, default_preset: string,
 *   limits: {max_steps: number, max_replicates: number, max_body_bytes: number},
 *   queue: {fraction: number, cost: number, slots: number},
 *   calibrated: string[], auth_required: boolean, demo: DemoInfo | null,
 * }} Info
 * @typedef {{
 *   label: string | null, radius_l2: number, sigma: number, confidence: number, draws: number, abstained: boolean,
 * }} Certificate
 * @typedef {{
 *   predictions: Prediction[], agreement: number | null, undefended: Prediction | null, suspicion: number | null,
 *   ood: number | null, certificate: Certificate | null, mean_steps: number | null, preset: string, steps: number,
 *   replicates: number, timings: {purify_ms: number, total_ms: number, queue_ms: number}, request_id: string,
 * }} Classification
 * @typedef {{png_base64: string, distance: {l2: number, linf_255: number}, steps: number}} Purification
 * @typedef {{
 *   original_png_base64: string, attacked_png_base64: string, difference_png_base64: string, label: string,
 *   budget: number, linf_255: number, steps: number, original: Prediction[], attacked: Prediction[], seconds: number,
 * }} Attacked
 * @typedef {{frames: {step: number, png_base64: string}[], energies: number[][]}} Preview
 * @typedef {{label: string, probability: number, png_base64: string | null}} Vote
 * @typedef {{correct: number, total: number, accuracy: number, low: number, high: number}} Share
 * @typedef {{
 *   name: string, title: string, knowledge: string, on: string, attacked: number, left: number,
 *   fixed_randomness: boolean, mean_logit: Share,
 * }} AttackRow
 * @typedef {{
 *   name: string, title: string, x_label: string, note: string, images: number,
 *   points: {x: number, accuracies: Record<string, Share>}[],
 * }} Curve
 * @typedef {{
 *   preset_name: string, data: string, first: number, images: number, threat: {norm: string, budget: number},
 *   command: string, commit: string, clean: {mean_logit: Share}, worst_case: Share, worst_case_rounded: Share,
 *   gradient_note: string, attacks: AttackRow[], bare?: Record<string, Share>, curves?: Curve[],
 *   indicators?: {title: string, fired: boolean | null, finding: string, advice: string}[],
 *   checklist?: {item: string, done: boolean, evidence: string}[], notes?: string[],
 *   certification: {
 *     sigma: number, estimation: number, alpha: number, images: number,
 *     points: {radius: number, accuracy: Share}[],
 *   } | null,
 * }} Robustness
 * @typedef {{
 *   images: number, first: number, data: string, threat: {budget: number, steps: number},
 *   bare: {clean: Share, attacked: Share}, presets: Record<string, {clean: Share, transfer: Share}>,
 * }} Baseline
 * @typedef {{name: string, bundle: string, robustness: Robustness | null, baseline: Baseline | null}} Report
 *
 * @typedef {{blob: Blob, name: string, label: string | null}} Picture A picture to work on; `label` is its true class.
 * @typedef {{preset: string, steps: string, replicates: string, certify: boolean, budget: number}} Choices
 */
export {};
