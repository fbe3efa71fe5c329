// Follows a run: asks the server for the version of the page, and loads it again when there is a newer one.
(() => {
  const SECONDS = 2;
  const own = document.documentElement.dataset.version;
  const told = document.getElementById("watching");
  const kept = () => [...document.querySelectorAll("details")];
  const fields = () => [...document.querySelectorAll("input, select")];

  function keep() {
    const state = {
      y: scrollY,
      open: kept().map((each) => each.open),
      values: fields().map((each) => each.value),
      hash: location.hash,
    };
    sessionStorage.setItem("watching", JSON.stringify(state));
  }

  function restore() {
    const state = JSON.parse(sessionStorage.getItem("watching") || "null");
    sessionStorage.removeItem("watching");
    if (state === null) return;
    kept().forEach((each, place) => { if (place in state.open) each.open = state.open[place]; });
    fields().forEach((each, place) => {
      if (!(place in state.values) || each.value === state.values[place]) return;
      each.value = state.values[place];
      for (const name of ["input", "change"]) each.dispatchEvent(new Event(name, { bubbles: true }));
    });
    scrollTo(0, state.y);
  }

  const isBusy = () => document.hidden || ["INPUT", "SELECT"].includes(document.activeElement.tagName);

  async function look() {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const { version } = await answer.json();
      told.textContent = "It follows the run: what you see is at most a few seconds old.";
      if (version !== own && !isBusy()) {
        keep();
        location.reload();
        return;
      }
    } catch {
      told.textContent = "rlhf watch has ended, so this page no longer follows the run.";
    }
    setTimeout(look, SECONDS * 1000);
  }

  restore();
  setTimeout(look, SECONDS * 1000);
})();
