// Only in the demo: cut the link and inject faults, and see what the gateway makes of it.
import { useState } from "preact/hooks";
import { send } from "../api";
import { useLoad } from "../load";
import { Card, Heading, State } from "../parts/bits";
import { say } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { Empty, Shown } from "../parts/states";
import { session } from "../session";
import type { Demo as Stage } from "../types";

function useStage() {
  const load = useLoad<Stage>("api/v1/demo", 2000);
  const [busy, setBusy] = useState(false);
  const set = async (change: { link?: "up" | "down"; fault?: { name: string; on: boolean } }) => {
    setBusy(true);
    try {
      await send("POST", "api/v1/demo", change);
      load.again();
    } catch (e) {
      say((e as Error).message, "bad");
    }
    setBusy(false);
  };
  return { load, busy, set };
}

function LinkSwitch({ stage, busy, set }: { stage: Stage; busy: boolean; set: (c: { link: "up" | "down" }) => Promise<void> }) {
  const down = stage.link === "down";
  return (
    <>
      <State {...(down ? { word: "link cut", tone: "warn", icon: "unplugged" } : { word: "link up", tone: "good", icon: "ok" })} />
      <button type="button" class={down ? "primary" : ""} disabled={busy} onClick={() => void set({ link: down ? "up" : "down" })}>{down ? "Restore the link to the cloud" : "Cut the link to the cloud"}</button>
    </>
  );
}

/** The switch, on the overview. */
export function DemoStrip() {
  const { load, busy, set } = useStage();
  if (!load.data) return null;
  return (
    <section class="demo-strip" aria-label="Demo">
      <Icon name="demo" size={18} /><p>This is a demo with simulated devices.</p>
      <LinkSwitch stage={load.data} busy={busy} set={set} />
      <a href="#/demo">{load.data.faults.length > 0 ? "Break a device" : "Demo panel"}</a>
    </section>
  );
}

export function Demo() {
  const { load, busy, set } = useStage();
  if (!session.value?.demo) return <Empty icon="demo" title="This is no demo.">Run <code>sluice demo</code> for one.</Empty>;
  return (
    <>
      <Heading title="Demo" note="Break things on purpose. The overview says what the gateway makes of it." />
      <Shown load={load} what="The demo panel">{(stage) => (
        <div class="columns">
          <div>
            <Card title="The link to the cloud" id="link">
              <p>Cut it: windows pile up on disk. Restore it: they leave in order, and nothing is lost.</p>
              <p class="bar"><LinkSwitch stage={stage} busy={busy} set={set} /></p>
              <p><a href="#/uplink">Watch the uplink</a> · <a href="#/ledger">Check the ledger</a></p>
            </Card>
          </div>
          <div>
            <Card title="Faults of devices" id="faults">
              {stage.faults.length === 0 ? <Empty icon="device" title="These devices never misbehave." /> : (
                <ul class="list">
                  {stage.faults.map((f) => (
                    <li key={f.name} class="plain-row">
                      <span class="grow"><strong>{f.name}</strong><br /><span class="summary">{f.summary}</span></span>
                      <button type="button" role="switch" aria-checked={f.on} aria-label={f.name} class="switch" disabled={busy} onClick={() => void set({ fault: { name: f.name, on: !f.on } })}><span>{f.on ? "on" : "off"}</span></button>
                    </li>
                  ))}
                </ul>
              )}
              <p><a href="#/alerts">See the alerts</a></p>
            </Card>
          </div>
        </div>
      )}</Shown>
    </>
  );
}
