// Alerts that fire, wait or are over, and the silences that keep some from being told.
import { useState } from "preact/hooks";
import { send } from "../api";
import { alertsChanged } from "../live";
import { useLoad } from "../load";
import { Ago, Card, Chips, Choice, First, Heading, Mark, Search, State, When } from "../parts/bits";
import { Ask } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { Empty, NoMatch, Shown } from "../parts/states";
import { route, setQuery, to } from "../route";
import { may, unconfined } from "../session";
import { zoneName } from "../time";
import { use } from "../store";
import type { Alert, AlertList, RuleList, Silence } from "../types";
import { severity, where } from "../verdict";
import { alertState, count, duration, figure, some } from "../words";
import { SilenceDialog } from "./dialogs";

export const silenceLabels = (a: Alert): string[] => ["alertname", "device"].filter((k) => k in a.labels);

/** What keeps an alert from being told, or who has it. */
export function Marks({ a }: { a: Alert }) {
  return (
    <>
      {severity(a.labels) && <Mark tone={severity(a.labels) === "critical" ? "bad" : severity(a.labels) === "warning" ? "warn" : "info"}>{severity(a.labels)}</Mark>}
      {a.acknowledged && <Mark icon="check" tone="good">taken by {a.acknowledged.author}</Mark>}
      {a.silenced_by && <Mark icon="mute">silenced</Mark>}
      {a.inhibited && <Mark icon="mute">held back by another alert</Mark>}
      {a.flapping && <Mark icon="retry" tone="warn">flapping, {a.firings} times in 10 min</Mark>}
      {a.escalated > 0 && <Mark icon="send" tone="warn">escalated {a.escalated} {a.escalated === 1 ? "step" : "steps"}</Mark>}
    </>
  );
}

function Row({ a, condition }: { a: Alert; condition: string }) {
  return (
    <li>
      <a href={to("alerts", a.fingerprint) + (a.state === "resolved" && a.starts_at ? "?at=" + encodeURIComponent(a.starts_at) : "")}>
        <State {...alertState(a.state, severity(a.labels))} />
        <span class="grow">
          <strong>{a.name}</strong> <span class="quiet">{where(a.labels)}</span> <Marks a={a} /><br />
          <span class="summary">{a.annotations["summary"] || "No summary in the rule."}</span>
        </span>
        <span class="value"><b>{figure(a.value)}</b>{condition && <code>{condition}</code>}</span>
        <span class="end">{a.state === "resolved"
          ? <><When t={a.starts_at} /> <br /><span class="quiet">for {a.starts_at && a.ends_at ? duration((Date.parse(a.ends_at) - Date.parse(a.starts_at)) / 1000) : "a while"}</span></>
          : <><Ago t={a.since} suffix="" /> <br /><span class="quiet">since <When t={a.since} /></span></>}</span>
      </a>
    </li>
  );
}

const order = (a: Alert): number => (a.state === "firing" ? 0 : 10) + ({ critical: 0, warning: 2, info: 3 }[severity(a.labels)] ?? 1) + (a.silenced_by || a.inhibited ? 5 : 0);

type Tab = "now" | "over" | "silences";

function List({ list, rules, tab }: { list: AlertList; rules: RuleList | undefined; tab: Tab }) {
  const search = (use(route).query.get("search") ?? "").toLowerCase();
  const of = new Map(rules?.rules.map((r) => [r.group + "/" + r.name, r.condition]));
  const byName = new Map(rules?.rules.map((r) => [r.name, r.condition]));
  const all = tab === "now" ? [...list.alerts].sort((a, b) => order(a) - order(b) || Date.parse(b.since ?? "") - Date.parse(a.since ?? "")) : list.recent;
  const shown = search ? all.filter((a) => (a.name + " " + Object.entries(a.labels).map((l) => l.join("=")).join(" ") + " " + Object.values(a.annotations).join(" ")).toLowerCase().includes(search)) : all;
  if (shown.length === 0) {
    if (search && all.length > 0) return <NoMatch what="alert" all={"Show all " + count(all.length)} />;
    return tab === "now"
      ? <Empty title="No alert is firing or pending.">What has been is under <a href="#/alerts?tab=over">History</a>{unconfined() && <>; what is watched for, under <a href="#/rules">Rules</a></>}.</Empty>
      : <Empty icon="clock" title="No alert has ended yet.">The last 200 that are over will stand here.</Empty>;
  }
  return <First of={shown}>{(few) => <ul class="list alerts">{few.map((a) => <Row key={a.fingerprint + (a.starts_at ?? "") + a.state} a={a} condition={of.get(a.group + "/" + a.name) ?? byName.get(a.name) ?? ""} />)}</ul>}</First>;
}

export function Silences({ beat }: { beat: number }) {
  const load = useLoad<{ silences: Silence[] }>("api/v1/silences", 10_000, beat);
  const [ending, setEnding] = useState<Silence>();
  const rank: Record<string, number> = { active: 0, pending: 1, expired: 2 };
  return (
    <Shown load={load} what="Silences" rows={2}>{({ silences }) => silences.length === 0
      ? <Empty icon="bell" title="Nothing is silenced.">Open an alert and choose Silence, or start one with the button above, before maintenance.</Empty>
      : (
        <>
          <ul class="list">
            {silences.slice().sort((a, b) => (rank[a.state] ?? 3) - (rank[b.state] ?? 3)).map((s) => (
              <li key={s.id} class="plain-row">
                <State word={s.state === "active" ? "in force" : s.state === "pending" ? "to come" : "over"} tone={s.state === "active" ? "info" : "quiet"} icon={s.state === "expired" ? "clock" : "mute"} />
                <span class="grow"><Chips labels={s.match} /> <span class="summary">{s.comment || "No reason given."}</span> <span class="quiet">by {s.author}{s.ended_by && ", ended by " + s.ended_by}</span></span>
                <span class="end quiet">{s.state === "pending" ? <>from <When t={s.starts_at} /></> : <>until <When t={s.ends_at} /></>}</span>
                {s.state !== "expired" && may("operator") && <button type="button" onClick={() => setEnding(s)}>End now</button>}
              </li>
            ))}
          </ul>
          {ending && <Ask title="End this silence?" action="End it" close={() => setEnding(undefined)} act={async () => {
            await send("DELETE", "api/v1/silences/" + encodeURIComponent(ending.id));
            alertsChanged.value++;
            return "The silence has ended.";
          }}><p>Alerts that match <Chips labels={ending.match} /> are told again from now on.</p></Ask>}
        </>
      )}</Shown>
  );
}

export function Alerts() {
  const beat = use(alertsChanged);
  const load = useLoad<AlertList>("api/v1/alerts", 5000, beat);
  const rules = useLoad<RuleList>(unconfined() ? "api/v1/rules" : "", 60_000);
  const [silencing, setSilencing] = useState(false);
  const q = use(route).query;
  const asked = q.get("tab");
  const tab: Tab = asked === "over" || asked === "silences" ? asked : "now";
  const firing = load.data?.alerts.filter((a) => a.state === "firing").length;
  return (
    <>
      <Heading title="Alerts" note={firing === undefined ? " " : firing === 0 ? "Nothing is firing." : some(firing, "alert is", "alerts are") + " firing. Times are in " + zoneName() + "."}>
        {may("operator") && <button type="button" onClick={() => setSilencing(true)}><Icon name="mute" size={16} /> New silence</button>}
      </Heading>
      <div class="bar">
        <Choice label="Which" value={tab} choose={(v) => setQuery({ tab: v === "now" ? "" : v })} options={[
          ["now", <>Now{load.data && <b>{count(load.data.alerts.length)}</b>}</>], ["over", <>History{load.data && <b>{count(load.data.recent.length)}</b>}</>], ["silences", "Silences"],
        ]} />
        {tab !== "silences" && <Search what="alerts" hint="Search name, label, summary" />}
      </div>
      <Card>
        {tab === "silences" ? <Silences beat={beat} /> : <Shown load={load} what="Alerts">{(list) => <List list={list} rules={rules.data} tab={tab} />}</Shown>}
      </Card>
      {silencing && <SilenceDialog labels={{ alertname: "", device: "", site: "", severity: "" }} on={["device"]} close={() => setSilencing(false)} />}
    </>
  );
}
