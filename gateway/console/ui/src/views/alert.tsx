// One alert: what is wrong, the chart with the breach marked, who was told, and what to do.
import { useMemo, useState } from "preact/hooks";
import { withQuery } from "../api";
import { alertsChanged, gatewayNow } from "../live";
import { useLoad } from "../load";
import { Ago, Card, Chips, Heading, State, When } from "../parts/bits";
import { Chart } from "../parts/chart";
import { say } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { use } from "../store";
import type { Breach } from "../parts/plot";
import { Empty, Shown } from "../parts/states";
import { route, to } from "../route";
import { may, unconfined } from "../session";
import { metricSelector, metricsIn, thresholds } from "../series";
import type { Alert as AlertType, AlertList, DeviceList, Labels, Rule, RuleList, Series } from "../types";
import { severity, where } from "../verdict";
import { alertState, duration, measured, some } from "../words";
import { Marks, silenceLabels } from "./alerts";
import { Acknowledge, SilenceDialog, unacknowledge } from "./dialogs";

const seconds = (t: string | undefined): number => (t ? Date.parse(t) / 1000 : NaN);

/** When an alert was on, for the chart. */
export function breach(a: AlertType, now: number): Breach {
  const from = seconds(a.starts_at ?? a.since);
  return { from, to: a.state === "resolved" ? seconds(a.ends_at) || now : now, firing: a.state !== "pending", label: a.name };
}

/** Labels of the device an alert is about: the alert's without what the rule added. */
const deviceLabels = (a: AlertType, rule: Rule | undefined): Labels =>
  Object.fromEntries(Object.entries(a.labels).filter(([k]) => k !== "alertname" && !(rule ? k in rule.labels : k === "severity")));

function Told({ a }: { a: AlertType }) {
  if (a.notifications.length === 0) return <Empty icon="bell" title="Nobody has been told yet.">{a.silenced_by ? "A silence keeps it back." : a.inhibited ? "Another alert keeps it back." : a.state === "pending" ? "It is told once it fires." : "There may be no webhook for it; see the rule."}</Empty>;
  const words: Record<string, string> = { changed: "because its state changed", repeated: "as a repeat", escalated: "as an escalation" };
  return (
    <ol class="timeline">
      {a.notifications.slice().reverse().map((n, i) => <li key={i}><When t={n.time} /><span><strong>{n.webhook}</strong> was told <em>{n.status}</em> {words[n.reason] ?? n.reason}</span></li>)}
    </ol>
  );
}

function Charts({ a, rule }: { a: AlertType; rule: Rule | undefined }) {
  const labels = deviceLabels(a, rule);
  const devices = useLoad<DeviceList>(withQuery("api/v1/devices", { label: Object.entries(labels).map(([k, v]) => k + ":" + v), limit: 2 }));
  const device = devices.data?.devices.length === 1 ? devices.data.devices[0] : undefined;
  const series = useLoad<{ series: Series[] }>(device ? withQuery("api/v1/series", { device: device.id, limit: 200 }) : "");
  const condition = rule?.condition ?? "";
  // Who may not see the rule sees what the device measures.
  const metrics = useMemo(() => (condition || unconfined() ? metricsIn(condition).slice(0, 3) : (series.data?.series ?? []).slice(0, 6).map((s) => s.metric)), [condition, series.data]);
  const limits = useMemo(() => thresholds(condition), [condition]);
  const limitsOf = useMemo(() => new Map(metrics.map((m) => [m, limits.filter((t) => t.metric === m)])), [metrics, limits]);
  const [window, setWindow] = useState<[number, number]>();
  const minute = Math.floor(gatewayNow() / 30_000) * 30 + 30;
  const b = breach(a, minute);
  const length = Math.max(0, b.to - b.from);
  const lead = Math.min(Math.max(600, length * 0.6), 6 * 3600);
  const [from, until] = window ?? [Math.max(b.from - lead, b.to - 7 * 86400), Math.min(minute, b.to + lead)];
  const breaches = useMemo(() => [b], [b.from, b.to, b.firing]);
  if (metrics.length === 0 && !unconfined()) return <p class="quiet">{series.data ? "There is no chart: the device has no readings." : "Looking for the device."}</p>;
  if (metrics.length === 0) return <p class="quiet">There is no chart: the rule that raised this alert is not loaded any more, or names no metric.</p>;
  return (
    <>
      {metrics.map((m) => {
        const known = series.data?.series.find((s) => s.metric === m);
        return (
          <Chart key={m} eager title={<strong>{m}</strong>} name={m + " of " + where(a.labels)} unit={known?.unit ?? ""} interval={device?.interval_seconds ?? 0}
            selector={metricSelector(m, labels)} from={from} to={until} thresholds={limitsOf.get(m)!} breaches={breaches} zoom={(x, y) => setWindow([x, y])} />
        );
      })}
      <p class="chart-foot quiet">
        The shaded time is when the alert was on{limits.length > 0 && "; the dashed line is the rule's threshold"}. Mark a range to zoom.
        {window && <button type="button" onClick={() => setWindow(undefined)}>Back to the whole alert</button>}
        {device && <a href={to("devices", device.id)}>Everything of {device.name}</a>}
      </p>
    </>
  );
}

function Detail({ a, rule }: { a: AlertType; rule: Rule | undefined }) {
  const [open, setOpen] = useState<"" | "ack" | "silence">("");
  const close = () => setOpen("");
  const device = a.labels["device"];
  return (
    <>
      <Heading title={a.name} note={<>{where(a.labels)} <Marks a={a} /></>}>
        {may("operator") && a.state === "firing" && (a.acknowledged
          ? <button type="button" onClick={() => { unacknowledge(a).then(() => say("Given back: it is told and escalated again."), (e: Error) => say(e.message, "bad")); }}>Give back</button>
          : <button type="button" class="primary" onClick={() => setOpen("ack")}><Icon name="check" size={16} /> Acknowledge</button>)}
        {may("operator") && a.state !== "resolved" && <button type="button" onClick={() => setOpen("silence")}><Icon name="mute" size={16} /> Silence</button>}
      </Heading>
      <Card>
        <div class="alert-facts">
          <State {...alertState(a.state, severity(a.labels))} />
          <p class="summary">{a.annotations["summary"] || "The rule has no summary."}</p>
        </div>
        <dl class="facts">
          <div><dt>{a.state === "resolved" ? "Fired" : "Since"}</dt><dd><When t={a.state === "resolved" ? a.starts_at : a.since} /> <span class="quiet">{a.state !== "resolved" && <>(<Ago t={a.since} long suffix="" />)</>}</span></dd></div>
          {a.state === "resolved" && <div><dt>Resolved</dt><dd><When t={a.ends_at} /> <span class="quiet">{a.starts_at && a.ends_at && "after " + duration(seconds(a.ends_at) - seconds(a.starts_at))}</span></dd></div>}
          <div><dt>Value</dt><dd><b>{measured(a.value)}</b></dd></div>
          {unconfined() && <div><dt>Condition</dt><dd>{rule ? <code>{rule.condition}</code> : <span class="quiet">rule not loaded</span>}{rule && rule.for_seconds > 0 && <span class="quiet"> for {duration(rule.for_seconds)}</span>}</dd></div>}
          {a.score > 0 && <div><dt>How unusual</dt><dd>{measured(a.score)}</dd></div>}
          {a.acknowledged && <div><dt>Taken</dt><dd>by {a.acknowledged.author} <Ago t={a.acknowledged.at} />{a.acknowledged.comment && <>: {a.acknowledged.comment}</>}</dd></div>}
        </dl>
        <p class="labels"><Chips labels={a.labels} without={["alertname"]} /></p>
        {Object.entries(a.annotations).filter(([k]) => k !== "summary").map(([k, v]) => <p key={k}><b>{k}</b>: {v}</p>)}
      </Card>
      <Card title="What it saw" id="saw"><Charts a={a} rule={rule} /></Card>
      <div class="columns">
        <div><Card title="Who was told" id="told"><Told a={a} /></Card></div>
        <div><Card title="Rule" id="rule">
          {rule ? <p><a href={to("rules", rule.name)}>{rule.name}</a> in group {rule.group}, <code>{rule.file}:{rule.line}</code>. It looks at {some(rule.matched, "device")}, {rule.firing} of them firing.</p>
            : <p class="quiet">{unconfined() ? "The rule is not loaded any more." : "Rules are of the whole site, and not for you to see."}</p>}
          {device && <p><a href={"#/devices?search=" + encodeURIComponent(device)}>Find {device} among the devices</a></p>}
        </Card></div>
      </div>
      {open === "ack" && <Acknowledge alert={a} close={close} />}
      {open === "silence" && <SilenceDialog labels={a.labels} on={silenceLabels(a)} close={close} />}
    </>
  );
}

export function Alert({ fingerprint }: { fingerprint: string }) {
  const load = useLoad<AlertList>("api/v1/alerts", 5000, use(alertsChanged));
  const rules = useLoad<RuleList>(unconfined() ? "api/v1/rules" : "", 60_000, use(alertsChanged));
  const at = use(route).query.get("at");
  return (
    <>
      <p class="crumbs"><a href="#/alerts"><Icon name="left" size={14} /> Alerts</a></p>
      <Shown load={load} what="This alert" rows={6}>{(list) => {
        const over = list.recent.filter((x) => x.fingerprint === fingerprint);
        const a = (at && over.find((x) => x.starts_at === at)) || list.alerts.find((x) => x.fingerprint === fingerprint) || over[0];
        if (!a) return <Empty icon="ok" title="This alert is over.">It is not among the last 200 any more. <a href="#/alerts?tab=over">See the history</a></Empty>;
        const rule = rules.data?.rules.find((r) => r.name === a.name && (!a.group || r.group === a.group)) ?? rules.data?.rules.find((r) => r.name === a.name);
        return <Detail a={a} rule={rule} />;
      }}</Shown>
    </>
  );
}
