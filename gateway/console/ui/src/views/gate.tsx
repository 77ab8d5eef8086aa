// Before the dashboard: log in, set up the first user, or say that nothing answers.
import { useState } from "preact/hooks";
import { Failure } from "../api";
import { Icon } from "../parts/icon";
import { gate, gateWhy, login, readSession, setup } from "../session";
import { use } from "../store";

function Form({ first }: { first: boolean }) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (e: SubmitEvent) => {
    e.preventDefault();
    const f = new FormData(e.target as HTMLFormElement);
    const text = (name: string) => String(f.get(name) ?? "");
    if (first && text("password") !== text("again")) {
      setError("The two passwords differ.");
      return;
    }
    setBusy(true);
    setError("");
    try {
      await (first ? setup(text("token").trim(), text("user").trim(), text("password")) : login(text("user").trim(), text("password")));
    } catch (x) {
      setError(x instanceof Failure ? x.message : String(x));
    }
    setBusy(false);
  };
  return (
    <form onSubmit={submit}>
      <h1 id="title">{first ? "Set up this gateway" : "Log in"}</h1>
      {first && <p class="quiet">The gateway printed a one-time token when it started. Whoever has it makes the first administrator.</p>}
      {first && <label class="field">Set-up token<input name="token" required autocomplete="one-time-code" autofocus spellcheck={false} /></label>}
      <label class="field">User<input name="user" required autocomplete="username" autofocus={!first} autocapitalize="none" spellcheck={false} /></label>
      <label class="field">Password<input name="password" type="password" required minLength={first ? 8 : 1} autocomplete={first ? "new-password" : "current-password"} /></label>
      {first && <label class="field">Password again<input name="again" type="password" required autocomplete="new-password" /></label>}
      {error && <p class="notice bad" role="alert"><Icon name="alert" size={16} /><span>{error}</span></p>}
      <button type="submit" class="primary" disabled={busy}>{busy ? "One moment" : first ? "Create the administrator" : "Log in"}</button>
    </form>
  );
}

export function Gate() {
  const state = use(gate), why = use(gateWhy);
  return (
    <main class="gate">
      <div class="card">
        <p class="brand"><img src="icon.svg" alt="" width="30" height="30" /><span>sluice</span></p>
        {state === "failed"
          ? <div class="empty" role="alert"><Icon name="unplugged" size={28} /><h1 id="title">No answer</h1><p>{why}</p><p class="quiet">Check that the gateway runs and that this computer reaches it.</p><button type="button" class="primary" onClick={() => void readSession()}>Try again</button></div>
          : <Form key={state} first={state === "setup"} />}
      </div>
    </main>
  );
}
