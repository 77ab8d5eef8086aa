import assert from "node:assert/strict";
import { test } from "node:test";
import { backlogEnd, bytes, cause, days, duration, figure, labelText, listed, measured, perMinute, perSecond, shortly, some } from "../src/words";

const s = (text: string) => text.replaceAll("\u00a0", " ").replaceAll("\u202f", " ");

test("a duration shows its two largest units", () => {
  const cases: [number, string][] = [[0, "0 s"], [-5, "0 s"], [0.4, "0 s"], [59.6, "1 min"], [61, "1 min 1 s"], [3600, "1 h"], [3605, "1 h"], [90061, "1 d 1 h"], [Infinity, "for ever"]];
  for (const [n, want] of cases) assert.equal(s(duration(n)), want, String(n));
});

test("a short age has one unit and changes it where the next says enough", () => {
  const cases: [number, string][] = [[99, "99 s"], [100, "2 min"], [5999, "100 min"], [6000, "2 h"], [172799, "48 h"], [172800, "2 d"]];
  for (const [n, want] of cases) assert.equal(s(shortly(n)), want, String(n));
});

test("a figure keeps six digits and a true minus sign", () => {
  const cases: [number | null, string][] = [[-18.4, "\u221218.4"], [0, "0"], [1 / 3, "0.333333"], [1234567.8, "1234570"], [1.5e12, "1.5e12"], [0.00001234, "1.234e-5".replace("-", "\u2212")], [null, "not finite"], [NaN, "not finite"]];
  for (const [v, want] of cases) assert.equal(figure(v), want, String(v));
});

test("a unit is printed as people write it", () => {
  assert.equal(s(measured(-18.4, "\u00b0C")), "\u221218.4 \u00b0C");
  assert.equal(s(measured(50, "%")), "50%");
  assert.equal(s(measured(9, "mm/s")), "9 mm/s");
  assert.equal(measured(null, "mm/s"), "not finite");
});

test("a backlog says when it is gone only where that is known", () => {
  assert.equal(backlogEnd(0, 0, false), "nothing waits");
  assert.equal(backlogEnd(10, 90, true), "held back, kept on disk");
  assert.equal(backlogEnd(10, 0, false), "leaving as it comes");
  assert.equal(s(backlogEnd(10, 90, false)), "gone in 1 min 30 s");
});

test("a forecast speaks in hours and days", () => {
  const cases: [number | null, string][] = [[null, "not within ten years"], [-1, "not within ten years"], [0.01, "in less than an hour"], [0.5, "in 12 hours"], [1 / 24, "in 1 hour"], [12.4, "in 12 days"], [99999, "not within ten years"]];
  for (const [v, want] of cases) assert.equal(days(v), want, String(v));
});

test("rates and sizes", () => {
  assert.equal(perSecond(0), "0/s");
  assert.equal(perSecond(12.34), "12.3/s");
  assert.equal(perSecond(5000.4), "5,000/s");
  assert.equal(perMinute(0), "\u2013");
  assert.equal(perMinute(0.5), "30/h");
  assert.equal(perMinute(6), "6/min");
  assert.equal(perMinute(600), "10/s");
  assert.equal(bytes(0), "0 B");
  assert.equal(bytes(1536), "1.5 KiB");
  assert.equal(bytes(200 * 1024 * 1024), "200 MiB");
});

test("counted things and lists read as a sentence", () => {
  assert.equal(some(1, "entry", "entries"), "1 entry");
  assert.equal(some(0, "device"), "0 devices");
  assert.equal(listed([]), "");
  assert.equal(listed(["a"]), "a");
  assert.equal(listed(["a", "b", "c"]), "a, b and c");
  assert.equal(listed(["a", "b", "c", "d", "e"]), "a, b and 3 more");
  assert.equal(labelText({ device: "d", site: "s", line: "1" }, "device"), "site=s, line=1");
});

test("an error of the network is explained, one of our own is left to speak", () => {
  assert.match(cause("dial tcp 10.0.0.1:8086: connect: connection refused"), /Nothing listens/);
  assert.match(cause("unexpected EOF"), /breaks off/);
  assert.match(cause("unauthorized: token"), /credentials/);
  assert.equal(cause("field type conflict"), "");
});
