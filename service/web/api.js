/** The service's HTTP interface: answers, problems, and events as they come. */

/** @typedef {import("./types.js").Problem} Problem */

/** A problem document (RFC 9457), or a connection that failed, as an error. */
export class ProblemError extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(`${problem.title}: ${problem.detail}`);
    this.problem = problem;
  }
}

let key = "";

/** Send this key from now on; it is kept in memory alone. @param {string} secret */
export function useKey(secret) {
  key = secret;
}

/** @param {string} path relative to the page, so that the server may be mounted anywhere */
export const address = (path) => new URL(path, document.baseURI).href;

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
export async function request(path, init = {}) {
  const headers = new Headers(init.headers);
  // A header takes characters up to 255 alone: they stand for the bytes of UTF-8, by which the server knows its keys.
  if (key) headers.set("X-API-Key", String.fromCharCode(...new TextEncoder().encode(key)));
  let response;
  try {
    response = await fetch(address(path), { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw failure(
      "The server can not be reached",
      "No answer came from it. It may have stopped, or the network is down.",
    );
  }
  if (!response.ok) throw new ProblemError(await problemOf(response));
  return response;
}

/** @param {string} path @param {RequestInit} [init] @returns {Promise<any>} */
export const getJson = async (path, init) =>
  (await request(path, { ...init, headers: { Accept: "application/json" } })).json();

/**
 * A form with one image, sent to `path`.
 * @param {Blob} image
 * @param {AbortSignal} signal
 * @param {string} accept
 * @returns {RequestInit}
 */
export function upload(image, signal, accept) {
  const body = new FormData();
  body.append("image", image, "image");
  return { method: "POST", body, signal, headers: { Accept: accept } };
}

/**
 * The events of an answer (text/event-stream), until it ends; an `error` event becomes a ProblemError.
 * @param {string} path
 * @param {RequestInit} init
 * @returns {AsyncGenerator<{name: string, data: any}>}
 */
export async function* events(path, init) {
  const response = await request(path, init);
  let text = "";
  for await (const chunk of chunks(response, init.signal)) {
    text += chunk;
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const [first, second] = block.split("\n");
      if (!first.startsWith("event: ")) continue;
      const name = first.slice("event: ".length);
      const data = JSON.parse(second.slice("data: ".length));
      if (name === "error") throw new ProblemError(data);
      yield { name, data };
      if (name === "result") return;
    }
  }
  throw failure("The answer broke off", "The server closed the connection before the result.");
}

/**
 * @param {Response} response
 * @param {AbortSignal | null | undefined} signal
 * @returns {AsyncGenerator<string>}
 */
async function* chunks(response, signal) {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    let part;
    try {
      part = await reader?.read();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw failure("The answer broke off", "The connection was lost before the result. The server may have stopped.");
    }
    if (!part || part.done) return;
    yield part.value;
  }
}

/** @param {Response} response @returns {Promise<Problem>} */
async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    const detail = `The server answered ${response.status} without saying why.`;
    return { type: "about:blank", title: response.statusText || "Error", status: response.status, detail };
  }
}

/** @param {string} title @param {string} detail */
const failure = (title, detail) => new ProblemError({ type: "about:blank", title, status: 0, detail });
