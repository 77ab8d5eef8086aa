// Reading one path for as long as a view shows it: at once from memory where it was read before, then again every so often while there is
// a connection and somebody looks.
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure, get } from "./api";
import { link } from "./live";
import { expired } from "./session";

export interface Loaded<T> {
  data: T | undefined;
  error: Failure | undefined; // of the last question; data may be there from before
  loading: boolean; // nothing to show yet
  again: () => void;
}

const memory = new Map<string, unknown>();
const remembered = 40;

function remember(path: string, data: unknown) {
  memory.delete(path);
  memory.set(path, data);
  if (memory.size > remembered) memory.delete(memory.keys().next().value!);
}

/** Reads path, "" for nothing. every: ms between questions, 0: once. beat: asks again when it changes. */
export function useLoad<T>(path: string, every = 0, beat = 0): Loaded<T> {
  const [, redraw] = useState(0);
  const state = useRef<{ path: string; data?: T; error?: Failure }>({ path: "" });
  const askNow = useRef<() => void>(() => {});
  if (state.current.path !== path) {
    state.current = { path, data: memory.get(path) as T | undefined };
  }
  useEffect(() => {
    if (!path) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let busy = false;
    const ask = async () => {
      if (busy) return;
      busy = true;
      clearTimeout(timer);
      try {
        const data = await get<T>(path, abort.signal);
        remember(path, data);
        if (!abort.signal.aborted) state.current = { path, data };
      } catch (e) {
        if (abort.signal.aborted) return;
        const failure = e instanceof Failure ? e : new Failure(0, "No answer", String(e));
        if (failure.status === 401) expired();
        state.current = { path, data: state.current.data, error: failure };
      } finally {
        busy = false;
      }
      if (abort.signal.aborted) return;
      redraw((n) => n + 1);
      if (every) timer = setTimeout(due, every);
    };
    const due = () => {
      if (document.hidden || link.value === "lost") timer = setTimeout(due, 1000);
      else void ask();
    };
    askNow.current = () => void ask();
    void ask();
    const unwatch = link.follow(() => {
      if (link.value !== "lost" && state.current.error) void ask();
    });
    return () => {
      abort.abort();
      clearTimeout(timer);
      unwatch();
    };
  }, [path, every, beat]);
  const { data, error } = state.current;
  return { data, error, loading: data === undefined && error === undefined, again: () => askNow.current() };
}
