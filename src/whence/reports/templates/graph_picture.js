// What a structured attention graph is drawn with: elements, what the model saw of a set of patches, and outlines.
const graphPicture = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  const make = (parent, tag, name = "", text = "") => {
    const made = parent.appendChild(document.createElement(tag));
    if (name) made.className = name;
    if (text) made.textContent = text;
    if (tag === "button") made.type = "button";
    return made;
  };
  const draw = (parent, tag, facts) => {
    const made = parent.appendChild(document.createElementNS(SVG, tag));
    for (const [name, value] of Object.entries(facts)) made.setAttribute(name, value);
    return made;
  };
  // What the model sees of a set: base + (picture - base) U with U = A M A^T, on the model's own pixels.
  const mixer = (data, picture, base) => {
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    const pixels = image => {
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      const board = canvas.getContext("2d", { willReadFrequently: true });
      board.drawImage(image, 0, 0);
      return board.getImageData(0, 0, width, height).data;
    };
    const [shown, hidden] = [pixels(picture), pixels(base)];
    const { side, lies: [down, across] } = data;
    const between = (values, first, step, place) => {
      const low = Math.floor(place);
      const value = values[first + low * step];
      return place === low ? value : value + (values[first + (low + 1) * step] - value) * (place - low);
    };
    return patches => {
      const kept = new Float32Array(side * side);
      for (const patch of patches) kept[patch] = 1;
      const rows = new Float32Array(side * width);
      for (let row = 0; row < side; row++) {
        for (let x = 0; x < width; x++) rows[row * width + x] = between(kept, row * side, 1, across[x]);
      }
      const mixed = new ImageData(width, height);
      for (let y = 0, at = 0; y < height; y++) {
        for (let x = 0; x < width; x++, at += 4) {
          const share = between(rows, x, width, down[y]);
          for (let c = at; c < at + 3; c++) mixed.data[c] = hidden[c] + (shown[c] - hidden[c]) * share;
          mixed.data[at + 3] = 255;
        }
      }
      return mixed;
    };
  };

  // The outline of a set of patches where the model sees them, in shares of the picture.
  const outline = (data, patches) => {
    const { side, borders: [down, across] } = data;
    const held = new Set(patches);
    const parts = [];
    for (const patch of patches) {
      const [row, column] = [Math.floor(patch / side), patch % side];
      const [top, bottom, left, right] = [down[row], down[row + 1], across[column], across[column + 1]];
      if (!row || !held.has(patch - side)) parts.push(`M${left} ${top}H${right}`);
      if (row === side - 1 || !held.has(patch + side)) parts.push(`M${left} ${bottom}H${right}`);
      if (!column || !held.has(patch - 1)) parts.push(`M${left} ${top}V${bottom}`);
      if (column === side - 1 || !held.has(patch + 1)) parts.push(`M${right} ${top}V${bottom}`);
    }
    return parts.join("");
  };
  const outlines = parent => {
    const svg = draw(parent, "svg", { class: "graph-outline", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    const paths = ["graph-halo", "graph-edge"].map(name => draw(svg, "path", { class: name, d: "" }));
    return d => paths.forEach(path => path.setAttribute("d", d));
  };

  return { make, draw, mixer, outline, outlines };
})();
