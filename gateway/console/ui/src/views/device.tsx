// One device: its metrics as charts over a common time, with gaps, alerts and thresholds.
import { useMemo } from "preact/hooks";
import { alertsChanged, gatewayNow, status } from "../live";
import { useLoad } from "../load";
import { Ago, Card, Chips, Choice, Heading, Search, State, When } from "../parts/bits";
import { Chart, ranges } from "../parts/chart";
import { Icon } from "../parts/icon";
import { use } from "../store";
import type { Breach } from "../parts/plot";
import { Empty, NoMatch, Shown } from "../parts/states";
import { go, route, setQuery, to } from "../route";
import { metricsIn, selector, thresholds, type Threshold } from "../series";
import { fullTime, zoneName } from "../time";
import { unconfined } from "../session";
import type { AlertList, DeviceDetail, Labels, Rule, RuleList, Series } from "../types";
import { severity } from "../verdict";
import { alertState, deviceState, duration, measured, perMinute, some } from "../words";
import { breach } from "./alert";
import { Marks } from "./alerts";

/** Whether an alert's labels are those of the device, and more. */
const about = (alert: Labels, device: Labels): boolean => Object.entries(device).every(([k, v]) => k === "gateway" || alert[k] === v);

interface Marking { thresholds: Threshold[]; breaches: Breach[] }
const none: Marking = { thresholds: [], breaches: [] };

/** For each metric: thresholds of the rules that look at this device, and when an alert about it was on. */
function markings(d: DeviceDetail, rules: Rule[], list: AlertList | undefined, now: number): Map<string, Marking> {
  const by = new Map<string, Marking>();
  const of = (metric: string): Marking => {
    const m = by.get(metric) ?? { thresholds: [], breaches: [] };
    by.set(metric, m);
    return m;
  };
  for (const r of rules) {
    if (!r.series.some((s) => about(s.labels, d.labels))) continue;
    for (const t of thresholds(r.condition)) of(t.metric).thresholds.push(t);
  }
  for (const a of list ? [...list.alerts, ...list.recent] : []) {
    if (!about(a.labels, d.labels)) continue;
    const rule = rules.find((r) => r.name === a.name);
    const metrics = rule ? metricsIn(rule.condition) : d.series.map((s) => s.metric);
    for (const m of metrics) of(m).breaches.push(breach(a, now));
  }
  return by;
}

interface Span { from: number; to: number; fixed: boolean; range: string }

/** The time looked at: a range until now, which moves on in steps, or a fixed one somebody zoomed into. */
function useSpan(known: string | undefined): Span {
  const q = use(route).query;
  const from = Number(q.get("from")), until = Number(q.get("to"));
  const age = known ? gatewayNow() - Date.parse(known) : Infinity;
  const range = q.get("range") ?? (age < 15 * 60_000 ? "15m" : "1h");
  use(status); // moves on with each second of news
  if (from > 0 && until > from) return { from, to: until, fixed: true, range: "" };
  const length = ranges.find(([name]) => name === range)?.[1] ?? 3600;
  const step = Math.max(5, Math.ceil(length / 600));
  const now = Math.floor(gatewayNow() / 1000 / step) * step + step;
  return { from: now - length, to: now, fixed: false, range };
}

const zoomTo = (from: number, until: number) => {
  const least = 10;
  const middle = (from + until) / 2;
  const half = Math.max(least, until - from) / 2;
  setQuery({ from: String(Math.round(middle - half)), to: String(Math.round(Math.min(middle + half, gatewayNow() / 1000))) });
};

function SpanBar({ span }: { span: Span }) {
  const length = span.to - span.from;
  const shift = (by: number) => setQuery({ from: String(Math.round(span.from + by)), to: String(Math.round(Math.min(span.to + by, gatewayNow() / 1000))) });
  return (
    <div class="bar span">
      <Choice label="Time" value={span.range as string} choose={(r) => setQuery({ range: r, from: "", to: "" })} options={ranges.map(([r]) => [r, r] as const)} />
      <div class="group" role="group" aria-label="Move and zoom">
        <button type="button" aria-label="Earlier" title="Earlier" onClick={() => shift(-length / 2)}><Icon name="left" size={16} /></button>
        <button type="button" aria-label="Zoom in" title="Zoom in" onClick={() => zoomTo(span.from + length / 4, span.to - length / 4)}>+</button>
        <button type="button" aria-label="Zoom out" title="Zoom out" onClick={() => zoomTo(span.from - length / 2, span.to + length / 2)}>−</button>
        <button type="button" aria-label="Later" title="Later" disabled={!span.fixed} onClick={() => shift(length / 2)}><Icon name="right" size={16} /></button>
      </div>
      {span.fixed && <button type="button" onClick={() => setQuery({ from: "", to: "" })}>Back to now</button>}
      <p class="quiet">{span.fixed ? fullTime(span.from * 1000) + " to " + fullTime(span.to * 1000) : "the last " + duration(length)}, {zoneName()}</p>
    </div>
  );
}

function Metrics({ d, span }: { d: DeviceDetail; span: Span }) {
  const list = useLoad<AlertList>("api/v1/alerts", 10_000, use(alertsChanged));
  const rules = useLoad<RuleList>(unconfined() ? "api/v1/rules" : "", 60_000);
  const minute = Math.floor(gatewayNow() / 10_000) * 10;
  const marks = useMemo(() => markings(d, rules.data?.rules ?? [], list.data, minute), [d.id, rules.data, list.data, minute]);
  const find = (use(route).query.get("find") ?? "").toLowerCase();
  const shown = find ? d.series.filter((s) => (s.metric + " " + s.measurement).toLowerCase().includes(find)) : d.series;
  if (d.series.length === 0) return <Empty icon="unknown" title="This device has sent no reading yet.">Its messages may stand in <a href="#/quarantine">quarantine</a>.</Empty>;
  return (
    <>
      {d.series.length > 8 && <div class="bar"><Search what="metrics" hint={"Search " + some(d.series.length, "metric")} name="find" /></div>}
      {shown.length === 0 ? <NoMatch what="metric" name="find" /> : (
        <div class="charts">
          {shown.map((s) => <Metric key={s.name + JSON.stringify(s.labels)} s={s} d={d} span={span} marks={marks.get(s.metric) ?? none} />)}
        </div>
      )}
    </>
  );
}

function Metric({ s, d, span, marks }: { s: Series; d: DeviceDetail; span: Span; marks: Marking }) {
  return (
    <div class="card">
      <Chart title={<strong>{s.metric}</strong>} name={s.metric + " of " + d.name} selector={selector(s.name, s.labels)} unit={s.unit} interval={d.interval_seconds}
        from={span.from} to={span.to} thresholds={marks.thresholds} breaches={marks.breaches} zoom={zoomTo}
        aside={<span class="now"><b>{s.last ? measured(s.last.value, s.unit) : "\u2013"}</b> {s.last && <span class="quiet"><Ago t={s.last.time} /></span>}</span>} />
    </div>
  );
}

const every = (seconds: number): string => (seconds < 10 ? measured(Number(seconds.toPrecision(2)), "s") : duration(seconds));

function Detail({ d }: { d: DeviceDetail }) {
  const span = useSpan(d.first_seen);
  const list = useLoad<AlertList>("api/v1/alerts", 10_000, use(alertsChanged));
  const now = list.data?.alerts.filter((a) => about(a.labels, d.labels)) ?? [];
  return (
    <>
      <Heading title={d.name} note={<><State {...deviceState(d.state)} /> <span>last heard <Ago t={d.last_seen} long /></span></>} />
      <Card>
        <dl class="facts">
          <div><dt>Rate</dt><dd>{perMinute(d.rate_per_minute)}</dd></div>
          <div><dt>Usual interval</dt><dd>{d.interval_seconds > 0 ? every(d.interval_seconds) : "not known yet"}</dd></div>
          <div><dt>Source</dt><dd>{d.source}</dd></div>
          <div><dt>First heard</dt><dd><When t={d.first_seen} /></dd></div>
          <div><dt>Metrics</dt><dd>{d.series.length}</dd></div>
        </dl>
        <p class="labels"><Chips labels={d.labels} pick={(k, v) => go("#/devices?label=" + encodeURIComponent(k + ":" + v))} /></p>
        {d.state === "silent" && <p class="notice warn"><Icon name="silent" size={16} /><span>{d.interval_seconds > 0 && <>It usually sends every {every(d.interval_seconds)}. </>} Check its power, its network and its credentials; the broker's log shows whether it still connects.</span></p>}
        {now.length > 0 && (
          <ul class="list inset">
            {now.map((a) => <li key={a.fingerprint}><a href={to("alerts", a.fingerprint)}><State {...alertState(a.state, severity(a.labels))} /><span class="grow"><strong>{a.name}</strong> <Marks a={a} /> <span class="summary">{a.annotations["summary"]}</span></span><span class="end"><Ago t={a.since} suffix="" /></span></a></li>)}
          </ul>
        )}
      </Card>
      <SpanBar span={span} />
      <Metrics d={d} span={span} />
    </>
  );
}

export function Device({ id }: { id: string }) {
  const load = useLoad<DeviceDetail>("api/v1/devices/" + encodeURIComponent(id), 5000);
  return (
    <>
      <p class="crumbs"><a href="#/devices"><Icon name="left" size={14} /> Devices</a></p>
      <Shown load={load} what="This device" rows={6}>{(d) => <Detail d={d} />}</Shown>
    </>
  );
}
