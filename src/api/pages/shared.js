// The key stays in this tab: it is gone when the tab is closed.
const KEY = "quorate-key";
const PERIOD_MS = 5000;
const $ = (id) => document.getElementById(id);

class Refused extends Error {}

async function ask(path, method = "GET", body = undefined) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = "Bearer " + key;
  const stop = AbortSignal.timeout(4500);
  const answer = await fetch(path, { method, headers, body, signal: stop, cache: "no-store" });
  const text = await answer.text();
  let json = {};
  try { json = JSON.parse(text); } catch { /* said by the status */ }
  const what = json.detail || json.error || answer.statusText;
  if (answer.status === 401 || answer.status === 403) throw new Refused(what);
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${what}`);
  return json;
}

// Everything that comes from outside becomes text, never markup.
function make(tag, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = String(text);
  if (kind) node.className = kind;
  return node;
}

// Rows are lists of cells: text, or {text, kind, title}.
function table(id, head, rows, none) {
  const place = $(id);
  if (!rows.length) return place.replaceChildren(make("p", none, "soft"));
  const cell = (tag, value) => {
    const plain = value === null || typeof value !== "object";
    const node = make(tag, plain ? value ?? "-" : value.text ?? "-", plain ? "" : value.kind);
    node.title = plain ? value ?? "" : value.title ?? value.text ?? "";
    return node;
  };
  const line = (tag, values) => {
    const row = make("tr");
    row.append(...values.map((value) => cell(tag, value)));
    return row;
  };
  const whole = make("table"), top = make("thead"), body = make("tbody");
  top.append(line("th", head));
  body.append(...rows.map((row) => line("td", row)));
  whole.append(top, body);
  place.replaceChildren(whole);
}

function cards(id, values) {
  $(id).replaceChildren(...values.map(([name, value, kind]) => {
    const card = make("div", null, "card");
    card.append(make("b", value ?? "-", kind), make("span", name));
    return card;
  }));
}

const number = (value, digits = 0) => value === null || value === undefined ? "-"
  : Number(value).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (share) => share === null || share === undefined ? "-" : number(share * 100, 1) + " %";
const right = (text) => ({ text, kind: "right" });
const when = (time) => {
  if (time === null || time === undefined) return "-";
  const date = typeof time === "number" ? new Date(time * 1000) : new Date(time);
  return date.toLocaleTimeString("en-GB");
};
function span(seconds) {
  const s = Math.floor(seconds);
  if (s < 120) return s + " s";
  if (s < 7200) return Math.floor(s / 60) + " min";
  return s < 172800 ? Math.floor(s / 3600) + " h" : Math.floor(s / 86400) + " days";
}
const GOOD = ["active", "leader", "follower", "completed", "COMPLETED", "RUNNING", "healthy"];
const BAD = ["offline", "error", "failed", "FAILED", "unreachable", "critical", "timeout", "cancelled"];
const word = (text) => ({ text, kind: GOOD.includes(text) ? "good" : BAD.includes(text) ? "bad" : "warn" });

function say(text, kind = "soft") {
  $("said").textContent = text;
  $("said").className = kind;
}

async function act(path, body) {
  try {
    const done = await ask(path, "POST", body);
    say(done.message || "Done: " + path, "good");
    await round();
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  if (error instanceof Refused) {
    $("key").hidden = false;
    return say(error.message, "warn");
  }
  say("No answer from this member: " + error.message, "bad");
}

async function round() {
  try {
    await show();
    $("key").hidden = true;
    $("at").textContent = new Date().toLocaleTimeString("en-GB");
    if ($("said").className === "bad" || $("said").className === "warn") say("");
  } catch (error) {
    failed(error);
  }
}

async function forever() {
  if (!document.hidden) await round();
  setTimeout(forever, PERIOD_MS);
}

$("keyform").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("keytext").value.trim();
  if (given) sessionStorage.setItem(KEY, given); else sessionStorage.removeItem(KEY);
  $("keytext").value = "";
  round();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) round(); });
