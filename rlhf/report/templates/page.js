"use strict";
// Reading of charts by pointer and arrow keys, sorting and filtering of answers, colours of tokens. Loads nothing.
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  function readable(figure) {
    const svg = figure.querySelector("svg");
    const told = figure.querySelector(".reading");
    const plot = JSON.parse(figure.dataset.plot);
    const [low, high, start, end] = plot.x;
    const steps = plot.stops;
    const cursor = document.createElementNS(SVG, "line");
    cursor.setAttribute("class", "cursor");
    let place = -1;

    function show(next) {
      place = Math.max(0, Math.min(steps.length - 1, next));
      const step = steps[place];
      const x = start + ((step - low) / (high - low)) * (end - start);
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", 8], ["y2", 194]]) cursor.setAttribute(name, value);
      svg.append(cursor);
      const values = plot.lines.map((line) => {
        const at = line.x.findLastIndex((value) => value <= step);
        return (plot.lines.length > 1 ? line.name + " " : "") + (at < 0 ? "-" : line.y[at]);
      });
      told.textContent = plot.name + " " + step + ": " + values.join(", ");
    }

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const step = low + ((((event.clientX - box.left) / box.width) * 400 - start) / (end - start)) * (high - low);
      let nearest = 0;
      steps.forEach((each, index) => {
        if (Math.abs(each - step) < Math.abs(steps[nearest] - step)) nearest = index;
      });
      show(nearest);
    });
    svg.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: steps.length - 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key]);
    });
  }

  function sortable(answers) {
    const find = (name) => answers.querySelector("[data-" + name + "]");
    const [kind, sort, turn, filter, count] = ["kind", "sort", "turn", "filter", "count"].map(find);
    const list = answers.querySelector(".cards");
    const cards = [...list.children].map((card) => ({ card, text: card.textContent.toLowerCase() }));

    function refresh() {
      const rising = turn.getAttribute("aria-pressed") === "true";
      const value = ({ card }) => (sort.value in card.dataset ? Number(card.dataset[sort.value]) : null);
      cards.sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        if (a === null || b === null) return (a === null) - (b === null);
        return rising ? a - b : b - a;
      });
      const wanted = filter.value.toLowerCase();
      let shown = 0;
      for (const { card, text } of cards) {
        const isOfKind = !kind.value || card.dataset.kinds.split(" ").includes(kind.value);
        card.hidden = !isOfKind || !text.includes(wanted);
        shown += !card.hidden;
        list.append(card);
      }
      count.textContent = shown + " of " + cards.length;
    }

    turn.addEventListener("click", () => {
      turn.setAttribute("aria-pressed", String(turn.getAttribute("aria-pressed") !== "true"));
      refresh();
    });
    for (const control of [kind, sort]) control.addEventListener("change", refresh);
    filter.addEventListener("input", refresh);
    answers.querySelector(".tools").hidden = false;
    refresh();
  }

  function coloured(episode) {
    const choice = episode.querySelector(".quantities");
    choice.hidden = false;
    choice.addEventListener("change", (event) => {
      for (const token of episode.querySelectorAll("[data-l]")) {
        token.className = "t h" + token.dataset.l.split(" ")[Number(event.target.value)];
      }
    });
  }

  // A link into something folded opens it.
  function unfold() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    if (target) target.scrollIntoView();
  }

  document.querySelectorAll("[data-plot]").forEach(readable);
  document.querySelectorAll("[data-answers]").forEach(sortable);
  document.querySelectorAll("[data-heat]").forEach(coloured);
  addEventListener("hashchange", unfold);
  unfold();
})();
