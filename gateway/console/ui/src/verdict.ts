// What is wrong at the site, worst first, and in one sentence. Pure: everything it knows is in its arguments.
import type { Alert, DeviceList, Status } from "./types";
import { count, duration, figure, listed, some, type Tone } from "./words";

export interface Problem {
  tone: Tone; // bad: somebody has to act; warn: degraded, but coping; info: worth knowing
  icon: string;
  short: string; // a clause for the headline
  text: string; // a sentence
  href: string; // where to look
  action: string; // what to do there
}

export interface Verdict { tone: Tone; icon: string; headline: string; problems: Problem[] }

function since(time: string | undefined, now: string): string {
  const s = time ? (Date.parse(now) - Date.parse(time)) / 1000 : 0;
  return s >= 1 ? " for " + duration(s) : "";
}

/** Alerts that somebody still has to look at: firing, not silenced, not inhibited, not acknowledged. */
export const unattended = (a: Alert): boolean => a.state === "firing" && !a.silenced_by && !a.inhibited && !a.acknowledged;

export const severity = (labels: Record<string, string>): string => labels["severity"] ?? "";

/** What an alert is about, in a few words: its device, else its labels. */
export function where(labels: Record<string, string>): string {
  return labels["device"] ?? Object.entries(labels).filter(([k]) => k !== "alertname" && k !== "severity").map(([k, v]) => k + "=" + v).join(", ");
}

function partProblems(s: Status): Problem[] {
  const waiting = new Set([...s.destinations, ...s.webhooks].map((d) => d.name));
  return s.parts
    .filter((p) => !p.ok && !(waiting.has(p.name) || waiting.has(p.name.replace(/^(destination|webhook|outbox|uplink)[ /:]/, ""))))
    .map((p) => ({
      tone: "bad" as const, icon: "stop", short: p.name + " is not working", text: p.name + ": " + (p.detail || "makes no progress"),
      href: "#/", action: p.name === "journal" || p.name === "disk" ? "Devices are not acknowledged until this is over" : "",
    }));
}

function outboxProblems(s: Status): Problem[] {
  const problems: Problem[] = [];
  for (const [list, unit] of [[s.destinations, "point"], [s.webhooks, "notification"]] as const) {
    for (const d of list) {
      const waits = d.pending > 0 ? ": " + some(d.pending, unit) + " wait" + (d.pending === 1 ? "s" : "") + ", safe on disk" : "";
      const href = "#/uplink/" + encodeURIComponent(d.name);
      if (d.state === "config_error" || d.state === "disabled") {
        problems.push({ tone: "bad", icon: "stop", short: d.name + " refuses what it is sent", text: d.name + " needs somebody" + waits + ". " + d.last_error, href, action: "See what it says" });
      } else if (d.last_error && d.state !== "idle") {
        problems.push({
          tone: "warn", icon: "unplugged", short: d.name + " cannot be reached", text: d.name + " has not been reached" + since(d.last_success ?? d.last_error_at, s.now) + waits + ".",
          href, action: "See the uplink",
        });
      } else if (d.eta_seconds > 30) {
        problems.push({ tone: "info", icon: "send", short: d.name + " is catching up", text: d.name + " is catching up: " + some(d.pending, unit) + " will be gone in " + duration(d.eta_seconds) + ".", href, action: "See the uplink" });
      }
    }
  }
  return problems;
}

type Firing = Pick<Alert, "name" | "state" | "since" | "value" | "labels" | "annotations" | "fingerprint"> & Partial<Alert>;

/** What the status itself says of alerts, for as long as their list is not there: never "all is well" for want of an answer. */
const fromStatus = (s: Status): Firing[] => s.alerts.map((a) => ({ ...a, fingerprint: "", annotations: { summary: a.summary } }));

/** Alerts by name: on which devices each fires. */
function placesOf(group: Firing[]): [string, string[]][] {
  const names = new Map<string, string[]>();
  for (const a of group) names.set(a.name, [...(names.get(a.name) ?? []), where(a.labels)]);
  return [...names];
}

/** What fires where, for the headline: as long as it is short, else how many. */
function clause(group: Firing[], worst: boolean): string {
  const names = placesOf(group);
  if (names.length === 1) return names[0]![0] + " is firing on " + listed(names[0]![1], 2);
  if (group.length === 2) return names.map(([name, places], i) => name + (i === 0 ? " is firing on " : " on ") + places[0]).join(" and ");
  return count(group.length) + (worst ? " critical" : "") + " alerts are firing";
}

function alertProblems(s: Status, alerts: Alert[] | undefined): Problem[] {
  const open: Firing[] = alerts ? alerts.filter(unattended) : fromStatus(s).filter((a) => a.state === "firing");
  const problems: Problem[] = [];
  const critical = open.filter((a) => severity(a.labels) === "critical").length;
  for (const worst of [true, false]) {
    const group = open.filter((a) => (severity(a.labels) === "critical") === worst);
    if (group.length === 0) continue;
    const only = group[0]!;
    const tone: Tone = worst ? "bad" : group.every((a) => severity(a.labels) === "info") ? "info" : "warn";
    if (group.length === 1) {
      const summary = only.annotations["summary"] || where(only.labels) + (only.value === null ? "" : " at " + figure(only.value));
      problems.push({
        tone, icon: worst ? "stop" : "alert", short: clause(group, worst), text: only.name + " has been firing" + since(only.since, s.now) + ": " + summary + ".",
        href: "#/alerts" + (only.fingerprint && "/" + only.fingerprint), action: "Look at it",
      });
      continue;
    }
    problems.push({
      tone, icon: worst ? "stop" : "alert", short: clause(group, worst),
      text: listed(placesOf(group).map(([name, places]) => name + " on " + listed(places))) + (worst ? ": critical." : "."), href: "#/alerts", action: "See the alerts",
    });
  }
  if (problems.length === 2) { // one clause for both
    problems[0]!.short += (critical > 1 && /^\d/.test(problems[0]!.short) ? "" : " (critical)") + ", with " + some(open.length - critical, "more alert");
    problems[1]!.short = "";
  }
  return problems;
}

function deviceProblems(d: DeviceList | undefined, s: Status, alerts: Alert[] | undefined): Problem[] {
  if (!d) return [];
  const n = d.states.silent + d.states.offline;
  if (n === 0) return [];
  const names = d.devices.filter((x) => x.state === "silent" || x.state === "offline").map((x) => x.name);
  const which = names.length > 0 ? listed([...names, ...Array<string>(Math.max(0, n - names.length))], 4) : "";
  // An alert on the device says it already, as far as the headline goes.
  const told = new Set((alerts ?? fromStatus(s)).filter((a) => a.state === "firing").map((a) => a.labels["device"]));
  const known = names.length === n && names.every((name) => told.has(name));
  return [{
    tone: "warn", icon: "silent", short: known ? "" : some(n, "device is", "devices are") + " silent",
    text: some(n, "device has", "devices have") + " not been heard when they should have been" + (which ? ": " + which : "") + ".", href: "#/devices?state=silent", action: "See which",
  }];
}

function healthy(s: Status, devices: DeviceList | undefined): string {
  const n = devices?.total ?? s.devices;
  if (n === 0) return "All works. No device has sent anything yet.";
  return "All is well: " + some(n, "device reports", "devices report") + (s.destinations.length > 0 ? ", data is getting out" : "") + ", and no alert needs you.";
}

/** The whole judgement. alerts and devices may be missing while they load. */
export function verdict(s: Status, alerts: Alert[] | undefined, devices: DeviceList | undefined): Verdict {
  const problems = [...partProblems(s), ...outboxProblems(s), ...alertProblems(s, alerts), ...deviceProblems(devices, s, alerts)];
  if (s.journal.error && !problems.some((p) => p.text.includes(s.journal.error))) {
    problems.push({ tone: "bad", icon: "stop", short: "the journal takes no messages", text: "The journal takes no messages: " + s.journal.error, href: "#/", action: "" });
  }
  if (s.ledger.imbalance !== 0) {
    problems.push({ tone: "bad", icon: "stop", short: count(s.ledger.imbalance) + " readings are not accounted for", text: count(s.ledger.imbalance) + " readings are not accounted for. That is a bug: please report it.", href: "#/ledger", action: "See the ledger" });
  }
  const order: Tone[] = ["bad", "warn", "info"];
  problems.sort((a, b) => order.indexOf(a.tone) - order.indexOf(b.tone));
  const pressing = problems.filter((p) => p.tone !== "info");
  const tone: Tone = pressing[0]?.tone ?? "good";
  if (pressing.length === 0) return { tone, icon: "ok", headline: healthy(s, devices), problems };
  const clauses = pressing.map((p) => p.short).filter(Boolean);
  const text = clauses.length <= 2 ? clauses.join(", and ") : clauses.slice(0, 2).join(", ") + ", and " + some(clauses.length - 2, "more problem");
  return { tone, icon: tone === "bad" ? "stop" : "alert", headline: text.charAt(0).toUpperCase() + text.slice(1) + ".", problems };
}
