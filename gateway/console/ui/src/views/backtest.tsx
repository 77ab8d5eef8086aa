// What a rule would have done in the past: the gateway replays its journal through it.
import { useState } from "preact/hooks";
import type { Followed } from "../job";
import { Card, Progress, Table, When } from "../parts/bits";
import { Icon } from "../parts/icon";
import { Empty } from "../parts/states";
import { may } from "../session";
import type { Labels, Rule } from "../types";
import { count, duration, some } from "../words";

interface Stats {
  alert: string; for_ns: number; fired: number; inhibited: number; series: number; total_ns: number; longest_ns: number; flaps: number;
  first?: string; last?: string; firing_at_end: number;
}

export interface Fired { from: string; to: string; messages: number; damaged: number; trimmed: number; rules: (Stats & { changed?: Stats })[] | null }

const example = `groups:
  - name: trial
    rules:
      - alert: Trial
        expr: temperature > -10
        for: 1m
        labels: { severity: warning }
`;

const plain = (text: string): string => (/^[A-Za-z0-9_./ -]+$/.test(text) ? text : JSON.stringify(text));

/** A rule as it is in force, as far as the list tells, to start from. */
function asText(r: Rule | undefined): string {
  if (!r || /^(absent|anomaly): /.test(r.condition)) return example;
  const pairs = (l: Labels) => Object.entries(l).map(([k, v]) => plain(k) + ": " + JSON.stringify(v)).join(", ");
  const labels = pairs(r.labels);
  return "groups:\n  - name: trial\n    rules:\n      - alert: " + plain(r.name) + "\n        expr: " + JSON.stringify(r.condition) +
    (r.match && Object.keys(r.match).length > 0 ? "\n        match: { " + pairs(r.match) + " }" : "") + (r.clear ? "\n        clear: " + JSON.stringify(r.clear) : "") +
    (r.for_seconds > 0 ? "\n        for: " + r.for_seconds + "s" : "") + (labels ? "\n        labels: { " + labels + " }" : "") + "\n";
}

const seconds = (ns: number): string => duration(ns / 1e9);

function Outcome({ r }: { r: Fired }) {
  const rules = r.rules ?? [];
  const fired = rules.reduce((n, x) => n + x.fired, 0);
  const row = (s: Stats, changed: boolean) => (
    <tr key={s.alert + changed}>
      <th scope="row">{changed ? <span class="quiet">with for: {seconds(s.for_ns)}</span> : s.alert}</th>
      <td class="num">{count(s.fired)}</td><td class="num">{count(s.series)}</td><td class="num">{seconds(s.total_ns)}</td><td class="num">{seconds(s.longest_ns)}</td>
      <td class="num">{count(s.flaps)}</td><td><When t={s.first} /></td><td><When t={s.last} /></td><td class="num">{count(s.firing_at_end)}</td>
    </tr>
  );
  return (
    <Card title="What would have happened" id="outcome">
      <p><strong>{fired === 0 ? "Nothing would have fired" : "Alerts would have fired " + some(fired, "time")}</strong> between <When t={r.from} /> and <When t={r.to} />, over {some(r.messages, "message")}.
        {r.damaged > 0 && <> {some(r.damaged, "damaged record")} could not be read.</>}{r.trimmed > 0 && <> {count(r.trimmed)} had been released meanwhile.</>}</p>
      {rules.length > 0 && (
        <Table label="Outcome per rule" head={["Alert", "#Fired", "#Devices", "#In all", "#Longest", "#Flaps", "First", "Last", "#Still on"]}>
          {rules.flatMap((x) => [row(x, false), ...(x.changed ? [row(x.changed, true)] : [])])}
        </Table>
      )}
    </Card>
  );
}

export function Backtest({ job, rules, name }: { job: Followed<Fired>; rules: Rule[]; name: string }) {
  const [text, setText] = useState<string>();
  const [since, setSince] = useState("1d");
  const [hold, setHold] = useState("");
  const shown = text ?? asText(rules.find((r) => r.name === name));
  if (!may("operator")) return <Empty icon="user" title="Trying rules takes the role of an operator.">Ask an administrator for it.</Empty>;
  const failed = job.error || (job.job?.state === "failed" ? job.job.error || "It failed." : "");
  const start = (body: string) => job.start("api/v1/rules/backtest", { rules: body, since, for: hold.trim() });
  return (
    <>
      <Card title="Try a rule on the past" id="try">
        <p class="quiet">The gateway replays what devices sent through this text, beside its work; nothing is changed and nobody is told.</p>
        <label class="field">Rule file<textarea class="code" rows={10} spellcheck={false} value={shown} onInput={(e) => setText(e.currentTarget.value)} /></label>
        <div class="bar">
          <label class="inline">The last<select value={since} onChange={(e) => setSince(e.currentTarget.value)}>{[["1h", "hour"], ["6h", "6 hours"], ["1d", "day"], ["3d", "3 days"], ["7d", "7 days"], ["30d", "30 days"]].map(([v, t]) => <option key={v} value={v}>{t}</option>)}</select></label>
          <label class="inline">Also with for<input size={5} value={hold} placeholder="5m" onInput={(e) => setHold(e.currentTarget.value)} /></label>
          <button type="button" class="primary" disabled={job.busy} onClick={() => start(shown)}><Icon name="play" size={15} /> Try it</button>
          <button type="button" disabled={job.busy} onClick={() => start("")}>Try those in force</button>
          {job.busy && job.job && <button type="button" onClick={job.cancel}>Stop</button>}
        </div>
        {job.busy && <Progress done={job.job?.done ?? 0} total={job.job?.total ?? 0} label={job.job ? count(job.job.done) + " of " + count(job.job.total) + " " + (job.job.unit || "records") : "Starting"} />}
        {failed && <div class="notice bad" role="alert"><Icon name="alert" size={18} /><pre>{failed}</pre></div>}
      </Card>
      {job.job?.state === "done" && job.job.result && <Outcome r={job.job.result} />}
    </>
  );
}
