package main

import (
	"os"
	"strings"
	"time"
)

// gatewayZone is the name of the zone that rules mean by hours and days: the configured one, else the machine's. A journal is folded
// under the zone it was written with, so the name is what the spec holds, never "Local". "" stands for UTC.
func gatewayZone(configured string) string {
	if configured != "" {
		return configured
	}
	if name, set := os.LookupEnv("TZ"); set {
		return loadable(strings.TrimPrefix(name, ":"))
	}
	target, err := os.Readlink("/etc/localtime")
	if err != nil {
		return ""
	}
	_, name, _ := strings.Cut(target, "zoneinfo/")
	return loadable(name)
}

// loadable returns name, or "" where no zone is called so.
func loadable(name string) string {
	if _, err := time.LoadLocation(name); err != nil || name == "Local" {
		return ""
	}
	return name
}
