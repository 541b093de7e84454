"""What the page does: draws the map, hides groups, lists what is encircled. Texts are set as text, never as HTML."""

BOOT = """
(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const item = read("map-data"), facts = read("map-facts");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  Bokeh.embed.embed_item(item, "map").then(() => {
    const document_ = Bokeh.documents[Bokeh.documents.length - 1];
    const source = document_.get_model_by_name("points");
    const column = (name) => Array.from(source.get_column ? source.get_column(name) : source.data[name]);
    const code = column("code"), mark = column("mark"), group = column("group"), text = column("text");
    const figures = facts.figures.map((figure) => [figure.name, column(figure.name), figure.digits]);
    const boxes = Array.from(document.querySelectorAll("#map-groups input"));
    const show = () => {
      const codes = new Set(), marks = new Set();
      boxes.filter((box) => box.checked).forEach((box) => {
        (box.name === "mark" ? marks : codes).add(Number(box.value));
      });
      facts.marks.forEach((_, number) => {
        const filter = document_.get_model_by_name("filter-" + number);
        if (filter === null) return;
        const shown = [];
        if (marks.has(number)) mark.forEach((m, i) => { if (m === number && codes.has(code[i])) shown.push(i); });
        filter.indices = shown;
      });
    };
    const paint = () => {
      facts.marks.forEach((_, number) => {
        const renderer = document_.get_model_by_name("mark-" + number);
        if (renderer === null || number === 0) return;
        renderer.glyph.line_color = { value: dark.matches ? "#f2f4f8" : "#1c2330" };
      });
    };
    const out = document.getElementById("map-selection");
    const line = (name, value) => {
      const made = document.createElement(name);
      made.textContent = value;
      return made;
    };
    const list = () => {
      const taken = source.selected.indices;
      out.replaceChildren();
      if (taken.length === 0) return;
      const counted = (values) => {
        const found = new Map();
        values.forEach((value) => found.set(value, (found.get(value) || 0) + 1));
        return Array.from(found).sort((a, b) => b[1] - a[1]);
      };
      const kinds = counted(taken.map((i) => facts.marks[mark[i]])).map(([name, n]) => n + " " + name).join(", ");
      const groups = counted(taken.map((i) => group[i])).slice(0, 8).map(([name, n]) => n + " " + name).join(", ");
      out.append(line("p", taken.length + " samples: " + kinds + ". By group: " + groups + "."));
      const items = document.createElement("ol");
      const shown = Array.from(taken).filter((i) => text[i]).sort((a, b) => mark[b] - mark[a]).slice(0, 25);
      shown.forEach((i) => items.append(line("li", group[i] + ", " + facts.marks[mark[i]] + ": " + text[i])));
      out.append(items);
    };
    const map = document.getElementById("map"), note = document.getElementById("map-note");
    const pointed = new Map();
    const write = () => {
      const under = Array.from(pointed).sort((a, b) => b[0] - a[0]).flatMap(([_, indices]) => indices);
      note.replaceChildren();
      note.hidden = under.length === 0;
      under.slice(0, 2).forEach((i) => {
        note.append(line("p", text[i] || "(text not at hand)"));
        const values = figures.map(([name, values, digits]) => name + " " + values[i].toFixed(digits));
        note.append(line("p", [group[i], facts.marks[mark[i]], ...values].join(" · ")));
      });
      if (under.length > 2) note.append(line("p", "and " + (under.length - 2) + " more here"));
    };
    source.inspect.connect(([renderer]) => {
      pointed.set(Number(renderer.name.split("-")[1]), Array.from(source.inspected.indices));
      write();
    });
    map.addEventListener("pointermove", (event) => {
      const right = event.clientX + 340 > innerWidth;
      note.style.left = Math.max(8, event.clientX + (right ? -332 : 16)) + "px";
      note.style.top = Math.min(event.clientY + 16, innerHeight - 180) + "px";
    });
    map.addEventListener("pointerleave", () => {
      pointed.clear();
      write();
    });
    boxes.forEach((box) => box.addEventListener("change", show));
    dark.addEventListener("change", paint);
    source.selected.properties.indices.change.connect(list);
    show();
    paint();
  });
})();
"""
