// Giving up what waits for a destination: the last resort, for an administrator.
import { send } from "../api";
import { gatewayNow } from "../live";
import { Ask } from "../parts/dialog";
import type { Outbox } from "../types";
import { count, some } from "../words";

const ages = [["", "everything that waits"], ["1", "what is older than an hour"], ["24", "what is older than a day"], ["168", "what is older than a week"]] as const;

export function Purge({ o, unit, close, done }: { o: Outbox; unit: string; close: () => void; done: () => void }) {
  return (
    <Ask title={"Give up what waits for " + o.name + "?"} action="Give it up" danger close={close} act={async (form) => {
      const hours = Number(form.get("age"));
      const r = await send<{ points: number }>("POST", "api/v1/outboxes/" + encodeURIComponent(o.name) + "/purge", {
        before: hours ? new Date(gatewayNow() - hours * 3600_000).toISOString() : "", reason: String(form.get("reason")).trim(),
      });
      done();
      return some(r.points, unit) + " given up. The ledger lists the loss.";
    }}>
      <p><strong>{count(o.pending)}</strong> {o.pending === 1 ? unit + " waits" : unit + "s wait"}. What is given up is never sent to {o.name}: a loss, with your name and reason in the ledger and the audit list. The local history keeps its readings.</p>
      <label class="field">Give up<select name="age">{ages.map(([v, t]) => <option key={v} value={v}>{t}</option>)}</select></label>
      <label class="field">Why<input name="reason" required maxLength={200} placeholder="such as: the bucket was deleted" /></label>
    </Ask>
  );
}
