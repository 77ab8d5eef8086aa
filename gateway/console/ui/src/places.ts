// The views there are, and who sees them. What somebody may not see is not offered; the gateway refuses it anyway.
import { may, session, unconfined } from "./session";

export interface Place { key: string; name: string; icon: string; letter: string; hint?: string }

interface Entry extends Place { open?: () => boolean }

const places: Entry[] = [
  { key: "", name: "Overview", icon: "overview", letter: "o" },
  { key: "alerts", name: "Alerts", icon: "bell", letter: "a" },
  { key: "devices", name: "Devices", icon: "device", letter: "d" },
  { key: "uplink", name: "Uplink", icon: "uplink", letter: "u", open: unconfined },
  { key: "quarantine", name: "Quarantine", icon: "quarantine", letter: "q", open: unconfined },
  { key: "rules", name: "Rules", icon: "rules", letter: "r", open: unconfined },
  { key: "ledger", name: "Ledger", icon: "ledger", letter: "l", open: unconfined },
  { key: "audit", name: "Audit", icon: "audit", letter: "h", hint: "Audit (history of operations)", open: unconfined },
  { key: "tokens", name: "API tokens", icon: "token", letter: "t", open: () => unconfined() && may("admin") },
  { key: "demo", name: "Demo", icon: "demo", letter: "e", open: () => !!session.value?.demo },
];

/** The views that whoever sits before the page may see. */
export const openPlaces = (): Place[] => places.filter((p) => p.open?.() ?? true);
