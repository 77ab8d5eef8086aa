import assert from "node:assert/strict";
import { test } from "node:test";
import type { Alert, DeviceList, Status } from "../src/types";
import { verdict } from "../src/verdict";

const now = "2026-11-22T20:00:00Z";
const healthy: Status = {
  gateway: "g", version: "v", started: now, now, uptime_seconds: 60, ready: true, parts: [{ name: "journal", ok: true, detail: "" }],
  messages: { received: 1, rate_per_second: 1, refused: 0, uncovered: 0 }, connections: 1, devices: 3, series: 9, alerts: [],
  destinations: [{ name: "cloud", type: "influxdb", state: "idle", pending: 0, bytes: 0, delivered: 5, quarantined: 0, rate_per_second: 0, eta_seconds: 0, last_error: "" }],
  webhooks: [], journal: { first: 1, last: 2, durable: 2, bytes: 10, error: "" }, ledger: { imbalance: 0, sources: [] },
};
const alert = (over: Partial<Alert>): Alert => ({
  fingerprint: "f", name: "FreezerWarm", group: "g", state: "firing", since: "2026-11-22T19:55:00Z", value: -8, score: 0,
  labels: { alertname: "FreezerWarm", device: "freezer-1", severity: "critical" }, annotations: { summary: "freezer-1 at -8 degC" },
  silenced_by: "", inhibited: false, acknowledged: null, flapping: false, firings: 1, escalated: 0, notifications: [], ...over,
});
const fleet = (silent: number): DeviceList => ({
  devices: [{ id: "1", name: "pump-1", source: "s", labels: {}, state: "silent", rate_per_minute: 0, interval_seconds: 1, series: 1, alerts: 0 }].slice(0, silent),
  next: "", total: 3, states: { online: 3 - silent, silent, offline: 0, unknown: 0 },
});

test("a site where all is well says so", () => {
  const v = verdict(healthy, [], fleet(0));
  assert.equal(v.tone, "good");
  assert.match(v.headline, /All is well: 3 devices report, data is getting out/);
});

test("a critical alert comes before a link that is down, and both are in the sentence", () => {
  const down = { ...healthy.destinations[0]!, state: "backing_off", pending: 1204, last_error: "EOF", last_success: "2026-11-22T19:56:00Z" };
  const v = verdict({ ...healthy, destinations: [down] }, [alert({})], fleet(0));
  assert.equal(v.tone, "bad");
  assert.equal(v.headline, "FreezerWarm is firing on freezer-1, and cloud cannot be reached.");
  assert.match(v.problems[1]!.text.replaceAll("\u00a0", " "), /has not been reached for 4 min: 1,204 points wait, safe on disk/);
});

test("alerts of both kinds are one clause", () => {
  const warning = alert({ name: "DoorOpen", labels: { alertname: "DoorOpen", device: "freezer-2", severity: "warning" } });
  const v = verdict(healthy, [alert({}), warning, warning], fleet(1));
  assert.equal(v.headline, "FreezerWarm is firing on freezer-1 (critical), with 2 more alerts, and 1 device is silent.");
  assert.equal(v.problems.length, 3);
});

test("the headline names what fires where, as long as that is short, and says a silence once", () => {
  const on = (name: string, device: string) => alert({ name, labels: { alertname: name, device, severity: "warning" } });
  assert.equal(verdict(healthy, [on("Shakes", "pump-2"), on("DeviceSilent", "pump-1")], fleet(1)).headline, "Shakes is firing on pump-2 and DeviceSilent on pump-1.");
  assert.equal(verdict(healthy, [on("Shakes", "a"), on("Shakes", "b"), on("Shakes", "c")], fleet(0)).headline, "Shakes is firing on a and 2 more.");
  assert.equal(verdict(healthy, [on("A", "a"), on("B", "b"), on("C", "c")], fleet(0)).headline, "3 alerts are firing.");
  const all = verdict(healthy, [on("DeviceSilent", "pump-1")], fleet(1));
  assert.equal(all.headline, "DeviceSilent is firing on pump-1.");
  assert.equal(all.problems.length, 2);
});

test("what is silenced, acknowledged or held back needs nobody", () => {
  const acknowledged = { author: "a", comment: "", at: now };
  const v = verdict(healthy, [alert({ silenced_by: "x" }), alert({ acknowledged }), alert({ inhibited: true }), alert({ state: "pending" })], fleet(0));
  assert.equal(v.tone, "good");
});

test("as long as the list of alerts is not there, what the status says of them counts", () => {
  const firing = { name: "FreezerWarm", state: "firing", since: "2026-11-22T19:55:00Z", value: -8, labels: { device: "freezer-1", severity: "critical" }, summary: "freezer-1 at -8" };
  const v = verdict({ ...healthy, alerts: [firing, { ...firing, state: "pending" }] }, undefined, undefined);
  assert.equal(v.tone, "bad");
  assert.equal(v.headline, "FreezerWarm is firing on freezer-1.");
  assert.equal(v.problems[0]!.href, "#/alerts");
});

test("silent devices are counted and named", () => {
  const v = verdict(healthy, [], fleet(1));
  assert.equal(v.headline, "1 device is silent.");
  assert.match(v.problems[0]!.text, /pump-1/);
});

test("a part that does not work, and a ledger that does not balance, are the worst", () => {
  const v = verdict({ ...healthy, ready: false, parts: [{ name: "disk", ok: false, detail: "no space left" }], ledger: { imbalance: 3, sources: [] } }, [], undefined);
  assert.equal(v.tone, "bad");
  assert.match(v.headline, /^Disk is not working, and 3 readings are not accounted for\.$/);
});

test("catching up is worth knowing, not worrying", () => {
  const busy = { ...healthy.destinations[0]!, state: "sending", pending: 900, eta_seconds: 90 };
  const v = verdict({ ...healthy, destinations: [busy] }, [], fleet(0));
  assert.equal(v.tone, "good");
  assert.equal(v.problems[0]!.tone, "info");
});
