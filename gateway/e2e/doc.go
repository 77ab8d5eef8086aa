// Package e2e holds the tests that drive the built gateway as a child process, with real clients, a real store and kill -9.
// It never imports the gateway: what it knows are config keys, HTTP paths, metric names and the point schema. The parts it
// is made of stand in sub-packages, each with tests of its own: wire (a raw MQTT client), store (a stand-in destination and
// VictoriaMetrics), hook (a webhook receiver), oracle (what the destination must hold) and proc (child processes).
//
// Environment: SLUICE_BINARY names a binary to test instead of building one; SLUICE_CRASH_KILLS the number of kills;
// SLUICE_CRASH_SEED repeats a run's choices.
package e2e
