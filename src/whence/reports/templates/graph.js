// One structured attention graph: the picture with its patches, the layered graph, two sets compared, and questions.
{
  const { make, draw, mixer, outline, outlines } = graphPicture;
  const SIZES = [30, 48, 68, 84];
  const KINDS = ["suffices", "above", "below"];

  const key = patches => [...patches].sort((a, b) => a - b).join(" ");
  const capital = text => text[0].toUpperCase() + text.slice(1);
  const without = (some, others) => some.filter(patch => !others.includes(patch));

  const started = section => {
    const find = name => section.querySelector(`.graph-${name}`);
    const data = JSON.parse(section.querySelector("script").textContent);
    const count = data.side ** 2;
    const every = [...Array(count).keys()];
    const asked = new Map(data.sets.map((set, number) => [key(set[0]), number]));
    const sizes = { width: find("picture").naturalWidth, height: find("picture").naturalHeight };
    const mixed = mixer(data, find("picture"), find("base"));

    const named = patches => patches.length === count ? "all patches"
      : patches.length > 16 ? `${patches.length} of ${count} patches`
      : patches.map(patch => `P${patch}`).join(" ") || "nothing";
    const measured = ([, value, share]) => `${data.measured} ${value}, ${share} of the whole picture’s`;
    const told = patches => {
      const set = data.sets[asked.get(key(patches))];
      const start = capital(named(patches));
      return set ? `${start}: ${measured(set)}. ${data.reasons[set[4]]}`
        : `${start}: not evaluated: the model was not asked about this set.`;
    };
    const kind = set => set[4] === 0 ? 0 : set[3] > data.expand ? 1 : 2;
    const paint = (canvas, patches) => {
      const pixels = mixed(patches);
      Object.assign(canvas, sizes);
      canvas.getContext("2d").putImageData(pixels, 0, 0);
    };

    // --- one set, as a picture with its outline
    const pictured = (parent, patches, outlined) => {
      const stage = make(parent, "span", "graph-stage");
      paint(make(stage, "canvas"), patches);
      outlines(stage)(outline(data, outlined));
    };
    const most = Math.max(1, ...data.nodes.map(number => data.sets[number][3]));
    const bar = (parent, set) => {
      const track = make(parent, "span", "graph-bar");
      make(track, "span", "graph-fill").style.width = `${100 * Math.min(1, Math.max(0, set[3] / most))}%`;
      for (const mark of data.marks) make(track, "span", "graph-mark").style.left = `${100 * mark / most}%`;
    };

    // --- what is chosen, pointed at and pinned, and who shows it
    const state = { chosen: every, pointed: null, pins: [] };
    const patchesOf = node => data.sets[data.nodes[node]][0];
    const canvas = find("stage").querySelector("canvas");
    const said = find("said");
    const outlined = outlines(find("stage"));
    const grid = gridOf();
    const plane = planeOf();

    function show() {
      const patches = state.pointed === null ? state.chosen : patchesOf(state.pointed);
      paint(canvas, patches);
      outlined(patches.length === count ? "" : outline(data, patches));
      said.setAttribute("aria-live", state.pointed === null ? "polite" : "off");
      const text = told(patches);
      if (said.textContent !== text) said.textContent = text;
      grid.show(patches);
      plane.show();
    }
    const choose = (patches, pins = []) => {
      Object.assign(state, { chosen: patches, pointed: null, pins });
      compare();
      show();
    };
    const pin = node => {
      const [first, second] = state.pins;
      if (first === undefined || second !== undefined) choose(patchesOf(node), [node]);
      else if (first === node) choose(every);
      else choose(patchesOf(first), [first, node]);
    };
    const point = node => {
      if (state.pointed !== node) { state.pointed = node; show(); }
    };

    // --- the patches on the picture
    function gridOf() {
      const { side, borders: [down, across] } = data;
      const group = make(find("stage"), "div", `graph-grid${side > 10 ? " fine" : ""}`);
      group.setAttribute("role", "group");
      group.setAttribute("aria-label", "Patches: arrow keys move, Space takes a patch in or out");
      const buttons = every.map(patch => {
        const button = make(group, "button");
        make(button, "span", "", `P${patch}`);
        const [row, column] = [Math.floor(patch / side), patch % side];
        const [height, width] = [down[row + 1] - down[row], across[column + 1] - across[column]];
        Object.assign(button.style, { top: `${100 * down[row]}%`, height: `${100 * height}%`,
          left: `${100 * across[column]}%`, width: `${100 * width}%` });
        button.tabIndex = patch ? -1 : 0;
        button.addEventListener("click", () => {
          const kept = state.chosen.includes(patch) ? without(state.chosen, [patch]) : [...state.chosen, patch];
          choose(kept.sort((a, b) => a - b));
        });
        return button;
      });
      group.addEventListener("keydown", event => {
        const patch = buttons.indexOf(document.activeElement);
        const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
        if (!step || patch < 0) return;
        event.preventDefault();
        const [row, column] = [Math.floor(patch / side) + step[0], patch % side + step[1]];
        if (row < 0 || row >= side || column < 0 || column >= side) return;
        buttons[patch].tabIndex = -1;
        buttons[row * side + column].tabIndex = 0;
        buttons[row * side + column].focus();
      });
      return { show: patches => buttons.forEach((b, patch) => b.setAttribute("aria-pressed", patches.includes(patch))) };
    }
    for (const [name, patches] of [["All", every], ["None", []],
      ...data.roots.map((number, i) => [`Set ${i + 1}`, data.sets[number][0]])]) {
      const button = make(find("starts"), "button", "", name);
      button.setAttribute("aria-label", `${name}: ${named(patches)}`);
      button.addEventListener("click", () => choose(patches));
    }
    const faint = make(find("starts"), "label", "graph-faint");
    const tick = Object.assign(make(faint, "input"), { type: "checkbox" });
    faint.append("Show the rest faintly");
    tick.addEventListener("change", () => { find("picture").hidden = !tick.checked; });

    // --- the layered graph
    function planeOf() {
      const board = find("plane");
      const svg = draw(board, "svg", { "aria-hidden": "true" });
      const names = draw(board, "svg", { class: "graph-names", "aria-hidden": "true" });
      const parents = data.nodes.map(() => []);
      const children = data.nodes.map(() => []);
      const links = data.links.map(([parent, child, patch]) => {
        const lost = data.sets[data.nodes[parent]][3] - data.sets[data.nodes[child]][3];
        const points = Math.round(100 * Math.abs(lost));
        const text = points ? `${points} point${points === 1 ? "" : "s"} ${lost > 0 ? "less" : "more"}` : "no change";
        const line = draw(svg, "line", { "stroke-width": (1 + 9 * Math.min(1, Math.max(0, lost))).toFixed(1) });
        draw(line, "title", {}).textContent = `Without P${patch}: ${text}`;
        const link = { parent, child, line, label: [`P${patch}`, `${points ? (lost > 0 ? "−" : "+") : "±"}${points}`] };
        if (lost < 0) line.classList.add("gain");
        children[parent].push(link);
        parents[child].push(link);
        return link;
      });
      const painted = new IntersectionObserver(seen => seen.filter(one => one.isIntersecting).forEach(one => {
        painted.unobserve(one.target);
        paint(one.target, patchesOf(one.target.number));
      }), { root: find("scroll"), rootMargin: "300px" });
      const nodes = data.nodes.map((number, node) => {
        const set = data.sets[number];
        const button = make(board, "button", `graph-node ${KINDS[kind(set)]}`);
        const thumb = Object.assign(make(button, "canvas"), sizes);
        thumb.number = node;
        painted.observe(thumb);
        make(button, "span", "graph-share", `${Math.round(100 * set[3])} %`);
        bar(button, set);
        make(button, "span", "graph-name", named(set[0]));
        button.setAttribute("aria-label", `${named(set[0])}: ${measured(set)}. ${data.reasons[set[4]]}`);
        button.tabIndex = -1;
        button.addEventListener("click", () => pin(node));
        button.addEventListener("pointerenter", () => point(node));
        button.addEventListener("pointerleave", () => point(null));
        button.addEventListener("focus", () => point(node));
        button.addEventListener("blur", () => point(null));
        return button;
      });
      const places = [];
      let stop = data.layers[0][0];
      nodes[stop].tabIndex = 0;
      let size = SIZES.length - 1;
      const box = () => find("scroll").clientWidth;
      const widest = Math.max(...data.layers.map(layer => layer.length));
      const step = () => SIZES[size] + [8, 8, 12, 24][size];
      while (size > 1 && widest * step() > (size > 2 ? 1.5 : 3) * box()) size--;

      const lay = () => {
        const [wide, edge] = [step(), SIZES[size]];
        board.dataset.size = size;
        for (const button of nodes) button.style.width = `${edge}px`;
        const tall = nodes[0].offsetHeight;
        const width = Math.max(box(), widest * wide + 16);
        const gap = Math.max(56, edge);
        data.layers.forEach((layer, row) => layer.forEach((node, i) => {
          const [left, top] = [width / 2 + (i - layer.length / 2) * wide + (wide - edge) / 2, 8 + row * (tall + gap)];
          places[node] = { x: left + edge / 2, top, bottom: top + tall, row, i };
          Object.assign(nodes[node].style, { left: `${left}px`, top: `${top}px` });
        }));
        const height = 16 + data.layers.length * (tall + gap) - gap;
        Object.assign(board.style, { width: `${width}px`, height: `${height}px` });
        for (const { parent, child, line } of links) {
          const [from, to] = [places[parent], places[child]];
          for (const [name, value] of Object.entries({ x1: from.x, y1: from.bottom, x2: to.x, y2: to.top })) line.setAttribute(name, value);
        }
      };
      const centre = node => { find("scroll").scrollLeft = places[node].x - box() / 2; };
      const zoom = find("zoom").querySelectorAll("button");
      zoom.forEach((button, more) => button.addEventListener("click", () => {
        size += more ? 1 : -1;
        zoom[0].disabled = size === 0;
        zoom[1].disabled = size === SIZES.length - 1;
        lay();
        centre(stop);
        plane.show();
      }));
      zoom[1].disabled = size === SIZES.length - 1;
      lay();
      centre(stop);
      new ResizeObserver(() => { lay(); plane.show(); }).observe(find("scroll"));

      const nearest = (from, some) => some.length ? some.reduce((a, b) =>
        Math.abs(places[b].x - places[from].x) < Math.abs(places[a].x - places[from].x) ? b : a) : undefined;
      const moved = (from, name) => {
        const { row, i } = places[from];
        const [up, down] = [parents[from].map(link => link.parent), children[from].map(link => link.child)];
        if (name === "ArrowLeft") return data.layers[row][i - 1];
        if (name === "ArrowRight") return data.layers[row][i + 1];
        if (name === "ArrowUp") return nearest(from, up.length ? up : data.layers[row - 1] ?? []);
        if (name === "ArrowDown") return nearest(from, down.length ? down : data.layers[row + 1] ?? []);
      };
      board.addEventListener("keydown", event => {
        const from = nodes.indexOf(document.activeElement);
        if (from < 0 || !event.key.startsWith("Arrow")) return;
        event.preventDefault();
        const to = moved(from, event.key);
        if (to !== undefined) nodes[to].focus();
      });
      board.addEventListener("focusin", event => {
        nodes[stop].tabIndex = -1;
        stop = nodes.indexOf(event.target);
        nodes[stop].tabIndex = 0;
      });

      const showLinks = active => {
        names.replaceChildren();
        for (const { parent, child, line, label } of links) {
          const hot = active.includes(parent) || active.includes(child);
          line.classList.toggle("hot", hot);
          if (!hot) continue;
          const [from, to] = [places[parent], places[child]];
          const along = active.includes(parent) ? .7 : .3;
          const [x, y] = [from.x + (to.x - from.x) * along, from.bottom + (to.top - from.bottom) * along];
          const text = draw(names, "text", { x, y, "text-anchor": "middle" });
          label.forEach((part, line) => { draw(text, "tspan", { x, dy: line ? "1.1em" : "-.1em" }).textContent = part; });
        }
      };
      return { show: () => {
        const held = data.nodes.indexOf(asked.get(key(state.chosen)));
        const active = [...new Set([...state.pins, ...(state.pointed === null ? [] : [state.pointed])])];
        const near = new Set(active.flatMap(node =>
          [...parents[node].map(link => link.parent), ...children[node].map(link => link.child)]));
        nodes.forEach((button, node) => {
          button.classList.toggle("active", node === state.pointed || (!active.length && node === held));
          button.classList.toggle("near", near.has(node));
          button.setAttribute("aria-pressed", state.pins.includes(node));
        });
        board.classList.toggle("dim", active.length > 0);
        showLinks(active);
      } };
    }
    const expand = `${Math.round(100 * data.expand)} %`;
    for (const [name, text] of [["suffices", "✓ suffices"], ["above", `above ${expand}`], ["below", `below ${expand}`]]) {
      make(find("key"), "span", `graph-sample ${name}`, text);
    }

    // --- two nodes side by side
    function compare() {
      const panel = find("compare");
      panel.replaceChildren();
      panel.hidden = state.pins.length < 2;
      if (panel.hidden) return;
      const sets = state.pins.map(node => data.sets[data.nodes[node]]);
      const pair = make(panel, "div", "graph-pair");
      sets.forEach((set, which) => {
        const figure = make(pair, "figure");
        pictured(figure, set[0], without(set[0], sets[1 - which][0]));
        const caption = make(figure, "figcaption");
        make(caption, "strong", "", named(set[0]));
        bar(caption, set);
        make(caption, "p", "", `${capital(measured(set))}. ${data.reasons[set[4]]}`);
      });
      const [only, other] = [without(sets[0][0], sets[1][0]), without(sets[1][0], sets[0][0])];
      const both = sets[0][0].filter(patch => sets[1][0].includes(patch));
      make(panel, "p", "graph-differ", `Outlined is what the other lacks. Only in the first: ${named(only)}. Only in the second: ${named(other)}. In both: ${named(both)}.`)
        .setAttribute("role", "status");
      panel.scrollIntoView({ block: "nearest" });
    }

    // --- which of two suffices?
    const quiz = () => {
      const panel = find("quiz");
      panel.hidden = !data.questions.length;
      if (panel.hidden) return;
      const open = make(make(panel, "p", "graph-turn"), "button", "", "Test yourself: which of two sets suffices?");
      const body = make(panel, "div");
      const tally = { next: 0, asked: 0, right: 0 };
      const ask = () => {
        const pair = data.questions[tally.next++].map(number => data.sets[number]);
        body.replaceChildren();
        const question = make(body, "p", "graph-question", "Which of these two suffices for ");
        make(question, "bdi", "", data.label);
        question.append(`? To suffice, ${data.must}. Click one, or press 1 or 2.`);
        const board = make(body, "div", "graph-pair");
        const verdict = make(body, "p", "graph-verdict");
        verdict.setAttribute("role", "status");
        const choices = pair.map((set, which) => {
          const button = make(board, "button", "graph-choice");
          button.setAttribute("aria-label", `Picture ${which + 1}: ${named(set[0])}`);
          pictured(button, set[0], []);
          make(button, "span", "", `${which + 1}`);
          button.addEventListener("click", () => answer(which));
          return button;
        });
        choices[0].focus();
        const answer = chosen => {
          if (choices[0].disabled) return;
          const right = pair.findIndex(set => set[4] === 0);
          tally.asked++;
          tally.right += chosen === right;
          verdict.textContent = `${chosen === right ? "✓ Right" : "✗ Wrong"}: picture ${right + 1} suffices. `
            + pair.map((set, which) => `Picture ${which + 1}, ${named(set[0])}: ${set[2]} of the whole picture’s ${data.measured}.`).join(" ");
          verdict.className = `graph-verdict ${chosen === right ? "right" : "wrong"}`;
          choices.forEach((button, which) => {
            button.disabled = true;
            button.classList.add(which === right ? "kept" : "lost");
            button.lastChild.textContent = `${which === right ? "✓" : "✗"} ${pair[which][2]}`;
          });
          const turn = make(body, "p", "graph-turn");
          const next = make(turn, "button", "", tally.next < data.questions.length ? "Next question" : "Start again");
          make(turn, "span", "graph-score", `${tally.right} of ${tally.asked} right`);
          next.addEventListener("click", () => {
            if (tally.next >= data.questions.length) Object.assign(tally, { next: 0, asked: 0, right: 0 });
            ask();
          });
          next.focus();
        };
        body.onkeydown = event => {
          if (event.key === "1" || event.key === "2") answer(event.key - 1);
          const step = { ArrowLeft: 0, ArrowRight: 1 }[event.key];
          if (step === undefined || choices[0].disabled) return;
          event.preventDefault();
          choices[step].focus();
        };
      };
      open.addEventListener("click", () => {
        open.parentElement.remove();
        ask();
      });
    };

    section.addEventListener("keydown", event => { if (event.key === "Escape") choose(every); });
    quiz();
    show();
  };

  const begin = section => Promise.all([...section.querySelectorAll(".graph-stage img")].map(image => image.decode())).then(() => {
    section.querySelector(".graph-view").hidden = false;
    started(section);
  });
  const ready = new IntersectionObserver(seen => seen.filter(one => one.isIntersecting).forEach(({ target }) => {
    ready.unobserve(target);
    begin(target);
  }), { rootMargin: "800px" });
  // The first ones at once, so that a page of few is whole; of many, those that come near.
  [...document.querySelectorAll(".graph")].filter(section => section.querySelector(".graph-view"))
    .forEach((section, number) => number < 3 ? begin(section) : ready.observe(section));
}
