// The page requests /status while it is visible, and shows it. All values become text nodes, never markup.

const EVERY = 2000, TIMEOUT = 8000;
const byId = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");
const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
const errorsAt = (history, at) => history.failed[at] + history.rejected[at] + history.upstream_errors[at];

let shown = null, cursor = null, offset = 0, timer = 0, lost = null;

// === building blocks ===

function node(name, kind, ...children) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

// Writes only if the text has changed, so that a selection in it is kept.
function put(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function pairs(list, entries) {
  const wanted = entries.filter(([, value]) => value);
  const now = JSON.stringify(wanted);
  if (list.dataset.now === now) return;
  list.dataset.now = now;
  list.replaceChildren(...wanted.map(([name, value]) => node("div", "", node("dt", "", name), node("dd", "", ...loose(value)))));
}

// Keeps one element for each item while its key exists. Replaces a part of the element when its value changes.
function sync(parent, items, key, make, parts) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const name = key(item);
    const element = known.get(name) ?? make(item);
    element.dataset.key = name;
    known.delete(name);
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
    parts.forEach((part, number) => {
      const value = part.of(item), now = JSON.stringify(value), target = element.children[number];
      if (target.dataset.now === now) return;
      target.dataset.now = now;
      target.replaceChildren(...[part.show(value)].flat().filter((child) => child !== null && child !== ""));
    });
  });
  known.forEach((element) => element.remove());
}

// Browsers do not treat the cards of a narrow screen as a table, so the roles are explicit.
function table(id, items, key, columns) {
  const host = byId(id);
  host.hidden = !items.length;
  if (!host.tBodies.length) {
    host.setAttribute("role", "table");
    const head = node("tr", "", ...columns.map((column) => cell("th", column, "columnheader")));
    head.setAttribute("role", "row");
    const group = node("thead", "", head), body = node("tbody");
    for (const part of [group, body]) part.setAttribute("role", "rowgroup");
    host.append(group, body);
  }
  const row = () => {
    const made = node("tr", "", ...columns.map((column) => cell("td", column, "cell")));
    made.setAttribute("role", "row");
    return made;
  };
  sync(host.tBodies[0], items, key, row, columns);
}

function cell(name, column, role) {
  const made = node(name, column.kind ?? "", name === "th" ? column.name : "");
  made.setAttribute("role", role);
  if (name === "td") made.dataset.label = column.name;
  return made;
}

// Moves names and addresses to a new line before breaking them, and prefers breaks at the end of a part.
const loose = (text) => text.split(/(\s+)/).map((word) => {
  const parts = word.split(/(?<=[^/]\/|[.@=,])(?=[a-z_])/i);
  return parts.length === 1 ? word : node("span", "word", ...parts.flatMap((part, index) => (index ? [node("wbr"), part] : [part])));
});
const sub = (text) => (text ? node("span", "sub", ...loose(text)) : null);
const mono = (text) => node("span", "mono", ...loose(text));
// Marks text between backticks, and options, as code.
const typed = (text) => text.split(/`([^`]*)`|(?<![\w-])(--[a-z][a-z-]*)/)
  .flatMap((part, index) => (!part ? [] : index % 3 ? node("code", index % 3 === 2 ? "option" : "", ...loose(part)) : loose(part)));
const chip = (text, tone) => node("span", `chip ${tone ?? ""}`, text);

// === words ===

// Returns the time, with the date if it is not today.
function clock(time) {
  const at = new Date(time);
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.toLocaleDateString("en-CA")} `;
  return day + at.toLocaleTimeString("en-GB");
}

const sidecarNow = () => Date.now() + offset;

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 3600 * 2) return `${Math.floor(s / 60)} min`;
  if (s < 86400 * 2) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} days`;
}

// Returns the age in steps, so that the text changes rarely.
function ago(time) {
  const s = (sidecarNow() - Date.parse(time)) / 1000;
  if (s < 10) return "just now";
  if (s < 60) return `${Math.floor(s / 10) * 10} s ago`;
  return `${s < 7200 ? `${Math.floor(s / 60)} min` : span(s)} ago`;
}

const KINDS = { access: "Access token", id: "ID token", none: "No token", deny: "Refused (403)" };

function purpose(gets) {
  if (gets.credential === "id") return gets.audience ? `for ${gets.audience}` : "";
  if (gets.credential === "access") return gets.scopes.length ? gets.scopes.join(" ") : "the account’s own scopes";
  return "";
}

function sends(gets) {
  if (!gets) return [chip("By path"), sub("the path of each call decides")];
  const header = gets.header && gets.header !== "auto" ? `in ${gets.header}` : "";
  const account = gets.account ? `as ${[gets.account, gets.via].filter(Boolean).join(", ")}` : "";
  const rule = gets.rule ? `by ${gets.rule}` : "";
  const more = [gets.why, rule, header, account, gets.plaintext ? "in cleartext where asked for" : "", gets.note].filter(Boolean);
  const tone = gets.credential === "deny" ? "warn" : "";
  return [chip(KINDS[gets.credential], tone), " ", ...loose(purpose(gets)), sub(more.join("; "))];
}

// === sections ===

// Returns the error of most failed calls of the last 15 minutes, or the latest error if no call failed.
function reason(status) {
  const recent = status.errors.filter((error) => Date.parse(status.now) - Date.parse(error.last) < 900e3);
  const worst = recent.reduce((most, error) => (error.recent_calls > (most?.recent_calls ?? 0) ? error : most), null);
  if (worst) return ` Most frequent error: ${worst.title} (${plural(worst.recent_calls, "call", "calls")}).`;
  return recent.length ? ` Latest error: ${recent[0].title}.` : "";
}

function verdict(status) {
  const { total } = status.history;
  const waiting = status.routes.filter((route) => route.token === "empty" || route.token === "expired");
  const why = reason(status);
  if (status.state === "draining") return ["Draining", "warn", "It still serves requests, and exits when none is in flight."];
  if (status.state !== "serving") return ["Starting", "warn", "It does not listen on everything yet."];
  if (waiting.length) {
    return ["Serving, not ready", "bad", `There is no token for ${plural(waiting.length, "route", "routes")}.${why}`];
  }
  if (total.errors) {
    return ["Serving, with errors", "bad", `${plural(total.errors, "call", "calls")} of ${count(total.requests)} failed in the last 15 minutes.${why}`];
  }
  if (why.startsWith(" Most")) {
    return ["Serving", "warn", `No call has failed here in the last 15 minutes, but some were rejected or went without their token.${why}`];
  }
  if (status.tokens.some((token) => token.last_error)) {
    return ["Serving", "warn", "No call has failed in the last 15 minutes, but a token cannot be fetched." + why];
  }
  if (status.unused) return ["Serving", "good", "No request was received so far."];
  if (!total.requests) return ["Serving", "good", "No requests in the last 15 minutes."];
  return ["Serving", "good", "No call has failed in the last 15 minutes."];
}

function head(status) {
  const [state, tone, words] = verdict(status);
  put(byId("state"), state);
  byId("state").dataset.tone = tone;
  put(byId("verdict"), words);
  put(byId("version"), `${status.version}${status.revision ? ` (${status.revision})` : ""}`);
  document.title = `${state} – sidentity`;
  const since = (time) => `${clock(time)} (${span((Date.parse(status.now) - Date.parse(time)) / 1000)})`;
  pairs(byId("facts"), [
    ["Up since", since(status.started)],
    ["Draining since", status.state === "draining" ? since(status.since) : ""],
    ["Credentials", status.identity],
    ["Account", status.account ?? "not known yet"],
    ["Impersonates", status.impersonates?.replaceAll(",", ", then ")],
    ["Project", status.project ?? "not known yet"],
    ["Universe", status.universe === "googleapis.com" ? "" : status.universe],
    ["Metadata server", status.metadata_server],
    ["Upstream proxy", status.upstream_proxy ?? ""],
  ]);
}

// Shows the warnings of the configuration.
function warnings(status) {
  byId("warnings").hidden = !status.warnings.length;
  sync(byId("warnings"), status.warnings, (warning) => warning, () => node("li", "", node("span")), [{ of: (warning) => warning, show: typed }]);
}

function traffic(status) {
  const { history } = status, { total } = history;
  // The last minute, and the elapsed part of the current column.
  const up = (Date.parse(status.now) - Date.parse(status.started)) / 1000;
  const counted = Math.max(1, Math.min(up, 60 + (up % history.period_seconds)));
  const rate = history.requests.slice(-7).reduce((sum, each) => sum + each, 0) / counted;
  const figure = (name, value, more, tone) => [name, value, more, tone];
  const time = (value) => (value === null ? "–" : seconds(value));
  const figures = [
    figure("Requests", count(total.requests), `${rate < 100 ? +rate.toPrecision(2) : count(Math.round(rate))} a second in the last minute`),
    figure("Errors", count(total.errors), total.requests ? `${+((100 * total.errors) / total.requests).toPrecision(2)} %` : "–", total.errors ? "bad" : ""),
    figure("p50: half within", time(total.p50), `p90: 90 % within ${time(total.p90)}`),
    figure("p99: 99 % within", time(total.p99), "to the end of the answer"),
  ];
  sync(byId("figures"), figures, ([name]) => name, () => node("div", "", node("dt"), node("dd"), node("dd", "sub")), [
    { of: ([name]) => name, show: (name) => name },
    { of: ([, value, , tone]) => [value, tone], show: ([value, tone]) => node("span", tone ?? "", value) },
    { of: ([, , more]) => more, show: (more) => more },
  ]);
  byId("quiet").hidden = total.requests > 0;
  byId("charts").hidden = total.requests === 0;
  const { unused } = status;
  put(byId("quiet"), unused ? `${unused[0].toUpperCase()}${unused.slice(1)}.` : "No requests in the last 15 minutes.");
  if (total.requests) pictures(history);
}

function pictures(history) {
  const all = (values) => values.reduce((sum, each) => sum + each, 0);
  const errors = [["sidecar’s own", history.failed], ["token not taken", history.rejected], ["upstream 5xx", history.upstream_errors]]
    .filter(([, values]) => all(values)).map(([name, values]) => `${name} ${count(all(values))}`);
  const gone = all(history.cancelled);
  legend("requests-legend", [
    ["answered", "var(--accent)"],
    [errors.length ? `errors: ${errors.join(", ")}` : "errors", "var(--bad)"],
    ...(gone ? [[`caller left ${count(gone)}`, "var(--soft)"]] : []),
  ]);
  legend("latency-legend", [["p50", "var(--accent)"], ["p90", "color-mix(in srgb, var(--accent) 60%, transparent)"], ["p99", "color-mix(in srgb, var(--accent) 32%, transparent)"]]);
  drawRequests(byId("requests-plot"), history, cursor);
  drawLatency(byId("latency-plot"), history, cursor);
  const last = history.requests.length - 1, at = cursor ?? last;
  const words = moment(history, at);
  put(byId("readout"), cursor === null ? "Point at a column, or use the arrow keys on a picture, to read its numbers." : words);
  for (const id of ["requests-plot", "latency-plot"]) {
    const plot = byId(id);
    for (const [name, value] of [["valuemin", 0], ["valuemax", last], ["valuenow", at], ["valuetext", words]]) plot.setAttribute(`aria-${name}`, value);
  }
}

function legend(id, entries) {
  const host = byId(id), now = JSON.stringify(entries);
  if (host.dataset.now === now) return;
  host.dataset.now = now;
  host.replaceChildren(...entries.map(([name, colour]) => {
    const item = node("li", "", name);
    item.style.setProperty("--mark", colour);
    return item;
  }));
}

function moment(history, at) {
  const back = (history.requests.length - 1 - at) * history.period_seconds;
  const when = back ? `${span(back)} ago` : "Now";
  const errors = errorsAt(history, at), gone = history.cancelled[at];
  const times = history.p50[at] === null ? "" : `; p50 ${seconds(history.p50[at])}, p90 ${seconds(history.p90[at])}, p99 ${seconds(history.p99[at])}`;
  return `${when}: ${plural(history.requests[at], "request", "requests")}${errors ? `, ${plural(errors, "error", "errors")}` : ""}${gone ? `, ${plural(gone, "caller", "callers")} left` : ""}${times}.`;
}

// Describes the number of failed calls. An error that no call waited for is counted by its occurrences.
function frequency(error) {
  if (error.calls > 1) return `${count(error.calls)} calls`;
  return error.calls === 0 && error.count > 1 ? `${count(error.count)} times` : "";
}

function errors(status) {
  const list = status.errors;
  byId("no-errors").hidden = list.length > 0;
  put(byId("errors-count"), list.length ? count(list.length) : "");
  const key = (error) => JSON.stringify([error.title, error.status, error.about, error.listener, error.first]);
  const item = () => node("li", "", node("div", "head"), node("p", "about"), node("p", "detail"), node("p", "advice"));
  sync(byId("errors"), list, key, item, [
    {
      of: (error) => [error.title, error.status, frequency(error), ago(error.last), error.last],
      show: ([title, code, often, when, last]) => {
        const time = node("time", "when", when);
        time.dateTime = last;
        time.title = clock(last);
        return [node("span", "title", title), code ? chip(`HTTP ${code}`, "bad") : null, often ? chip(often) : null, time];
      },
    },
    {
      of: (error) => [error.about, error.listener],
      show: ([about, listener]) => [about ? mono(about) : null, listener ? node("span", "soft", `${about ? ", " : ""}by listener ${listener}`) : null],
    },
    { of: (error) => error.detail, show: loose },
    { of: (error) => error.advice, show: (advice) => [node("b", "", "What to do: "), ...typed(advice)] },
  ]);
}

function timeLeft(token) {
  if (token.left_seconds === null) return [chip(token.fetching ? "Being fetched" : "None", token.fetching ? "warn" : "bad")];
  const tone = { fresh: "", stale: "warn", expired: "bad" }[token.state];
  const bar = node("progress", tone);
  bar.max = 3600;
  bar.value = Math.min(token.left_seconds, 3600);
  bar.setAttribute("aria-label", "Time left of one hour");
  const words = { fresh: "", stale: "is being renewed", expired: "is not used any more" }[token.state];
  return [span(token.left_seconds), bar, sub(words)];
}

function tokens(status) {
  byId("no-tokens").hidden = status.tokens.length > 0;
  const more = status.tokens_total > status.tokens.length ? `${count(status.tokens.length)} of ${count(status.tokens_total)}` : count(status.tokens_total);
  put(byId("tokens-count"), status.tokens_total ? more : "");
  const key = (token) => JSON.stringify([token.credential, token.audience, token.scopes, token.account, token.via]);
  table("tokens", status.tokens, key, [
    { name: "Token", of: (token) => [token.credential, purpose(token)], show: ([kind, what]) => [node("strong", "", KINDS[kind]), sub(what)] },
    { name: "Account", of: (token) => [token.account ?? "the instance’s own", token.via].filter(Boolean).join(", "), show: loose },
    { name: "Time left", kind: "left", of: (token) => [token.left_seconds, token.state, token.fetching], show: ([left_seconds, state, fetching]) => timeLeft({ left_seconds, state, fetching }) },
    { name: "Last fetch", of: (token) => (token.fetched ? ago(token.fetched) : ""), show: (when) => when || "none yet" },
    {
      name: "Last error",
      of: (token) => [token.last_error, token.failures, token.suspect, token.retry_in_seconds],
      show: ([error, failures, suspect, wait]) => [
        suspect ? chip("An upstream answered 401 to it", "warn") : null,
        error ? node("span", "trouble", ...loose(error)) : suspect ? null : node("span", "soft", "none"),
        error ? sub(`${failures > 1 ? `${count(failures)} in a row; ` : ""}asked again ${wait ? `in ${span(wait)} at the earliest` : "when a call needs it"}`) : null,
      ],
    },
  ]);
}

const TOKEN_STATES = { fresh: ["Token ready", "good"], stale: ["Token being renewed", "warn"], expired: ["Token expired", "bad"], empty: ["No token yet", "bad"] };

// The columns of error counts and latencies since the start.
const outcome = [
  {
    name: "Errors",
    kind: "num",
    of: (counted) => counted.errors,
    show: (errors) => (errors === undefined ? "" : node("span", errors ? "trouble" : "", count(errors))),
  },
  {
    name: "Latency",
    kind: "num",
    of: (counted) => [counted.p50, counted.p99],
    show: ([half, most]) => (half === undefined ? "" : half === null ? node("span", "soft", "–") : [`p50 ${seconds(half)}`, sub(`p99 ${seconds(most)}`)]),
  },
];

function configuration(status) {
  byId("no-routes").hidden = status.routes.length > 0;
  table("routes", status.routes, (route) => route.name + route.address, [
    { name: "The app calls", of: (route) => route.address, show: mono },
    { name: "and reaches", of: (route) => route.upstream, show: mono },
    { name: "with", of: (route) => route.gets, show: sends },
    { name: "State", of: (route) => route.token, show: (token) => (token ? chip(...TOKEN_STATES[token]) : node("span", "soft", "needs none")) },
    {
      name: "Requests",
      kind: "num",
      of: (route) => [route.requests, route.in_flight],
      show: ([requests, flying]) => [count(requests), sub(flying ? `${count(flying)} in flight` : "")],
    },
    ...outcome,
  ]);
  table("rules", status.rules, (rule) => rule.pattern + rule.built_in, [
    { name: "Calls to", of: (rule) => rule.pattern, show: mono },
    { name: "get", of: (rule) => rule, show: sends },
    { name: "by", of: (rule) => rule.built_in, show: (builtIn) => (builtIn ? node("span", "soft", "built in") : "your rule") },
  ]);
  const names = { proxy: "Forward proxy", route: "Routes", admin: "Admin" };
  table("listeners", status.listeners, (listener) => listener.kind + listener.address, [
    { name: "Listener", of: (listener) => [listener.kind, listener.notes], show: ([kind, notes]) => [names[kind], sub(notes.join("; "))] },
    { name: "Address", of: (listener) => listener.address, show: mono },
    ...["requests", "in_flight", "connections"].map((what) => ({
      name: { requests: "Requests", in_flight: "In flight", connections: "Connections" }[what],
      kind: "num",
      of: (listener) => listener[what],
      show: (number) => (number === undefined ? "" : count(number)),
    })),
    ...outcome,
  ]);
}

// === live ===

function show(status) {
  shown = status;
  offset = Date.parse(status.now) - Date.now();
  for (const section of [head, warnings, traffic, errors, tokens, configuration]) section(status);
  put(byId("updated"), `Seen at ${clock(status.now)}.`);
}

async function look() {
  clearTimeout(timer);
  try {
    const answer = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
    lost = null;
    byId("lost").hidden = true;
  } catch {
    lost ??= new Date();
    byId("lost").hidden = false;
    put(byId("lost"), `No response from the sidecar since ${clock(lost)}; it may have stopped. This page shows the last known state and retries.`);
    byId("state").dataset.tone = "bad";
    put(byId("state"), "No response");
    document.title = "No response – sidentity";
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, EVERY);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));

// === pictures under a pointer or the keyboard ===

function point(column) {
  cursor = column;
  if (shown?.history.total.requests) pictures(shown.history);
}

for (const id of ["requests-plot", "latency-plot"]) {
  const plot = byId(id);
  const last = () => shown.history.requests.length - 1;
  plot.addEventListener("pointermove", (event) => point(columnAt(plot, event, last() + 1)));
  plot.addEventListener("pointerleave", () => point(null));
  plot.addEventListener("blur", () => point(null));
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -6, PageUp: 6, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") return point(null);
    if (!(event.key in steps)) return;
    event.preventDefault();
    point(Math.min(last(), Math.max(0, (cursor ?? last()) + steps[event.key])));
  });
}

addEventListener("resize", () => point(cursor));

// === explain ===

byId("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = byId("url").value.trim(), place = byId("explained");
  try {
    const answer = await fetch(`explain?url=${encodeURIComponent(url)}`, { signal: AbortSignal.timeout(TIMEOUT) });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    place.replaceChildren(explanation(await answer.json()));
  } catch (error) {
    place.replaceChildren(node("p", "refused", error.message || "No answer from the sidecar."));
  }
});

function explanation(result) {
  const entries = [
    ["Gets", [chip(KINDS[result.credential], result.credential === "deny" ? "warn" : ""), " ", ...loose(purpose(result))]],
    ["In the header", result.header ? [mono(result.header)] : null],
    ["Sent to", [mono(result.destination)]],
    ["By", loose(result.rule)],
    ["How", typed(result.how)],
    ...result.notes.map((note) => ["Note", typed(note)]),
  ];
  const answer = node("dl", "answer");
  for (const [name, value] of entries) {
    if (value) answer.append(node("dt", "", name), node("dd", "", ...value));
  }
  return answer;
}

look();
