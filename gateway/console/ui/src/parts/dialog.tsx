// Dialogs on the browser's own <dialog>, which keeps the focus inside and gives it back; and short messages at the page's edge.
import { signal, use } from "../store";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure } from "../api";
import { ownName, session } from "../session";
import type { Tone } from "../words";
import { Icon } from "./icon";

export function Dialog({ title, close, children, wide = false }: { title: string; close: () => void; children: ComponentChildren; wide?: boolean }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    box.current?.showModal();
    return () => before?.focus?.();
  }, []);
  return (
    <dialog ref={box} class={wide ? "wide" : ""} aria-labelledby="dialog-title" onClose={close}
      onClick={(e) => { if (e.target === box.current) close(); }}>
      <div class="dialog">
        <header><h2 id="dialog-title">{title}</h2><button type="button" class="plain" aria-label="Close" onClick={close}><Icon name="close" /></button></header>
        {children}
      </div>
    </dialog>
  );
}

/** A dialog that does one thing: what went wrong stays in it, and it closes when the thing is done. */
export function Ask({ title, action, danger = false, close, act, children }: {
  title: string; action: string; danger?: boolean; close: () => void; act: (form: FormData) => Promise<string | void>; children: ComponentChildren;
}) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (e: SubmitEvent) => {
    e.preventDefault();
    setBusy(true);
    setError("");
    try {
      const said = await act(new FormData(e.target as HTMLFormElement));
      if (said) say(said);
      close();
    } catch (x) {
      setError(x instanceof Failure ? x.message : String(x));
      setBusy(false);
    }
  };
  return (
    <Dialog title={title} close={close}>
      <form onSubmit={submit}>
        {children}
        {error && <p class="notice bad" role="alert"><Icon name="alert" size={16} /><span>{error}</span></p>}
        <footer>
          <button type="button" onClick={close}>Cancel</button>
          <button type="submit" class={danger ? "danger" : "primary"} disabled={busy}>{busy ? "One moment" : action}</button>
        </footer>
      </form>
    </Dialog>
  );
}

/** The field for who does it, where nobody logs in. */
export function Author() {
  if (session.value?.user) return null;
  return <label class="field">Your name<input name="author" autocomplete="name" maxLength={100} defaultValue={ownName.get()} placeholder="so that others know whom to ask" /></label>;
}

/** Whose name goes with the form; "" lets the gateway decide. */
export function author(form: FormData): string {
  const name = String(form.get("author") ?? "").trim();
  if (name) ownName.set(name);
  return name;
}

const said = signal<{ text: string; tone: Tone; n: number } | undefined>(undefined);
let n = 0;
/** Tells something that just happened. */
export function say(text: string, tone: Tone = "good") {
  const mine = ++n;
  said.value = { text, tone, n: mine };
  setTimeout(() => { if (said.value?.n === mine) said.value = undefined; }, 6000);
}

export function Said() {
  const s = use(said);
  return (
    <div class="said" role="status" aria-live="polite">
      {s && <p class={"notice " + s.tone} key={s.n}><Icon name={s.tone === "good" ? "ok" : "alert"} size={18} /><span>{s.text}</span>
        <button type="button" class="plain" aria-label="Dismiss" onClick={() => { said.value = undefined; }}><Icon name="close" size={16} /></button></p>}
    </div>
  );
}
