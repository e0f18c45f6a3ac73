// The live board. It trusts the library with nothing that it can count itself: an event id is
// <epoch>-<seq>-<tag>, and seq runs 1, 2, 3 … without holes for as long as the epoch is the same.
"use strict";

const NAMES = ["message", "tick", "progress"]; // EventSource delivers only names that are asked for
const SHOWN = 200;
const CUT_SECONDS = 3;

const stream = new URLSearchParams(location.search).get("stream") || "board";
const page = Math.floor(Math.random() * 2 ** 31); // tells this page's cookie from other tabs'
const $ = (id) => document.getElementById(id);
const api = (path) => `${path}?stream=${encodeURIComponent(stream)}`;

class Ledger {
  received = 0;
  lost = 0;
  repeated = 0;
  #epoch = "";
  #seq = 0;

  // What follows is counted from behind this id.
  startAt(id) {
    [this.#epoch, this.#seq] = this.#parse(id);
  }

  // Counts one event; false if it had been here before.
  count(id) {
    const [epoch, seq] = this.#parse(id);
    if (epoch !== this.#epoch) this.startAt(`${epoch}-0`); // a new life of the stream begins at 1
    if (seq <= this.#seq) {
      this.repeated += 1;
      return false;
    }
    this.lost += seq - this.#seq - 1;
    this.received += 1;
    this.#seq = seq;
    return true;
  }

  #parse(id) {
    const [epoch, seq] = id.split("-");
    return [epoch, Number(seq)];
  }
}

const ledger = new Ledger();
let source = null;
let cursor = ""; // the id of the last event or stream-… event: where to go on
let isFresh = true; // the next stream-open begins the counting, rather than going on with it
let reconnects = 0;

function connect() {
  show("connecting");
  const from = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
  source = new EventSource(api(`stream/${page}`) + from);
  source.onerror = failed;
  source.addEventListener("stream-open", opened);
  source.addEventListener("stream-reset", wasReset);
  source.addEventListener("stream-end", ended);
  for (const name of NAMES) source.addEventListener(name, received);
}

function failed() {
  show("reconnecting");
  if (source.readyState === EventSource.CLOSED) refused();
}

function opened(event) {
  show("open");
  showWorker();
  if (isFresh) ledger.startAt(event.lastEventId);
  else reconnects += 1;
  isFresh = false;
  cursor = event.lastEventId;
  showCounters();
}

function received(event) {
  const isNew = ledger.count(event.lastEventId);
  cursor = event.lastEventId;
  const data = parsed(event.data);
  if (event.type === "progress" && data.job) showJob(data);
  const text = isNew ? textOf(data) : `repeated: ${textOf(data)}`;
  addRow(event.type, text, data.by, event.lastEventId);
  showCounters();
}

function wasReset(event) {
  const { reason, requested, first } = parsed(event.data);
  ledger.startAt(event.lastEventId);
  cursor = event.lastEventId;
  const next = first ?? "what comes";
  addRow("stream-reset", `${reason}: had ${requested}, goes on with ${next}`, "", event.lastEventId);
}

function ended(event) {
  source.close();
  ledger.count(event.lastEventId); // the end has its place in the order, too
  showCounters();
  addRow("stream-end", "the stream has ended", parsed(event.data).by, event.lastEventId);
  waitForNewLife();
}

// EventSource gave up: the stream has ended (204), or the server is full or broken.
async function refused() {
  const info = await askInfo();
  if (info?.ended) return waitForNewLife();
  setTimeout(connect, 2000);
}

async function waitForNewLife() {
  show("ended");
  const info = await askInfo();
  if (!info || info.ended) return void setTimeout(waitForNewLife, 1500);
  cursor = "";
  isFresh = true;
  connect();
}

async function askInfo() {
  try {
    const response = await fetch(api("info"));
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

async function act(method, path, body) {
  $("notice").textContent = "";
  try {
    const response = await fetch(api(path), { method, body });
    if (!response.ok) $("notice").textContent = await refusal(response);
    return response.ok;
  } catch {
    // The worker that was to answer died: what a kill looks like from here.
    $("notice").textContent = "No answer: the worker is gone. Try again.";
    return false;
  }
}

async function refusal(response) {
  const text = await response.text();
  return parsed(text).error ?? `The server says ${response.status}.`;
}

function cut() {
  source.close();
  show("cut");
  addRow("cut", `closed by you; opens again in ${CUT_SECONDS} s behind ${cursor}`, "", "");
  setTimeout(connect, CUT_SECONDS * 1000);
}

async function kill() {
  const pid = $("worker").dataset.pid;
  addRow("kill", `kill -9 ${pid}`, "", "");
  await act("DELETE", `workers/${pid}`);
  $("notice").textContent = ""; // no answer is the expected one when it killed itself
}

function show(state) {
  document.body.dataset.state = state;
  $("state").textContent = state;
  $("cut").disabled = $("kill").disabled = state !== "open"; // else nothing is there to cut
  $("anew").classList.toggle("primary", state === "ended");
}

// The stream's response carries the name of its worker in a cookie that is for this page alone.
function showWorker() {
  const name = `worker-${page}`;
  const found = document.cookie.split("; ").find((one) => one.startsWith(`${name}=`));
  if (!found) return;
  document.cookie = `${name}=; path=/; max-age=0`;
  paintProcess($("worker"), found.slice(name.length + 1));
}

function paintProcess(element, process) {
  const [server, pid = "?"] = process.split(".");
  element.dataset.pid = pid;
  element.textContent = `${server} · pid ${pid}`;
  element.style.setProperty("--hue", hueOf(process));
}

// 137 is the golden angle: neighbouring pids get colours that are far apart.
function hueOf(text) {
  return [...text].reduce((sum, char) => (sum * 10 + char.codePointAt(0)) % 3600, 0) * 137 % 360;
}

function showCounters() {
  for (const name of ["received", "lost", "repeated"]) $(name).textContent = ledger[name];
  $("reconnects").textContent = reconnects;
  $("lost").parentElement.classList.toggle("bad", ledger.lost > 0);
  $("repeated").parentElement.classList.toggle("bad", ledger.repeated > 0);
}

function addRow(kind, text, by, id) {
  const row = document.createElement("li");
  row.dataset.kind = kind;
  const time = new Date().toLocaleTimeString([], { hour12: false });
  for (const [name, content] of Object.entries({ time, kind, text, by: "" })) {
    row.append(span(name, content));
  }
  const [epoch, seq, tag] = id.split("-");
  row.append(span("id", ""));
  if (id) row.lastChild.append(`${epoch}-`, span("seq", seq), `-${tag}`);
  if (by) paintProcess(row.querySelector(".by"), String(by));
  $("events").prepend(row);
  while ($("events").childElementCount > SHOWN) $("events").lastElementChild.remove();
}

function span(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

function showJob({ job, step, steps }) {
  let element = document.getElementById(`job-${job}`);
  if (!element) {
    element = document.createElement("label");
    element.id = `job-${job}`;
    element.append(span("name", ""), document.createElement("progress"));
    $("jobs").append(element);
    if ($("jobs").childElementCount > 4) $("jobs").firstElementChild.remove();
  }
  const isDone = step >= steps;
  element.firstChild.textContent = `job ${job} · ${isDone ? "done" : `${step} of ${steps}`}`;
  element.lastChild.max = Number(steps) || 1;
  element.lastChild.value = Number(step) || 0;
  if (isDone) setTimeout(() => element.remove(), 4000);
}

function textOf(data) {
  if (data.job) return `job ${data.job}: ${data.step} of ${data.steps}`;
  return String(data.text ?? JSON.stringify(data));
}

// Anyone may send anything to the stream: what isn't an object is shown as text.
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : { text };
  } catch {
    return { text };
  }
}

$("stream").textContent = stream;
document.title = `${stream} · live board`;
$("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await act("POST", "send", $("text").value)) $("text").value = "";
});
$("job").addEventListener("click", () => act("POST", "job"));
$("end").addEventListener("click", () => act("POST", "end"));
$("anew").addEventListener("click", () => act("POST", "anew"));
$("feeds").addEventListener("click", () => act("DELETE", "feeds"));
$("cut").addEventListener("click", cut);
$("kill").addEventListener("click", kill);
$("chatter").addEventListener("change", () => {
  $("events").classList.toggle("quiet", !$("chatter").checked);
});
askInfo().then((info) => {
  $("feeds").hidden = $("kill").hidden = !info?.may_kill;
});
connect();
