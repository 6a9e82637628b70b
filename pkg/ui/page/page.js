// The page: what it asks for, what it shows, and what a person does with it.
// Whatever comes from the cluster becomes text, never markup.

const every = 5000; // milliseconds between two looks at the cluster
const fewPods = 12; // of a node that are shown at once
const fewNodes = 12; // that are shown though none of their pods is
const crowd = 60; // pods, from which on only what concerns a choice or a trace is shown
const order = ["OK", "UNKNOWN", "SUSPECT", "BROKEN"];
const signs = { OK: "✓", UNKNOWN: "?", SUSPECT: "~", BROKEN: "✕" };
const kinds = { ingress: "Ingress", service: "Service", pod: "Pod", node: "Node", policy: "Policy" };

const $ = (id) => document.getElementById(id);
const key = takeKey();

let graph = null; // as the server has it
let things = new Map(); // by ID
let trace = null; // as the server has it
let told = null; // the trace that the panel tells of
let selected = ""; // an ID
let paused = false;
let filled = false; // the namespaces are there to choose from
const opened = new Set(); // nodes of which all pods are shown
let known = ""; // the graph's text, to see that nothing has changed

// takeKey moves the key from the address to where only this tab has it.
function takeKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    sessionStorage.setItem("key", given);
    history.replaceState(null, "", location.pathname);
  }
  return given ?? sessionStorage.getItem("key") ?? "";
}

// ask returns JSON, or throws what is wrong in words.
async function ask(path, query = {}) {
  let answer, value;
  try {
    answer = await fetch(`${path}?${new URLSearchParams(query)}`, { headers: { Authorization: `Bearer ${key}` } });
    value = await answer.json();
  } catch {
    throw new Error("poplinctl ui does not answer: has it ended?");
  }
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// el makes an element; text is always text.
function el(name, attributes = {}, ...content) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes)) {
    if (k === "onclick") e.addEventListener("click", v);
    else if (v !== undefined && v !== false) e.setAttribute(k, v);
  }
  e.append(...content.flat().filter((c) => c || c === 0));
  return e;
}

const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

// load asks for the graph, and shows it where it has changed.
async function load() {
  try {
    const g = await ask("api/graph");
    const text = JSON.stringify({ ...g, taken: "" });
    note(g.missing.map((m) => `not shown, because it cannot be read: ${m}`));
    graph = g;
    if (text === known) return summarize();
    known = text;
    things = new Map([g.nodes, g.pods, g.services, g.ingresses, g.policies].flat().map((t) => [t.id, t]));
    choices();
    show();
  } catch (e) {
    note([e.message], "bad");
  }
}

function note(texts, kind = "") {
  const now = texts.map((t) => el("li", { class: kind }, t));
  if ($("notes").textContent !== texts.join("")) $("notes").replaceChildren(...now);
}

// statuses are, by ID, the worst of a trace's hops; one of status "NONE" is on
// the way, and nothing was looked at there.
function statuses() {
  const worst = new Map();
  for (const s of trace?.sections ?? []) for (const id of [s.from, s.to]) worst.set(id, { status: "NONE" });
  for (const h of trace?.hops ?? []) {
    if (h.at && order.indexOf(h.status) > order.indexOf(worst.get(h.at)?.status)) worst.set(h.at, h);
  }
  return worst;
}

const system = (namespace) => /^kube-|^poplin-system$/.test(namespace);

// wanted reports whether the filters let a thing be seen.
function wanted(t) {
  const namespace = $("namespace").value, find = $("find").value.trim().toLowerCase();
  if (namespace === "-" ? system(t.namespace) : namespace && t.namespace && t.namespace !== namespace) return false;
  return !find || [t.name, t.namespace, ...(t.addresses ?? []), ...(t.urls ?? [])].some((x) => x?.toLowerCase().includes(find));
}

// concerned are, in a crowd, the IDs of what a choice leads to and is led to by,
// or of what has been traced; null is everything.
function concerned(worst) {
  if (graph.pods.length <= crowd || !(things.has(selected) || trace)) return null;
  if (!things.has(selected)) return new Set(worst.keys());
  const t = things.get(selected), all = new Set([selected, ...(t.pods ?? []), ...(t.policies ?? [])]);
  if (selected.startsWith("node/")) graph.pods.filter((p) => p.node === t.name).forEach((p) => all.add(p.id));
  for (const [here, there] of [["from", "to"], ["to", "from"]]) {
    const reached = new Set([selected]);
    for (let before = 0; before < reached.size;) {
      before = reached.size;
      graph.edges.filter((e) => reached.has(e[here])).forEach((e) => reached.add(e[there]));
    }
    reached.forEach((id) => all.add(id));
  }
  return all;
}

// show draws everything anew, and keeps the focus where it was.
function show() {
  if (!graph) return;
  const focus = document.activeElement?.dataset?.id;
  const worst = statuses();
  const few = concerned(worst);
  const shown = (t) => (few ? few.has(t.id) : wanted(t)) || worst.has(t.id) || t.id === selected;
  $("graph").classList.toggle("traced", trace !== null);

  const outside = trace?.sections.flatMap((s) => [s.from, s.to]).filter((id) => id === "external" || id.startsWith("address/")) ?? [];
  fill("ingresses", [
    ...[...new Set(outside)].map((id) => card({ id, name: id === "external" ? "a client outside" : id.slice(8) }, worst, [])),
    ...graph.ingresses.filter(shown).map((i) => card(i, worst, [i.namespace, ...new Set(i.urls.map((u) => new URL(u).host)), i.class && `class ${i.class}`])),
  ], "none here");
  fill("services", graph.services.filter(shown).map((s) => card(s, worst, [
    s.namespace, `${s.type} ${s.ports.map((p) => p.port + (p.protocol === "tcp" ? "" : `/${p.protocol}`)).join(", ")}`,
    s.endpoints > 0 && `${s.ready} of ${plural(s.endpoints, "endpoint")} ready`,
  ])), "none here");
  fill("policies", graph.policies.filter(shown).map((p) => card(p, worst, [p.namespace || p.about, directions(p), plural(p.pods.length, "pod")])), "none here");
  nodes(worst, shown);
  summarize();
  panel();
  lines();
  if (focus) cardOf(focus)?.focus({ preventScroll: true });
  document.body.dataset.shown = "yes";
}

function fill(id, cards, empty) {
  $(id).replaceChildren(...(cards.length ? cards.map((c) => el("li", {}, c)) : [el("li", { class: "none" }, empty)]));
}

const directions = (p) => [p.ingress && "ingress", p.egress && "egress"].filter(Boolean).join(" and ");
const cardOf = (id) => document.querySelector(`#graph [data-id="${CSS.escape(id)}"]`);

// card is a thing that can be chosen.
function card(t, worst, details) {
  const hop = worst.get(t.id), status = hop?.status;
  const says = !status || status === "NONE" ? "" : `${signs[status]} ${status}${status === "OK" ? "" : ` ${hop.hop}`}`;
  return el("button", {
    type: "button", class: `thing${t.id.startsWith("policy/") ? " rule" : ""}`, "data-id": t.id, "data-status": status,
    "aria-pressed": String(t.id === selected), title: t.name, onclick: () => choose(t.id),
  },
  el("b", {}, t.name), says && el("small", { class: `tag ${status}` }, says),
  details.filter(Boolean).map((d) => el("small", {}, d)),
  (t.problems ?? []).map((p) => el("small", { class: "problem" }, `! ${p}`)));
}

// nodes are boxes with their pods; those that no node has taken are in one too.
function nodes(worst, shown) {
  const byNode = new Map(graph.nodes.map((n) => [n.name, []]));
  for (const p of graph.pods.filter(shown)) byNode.set(p.node, [...(byNode.get(p.node) ?? []), p]);
  let left = 0;
  const boxes = [];
  for (const [name, pods] of byNode) {
    const node = things.get(`node/${name}`) ?? { id: "", name: name || "on no node yet" };
    if (!pods.length && graph.nodes.length > fewNodes && !node.problems && !worst.has(node.id) && node.id !== selected) {
      left++;
      continue;
    }
    // What matters is not folded away.
    const some = pods.filter((p, i) => i < fewPods || opened.has(name) || worst.has(p.id) || p.id === selected || p.problems);
    boxes.push(el("li", { class: "node" },
      node.id ? card(node, worst, [node.addresses?.join(", ")]) : el("p", { class: "none" }, node.name),
      el("ul", {}, some.map((p) => el("li", {}, card(p, worst, [podLine(p)])))),
      pods.length > some.length && el("button", { type: "button", class: "more", onclick: () => { opened.add(name); show(); } }, `${pods.length - some.length} more`),
    ));
  }
  if (left) boxes.push(el("li", { class: "none" }, `${plural(left, "node")} without pods to show`));
  $("nodes").replaceChildren(...boxes);
}

const podLine = (p) => el("span", {}, `${p.namespace} · ${p.addresses?.[0] ?? "no address"}`,
  p.policies ? [" · ", el("i", {}, plural(p.policies.length, "policy", "policies"))] : "");

function summarize() {
  const ill = [...things.values()].filter((t) => t.problems).length;
  $("summary").textContent = [
    plural(graph.nodes.length, "node"), plural(graph.pods.length, "pod"), plural(graph.services.length, "Service"),
    plural(graph.ingresses.length, "Ingress", "Ingresses"), plural(graph.policies.length, "policy", "policies"), ill ? `${ill} with a problem` : "no problem seen",
  ].join(" · ") + (paused ? ` · as of ${new Date(graph.taken).toLocaleTimeString()}` : "");
}

// choices are the namespaces, and what a trace may begin and end at.
function choices() {
  const box = $("namespace"), now = filled ? box.value : "-";
  filled = true;
  const names = [...new Set([...things.values()].map((t) => t.namespace).filter(Boolean))].sort();
  box.replaceChildren(el("option", { value: "-" }, "all but the system's"), el("option", { value: "" }, "all"), ...names.map((n) => el("option", { value: n }, n)));
  box.value = [...box.options].some((o) => o.value === now) ? now : "-";
  const options = (list) => list.map((value) => el("option", { value }));
  $("sources").replaceChildren(...options(["external", ...graph.pods.map(fromOf), ...graph.nodes.map(fromOf)]));
  $("targets").replaceChildren(...options([...graph.ingresses, ...graph.services, ...graph.pods].flatMap(toOf)));
}

// fromOf and toOf are how a trace is told of a thing.
const fromOf = (t) => t.id;
function toOf(t) {
  if (t.urls) return t.urls;
  if (t.id.startsWith("service/")) return t.ports.map((p) => `${t.id}:${p.port}${p.protocol === "tcp" ? "" : `/${p.protocol}`}`);
  if (t.id.startsWith("pod/")) return (t.ports ?? []).map((p) => `${t.id}:${p.replace("/tcp", "")}`);
  return [];
}

function choose(id) {
  selected = selected === id ? "" : id;
  show();
}

// edges are those of the graph, of a chosen policy, and of the trace.
function edges() {
  const traced = new Set((trace?.sections ?? []).map((s) => `${s.from} ${s.to}`));
  const policy = things.get(selected)?.pods ? things.get(selected) : null;
  return [
    ...graph.edges.filter((e) => !traced.has(`${e.from} ${e.to}`)).map((e) => ({ ...e, class: e.ready ? "" : "waits" })),
    ...(policy?.pods ?? []).map((to) => ({ from: policy.id, to, class: "rule" })),
    ...(trace?.sections ?? []).map((s) => ({ ...s, status: s.status ?? "NONE", class: "" })),
  ];
}

// lines draws the edges between the cards that are shown.
function lines() {
  if (!graph) return;
  const area = $("graph"), origin = area.getBoundingClientRect();
  const near = document.activeElement?.dataset?.id || selected;
  const places = new Map([...area.querySelectorAll("[data-id]")].map((c) => [c.dataset.id, c.getBoundingClientRect()]));
  const drawn = edges().filter((e) => places.has(e.from) && places.has(e.to)).map((e) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", curve(places.get(e.from), places.get(e.to), origin.left - area.scrollLeft, origin.top - area.scrollTop));
    path.setAttribute("class", [e.class, (e.from === near || e.to === near) && "near"].filter(Boolean).join(" "));
    path.dataset.from = e.from;
    path.dataset.to = e.to;
    if (e.status) path.dataset.status = e.status;
    return path;
  });
  $("lines").replaceChildren(...drawn);
  area.classList.toggle("crowded", drawn.length > crowd);
  size(0, 0); // so that it is not its own measure
  size(area.scrollWidth, area.scrollHeight);
}

function size(width, height) {
  $("edges").setAttribute("width", width);
  $("edges").setAttribute("height", height);
}

// curve leads from the side of one box to the near side of the other, a bit lower
// where it leads back; within a column, around it on the left.
function curve(a, b, left, top) {
  const y1 = a.top + a.height / 2 - top, y2 = b.top + b.height / 2 - top;
  const bezier = (x1, x2, y2, out, into) => `M${x1 - left} ${y1} C${x1 - left + out} ${y1} ${x2 - left - into} ${y2} ${x2 - left} ${y2}`;
  if (a.right < b.left) return bezier(a.right, b.left, y2, (b.left - a.right) / 2, (b.left - a.right) / 2);
  if (b.right < a.left) return bezier(a.left, b.right, y2 + 12, (b.right - a.left) / 2, (b.right - a.left) / 2);
  return bezier(a.left, b.left, y2, -55, 55);
}

// panel tells of the thing that is chosen, or else of the trace.
function panel() {
  const t = things.get(selected);
  if (!t && trace && trace === told) return; // what somebody has unfolded stays so
  told = t ? null : trace;
  const content = t ? about(t) : trace ? report() : welcome();
  $("panel").replaceChildren(...content.filter(Boolean));
}

const welcome = () => [
  el("h3", {}, "What leads where"),
  el("p", { class: "hint" }, "Choose anything to see what it is, where it leads and what is wrong with it."),
  el("p", { class: "hint" }, "Trace a request to see each hop of its way, and which one is broken. Arrow keys move between things."),
];

const link = (id) => el("button", { type: "button", class: "link", onclick: () => { selected = ""; choose(id); cardOf(id)?.scrollIntoView({ block: "nearest" }); } },
  things.has(id) ? `${kinds[id.split("/")[0]]} ${id.slice(id.indexOf("/") + 1)}` : id);

// about is what there is to know of a thing.
function about(t) {
  const rows = [];
  const row = (name, values) => values?.length && rows.push(el("dt", {}, name), el("dd", {}, values.map((v) => el("div", {}, v))));
  row("Addresses", t.addresses);
  row("For outside", t.outer);
  row("Class", t.class && [t.class]);
  row("Type", t.type && [t.type]);
  row("Ports", t.ports?.map((p) => typeof p === "string" ? p
    : `${p.name ? `${p.name}: ` : ""}${p.port}/${p.protocol} → ${p.target}${p.nodePort ? `, node port ${p.nodePort}` : ""}`));
  row("Pod ranges", t.podCIDRs);
  row("MTU", t.mtu && [t.mtu]);
  row("Node", t.node && [link(`node/${t.node}`)]);
  row("Network", t.hostNetwork && ["its node's"]);
  row("Kind", t.kind && [t.kind]);
  row("Order", t.about && [t.about]);
  row("Into its pods", t.ingress && [t.ingress]);
  row("Out of its pods", t.egress && [t.egress]);
  const edge = (e, id) => el("span", {}, link(id), e.label ? ` ${e.label}` : "", e.ready ? "" : " (not ready)");
  row("Leads to", graph.edges.filter((e) => e.from === t.id).map((e) => edge(e, e.to)));
  row("Led to by", graph.edges.filter((e) => e.to === t.id).map((e) => edge(e, e.from)));
  row("Policies", t.policies?.map(link));
  row("Pods", t.pods?.map(link));
  const to = toOf(t);
  const set = (from, to) => () => { if (from) $("from").value = from; if (to) $("to").value = to; $(from ? "to" : "from").focus(); };
  return [
    el("p", { class: "kind" }, kinds[t.id.split("/")[0]] + (t.namespace ? ` in ${t.namespace}` : "")),
    el("h3", {}, t.name),
    el("ul", { class: "problems" }, (t.problems ?? []).map((p) => el("li", {}, p))),
    el("dl", {}, rows),
    el("div", { class: "buttons" },
      /^(pod|node)\//.test(t.id) && el("button", { type: "button", onclick: set(fromOf(t), "") }, "Trace from here"),
      to.length > 0 && el("button", { type: "button", onclick: set("", to[0]) }, "Trace to here")),
    el("p", { class: "hint" }, el("button", { type: "button", class: "link", onclick: () => choose(t.id) }, trace ? "Back to the trace" : "Back to all")),
  ];
}

function cure(text) {
  const button = el("button", { type: "button", onclick: async () => { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } }, "Copy");
  return el("div", { class: "cure" }, el("code", {}, text), button);
}

// seen is a hop's line, with what it was judged by folded below it.
const seen = (hop, line) => hop.evidence
  ? el("details", {}, el("summary", {}, line), el("ul", {}, hop.evidence.map((e) => el("li", {}, e)))) : el("div", {}, line);

// report is a trace's: the verdict, and the hops as a rail.
function report() {
  const counts = order.toReversed().map((s) => [s, trace.hops.filter((h) => h.status === s).length]).filter(([, n]) => n);
  const words = { OK: "every hop lets it pass", UNKNOWN: "nothing is seen broken, and not all could be looked at", SUSPECT: "it may pass, and something is odd", BROKEN: "it does not pass" };
  return [
    el("p", { class: "kind" }, "Trace"),
    el("h3", {}, `${trace.from} → ${trace.to}`),
    el("div", { class: `verdict ${trace.status}`, id: "verdict", "data-status": trace.status },
      el("strong", {}, `${signs[trace.status]} ${trace.status}: ${words[trace.status]}`),
      trace.hop && el("p", {}, el("b", {}, `Hop ${trace.hop}${trace.node ? ` on node ${trace.node}` : ""}: `), trace.cause),
      trace.cure && cure(trace.cure)),
    el("p", { class: "kind" }, counts.map(([s, n]) => `${n} ${s}`).join(" · ")),
    el("ol", { class: "rail", "aria-label": "Hops" }, trace.hops.map((h) => el("li", { "data-hop": h.hop, "data-status": h.status },
      el("span", { class: `stop ${h.status}`, role: "img", "aria-label": h.status }, signs[h.status]),
      seen(h, [el("b", {}, h.hop), " ", el("span", { class: "about" }, h.about + (h.node && h.about !== `node ${h.node}` ? ` on ${h.node}` : ""))]),
      h.cause && el("p", { class: h.status }, h.cause), h.cure && h.cure !== trace.cure && cure(h.cure)))),
  ];
}

$("trace").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("go").disabled = true;
  $("go").textContent = "Tracing…";
  document.body.dataset.traced = "";
  try {
    trace = await ask("api/trace", { from: $("from").value, to: $("to").value, family: $("family").value });
    selected = "";
    $("clear").hidden = false;
    await load();
    show();
    $("said").textContent = [trace.status, trace.hop && `at hop ${trace.hop}`, trace.cause].filter(Boolean).join(" ");
    $("graph").querySelector(".thing[data-status=BROKEN]")?.scrollIntoView({ block: "nearest" });
  } catch (e) {
    note([e.message], "bad");
  }
  $("go").disabled = false;
  $("go").textContent = "Trace";
  document.body.dataset.traced = "yes";
});

$("clear").addEventListener("click", () => {
  trace = null;
  $("clear").hidden = true;
  show();
});

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  paused ? summarize() : load();
});

$("namespace").addEventListener("change", show);
$("find").addEventListener("input", show);

// Arrow keys move to the nearest card in their direction.
$("graph").addEventListener("keydown", (event) => {
  const here = event.target.closest("[data-id]")?.getBoundingClientRect();
  const way = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
  if (!here || !way) return;
  event.preventDefault();
  const middle = (r) => [(r.left + r.right) / 2, (r.top + r.bottom) / 2];
  const [x, y] = middle(here);
  let best = null, least = Infinity;
  for (const c of $("graph").querySelectorAll("[data-id]")) {
    const [cx, cy] = middle(c.getBoundingClientRect());
    const ahead = (cx - x) * way[0] + (cy - y) * way[1], aside = Math.abs((cx - x) * way[1]) + Math.abs((cy - y) * way[0]);
    if (ahead > 8 && ahead + 3 * aside < least) [best, least] = [c, ahead + 3 * aside];
  }
  best?.focus();
});

for (const kind of ["focusin", "focusout"]) $("graph").addEventListener(kind, lines);
new ResizeObserver(lines).observe($("graph"));
document.addEventListener("visibilitychange", () => !paused && !document.hidden && load());

// One look after the other, and none while nobody looks.
async function watch() {
  if (!paused && !document.hidden) await load();
  setTimeout(watch, every);
}
watch();
