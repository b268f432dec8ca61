"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("canvas");
  const pen = canvas.getContext("2d");
  const tip = document.getElementById("tip");
  const chosenPart = document.getElementById("chosen");
  const hues = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7b4ea3", "#5f9e2f", "#b03060"];
  const shownNeighbours = 8;
  const reach = 28; // pixels around an image in which it is still meant
  const margin = 16;

  const sample = document.querySelector("button.thumb");
  const style = getComputedStyle(sample);
  const columns = Number(style.getPropertyValue("--columns"));
  const sheet = new Image();
  let side = 0; // of a square on the sheet
  let asPictures = true;
  let pointed = -1;
  let chosen = -1;
  let width = 0;
  let height = 0;

  sheet.onload = () => {
    side = sheet.naturalWidth / columns;
    draw();
  };
  sheet.src = style.backgroundImage.slice(5, -2); // url("…")

  const nameOf = (row) =>
    data.classes === null ? data.names[row] : `${data.names[row]}, ${data.classNames[data.classes[row]]}`;
  const hueOf = (row) => hues[data.classes === null ? 0 : data.classes[row] % hues.length];
  const place = (row) => [
    margin + data.points[row][0] * (width - 2 * margin),
    margin + data.points[row][1] * (height - 2 * margin),
  ];

  function drawOne(row, size) {
    const [x, y] = place(row);
    if (asPictures && side > 0) {
      const [column, line] = [row % columns, Math.floor(row / columns)];
      pen.drawImage(sheet, column * side, line * side, side, side, x - size / 2, y - size / 2, size, size);
    } else {
      pen.fillStyle = hueOf(row);
      pen.beginPath();
      pen.arc(x, y, size / 4, 0, 2 * Math.PI);
      pen.fill();
    }
  }

  function frame(row, size, colour) {
    const [x, y] = place(row);
    pen.strokeStyle = colour;
    pen.lineWidth = 2.5;
    pen.strokeRect(x - size / 2, y - size / 2, size, size);
  }

  function draw() {
    const colours = getComputedStyle(document.body);
    const link = colours.getPropertyValue("--link");
    const usual = Math.max(10, Math.min(40, 0.75 * Math.sqrt((width * height) / data.points.length)));
    pen.clearRect(0, 0, width, height);
    const nearest = chosen < 0 ? [] : data.after[chosen].slice(0, shownNeighbours);
    pen.globalAlpha = chosen < 0 ? 1 : 0.35;
    data.points.forEach((_, row) => drawOne(row, usual));
    pen.globalAlpha = 1;
    pen.strokeStyle = link;
    pen.lineWidth = 1;
    for (const row of nearest) {
      pen.beginPath();
      pen.moveTo(...place(chosen));
      pen.lineTo(...place(row));
      pen.stroke();
    }
    for (const row of nearest) {
      drawOne(row, 1.5 * usual);
      frame(row, 1.5 * usual, link);
    }
    if (chosen >= 0) {
      drawOne(chosen, 2 * usual);
      frame(chosen, 2 * usual, colours.getPropertyValue("--text"));
    }
    if (pointed >= 0) {
      drawOne(pointed, 2 * usual);
      frame(pointed, 2 * usual, link);
    }
  }

  function fit() {
    const box = canvas.getBoundingClientRect();
    const density = window.devicePixelRatio || 1;
    [width, height] = [box.width, box.height];
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    pen.setTransform(density, 0, 0, density, 0, 0);
    draw();
  }

  function put(thumb, row) {
    thumb.style.setProperty("--x", row % columns);
    thumb.style.setProperty("--y", Math.floor(row / columns));
  }

  function point(row) {
    if (row === pointed) return;
    pointed = row;
    tip.hidden = row < 0;
    if (row >= 0) {
      put(tip.querySelector(".thumb"), row);
      tip.querySelector("span").textContent = nameOf(row);
      const [x, y] = place(row);
      tip.style.left = `${Math.max(0, x > width / 2 ? x - tip.offsetWidth - reach : x + reach)}px`;
      tip.style.top = `${Math.max(0, Math.min(y - reach, height - tip.offsetHeight))}px`;
    }
    draw();
  }

  function button(row) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "thumb";
    made.dataset.row = row;
    made.title = nameOf(row);
    made.setAttribute("aria-label", `${nameOf(row)}: show it on the map`);
    put(made, row);
    return made;
  }

  function strip(label, rows) {
    const [part, name, items] = ["div", "span", "div"].map((tag) => document.createElement(tag));
    [part.className, name.className, items.className] = ["strip", "label", "items"];
    name.textContent = label;
    items.append(...rows.slice(0, shownNeighbours).map(button));
    part.append(name, items);
    return part;
  }

  function choose(row) {
    chosen = row;
    const line = document.createElement("p");
    line.textContent = row < 0 ? "No image is chosen." : `Neighbours of ${nameOf(row)}`;
    chosenPart.replaceChildren(line);
    if (row >= 0) {
      chosenPart.append(strip("image", [row]), strip("after", data.after[row]), strip("before", data.before[row]));
    }
    draw();
  }

  function at(event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, least] = [-1, reach * reach];
    data.points.forEach((_, row) => {
      const [px, py] = place(row);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [row, distance];
    });
    return best;
  }

  /** The nearest image in a direction: of those within 45 degrees of it. */
  function towards(dx, dy) {
    if (pointed < 0) return chosen < 0 ? 0 : chosen;
    const [x, y] = place(pointed);
    let [best, least] = [pointed, Infinity];
    data.points.forEach((_, row) => {
      const [px, py] = place(row);
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      const distance = Math.hypot(px - x, py - y);
      if (row !== pointed && along > 0 && across <= along && distance < least) [best, least] = [row, distance];
    });
    return best;
  }

  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("pointermove", (event) => point(at(event)));
  canvas.addEventListener("pointerleave", () => point(-1));
  canvas.addEventListener("click", (event) => {
    const row = at(event);
    choose(row);
    point(row);
  });
  canvas.addEventListener("blur", () => point(-1));
  canvas.addEventListener("keydown", (event) => {
    if (event.key in arrows) point(towards(...arrows[event.key]));
    else if (event.key === "Enter" || event.key === " ") choose(pointed);
    else if (event.key === "Escape") choose(-1);
    else return;
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const thumb = event.target.closest("button.thumb");
    if (thumb === null) return;
    choose(Number(thumb.dataset.row));
    document.getElementById("map").scrollIntoView();
  });
  for (const [id, value] of [["as-pictures", true], ["as-dots", false]]) {
    document.getElementById(id).addEventListener("click", () => {
      asPictures = value;
      document.getElementById("as-pictures").setAttribute("aria-pressed", String(value));
      document.getElementById("as-dots").setAttribute("aria-pressed", String(!value));
      draw();
    });
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(fit).observe(canvas);
})();
