// Bearer tokens for programs: who has one, until when, and for what; made here and shown once.
import { useState } from "preact/hooks";
import { send } from "../api";
import { useLoad } from "../load";
import { Ago, Card, Chips, Heading, Mark, Table, When } from "../parts/bits";
import { Ask, Dialog, say } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { Empty, Shown } from "../parts/states";
import type { Token } from "../types";
import { some } from "../words";

const lengths = [["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["365d", "1 year"], ["1825d", "5 years"]] as const;

/** "site=plant-7, line=2" as labels. */
export function scopeOf(text: string): Record<string, string> {
  const pairs = text.split(",").map((p) => p.trim()).filter(Boolean).map((p) => {
    const at = p.indexOf("=");
    if (at < 1 || at === p.length - 1) throw new Error("Sees only: want label=value, not " + p + ".");
    return [p.slice(0, at).trim(), p.slice(at + 1).trim()] as const;
  });
  return Object.fromEntries(pairs);
}

function Add({ close, made }: { close: () => void; made: (t: Token & { token: string }) => void }) {
  return (
    <Ask title="Make a token" action="Make it" close={close} act={async (form) => {
      const text = (name: string) => String(form.get(name) ?? "").trim();
      made(await send("POST", "api/v1/tokens", { name: text("name"), role: text("role"), scope: scopeOf(text("scope")), expires_in: text("expires") }));
    }}>
      <label class="field">What it is for<input name="name" required maxLength={100} placeholder="such as: Grafana" /></label>
      <label class="field">It may<select name="role"><option value="viewer">read (viewer)</option><option value="operator">acknowledge, silence, replay too (operator)</option><option value="admin">do everything (admin)</option></select></label>
      <label class="field">It sees only<input name="scope" maxLength={500} placeholder="everything, or such as: site=plant-7" autocapitalize="none" spellcheck={false} /></label>
      <label class="field">Good for<select name="expires">{lengths.map(([v, t]) => <option key={v} value={v} selected={v === "90d"}>{t}</option>)}</select></label>
    </Ask>
  );
}

function Once({ made, close }: { made: Token & { token: string }; close: () => void }) {
  return (
    <Dialog title={"The token of " + made.name} close={close}>
      <p class="notice warn"><Icon name="alert" size={16} /><span>Copy it now: it is not kept and cannot be shown again.</span></p>
      <pre class="raw" tabIndex={0} aria-label="Token">{made.token}</pre>
      <p class="quiet">Programs send it as <code>Authorization: Bearer …</code>. It ends <When t={made.expires} />.</p>
      <footer>
        {"clipboard" in navigator && <button type="button" class="primary" onClick={() => { navigator.clipboard.writeText(made.token).then(() => say("Copied."), () => say("The browser did not let the page copy it.", "bad")); }}>Copy</button>}
        <button type="button" onClick={close}>Done</button>
      </footer>
    </Dialog>
  );
}

export function Tokens() {
  const load = useLoad<{ tokens: Token[] }>("api/v1/tokens", 10_000);
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState<Token & { token: string }>();
  const [ending, setEnding] = useState<Token>();
  return (
    <>
      <Heading title="API tokens" note="For programs such as Grafana or a script, which cannot log in.">
        {load.data && <button type="button" class="primary" onClick={() => setAdding(true)}><Icon name="token" size={16} /> Make a token</button>}
      </Heading>
      <Card>
        <Shown load={load} what="The list of tokens">{({ tokens }) => tokens.length === 0
          ? <Empty icon="token" title="There is no token.">Make one for each program, with the least it needs; then it can be revoked alone.</Empty>
          : (
            <>
              <Table label="Tokens" head={["Name", "It may", "It sees", "Ends", "Last used", "Made", <span class="unseen">Revoke</span>]}>{tokens.map((t) => (
                <tr key={t.id}>
                  <th scope="row">{t.name} <span class="quiet mono">{t.id}</span></th>
                  <td><Mark tone={t.role === "admin" ? "warn" : "quiet"}>{t.role}</Mark></td>
                  <td>{Object.keys(t.scope).length > 0 ? <Chips labels={t.scope} /> : "everything"}</td>
                  <td>{t.expired ? <Mark tone="bad" icon="clock">expired</Mark> : <When t={t.expires} />}</td>
                  <td>{t.last_used ? <Ago t={t.last_used} /> : <span class="quiet">not since the start</span>}</td>
                  <td><When t={t.created} /> <span class="quiet">by {t.created_by || "nobody"}</span></td>
                  <td class="num"><button type="button" onClick={() => setEnding(t)} aria-label={"Revoke " + t.name}>Revoke</button></td>
                </tr>
              ))}</Table>
              <p class="more-line quiet">{some(tokens.length, "token")}</p>
            </>
          )}</Shown>
      </Card>
      {adding && <Add close={() => setAdding(false)} made={(t) => { setMade(t); load.again(); }} />}
      {made && <Once made={made} close={() => setMade(undefined)} />}
      {ending && <Ask title={"Revoke " + ending.name + "?"} action="Revoke it" danger close={() => setEnding(undefined)} act={async () => {
        await send("DELETE", "api/v1/tokens/" + encodeURIComponent(ending.id));
        load.again();
        return "Revoked: it is refused from now on.";
      }}><p>Whatever uses it is refused at once, streams included. That cannot be undone; a new token can be made.</p></Ask>}
    </>
  );
}
