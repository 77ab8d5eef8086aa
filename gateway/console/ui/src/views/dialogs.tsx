// Acknowledge and silence: what an operator does about an alert.
import { useState } from "preact/hooks";
import { send } from "../api";
import { alertsChanged } from "../live";
import { Ask, Author, author } from "../parts/dialog";
import type { Alert, Labels } from "../types";
import { where } from "../verdict";

export function Acknowledge({ alert, close }: { alert: Alert; close: () => void }) {
  return (
    <Ask title={"Take over " + alert.name} action="Acknowledge" close={close} act={async (form) => {
      await send("POST", "api/v1/alerts/" + alert.fingerprint + "/ack", { author: author(form), comment: String(form.get("comment") ?? "") });
      alertsChanged.value++;
      return "Acknowledged: no repeats and no escalation until it resolves.";
    }}>
      <p>You look after <strong>{where(alert.labels) || alert.name}</strong>. It is not repeated and not escalated until it resolves; if it fires again later, it is told again.</p>
      <Author />
      <label class="field">What you do about it<textarea name="comment" rows={2} maxLength={500} /></label>
    </Ask>
  );
}

export async function unacknowledge(alert: Alert): Promise<void> {
  await send("DELETE", "api/v1/alerts/" + alert.fingerprint + "/ack");
  alertsChanged.value++;
}

const lengths = [["30m", "30 minutes"], ["2h", "2 hours"], ["8h", "8 hours"], ["24h", "1 day"], ["168h", "1 week"]] as const;

/** labels are offered to match on; those in on are ticked. */
export function SilenceDialog({ labels, on, close, done }: { labels: Labels; on: string[]; close: () => void; done?: () => void }) {
  const [match, setMatch] = useState<[string, string][]>(() => {
    const list = Object.entries(labels).filter(([k]) => on.includes(k));
    return list.length > 0 ? list : [["", ""]];
  });
  const change = (i: number, j: 0 | 1, text: string) => setMatch(match.map((m, n) => (n !== i ? m : j === 0 ? [text, labels[text] ?? m[1]] : [m[0], text])));
  return (
    <Ask title="Silence alerts" action="Silence" close={close} act={async (form) => {
      await send("POST", "api/v1/silences", {
        match: Object.fromEntries(match.filter(([k]) => k !== "")), duration: String(form.get("duration")), author: author(form), comment: String(form.get("comment") ?? ""),
      });
      alertsChanged.value++;
      done?.();
      return "Silenced. Alerts that match still show here, but nobody is told.";
    }}>
      <fieldset>
        <legend>Alerts with all of these labels; <code>*</code> and <code>?</code> stand for anything</legend>
        {match.map(([k, v], i) => (
          <div class="pair" key={i}>
            <input aria-label="Label" list="label-names" value={k} required placeholder="label" onInput={(e) => change(i, 0, e.currentTarget.value)} />
            <span>=</span>
            <input aria-label={"Value of " + (k || "the label")} value={v} required placeholder="value or pattern" onInput={(e) => change(i, 1, e.currentTarget.value)} />
            <button type="button" class="plain" aria-label={"Leave out " + (k || "this label")} disabled={match.length < 2} onClick={() => setMatch(match.filter((_, n) => n !== i))}>&times;</button>
          </div>
        ))}
        <datalist id="label-names">{Object.keys(labels).map((k) => <option key={k} value={k} />)}</datalist>
        <button type="button" onClick={() => setMatch([...match, ["", ""]])}>Another label</button>
      </fieldset>
      <label class="field">For<select name="duration" defaultValue="2h">{lengths.map(([v, text]) => <option key={v} value={v} selected={v === "2h"}>{text}</option>)}</select></label>
      <Author />
      <label class="field">Why<input name="comment" maxLength={500} placeholder="such as: maintenance of line 2" /></label>
    </Ask>
  );
}
