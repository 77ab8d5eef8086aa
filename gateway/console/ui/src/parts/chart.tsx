// A chart with its title, reading and states: it asks for its data once it comes into sight.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { withQuery } from "../api";
import { useLoad } from "../load";
import { line, plan, rangeQuery, type Line, type Plan, type Threshold } from "../series";
import { use } from "../store";
import { painted } from "../theme";
import { fullTime, zone, zoneName } from "../time";
import { duration, figure, measured } from "../words";
import type { Breach, Plot, PlotData } from "./plot";
import { Failed } from "./states";

interface Answer { data: { result: { metric: Record<string, string>; values: [number, string][] }[] } }

function read(answer: Answer, p: Plan): Line {
  const by = (stat: string) => answer.data.result.find((r) => r.metric["stat"] === stat)?.values;
  if (!p.band) return line(answer.data.result[0]?.values ?? [], p.step);
  return line(by("avg") ?? [], p.step, by("min"), by("max"));
}

export interface ChartProps {
  title: ComponentChildren;
  name: string; // for screen readers
  selector: string; // PromQL
  unit: string;
  interval: number; // seconds between readings, 0: not known
  from: number; // seconds
  to: number;
  thresholds: Threshold[];
  breaches: Breach[];
  zoom: (from: number, to: number) => void;
  aside?: ComponentChildren;
  eager?: boolean;
}

/** Whether an element has come near the window, once. */
function useSeen(now: boolean): [boolean, { current: HTMLDivElement | null }] {
  const ref = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState(now);
  useEffect(() => {
    if (seen || !ref.current) return;
    const o = new IntersectionObserver((e) => { if (e.some((x) => x.isIntersecting)) setSeen(true); }, { rootMargin: "300px" });
    o.observe(ref.current);
    return () => o.disconnect();
  }, [seen]);
  return [seen, ref];
}

function summary(l: Line, unit: string): string {
  const hi = l.hi.filter((v) => v !== null), lo = l.lo.filter((v) => v !== null);
  if (lo.length === 0) return "no readings";
  return "lowest " + measured(Math.min(...lo), unit) + ", highest " + measured(Math.max(...hi), unit) +
    (l.gaps.length > 0 ? ", " + l.gaps.length + (l.gaps.length === 1 ? " gap" : " gaps") : "");
}

export function Chart(props: ChartProps) {
  const { from, to, unit } = props;
  const [seen, box] = useSeen(props.eager ?? false);
  const p = plan(from, to, props.interval);
  // On the grid of steps, so that neighbouring questions are the same question.
  const start = Math.floor(from / p.step) * p.step, end = Math.ceil(to / p.step) * p.step;
  const load = useLoad<Answer>(seen ? withQuery("prometheus/api/v1/query_range", { query: rangeQuery(props.selector, p), start, end, step: p.step }) : "");
  const held = useRef<{ line: Line; answer: Answer | undefined; plan: Plan }>({ line: line([], 1), answer: undefined, plan: p });
  if (load.data && held.current.answer !== load.data) held.current = { line: read(load.data, p), answer: load.data, plan: p };
  const shown = held.current;
  const canvas = useRef<HTMLDivElement>(null);
  const drawn = useRef<Plot | undefined>(undefined);
  const out = useRef<HTMLSpanElement>(null);
  const zoom = useRef(props.zoom);
  zoom.current = props.zoom;
  const empty = shown.answer !== undefined && shown.line.t.length === 0;
  const zoneNow = zone(), paint = use(painted);
  const rest = shown.line.t.length === 0 ? "" : summary(shown.line, unit);

  useEffect(() => {
    if (!shown.answer || empty || !canvas.current) return;
    const d: PlotData = { line: shown.line, from, to, unit, zone: zoneNow, thresholds: props.thresholds, breaches: props.breaches, band: shown.plan.band };
    if (drawn.current) {
      drawn.current.update(d);
      return;
    }
    let gone = false;
    const el = canvas.current;
    const observer = new ResizeObserver(() => drawn.current?.resize(el.clientWidth));
    void import("./plot").then(({ plot }) => {
      if (gone || drawn.current) return;
      drawn.current = plot(el, d, (a, b) => zoom.current(a, b), (at, v, lo, hi) => {
        if (!out.current) return;
        out.current.textContent = at === null ? out.current.dataset["rest"] ?? "" :
          fullTime(at * 1000) + ": " + (v === null ? "no readings" : measured(v, out.current.dataset["unit"]) + (lo !== v || hi !== v ? " (" + figure(lo) + " to " + figure(hi) + ")" : ""));
      });
      observer.observe(el);
    });
    return () => { gone = true; if (!drawn.current) observer.disconnect(); };
  }, [shown.answer, empty, from, to, unit, zoneNow, paint, props.thresholds, props.breaches]);
  useEffect(() => () => drawn.current?.destroy(), []);
  // Not drawn by the component: the pointer writes here too.
  useEffect(() => { out.current!.textContent = rest; }, [rest]);

  return (
    <figure class="chart" ref={box}>
      <figcaption>
        <span class="chart-title">{props.title}{unit && <span class="quiet"> in {unit}</span>}</span>
        <span class="chart-read" ref={out} data-rest={rest} data-unit={unit} />
        {props.aside}
      </figcaption>
      {load.error && !shown.answer ? <Failed load={load} what="This chart" />
        : empty ? <p class="no-data">No readings of {props.name} between {fullTime(from * 1000)} and {fullTime(to * 1000)}. Choose a longer time.</p>
          : <div class="canvas" ref={canvas} role="img" aria-label={props.name + " over " + duration(to - from) + ", times in " + zoneName() + ": " + rest} />}
    </figure>
  );
}

export const ranges = [["15m", 900], ["1h", 3600], ["6h", 21600], ["24h", 86400], ["7d", 604800]] as const;
