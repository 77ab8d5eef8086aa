// What the gateway answers; docs/http.md is the contract. Times are RFC 3339 text, "" or missing where not known.

export type Labels = Record<string, string>;

export interface Part { name: string; ok: boolean; detail: string }

export interface AlertNow { name: string; state: string; since?: string; value: number | null; labels: Labels; summary: string }

export interface Destination {
  name: string; type: string; state: string; pending: number; bytes: number; oldest?: string; delivered: number; quarantined: number;
  rate_per_second: number; eta_seconds: number; last_error: string; last_error_at?: string; last_success?: string;
}

export interface LedgerSource {
  source: string; messages: number; received: number; aggregated: number; duplicate: number; late: number; quarantined: number; imbalance: number;
}

export interface Status {
  gateway: string; version: string; started: string; now: string; uptime_seconds: number; ready: boolean; parts: Part[];
  messages: { received: number; rate_per_second: number; refused: number; uncovered: number };
  connections: number; devices: number; series: number; alerts: AlertNow[]; destinations: Destination[]; webhooks: Destination[];
  journal: { first: number; last: number; durable: number; bytes: number; error: string };
  ledger: { imbalance: number; lost?: number; sources: LedgerSource[] };
}

export interface Session {
  user: string; role: "viewer" | "operator" | "admin" | ""; scope: Labels; login_required: boolean; setup_required: boolean; demo: boolean;
  version: string; gateway: string; time_zone: string;
}

export type DeviceState = "online" | "silent" | "offline" | "unknown";

export interface Device {
  id: string; name: string; source: string; labels: Labels; state: DeviceState; first_seen?: string; last_seen?: string;
  rate_per_minute: number; interval_seconds: number; series: number; alerts: number;
}

export interface DeviceList { devices: Device[]; next: string; total: number; states: Record<DeviceState, number> }

export interface Series {
  name: string; measurement: string; metric: string; labels: Labels; unit: string; device: string; last: { time: string; value: number } | null;
}

export interface DeviceDetail extends Omit<Device, "series"> { series: Series[] }

export interface Sent { time: string; webhook: string; reason: string; status: string }

export interface Alert {
  fingerprint: string; name: string; group: string; state: string; since?: string; starts_at?: string; ends_at?: string;
  value: number | null; score: number; labels: Labels; annotations: Labels; silenced_by: string; inhibited: boolean;
  acknowledged: { author: string; comment: string; at: string } | null; flapping: boolean; firings: number; escalated: number;
  notifications: Sent[];
}

export interface AlertList { alerts: Alert[]; recent: Alert[] }

export interface Silence {
  id: string; state: string; match: Labels; starts_at: string; ends_at: string; created_at: string; author: string; comment: string; ended_by: string;
}

export interface RuleSeries {
  labels: Labels; state: string; fingerprint: string; since?: string; last_evaluation?: string; why: string; score?: number | null;
}

export interface Rule {
  name: string; group: string; file: string; line: number; condition: string; match?: Labels; clear?: string; for_seconds: number; keep_firing_for_seconds: number;
  labels: Labels; annotations: Labels; webhooks: string[] | null; state: string; pending: number; firing: number; matched: number;
  series: RuleSeries[];
}

export interface RuleList { rules: Rule[]; reload_error: string }

export interface Outbox extends Destination {
  kind: "destination" | "webhook"; max_bytes: number; when_full: string; head_moved_at?: string;
  tiers: { window: string; bytes: number; points: number }[] | null; shed_points: number; degraded_points: number; in_flight: number; rebuilds: number;
  bandwidth: {
    bytes_per_second: number; bytes_per_day: number; bytes_per_month: number; sent_today: number; sent_this_month: number;
    quiet: boolean; quiet_until?: string; paused_reason: string;
  } | null;
  forecast: {
    bytes_per_day_in: number; days_until_degrade: number | null; days_until_full: number | null; days_at_coarsest: number | null;
    coarsest: string; measured_over_seconds: number;
  } | null;
}

export interface QuarantineGroup { stage: string; reason: string; source: string; items: number; count: number; oldest?: string; newest?: string; example: string }

export interface QuarantineItem {
  id: string; time: string; stage: string; reason: string; detail: string; source: string; topic: string; payload: string; payload_bytes: number; points: string; count: number; destination: string;
}

export interface Quarantine { items: QuarantineItem[]; groups: QuarantineGroup[]; next: string; total: number; bytes: number; max_bytes: number }

export interface Ledger {
  imbalance: number; since?: string; lost: number; sources: LedgerSource[];
  destinations: { name: string; points: number; delivered: number; pending: number; degraded: number; shed: number; rejected: number; imbalance: number }[];
  losses: { time_from?: string; time_to?: string; source: string; destination: string; reason: string; count: number }[];
}

export interface Audit { entries: { time: string; author: string; role: string; op: string; detail: string; lsn: number }[]; next: string; total: number }

export interface Job<R = unknown> {
  id: string; kind: string; state: "running" | "done" | "failed"; done: number; total: number; unit: string; started?: string; ended?: string;
  error: string; result: R | null;
}

export interface Token {
  id: string; name: string; role: string; scope: Labels; created: string; expires: string; expired: boolean; created_by: string; last_used?: string;
}

export interface Demo { link: "up" | "down"; faults: { name: string; on: boolean; summary: string }[] }
