// A job on the gateway, followed until it ends.
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure, get, send } from "./api";
import type { Job } from "./types";

export interface Followed<R> {
  job: Job<R> | undefined;
  error: string;
  busy: boolean;
  start: (path: string, body: unknown) => void;
  cancel: () => void;
}

/** ended is called once a job is done or has failed. */
export function useJob<R>(ended?: (job: Job<R>) => void): Followed<R> {
  const [job, setJob] = useState<Job<R>>();
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const gone = useRef(false);
  useEffect(() => () => { gone.current = true; clearTimeout(timer.current); }, []);

  const fail = (e: unknown) => {
    if (gone.current) return;
    setError(e instanceof Failure ? e.message : String(e));
    setBusy(false);
  };
  const follow = async (id: string, misses: number) => {
    try {
      const j = await get<Job<R>>("api/v1/jobs/" + encodeURIComponent(id));
      if (gone.current) return;
      setJob(j);
      if (j.state === "running") timer.current = setTimeout(() => void follow(id, 0), 250);
      else {
        setBusy(false);
        ended?.(j);
      }
    } catch (e) {
      if (e instanceof Failure && e.status === 0 && misses < 20) timer.current = setTimeout(() => void follow(id, misses + 1), 1000);
      else fail(e);
    }
  };
  return {
    job, error, busy,
    start: (path, body) => {
      setJob(undefined);
      setError("");
      setBusy(true);
      send<{ id: string }>("POST", path, body).then((c) => follow(c.id, 0), fail);
    },
    cancel: () => { if (job) send("DELETE", "api/v1/jobs/" + encodeURIComponent(job.id)).catch(fail); },
  };
}
