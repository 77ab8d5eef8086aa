// What is watched for: where each rule stands for each device, and what another rule would have done.
import { useState } from "preact/hooks";
import { send } from "../api";
import { useJob } from "../job";
import { alertsChanged } from "../live";
import { useLoad } from "../load";
import { Ago, Card, Chips, Choice, First, Heading, Mark, Search, State, Table } from "../parts/bits";
import { say } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { Empty, NoMatch, Shown } from "../parts/states";
import { route, setQuery, to } from "../route";
import { may } from "../session";
import { use } from "../store";
import type { Rule, RuleList, RuleSeries } from "../types";
import { severity } from "../verdict";
import { alertState, count, duration, figure, some } from "../words";
import { Backtest, type Fired } from "./backtest";

function SeriesTable({ list, anomaly }: { list: RuleSeries[]; anomaly: boolean }) {
  return (
    <First of={list}>{(few) => <Table label="State per device" head={["State", "Device", "What it saw", ...(anomaly ? ["#Score"] : []), "Since", "Last reading"]}>
          {few.map((s, i) => (
            <tr key={i}>
              <td>{s.state !== "inactive" && s.fingerprint ? <a href={to("alerts", s.fingerprint)}><State {...alertState(s.state)} /></a> : <State {...alertState(s.state)} />}</td>
              <td><Chips labels={s.labels} without={["gateway", "alertname", "severity"]} /></td>
              <td class="why">{s.why}</td>
              {anomaly && <td class="num">{s.score === null || s.score === undefined ? "\u2013" : figure(s.score)}</td>}
              <td>{s.since ? <Ago t={s.since} suffix="" /> : "\u2013"}</td>
              <td><Ago t={s.last_evaluation} /></td>
            </tr>
          ))}
    </Table>}</First>
  );
}

function One({ r, open }: { r: Rule; open: boolean }) {
  const anomaly = r.series.some((s) => s.score !== undefined && s.score !== null && s.score !== 0) || r.condition.includes("anomaly");
  const state = r.matched === 0 ? { word: "no device", tone: "quiet" as const, icon: "unknown" } : alertState(r.state, severity(r.labels));
  return (
    <li class={open ? "opened" : ""}>
      <a href={open ? "#/rules" : to("rules", r.name)} aria-expanded={open}>
        <State {...state} />
        <span class="grow"><strong>{r.name}</strong> {severity(r.labels) && <Mark tone={severity(r.labels) === "critical" ? "bad" : severity(r.labels) === "warning" ? "warn" : "info"}>{severity(r.labels)}</Mark>}<br /><code class="break">{r.condition}</code></span>
        <span class="end quiet">{r.firing > 0 && <><b class="bad">{count(r.firing)} firing</b>, </>}{r.pending > 0 && count(r.pending) + " pending, "}{some(r.matched, "device")}</span>
        <Icon name={open ? "down" : "right"} size={16} />
      </a>
      {open && (
        <div class="inside">
          <dl class="facts">
            <div><dt>File</dt><dd><code class="break">{r.file}:{r.line}</code></dd></div>
            <div><dt>Group</dt><dd>{r.group}</dd></div>
            <div><dt>Must last</dt><dd>{r.for_seconds > 0 ? duration(r.for_seconds) : "no time"}</dd></div>
            {r.keep_firing_for_seconds > 0 && <div><dt>Held for</dt><dd>{duration(r.keep_firing_for_seconds)}</dd></div>}
            <div><dt>Tells</dt><dd>{r.webhooks === null ? "every webhook" : r.webhooks.join(", ") || "nobody"}</dd></div>
          </dl>
          <Chips labels={r.labels} />
          {r.series.length === 0
            ? <p class="notice info"><Icon name="info" size={16} /><span>No device matches this rule yet. Check its <code>match</code> and the metric's name against a <a href="#/devices">device</a>.</span></p>
            : <><SeriesTable list={r.series} anomaly={anomaly} />{r.matched > r.series.length && <p class="quiet">The {r.series.length} most pressing of {count(r.matched)} devices.</p>}</>}
          <p><a href={"#/rules/" + encodeURIComponent(r.name) + "?tab=test"}>Try it against the past</a></p>
        </div>
      )}
    </li>
  );
}

export function Rules({ name }: { name: string }) {
  const load = useLoad<RuleList>("api/v1/rules", 5000, use(alertsChanged));
  const q = use(route).query;
  const tab = q.get("tab") === "test" ? "test" : "list";
  const search = (q.get("search") ?? "").toLowerCase();
  const [reloading, setReloading] = useState(false);
  // Here, so that a test under way is not lost when somebody looks at the list.
  const job = useJob<Fired>();
  const reload = async () => {
    setReloading(true);
    try {
      await send("POST", "api/v1/rules/reload");
      say("The rule files were read again.");
    } catch (e) {
      say((e as Error).message, "bad");
    }
    setReloading(false);
    load.again();
  };
  return (
    <>
      <Heading title="Rules" note={load.data ? some(load.data.rules.length, "rule") + ", " + count(load.data.rules.filter((r) => r.state === "firing").length) + " firing" : " "}>
        {may("operator") && <button type="button" disabled={reloading} onClick={() => void reload()}><Icon name="retry" size={16} /> Read files again</button>}
      </Heading>
      <div class="bar">
        <Choice label="What" value={tab} choose={(v) => setQuery({ tab: v === "list" ? "" : v })} options={[["list", "In force"], ["test", "Try a rule on the past"]]} />
        {tab === "list" && <Search what="rules" hint="Search name or condition" />}
      </div>
      {load.data?.reload_error && <p class="notice bad" role="alert"><Icon name="alert" size={18} /><span>The rule files could not be taken; those from before stay in force. {load.data.reload_error}</span></p>}
      {tab === "test" ? <Backtest job={job} rules={load.data?.rules ?? []} name={name} /> : (
        <Shown load={load} what="Rules">{({ rules }) => {
          const shown = search ? rules.filter((r) => (r.name + " " + r.group + " " + r.condition).toLowerCase().includes(search)) : rules;
          if (rules.length === 0) return <Empty icon="rules" title="No rule is loaded.">Name rule files under <code>rules.files</code> in the configuration, or <a href="#/rules?tab=test">try one on the past</a> first.</Empty>;
          if (shown.length === 0) return <NoMatch what="rule" />;
          const groups = [...new Set(shown.map((r) => r.group))];
          return groups.map((g) => <Card key={g} title={g} id={"group-" + g}><ul class="list rules">{shown.filter((r) => r.group === g).map((r) => <One key={r.file + r.line + r.name} r={r} open={r.name === name} />)}</ul></Card>);
        }}</Shown>
      )}
    </>
  );
}
