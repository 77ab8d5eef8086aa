// The chart itself, on uPlot. Loaded when the first chart comes into sight.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Line, Threshold } from "../series";
import { colour } from "../theme";
import { measured } from "../words";

export interface Breach { from: number; to: number; firing: boolean; label: string } // seconds

export interface PlotData {
  line: Line;
  from: number; // seconds
  to: number;
  unit: string;
  zone: string;
  thresholds: Threshold[];
  breaches: Breach[];
  band: boolean;
}

export interface Plot { update: (d: PlotData) => void; resize: (width: number) => void; destroy: () => void }

const height = 190;

/** Draws into box. zoom is told the range somebody marked, read the values under the pointer, "" when it left. */
export function plot(box: HTMLElement, first: PlotData, zoom: (from: number, to: number) => void, read: (at: number | null, v: number | null, lo: number | null, hi: number | null) => void): Plot {
  let data = first;
  const ink = () => ({ text: colour("--quiet"), grid: colour("--grid"), line: colour("--accent"), bad: colour("--bad"), fill: colour("--accent-soft"), gap: colour("--gap"), breach: colour("--breach") });
  let c = ink();
  const font = "12px system-ui, sans-serif";

  const span = (u: uPlot, from: number, to: number): [number, number] => {
    const l = u.bbox.left, r = l + u.bbox.width;
    const x0 = Math.max(l, u.valToPos(from, "x", true)), x1 = Math.min(r, u.valToPos(to, "x", true));
    return [x0, x1];
  };
  const behind = (u: uPlot) => {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.fillStyle = c.gap;
    for (const [a, b] of data.line.gaps) {
      const [x0, x1] = span(u, a, b);
      if (x1 > x0) ctx.fillRect(x0, bbox.top, x1 - x0, bbox.height);
    }
    ctx.fillStyle = c.breach;
    for (const b of data.breaches) {
      const [x0, x1] = span(u, b.from, b.to);
      if (x1 > x0) ctx.fillRect(x0, bbox.top, Math.max(2, x1 - x0), bbox.height);
    }
    ctx.restore();
  };
  const before = (u: uPlot) => {
    const { ctx, bbox } = u;
    const px = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.strokeStyle = c.bad;
    ctx.fillStyle = c.bad;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.lineWidth = 1.5 * px;
    ctx.font = `${11 * px}px system-ui, sans-serif`;
    for (const t of data.thresholds) {
      const y = u.valToPos(t.value, "y", true);
      ctx.setLineDash([5 * px, 4 * px]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      const low = y > bbox.top + 16 * px;
      ctx.fillText(t.op + " " + measured(t.value, data.unit), bbox.left + 6 * px, low ? y - 4 * px : y + 13 * px);
    }
    ctx.setLineDash([]);
    for (const b of data.breaches) {
      if (b.from < data.from || !b.firing) continue;
      const x = u.valToPos(b.from, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x - 5 * px, bbox.top);
      ctx.lineTo(x + 5 * px, bbox.top);
      ctx.lineTo(x, bbox.top + 7 * px);
      ctx.closePath();
      ctx.fill();
    }
    ctx.restore();
  };

  const range = (_: uPlot, min: number | null, max: number | null): [number, number] => {
    let lo = min ?? 0, hi = max ?? 1;
    for (const t of data.thresholds) {
      // A threshold far away would flatten the line to nothing.
      const reach = Math.max(hi - lo, Math.abs(hi) * 0.1, 1e-9) * 4;
      if (t.value > lo - reach && t.value < hi + reach) { lo = Math.min(lo, t.value); hi = Math.max(hi, t.value); }
    }
    const pad = (hi - lo || Math.abs(hi) || 1) * 0.1;
    return [lo - pad, hi + pad];
  };
  const table = (d: PlotData): uPlot.AlignedData => [d.line.t, d.line.v, d.line.lo, d.line.hi] as uPlot.AlignedData;

  const options: uPlot.Options = {
    width: Math.max(200, box.clientWidth), height, padding: [10, 8, 0, 0],
    tzDate: (t) => uPlot.tzDate(new Date(t * 1000), data.zone),
    legend: { show: false },
    cursor: { y: false, sync: { key: "sluice", scales: ["x", null] }, drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
    scales: { x: { time: true, range: () => [data.from, data.to] }, y: { range } },
    bands: [{ series: [3, 2], fill: () => (data.band ? c.fill : "transparent") }],
    series: [
      {},
      { stroke: () => c.line, width: 1.75, points: { show: false } },
      { stroke: "transparent", points: { show: false } },
      { stroke: "transparent", points: { show: false } },
    ],
    axes: [
      { stroke: () => c.text, grid: { stroke: () => c.grid, width: 1 }, ticks: { show: false }, font, space: 70, size: 34,
        values: [
          [86400, "{DD} {MMM}", null, null, null, null, null, null, 1],
          [3600, "{HH}:{mm}", "\n{DD} {MMM}", null, "\n{DD} {MMM}", null, null, null, 1],
          [60, "{HH}:{mm}", "\n{DD} {MMM}", null, "\n{DD} {MMM}", null, null, null, 1],
          [1, "{HH}:{mm}:{ss}", "\n{DD} {MMM}", null, "\n{DD} {MMM}", null, null, null, 1],
        ] },
      { stroke: () => c.text, grid: { stroke: () => c.grid, width: 1 }, ticks: { show: false }, font, size: 56, space: 32,
        values: (_u, splits) => splits.map((v) => measured(Number(v.toPrecision(6)))) },
    ],
    hooks: {
      drawClear: [behind],
      draw: [before],
      setSelect: [(u) => {
        if (u.select.width < 4) return;
        const a = u.posToVal(u.select.left, "x"), b = u.posToVal(u.select.left + u.select.width, "x");
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        zoom(a, b);
      }],
      setCursor: [(u) => {
        const i = u.cursor.idx;
        if (i === null || i === undefined || u.cursor.left === undefined || u.cursor.left < 0) read(null, null, null, null);
        else read(data.line.t[i] ?? null, data.line.v[i] ?? null, data.line.lo[i] ?? null, data.line.hi[i] ?? null);
      }],
    },
  };
  const u = new uPlot(options, table(first), box);
  return {
    update(d) {
      data = d;
      c = ink();
      u.setData(table(d));
    },
    resize(width) { if (width > 0 && width !== u.width) u.setSize({ width, height }); },
    destroy() { u.destroy(); },
  };
}
