package console

// operation is what people have to say about a row; the rest comes from the row and its types.
type operation struct {
	summary string
	query   []parameter
	answer  string // media type of the answer where it is not JSON
	errors  []int  // beside those that follow from the row
}

// parameter is one of the query.
type parameter struct {
	name, description string
	enum              []string
	integer           bool
	repeat            bool
}

var (
	limitParameter  = parameter{name: "limit", description: "entries on a page, 1 to 1000; default 100", integer: true}
	cursorParameter = parameter{name: "cursor", description: "next of the answer before"}
	authorParameter = parameter{name: "author", description: "who, where nobody logs in"}
	deviceStateEnum = []string{"silent", "offline", "unknown", "online"}
	stageEnum       = []string{"decode", "time", "sink"}
)

// operations has a line for every row of the table but the pages.
var operations = map[string]operation{
	"GET /healthz": {summary: "Whether the process serves requests", answer: "text/plain"},
	"GET /readyz":  {summary: "Whether every part makes progress; 503 and the same body when one does not", errors: []int{503}},
	"GET /metrics": {summary: "Metrics in Prometheus' text format", answer: "text/plain"},

	"GET /api/openapi.json": {summary: "This document", answer: "application/json"},
	"GET /api/v1/status":    {summary: "How the gateway is, on one screen"},
	"GET /api/v1/session":   {summary: "Who asks, and what the page has to know first"},
	"POST /api/v1/login":    {summary: "Log in; the answer sets the session's cookie", errors: []int{401, 409, 429}},
	"POST /api/v1/logout":   {summary: "End the session"},
	"POST /api/v1/setup":    {summary: "Make the first administrator with the one-time token from the gateway's log", errors: []int{401, 409, 429}},
	"GET /api/v1/tokens":    {summary: "Bearer tokens, without their secrets"},
	"POST /api/v1/tokens":   {summary: "A new bearer token; its text is shown this once"},
	"DELETE /api/v1/tokens/{id}": {
		summary: "Revoke a token; what it watches ends at once", query: []parameter{authorParameter},
	},
	"GET /api/v1/audit": {summary: "What operators did, newest first", query: []parameter{limitParameter, cursorParameter}},

	"GET /api/v1/devices": {summary: "Devices, silent ones first", query: []parameter{
		{name: "search", description: "part of a name, measurement or label value, in any case"},
		{name: "state", description: "only those in this state", enum: deviceStateEnum},
		{name: "label", description: "only those with this label, name:value", repeat: true},
		{name: "sort", description: "silent (those that need a look first), name, or last_seen (newest first)", enum: []string{"silent", "name", "last_seen"}},
		limitParameter, cursorParameter,
	}},
	"GET /api/v1/devices/{id}": {summary: "One device with its series"},
	"GET /api/v1/series": {summary: "Series with their newest values; their history is in PromQL", query: []parameter{
		{name: "device", description: "only those of the device with this id"},
		{name: "search", description: "part of a metric's name, or of what devices are searched by"},
		limitParameter, cursorParameter,
	}},
	"GET /api/v1/events": {summary: "Server-sent events: status each second, alert on change, reading where asked for, resync when some are missing",
		answer: "text/event-stream", errors: []int{503}, query: []parameter{
			{name: "types", description: "only these, separated by commas: status, alert, reading"},
			{name: "readings", description: "readings of the device with this id, or all; at most one a series in 250 ms"},
			{name: "last_event_id", description: "as the header Last-Event-ID: go on after this event"},
		}},

	"GET /api/v1/alerts":                      {summary: "What is pending and firing, and the last 200 alerts that are over"},
	"POST /api/v1/alerts/{fingerprint}/ack":   {summary: "Somebody looks after a firing alert"},
	"DELETE /api/v1/alerts/{fingerprint}/ack": {summary: "Nobody does any more", query: []parameter{authorParameter}},
	"GET /api/v1/silences":                    {summary: "Silences in force, to come, and ended within the last day"},
	"POST /api/v1/silences":                   {summary: "A new silence, or another version of a known one"},
	"DELETE /api/v1/silences/{id}":            {summary: "End a silence now", query: []parameter{authorParameter}},
	"GET /api/v1/rules":                       {summary: "Every rule, and where it stands for each device"},
	"POST /api/v1/rules/reload":               {summary: "Read the rule files again", errors: []int{422, 503}},
	"POST /api/v1/rules/backtest":             {summary: "Replay the journal through rules: a job whose result says what would have fired", errors: []int{429}},
	"GET /api/v1/outboxes":                    {summary: "What waits for each destination and webhook"},
	"GET /api/v1/outboxes/{name}":             {summary: "One of them"},
	"POST /api/v1/outboxes/{name}/purge":      {summary: "Give up what waits; it becomes a loss in the ledger"},
	"GET /api/v1/quarantine": {summary: "What was refused, newest first", query: []parameter{
		{name: "stage", description: "where it was refused", enum: stageEnum},
		{name: "reason", description: "why"}, {name: "source", description: "of which source"}, {name: "destination", description: "by which destination"},
		{name: "search", description: "part of topic or detail"}, limitParameter, cursorParameter,
	}},
	"GET /api/v1/quarantine/{id}":    {summary: "One item, with all of its bytes"},
	"POST /api/v1/quarantine/replay": {summary: "Put items back on their way: a job", errors: []int{429}},
	"POST /api/v1/quarantine/delete": {summary: "Delete items for good"},
	"GET /api/v1/ledger": {summary: "Where every reading went", query: []parameter{
		{name: "since", description: "losses noted after this: a time, or how far back such as 24h"},
	}},
	"POST /api/v1/replay": {summary: "Send a time from the journal to a destination once more: a job", errors: []int{429}},
	"GET /api/v1/backup": {summary: "A consistent copy of the data directory", answer: "application/x-tar", query: []parameter{
		{name: "history", description: "with the local history", enum: []string{"true", "false"}},
	}},
	"GET /api/v1/demo":         {summary: "The stage of a demonstration; 404 in any other gateway"},
	"POST /api/v1/demo":        {summary: "Cut or restore the link, switch a fault, or give the script back the lead"},
	"GET /api/v1/jobs":         {summary: "Jobs that run and the last that ended, newest first"},
	"GET /api/v1/jobs/{id}":    {summary: "One job"},
	"DELETE /api/v1/jobs/{id}": {summary: "Cancel a job", query: []parameter{authorParameter}},
}

// enums are the words that fields take, by type and JSON name.
var enums = map[string][]string{
	"Device.state": deviceStateEnum, "Job.state": {"running", "done", "failed"}, "AlertDetail.state": {"pending", "firing", "resolved", "inactive"},
	"Alert.state": {"pending", "firing"}, "RuleDetail.state": {"inactive", "pending", "firing"}, "SeriesDetail.state": {"inactive", "pending", "firing"},
	"SilenceDetail.state": {"pending", "active", "expired"}, "SentDetail.reason": {"changed", "repeated", "escalated"},
	"SentDetail.status": {"firing", "resolved"}, "Destination.state": {"idle", "sending", "backing_off", "config_error", "disabled"},
	"Outbox.state": {"idle", "sending", "backing_off", "config_error", "disabled"}, "Outbox.kind": {"destination", "webhook"},
	"QuarantineItem.stage": stageEnum, "QuarantineGroup.stage": stageEnum, "DemoState.link": {"up", "down"},
}

// nullable are fields that JSON may hold null for though their Go type has no nil, or is a list.
var nullable = map[string]bool{"Alert.value": true, "RuleDetail.webhooks": true}
