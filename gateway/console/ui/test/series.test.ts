import assert from "node:assert/strict";
import { test } from "node:test";
import { line, metricsIn, metricSelector, plan, promName, quoted, rangeQuery, selector, thresholds } from "../src/series";

test("a line breaks where steps are missing, and the gap is listed", () => {
  const l = line([[0, "1"], [10, "2"], [40, "3"], [50, "4"]], 10);
  assert.deepEqual(l.t, [0, 10, 20, 40, 50]);
  assert.deepEqual(l.v, [1, 2, null, 3, 4]);
  assert.deepEqual(l.gaps, [[10, 40]]);
});

test("one late sample is no gap, and what is not finite is no sample", () => {
  const l = line([[0, "1"], [10, "NaN"], [11, "2"], [20, "+Inf"], [30, "3"]], 10);
  assert.deepEqual(l.gaps, [[11, 30]]);
  assert.deepEqual(line([[0, "1"], [14, "2"]], 10).gaps, []);
  assert.deepEqual(line([], 10).t, []);
});

test("extremes stay with their step", () => {
  const l = line([[0, "5"], [10, "6"]], 10, [[0, "1"], [10, "2"]], [[0, "9"]]);
  assert.deepEqual(l.lo, [1, 2]);
  assert.deepEqual(l.hi, [9, 6]);
});

test("a plan is no finer than the device and never asks for too many points", () => {
  for (const [span, interval] of [[900, 1], [3600, 10], [86400, 60], [604800, 1], [604800, 3600], [60, 0]] as const) {
    const p = plan(1000, 1000 + span, interval);
    assert.ok(span / p.step <= 601, `${span}/${interval}: step ${p.step}`);
    assert.ok(p.step >= 1 && p.window >= p.step, `${span}/${interval}: ${JSON.stringify(p)}`);
    assert.ok(p.window >= Math.min(interval, p.step), `${span}/${interval}`);
  }
  assert.equal(plan(0, 604800, 1).band, true);
  assert.equal(plan(0, 900, 10).band, false);
});

test("hostile names stay inside their quotes", () => {
  const nasty = 'a"} or vector(1) #\\\n</script>';
  assert.equal(JSON.parse(quoted(nasty)), nasty);
  const q = selector("telemetry_x", { device: nasty });
  assert.ok(q.startsWith('{__name__="telemetry_x",device="a\\"} or vector(1) #\\\\\\n'), q);
  assert.equal(promName("temp.in\u00b0C"), "temp_in_C");
  assert.equal(promName("1x"), "_1x");
  assert.ok(metricSelector("a.b", { "__name__": "x" }).includes('label__name__="x"'));
});

test("a query asks for extremes only where several readings fall into one step", () => {
  assert.equal(rangeQuery("x", { step: 10, window: 25, band: false }), "last_over_time(x[25s])");
  const q = rangeQuery("x", { step: 600, window: 600, band: true });
  for (const stat of ["avg", "min", "max"]) assert.ok(q.includes(stat + "_over_time(x[600s])"), q);
});

test("plain comparisons of a metric become threshold lines", () => {
  const cases: [string, [string, string, number][]][] = [
    ["temperature > -15", [["temperature", ">", -15]]],
    ["temperature >= 1e3 and humidity<80.5", [["temperature", ">=", 1000], ["humidity", "<", 80.5]]],
    ["-15 < temperature", [["temperature", ">", -15]]],
    ["rate(temperature, 1m) > 0.5", []],
    ["avg(temperature, 5m) > 3 or vibration > 9", [["vibration", ">", 9]]],
    ["hour() >= 6 and pressure < 2", [["pressure", "<", 2]]],
    ["temperature > limit", []],
    ["", []],
  ];
  for (const [condition, want] of cases) {
    assert.deepEqual(thresholds(condition).map((t) => [t.metric, t.op, t.value]), want, condition);
  }
});

test("a sum or difference has no line", () => {
  for (const c of ["a - b > 3", "a * 2 > 3", "a + b < 1", "2 * a > 3", "a > 3 * b", "a > 3 + b"]) assert.deepEqual(thresholds(c), [], c);
});

test("the metrics of a condition are found, its functions, durations and words are not", () => {
  assert.deepEqual(metricsIn('rate(temperature, 1m) > 0.5 and hour() >= 6'), ["temperature"]);
  assert.deepEqual(metricsIn('temperature > -15 or not last("device=a b", humidity) < 3'), ["temperature", "humidity"]);
  assert.deepEqual(metricsIn("anomaly: vibration (seasonal)"), ["vibration"]);
  assert.deepEqual(metricsIn("absent: temp in"), ["temp in"]);
});
