/** A picture of one's own: chosen, dropped or pasted anywhere on the page. */

/**
 * @param {HTMLElement} zone lights up while a file is dragged over the page
 * @param {HTMLInputElement} input
 * @param {(picture: import("./types.js").Picture) => void} onPick
 */
export function startPicker(zone, input, onPick) {
  /** @param {FileList | undefined} files */
  const take = (files) => {
    const file = files?.[0];
    if (file) onPick({ blob: file, name: file.name, label: null });
    return file !== undefined;
  };
  input.addEventListener("change", () => {
    take(input.files ?? undefined);
    input.value = "";
  });
  document.addEventListener("paste", (event) => {
    if (take(event.clipboardData?.files)) event.preventDefault();
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) zone.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer?.files);
  });
}
