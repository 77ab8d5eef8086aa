// From labels to a query, and from its answer to a line with its gaps. Pure.
import type { Labels } from "./types";

/** A metric or label name as the history writes it (docs/history.md). */
export function promName(name: string): string {
  const n = name.replace(/[^A-Za-z0-9_]/gu, "_");
  return /^[0-9]/.test(n) ? "_" + n : n;
}

const labelName = (name: string): string => {
  const n = promName(name);
  return n.startsWith("__") ? "label" + n : n;
};

/** Text as a PromQL string. */
export const quoted = (text: string): string => JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

/** A selector of exactly one metric of one device. name is the metric's name in the history. */
export function selector(name: string, labels: Labels): string {
  return "{" + ["__name__=" + quoted(name), ...Object.entries(labels).map(([k, v]) => labelName(k) + "=" + quoted(v))].join(",") + "}";
}

/** A selector of one metric, whatever it is measured as. */
export function metricSelector(metric: string, labels: Labels): string {
  const pattern = "(.+_)?" + promName(metric);
  return "{" + ["__name__=~" + quoted(pattern), ...Object.entries(labels).map(([k, v]) => labelName(k) + "=" + quoted(v))].join(",") + "}";
}

export interface Plan { step: number; window: number; band: boolean }

/**
 * How to ask for a line: at most points steps from..to (seconds), no finer than the device sends. window is what one step looks back on;
 * band: several readings fall into one step, so that their extremes are worth a query.
 */
export function plan(from: number, to: number, interval: number, points = 600): Plan {
  const beat = Math.max(1, interval || 1);
  const step = Math.max(1, Math.ceil(Math.max((to - from) / points, beat <= 60 ? Math.min(beat, (to - from) / 60) : beat)));
  const band = step >= 4 * beat;
  return { step, window: Math.ceil(band ? step : Math.max(step, 2.5 * beat)), band };
}

/** The query of a plan: the mean of each step, and where it has a band its extremes, told apart by the label stat. */
export function rangeQuery(sel: string, p: Plan): string {
  if (!p.band) return "last_over_time(" + sel + "[" + p.window + "s])";
  return (["avg", "min", "max"] as const)
    .map((stat) => 'label_replace(' + stat + "_over_time(" + sel + "[" + p.window + 's]),"stat","' + stat + '","","")')
    .join(" or ");
}

export interface Line { t: number[]; v: (number | null)[]; lo: (number | null)[]; hi: (number | null)[]; gaps: [number, number][] }

type Sample = [number, string];

/**
 * Samples on a grid of step seconds as a line: where one or more steps are missing a null stands, so that no stroke crosses the gap, and
 * the gap is listed. lo and hi are the extremes, equal to v where they were not asked for.
 */
export function line(samples: Sample[], step: number, lows?: Sample[], highs?: Sample[]): Line {
  const out: Line = { t: [], v: [], lo: [], hi: [], gaps: [] };
  const low = new Map(lows), high = new Map(highs);
  let last: number | null = null;
  for (const [t, text] of samples) {
    const v = Number(text);
    if (!Number.isFinite(v)) continue;
    if (last !== null && t - last > 1.5 * step) {
      out.t.push(last + step);
      out.v.push(null);
      out.lo.push(null);
      out.hi.push(null);
      out.gaps.push([last, t]);
    }
    out.t.push(t);
    out.v.push(v);
    out.lo.push(Number(low.get(t) ?? v));
    out.hi.push(Number(high.get(t) ?? v));
    last = t;
  }
  return out;
}

export interface Threshold { metric: string; op: string; value: number }

/**
 * The plain comparisons of a metric with a number in a rule's condition, for the chart: `temperature > -15 and humidity < 80` has two.
 * A function or a sum is no line in a chart of the metric and is left out.
 */
export function thresholds(condition: string): Threshold[] {
  const found: Threshold[] = [];
  let flat = condition;
  for (let before = ""; before !== flat;) {
    before = flat;
    flat = flat.replace(/[A-Za-z_]\w*\s*\([^()]*\)/g, "@"); // a call, innermost first
  }
  const number = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][-+]?\\d+)?", metric = "[A-Za-z_][\\w.]*", op = "[<>]=?";
  const plain = new RegExp("^(" + metric + ")\\s*(" + op + ")\\s*(" + number + ")$"), turned = new RegExp("^(" + number + ")\\s*(" + op + ")\\s*(" + metric + ")$");
  for (const clause of flat.replace(/[()]/g, " ").split(/\b(?:and|or)\b/)) {
    const a = plain.exec(clause.trim()), b = turned.exec(clause.trim());
    if (a) found.push({ metric: a[1]!, op: a[2]!, value: Number(a[3]) });
    else if (b) found.push({ metric: b[3]!, op: b[2]!.replace(/[<>]/, (c) => (c === "<" ? ">" : "<")), value: Number(b[1]) });
  }
  return found;
}

/** The words of a condition that may be metrics, in the order in which they come. */
export function metricsIn(condition: string): string[] {
  const only = /^(?:absent|anomaly): (.+?)(?: \([^()]*\))?$/.exec(condition);
  if (only) return [only[1]!];
  const known = new Set(["and", "or", "not", "true", "false"]);
  const plain = condition.replace(/"(?:[^"\\]|\\.)*"/g, " ").replace(/\b\d+(?:\.\d+)?(?:ms|s|m|h|d|w|x)\b/g, " ");
  const words = [...plain.matchAll(/[A-Za-z_][\w.]*(?!\s*\()\b/g)].map((m) => m[0]).filter((w) => !known.has(w) && !new RegExp("\\b" + w + "\\s*\\(").test(plain));
  return [...new Set(words)];
}
