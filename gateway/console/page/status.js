// The status page: asks for /api/v1/status once a second and writes it into the page. Everything from the gateway goes in as
// text, never as markup.
"use strict";

const every = 1000; // ms between an answer and the next question
const patience = 5000; // ms until an answer counts as missing
const el = (id) => document.getElementById(id);

// ---- words for figures

const count = new Intl.NumberFormat("en").format;
const figure = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 }).format;

function rate(perSecond) {
  return (perSecond >= 100 ? count(Math.round(perSecond)) : figure(Math.round(perSecond * 10) / 10)) + "/s";
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (i === 0 || n >= 100 ? String(Math.round(n)) : n.toFixed(1)) + " " + units[i];
}

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).filter(([n]) => n > 0).map(([n, unit]) => n + " " + unit).join(" ");
}

// Ages are counted on the gateway's clock: this computer's may be wrong.
const age = (time, now) => (time ? duration((Date.parse(now) - Date.parse(time)) / 1000) : "");

function clock(time) {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

const words = { idle: "nothing to send", sending: "sending", backing_off: "trying again", config_error: "needs attention", disabled: "switched off by the receiver" };
const tones = { backing_off: "warn", config_error: "bad", disabled: "bad", firing: "bad", pending: "warn" };

// ---- writing into the page; what has not changed is left alone, so that a selection survives

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function tone(node, name) {
  for (const c of ["good", "warn", "bad"]) node.classList.toggle(c, c === name);
}

// fill writes rows into a table. A column is [title, row => text, {number, long, tone}].
function fill(id, columns, rows, empty) {
  const table = el(id);
  table.hidden = rows.length === 0;
  el(id + "-empty").hidden = rows.length > 0;
  text(el(id + "-empty"), empty);
  if (!table.tHead) {
    const head = table.createTHead().insertRow();
    for (const [title, , o = {}] of columns) {
      const th = head.appendChild(document.createElement("th"));
      th.scope = "col";
      th.textContent = title;
      th.classList.toggle("number", !!o.number);
    }
    table.createTBody();
  }
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, i) => {
    const tr = body.rows[i] || body.insertRow();
    columns.forEach(([title, value, o = {}], j) => {
      let td = tr.cells[j];
      if (!td) {
        td = tr.insertCell();
        td.dataset.name = title;
        td.classList.toggle("number", !!o.number);
        td.classList.toggle("long", !!o.long);
        td.appendChild(document.createElement("span"));
      }
      const v = value(row);
      text(td.firstChild, v);
      td.classList.toggle("nothing", v === "");
      tone(td.firstChild, o.tone ? o.tone(row) : "");
    });
  });
}

// ---- the views

function troubles(s) {
  const list = s.parts.filter((p) => !p.ok).map((p) => p.name + ": " + p.detail);
  if (s.journal.error && !list.some((t) => t.includes(s.journal.error))) list.push("journal: " + s.journal.error);
  if (s.ledger.imbalance !== 0) list.push("ledger: " + count(s.ledger.imbalance) + " readings are not accounted for");
  for (const d of [...s.destinations, ...s.webhooks]) {
    if (d.last_error) list.push(d.name + " is not delivering" + (d.pending ? " (" + count(d.pending) + " waiting)" : "") + ": " + d.last_error);
  }
  return list;
}

// backlogNote says when everything that waits will be gone, where that is known.
function backlogNote(waiting) {
  if (waiting.length === 0) return "";
  if (waiting.some((d) => d.last_error)) return "held back";
  const eta = waiting.every((d) => d.eta_seconds > 0) ? Math.max(...waiting.map((d) => d.eta_seconds)) : 0;
  return eta >= 1 ? "gone in " + duration(eta) : "";
}

function show(s) {
  const out = [...s.destinations, ...s.webhooks];
  const firing = s.alerts.filter((a) => a.state === "firing").length;
  const wrong = troubles(s);

  text(el("gateway"), s.gateway);
  text(el("about"), "sluice " + s.version + ", running for " + duration(s.uptime_seconds));
  text(el("health"), !s.ready ? "not ready" : wrong.length ? "degraded" : "healthy");
  tone(el("health"), !s.ready ? "bad" : wrong.length ? "warn" : "good");
  document.title = (firing ? "(" + firing + ") " : "") + s.gateway + " - sluice";

  const list = el("troubles");
  list.hidden = wrong.length === 0;
  while (list.children.length > wrong.length) list.lastChild.remove();
  wrong.forEach((t, i) => text(list.children[i] || list.appendChild(document.createElement("li")), t));

  text(el("rate"), rate(s.messages.rate_per_second));
  text(el("received"), count(s.messages.received) + " since the start" + (s.messages.refused ? ", " + count(s.messages.refused) + " refused" : ""));
  text(el("firing"), count(firing));
  tone(el("firing"), firing ? "bad" : "good");
  text(el("pending"), s.alerts.length > firing ? s.alerts.length - firing + " pending" : "");
  const waiting = out.filter((d) => d.pending > 0);
  text(el("backlog"), count(waiting.reduce((n, d) => n + d.pending, 0)));
  text(el("backlog-eta"), backlogNote(waiting));
  text(el("devices"), count(s.devices));
  text(el("series"), count(s.series) + " series, " + count(s.connections) + " connected");

  fill("alerts", [
    ["Alert", (a) => a.name, { long: true }],
    ["State", (a) => a.state, { tone: (a) => tones[a.state] }],
    ["For", (a) => age(a.since, s.now)],
    ["Value", (a) => (a.value === null ? "not finite" : figure(a.value)), { number: true }],
    ["Where", (a) => Object.entries(a.labels).filter(([k]) => k !== "alertname").map(([k, v]) => k + "=" + v).join(", "), { long: true }],
    ["Summary", (a) => a.summary, { long: true }],
  ], s.alerts, "No alert is firing or pending.");

  fill("destinations", [
    ["Destination", (d) => d.name + (d.type ? " (" + d.type + ")" : ""), { long: true }],
    ["State", (d) => words[d.state] || d.state, { tone: (d) => tones[d.state] || "good" }],
    ["Waiting", (d) => count(d.pending), { number: true }],
    ["Oldest", (d) => age(d.oldest, s.now), { number: true }],
    ["Delivered", (d) => count(d.delivered) + (d.quarantined ? ", " + count(d.quarantined) + " set aside" : ""), { number: true }],
    ["Outbox", (d) => bytes(d.bytes), { number: true }],
    ["Last success", (d) => (d.last_success ? age(d.last_success, s.now) + " ago" : "none yet")],
    ["Last error", (d) => (d.last_error ? d.last_error + (d.last_error_at ? " (" + clock(d.last_error_at) + ")" : "") : ""), { long: true, tone: () => "bad" }],
  ], out, "No destination and no webhook is configured.");

  fill("journal", [
    ["Records", (j) => (j.last > 0 && j.last >= j.first ? count(j.last - j.first + 1) : "none"), { number: true }],
    ["First", (j) => count(j.first), { number: true }],
    ["Last", (j) => count(j.last), { number: true }],
    ["On disk up to", (j) => count(j.durable), { number: true }],
    ["Size", (j) => bytes(j.bytes), { number: true }],
    ["State", (j) => j.error || "taking messages", { long: true, tone: (j) => (j.error ? "bad" : "good") }],
  ], [s.journal], "");

  const number = (key) => [(r) => count(r[key]), { number: true }];
  fill("ledger", [
    ["Source", (r) => r.source, { long: true }],
    ["Messages", ...number("messages")],
    ["Readings", ...number("received")],
    ["Taken", ...number("aggregated")],
    ["Duplicate", ...number("duplicate")],
    ["Late", ...number("late")],
    ["Quarantined", ...number("quarantined")],
    ["Not accounted for", (r) => count(r.imbalance), { number: true, tone: (r) => (r.imbalance === 0 ? "good" : "bad") }],
  ], s.ledger.sources, "No source is configured.");
}

// ---- asking

let answered = null; // when the gateway last answered
let timer = null; // null while a question is under way

async function ask() {
  timer = null;
  try {
    const r = await fetch("/api/v1/status", { cache: "no-store", signal: AbortSignal.timeout(patience) });
    if (!r.ok) throw new Error("the gateway answered " + r.status);
    const s = await r.json();
    show(s);
    answered = new Date();
    el("offline").hidden = true;
    el("main").classList.remove("stale");
  } catch (e) {
    const why = e instanceof TypeError || e.name === "TimeoutError" || e.name === "NetworkError" ? "the gateway does not answer" : e.message;
    text(el("offline"), "No news" + (answered ? " since " + clock(answered) : "") + ": " + why + ". This page keeps trying.");
    el("offline").hidden = false;
    el("main").classList.add("stale");
    text(el("health"), "no connection");
    tone(el("health"), "bad");
  }
  timer = setTimeout(ask, document.hidden ? 10 * every : every);
}

text(el("zone"), Intl.DateTimeFormat().resolvedOptions().timeZone || "local");
document.addEventListener("visibilitychange", () => {
  if (document.hidden || timer === null) return;
  clearTimeout(timer);
  ask();
});
ask();
