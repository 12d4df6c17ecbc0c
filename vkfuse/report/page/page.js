"use strict";
// The treemap, the sorting of tables and the search. Every text from the report is set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const HEAD = 18; // pixels of a group's title
  const KINDS = ["#8ab4f8", "#f6c177", "#a5d6a7", "#d3a6e8", "#80cbc4", "#ef9a9a", "#c5cae9", "#cfd2d6"];
  const SAME = "#c4c9ce", SMALLER = [76, 152, 219], LARGER = [233, 128, 60], GONE = "#e9edf0";
  const map = document.getElementById("map"), told = document.getElementById("told");
  const search = document.getElementById("search"), up = document.getElementById("up");
  const kinds = [...new Set(data.leaves.map((leaf) => leaf.kind))];

  const size = (bytes) => {
    if (bytes === null) return "-";
    const mib = bytes / 1048576, whole = bytes.toLocaleString("en-US");
    return Math.abs(mib) < 0.01 ? `${whole} B` : `${mib.toFixed(Math.abs(mib) >= 10 ? 1 : 3)} MiB (${whole} B)`;
  };

  // path of names -> nested nodes {name, value, children, leaf}
  const tree = () => {
    const root = { name: data.title, value: 0, children: new Map(), parent: null, leaves: [] };
    for (const leaf of data.leaves) {
      let node = root;
      node.value += leaf.area;
      node.leaves.push(leaf);
      for (const name of leaf.path) {
        if (!node.children.has(name))
          node.children.set(name, { name, value: 0, children: new Map(), parent: node, leaves: [] });
        node = node.children.get(name);
        node.value += leaf.area;
        node.leaves.push(leaf);
      }
    }
    return root;
  };
  const root = tree();
  let at = root;

  // a kind of one name goes by that name, a name of one place by itself
  const shown = (node) => (node.parent === root && node.children.size === 1 ? [...node.children.keys()][0] : node.name);
  const only = (node) => (node.children.size === 1 ? only([...node.children.values()][0]) : node);

  // squarified: Bruls, Huizing, van Wijk, "Squarified treemaps", 2000
  const place = (nodes, x, y, width, height) => {
    const placed = [], total = nodes.reduce((sum, node) => sum + node.value, 0);
    if (!total || width < 1 || height < 1) return placed;
    const scale = (width * height) / total;
    let row = [], rest = [...nodes].sort((a, b) => b.value - a.value);
    const worst = (values, side) => {
      const sum = values.reduce((a, b) => a + b, 0);
      return Math.max((side * side * values[0]) / (sum * sum), (sum * sum) / (side * side * values.at(-1)));
    };
    const flush = () => {
      const sum = row.reduce((a, node) => a + node.value * scale, 0), wide = width >= height;
      const thick = wide ? sum / height : sum / width;
      let from = wide ? y : x;
      for (const node of row) {
        const long = (node.value * scale) / thick;
        placed.push(wide ? [node, x, from, thick, long] : [node, from, y, long, thick]);
        from += long;
      }
      if (wide) { x += thick; width -= thick; } else { y += thick; height -= thick; }
      row = [];
    };
    while (rest.length) {
      const side = Math.min(width, height), values = row.map((node) => node.value * scale);
      const next = rest[0].value * scale;
      if (next <= 0) break;
      if (!row.length || worst([...values, next], side) <= worst(values, side)) row.push(rest.shift());
      else flush();
    }
    if (row.length) flush();
    return placed;
  };

  const mixed = (colour, part) => {
    const base = [196, 201, 206];
    return `rgb(${colour.map((value, i) => Math.round(base[i] + (value - base[i]) * part)).join(",")})`;
  };
  const most = data.leaves.reduce((largest, leaf) => Math.max(largest, Math.abs(leaf.delta ?? 0)), 1);
  // siblings of one kind differ in how light they are
  const shaded = (node) => {
    const shades = [0, 0.3, 0.15, 0.45], order = node.parent ? [...node.parent.children.keys()].indexOf(node.name) : 0;
    const base = Number.parseInt(KINDS[kinds.indexOf(node.leaves[0].kind) % KINDS.length].slice(1), 16);
    const light = node.children.size > 1 ? 0 : shades[order % shades.length];
    const parts = [base >> 16, (base >> 8) & 255, base & 255];
    return `rgb(${parts.map((value) => Math.round(value + (255 - value) * light)).join(",")})`;
  };
  const colour = (node) => {
    if (!data.diff) return shaded(node);
    if (node.leaves.every((leaf) => leaf.bytes === null)) return GONE;
    const delta = node.leaves.reduce((sum, leaf) => sum + leaf.delta, 0);
    if (!delta) return SAME;
    return mixed(delta > 0 ? LARGER : SMALLER, 0.35 + 0.65 * Math.sqrt(Math.min(1, Math.abs(delta) / most)));
  };

  const sums = (node) => {
    const total = (key) => node.leaves.reduce((sum, leaf) => sum + (leaf[key] ?? 0), 0);
    return { bytes: total("bytes"), before: total("before"), delta: total("delta") };
  };
  const describe = (node) => {
    const { bytes, before, delta } = sums(node), share = ((100 * node.value) / root.value).toFixed(1);
    const path = [];
    for (let one = node; one.parent; one = one.parent) path.unshift(one.name);
    const sign = delta > 0 ? "+" : "";
    const change = data.diff ? `; before ${size(before)}, change ${sign}${size(delta)}` : `; ${share}% of the whole`;
    return `${path.join(" / ") || data.title}: ${size(bytes)}${change}`;
  };

  const element = (name, attributes, parent) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  };
  const found = (node) => {
    const wanted = search.value.trim().toLowerCase();
    return !wanted || node.leaves.some((leaf) => leaf.path.join(" ").toLowerCase().includes(wanted));
  };
  const label = (text, x, y, width, parent) => {
    const fits = Math.floor((width - 8) / 6.7);
    if (fits < 3) return;
    const made = element("text", { x: x + 4, y: y + 13 }, parent);
    made.textContent = text.length > fits ? `${text.slice(0, fits - 1)}\u2026` : text;
  };
  const draw = () => {
    map.replaceChildren();
    const width = map.clientWidth || 800, height = map.clientHeight || 400;
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "treemap of bytes" }, map);
    const level = (parent, x, y, w, h, depth, into) => {
      for (const [given, nx, ny, nw, nh] of place([...parent.children.values()], x, y, w, h)) {
        const node = only(given), leaf = !node.children.size;
        const group = element("g", {
          class: `${leaf ? "leaf" : "group"}${found(node) ? "" : " missed"}`, tabindex: 0, role: "button", "aria-label": describe(node),
        }, into);
        element("rect", { x: nx, y: ny, width: Math.max(nw, 0), height: Math.max(nh, 0), fill: colour(node.children.size ? node : given) }, group);
        if (!leaf) element("rect", { class: "body", x: nx + 1, y: ny + HEAD, width: Math.max(nw - 2, 0), height: Math.max(nh - HEAD - 1, 0) }, group);
        const tell = (event) => { event.stopPropagation(); told.textContent = describe(node); };
        group.addEventListener("mouseover", tell);
        group.addEventListener("focus", tell);
        const zoom = (event) => { event.stopPropagation(); if (leaf) search.value = node.name, sought(); else go(node); };
        group.addEventListener("click", zoom);
        group.addEventListener("keydown", (event) => { if (event.key === "Enter") zoom(event); });
        if (nh > HEAD) label(shown(given), nx, ny, nw, group);
        if (!leaf && depth < 3 && nh > HEAD + 8 && nw > 12) level(node, nx + 2, ny + HEAD, nw - 4, nh - HEAD - 2, depth + 1, group);
      }
    };
    level(at, 0, 0, width, height, 0, svg);
    told.textContent = describe(at);
    up.hidden = at === root;
  };
  const go = (node) => { at = node; draw(); };
  const outward = () => {
    let node = at.parent;
    while (node && node.parent && node.children.size === 1) node = node.parent;
    if (node) go(node);
  };
  up.addEventListener("click", outward);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (search.value) { search.value = ""; sought(); } else outward();
  });

  const rows = [...document.querySelectorAll("table.sortable tbody tr")];
  const sought = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const row of rows) row.hidden = Boolean(wanted) && !row.textContent.toLowerCase().includes(wanted);
    draw();
  };
  search.addEventListener("input", sought);

  const key = (row, at) => {
    const cell = row.cells[at];
    if (!cell.classList.contains("number")) return cell.textContent.toLowerCase();
    return cell.dataset.v === undefined ? (cell.textContent === "new" ? Infinity : -Infinity) : Number(cell.dataset.v);
  };
  for (const head of document.querySelectorAll("table.sortable thead th")) {
    head.firstElementChild.addEventListener("click", () => {
      const body = head.closest("table").tBodies[0], at = head.cellIndex;
      const down = head.getAttribute("aria-sort") === "descending" ? 1 : head.getAttribute("aria-sort") ? -1 : head.classList.contains("number") ? -1 : 1;
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => [key(row, at), row]);
      keyed.sort(([a], [b]) => (a < b ? -down : a > b ? down : 0));
      body.append(...keyed.map(([, row]) => row));
    });
  }

  const legend = document.getElementById("legend");
  const entries = data.diff
    ? [["smaller", mixed(SMALLER, 1)], ["larger", mixed(LARGER, 1)], ["same size", SAME], ["gone", GONE]]
    : kinds.map((kind, i) => [kind, KINDS[i % KINDS.length]]);
  for (const [name, fill] of entries) {
    const entry = document.createElement("span");
    const box = element("svg", { viewBox: "0 0 1 1" }, entry);
    element("rect", { width: 1, height: 1, fill }, box);
    entry.append(name);
    legend.append(entry);
  }
  document.getElementById("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches, style = document.documentElement.dataset;
    style.theme = (style.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  });
  addEventListener("resize", draw);
  for (const part of document.querySelectorAll(".script")) part.hidden = false;
  draw();
})();
