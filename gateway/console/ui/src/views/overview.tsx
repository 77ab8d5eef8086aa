// What is wrong at the site, in a sentence; then the figures it rests on.
import { withQuery } from "../api";
import { alertsChanged, rates, status } from "../live";
import { useLoad } from "../load";
import { lazy } from "../lazy";
import { Ago, Card, Mark, State } from "../parts/bits";
import { Icon } from "../parts/icon";
import { Spark } from "../parts/spark";
import { Empty } from "../parts/states";
import { to } from "../route";
import { session, unconfined } from "../session";
import { use } from "../store";
import type { AlertList, Destination, DeviceList, Status } from "../types";
import { severity, verdict, where, type Verdict } from "../verdict";
import { alertState, backlogEnd, bytes, count, deviceState, duration, figure, labelText, outboxState, perSecond, some } from "../words";

const DemoStrip = lazy(() => import("./demo").then((m) => m.DemoStrip), true);

function Headline({ v, s }: { v: Verdict; s: Status }) {
  return (
    <section class={"verdict " + v.tone} aria-labelledby="title">
      <Icon name={v.icon} size={34} />
      <div>
        <h1 id="title" tabIndex={-1}>{v.headline}</h1>
        {v.problems.length > 0 && (
          <ul>
            {v.problems.slice(0, 5).map((p) => (
              <li key={p.text} class={p.tone}>
                <Icon name={p.icon} size={17} />
                <span>{p.text} {p.action && (p.href !== "#/" ? <a href={p.href}>{p.action}</a> : p.action + ".")}</span>
              </li>
            ))}
          </ul>
        )}
        <p class="quiet">Running for {duration(s.uptime_seconds)}. {unconfined() ? "Every acknowledged reading is on disk, with or without a link." : "You see what has " + labelText(session.value!.scope) + "."}</p>
      </div>
    </section>
  );
}

function Tiles({ s, devices }: { s: Status; devices: DeviceList | undefined }) {
  const points = use(rates);
  const out = [...s.destinations, ...s.webhooks].filter((d) => d.pending > 0);
  const pending = out.reduce((n, d) => n + d.pending, 0);
  const held = out.some((d) => d.last_error && d.state !== "sending");
  const eta = out.every((d) => d.eta_seconds > 0) ? Math.max(0, ...out.map((d) => d.eta_seconds)) : 0;
  const firing = s.alerts.filter((a) => a.state === "firing").length;
  const away = devices ? devices.states.silent + devices.states.offline : 0;
  const astray = s.ledger.imbalance, lost = Math.abs(astray) + (s.ledger.lost ?? 0);
  const all = unconfined(); // the other figures are of the whole site
  return (
    <div class="tiles">
      {all && <div class="tile trend">
        <h2>Messages</h2>
        <p class="big">{perSecond(s.messages.rate_per_second)}</p>
        <Spark points={points} slots={Math.max(60, points.length)} label={"Messages per second over the last five minutes, now " + perSecond(s.messages.rate_per_second)} />
        <p class="quiet">{count(s.messages.received)} since the start{s.messages.refused > 0 && <>, <b class="bad">{count(s.messages.refused)} refused</b></>}</p>
      </div>}
      <a class="tile" href="#/alerts">
        <h2>Alerts firing</h2>
        <p class={"big " + (firing ? "bad" : "")}>{count(firing)}</p>
        <p class="quiet">{s.alerts.length > firing ? count(s.alerts.length - firing) + " pending" : firing ? "none pending" : "all quiet"}</p>
      </a>
      <a class="tile" href="#/devices">
        <h2>Devices</h2>
        <p class="big">{count(devices?.total ?? s.devices)}</p>
        <p class="quiet">{s.devices === 0 ? "none yet" : <>{devices && <>{away ? <b class="warn">{count(away)} silent</b> : "all heard"}, </>}{count(s.series)} series</>}</p>
      </a>
      {all && <a class="tile" href="#/uplink">
        <h2>Waiting to be sent</h2>
        <p class={"big " + (held ? "warn" : "")}>{count(pending)}</p>
        <p class="quiet">{s.destinations.length + s.webhooks.length === 0 ? "no destination configured" : backlogEnd(pending, eta, held)}</p>
      </a>}
      {all && <a class="tile" href="#/ledger">
        <h2>Lost</h2>
        <p class={"big " + (lost ? "bad" : "good")}>{count(lost)}</p>
        <p class="quiet">{astray ? "readings not accounted for" : lost ? "with the reason, in the ledger" : "every reading is accounted for"}</p>
      </a>}
    </div>
  );
}

function AlertsNow({ s, list }: { s: Status; list: AlertList | undefined }) {
  const rank = (state: string, sev: string) => (state === "firing" ? (sev === "critical" ? 0 : sev === "info" ? 2 : 1) : 3);
  const rows = (list?.alerts ?? s.alerts.map((a) => ({ ...a, fingerprint: "", annotations: { summary: a.summary }, silenced_by: "", acknowledged: null, inhibited: false })))
    .slice().sort((a, b) => rank(a.state, severity(a.labels)) - rank(b.state, severity(b.labels)) || Date.parse(b.since ?? "") - Date.parse(a.since ?? ""));
  return (
    <Card title="Alerts now" id="now" extra={<a href="#/alerts">All alerts</a>}>
      {rows.length === 0 ? <Empty title="No alert is firing or pending.">The rules watch {count(s.series)} series.{unconfined() && <> <a href="#/rules">See the rules</a></>}</Empty> : (
        <ul class="list">
          {rows.slice(0, 6).map((a) => (
            <li key={a.fingerprint + a.name + where(a.labels)}>
              <a href={a.fingerprint ? to("alerts", a.fingerprint) : "#/alerts"}>
                <State {...alertState(a.state, severity(a.labels))} />
                <span class="grow"><strong>{a.name}</strong> <span class="quiet">{where(a.labels)}</span><br /><span class="summary">{a.annotations["summary"] || (a.value === null ? "" : "value " + figure(a.value))}</span></span>
                <span class="end">{a.silenced_by && <Mark icon="mute">silenced</Mark>}{a.acknowledged && <Mark icon="check">taken</Mark>}<Ago t={a.since} suffix="" /></span>
              </a>
            </li>
          ))}
        </ul>
      )}
      {rows.length > 6 && <p class="quiet more-line"><a href="#/alerts">{some(rows.length - 6, "more alert")}</a></p>}
    </Card>
  );
}

function Sending({ s }: { s: Status }) {
  const list = [...s.destinations.map((d) => [d, "point"] as const), ...s.webhooks.map((d) => [d, "notification"] as const)];
  const line = (d: Destination, unit: string) => d.pending === 0 ? "nothing waits" :
    some(d.pending, unit + " waits", unit + "s wait") + ", " + backlogEnd(d.pending, d.eta_seconds, !!d.last_error && d.state !== "sending");
  return (
    <Card title="Getting out" id="out" extra={<a href="#/uplink">Uplink</a>}>
      {list.length === 0 ? <Empty icon="uplink" title="Nothing is sent anywhere.">Add a destination under <code>uplink</code> or a webhook in the configuration; alerts and history work without.</Empty> : (
        <ul class="list">
          {list.map(([d, unit]) => (
            <li key={unit + d.name}>
              <a href={to("uplink", d.name)}>
                <State {...outboxState(d.state)} />
                <span class="grow"><strong>{d.name}</strong> <span class="quiet">{d.type}</span><br /><span class="summary">{line(d, unit)}{d.last_error && d.state !== "idle" ? ": " + d.last_error : ""}</span></span>
                <span class="end quiet">{d.state === "sending" ? perSecond(d.rate_per_second) : d.last_success ? <Ago t={d.last_success} /> : ""}</span>
              </a>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

function Away({ devices }: { devices: DeviceList | undefined }) {
  const away = devices?.devices.filter((d) => d.state === "silent" || d.state === "offline") ?? [];
  if (!devices || away.length === 0) return null;
  const n = devices.states.silent + devices.states.offline;
  return (
    <Card title="Silent devices" id="away" extra={<a href="#/devices?state=silent">All {count(n)}</a>}>
      <ul class="list">
        {away.slice(0, 5).map((d) => (
          <li key={d.id}><a href={to("devices", d.id)}><State {...deviceState(d.state)} /><span class="grow"><strong>{d.name}</strong></span><span class="end quiet">last heard <Ago t={d.last_seen} /></span></a></li>
        ))}
      </ul>
    </Card>
  );
}

function Parts({ s }: { s: Status }) {
  return (
    <Card title="Health" id="health" extra={<State {...(s.ready ? { word: "ready", tone: "good", icon: "ok" } : { word: "not ready", tone: "bad", icon: "stop" })} />}>
      <ul class="parts">
        {s.parts.filter((p) => !p.ok || !p.name.startsWith("destination ")).map((p) => (
          <li key={p.name}><State word={p.ok ? "ok" : "not ok"} tone={p.ok ? "good" : "bad"} icon={p.ok ? "ok" : "stop"} /><span class="grow"><strong>{p.name}</strong>{p.detail && <span class="summary"> {p.detail}</span>}</span></li>
        ))}
      </ul>
      <dl class="facts">
        <div><dt>MQTT clients</dt><dd>{count(s.connections)}</dd></div>
        <div><dt>Journal on disk</dt><dd>{bytes(s.journal.bytes)}</dd></div>
        <div><dt>Records</dt><dd>{s.journal.last >= s.journal.first && s.journal.last > 0 ? count(s.journal.last - s.journal.first + 1) : "none"}</dd></div>
        <div><dt>Not from a source</dt><dd>{count(s.messages.uncovered)}</dd></div>
      </dl>
    </Card>
  );
}

export function Overview() {
  const s = use(status);
  const alerts = useLoad<AlertList>("api/v1/alerts", 5000, use(alertsChanged));
  const devices = useLoad<DeviceList>(withQuery("api/v1/devices", { sort: "silent", limit: 6 }), 5000);
  if (!s) return <div class="loading tall" role="status" aria-label="Waiting for the gateway's first answer"><div class="bone" /><div class="bone" /><div class="bone" /></div>;
  return (
    <>
      <Headline v={verdict(s, alerts.data?.alerts, devices.data)} s={s} />
      {session.value?.demo && <DemoStrip />}
      <Tiles s={s} devices={devices.data} />
      <div class="columns">
        <div><AlertsNow s={s} list={alerts.data} /><Away devices={devices.data} /></div>
        {unconfined() && <div><Sending s={s} /><Parts s={s} /></div>}
      </div>
    </>
  );
}
