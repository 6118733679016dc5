/** Tabs by the pattern of the ARIA guide: one tab stop, arrows move, the address remembers. */

/**
 * @param {HTMLElement} list the element with role tablist
 * @param {(name: string) => void} onShow told of the panel that is shown, without the `panel-`
 */
export function startTabs(list, onShow) {
  const tabs = /** @type {HTMLElement[]} */ ([...list.querySelectorAll('[role="tab"]')]);

  /** @param {HTMLElement} chosen */
  const show = (chosen) => {
    for (const tab of tabs) {
      const selected = tab === chosen;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      panelOf(tab).hidden = !selected;
    }
    onShow(nameOf(chosen));
  };

  const fromAddress = () => tabs.find((tab) => `#${nameOf(tab)}` === location.hash) ?? tabs[0];

  list.addEventListener("click", (event) => {
    const tab = event.target instanceof Element ? event.target.closest('[role="tab"]') : null;
    if (tab instanceof HTMLElement) choose(tab);
  });
  list.addEventListener("keydown", (event) => {
    const at = tabs.findIndex((tab) => tab === document.activeElement);
    const moves = /** @type {Record<string, number>} */ ({ ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 });
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = tabs.at(moves[event.key] % tabs.length) ?? tabs[0];
    next.focus();
    choose(next);
  });
  window.addEventListener("hashchange", () => show(fromAddress()));
  show(fromAddress());

  /** @param {HTMLElement} tab */
  function choose(tab) {
    history.replaceState(null, "", `#${nameOf(tab)}`);
    show(tab);
  }
}

/** @param {HTMLElement} tab */
const nameOf = (tab) => tab.id.replace("tab-", "");

/** @param {HTMLElement} tab */
function panelOf(tab) {
  const panel = document.getElementById(`panel-${nameOf(tab)}`);
  if (!panel) throw new Error(`the page has no panel for ${tab.id}`);
  return panel;
}
