#!/bin/sh
# Runs the client tests of eclipse/paho.mqtt.testing, which this repository does not hold, against the built gateway:
#
#   git clone https://github.com/eclipse/paho.mqtt.testing
#   broker/conformance.sh paho.mqtt.testing/interoperability
#
# Needs Go and Python 3. SLUICE names a binary to use instead of building one. Exits 0 when the results are those recorded in
# docs/mqtt-conformance.md: 10 of 10 for MQTT 3.1.1, at least 26 of 27 for MQTT 5.
set -eu
suite=${1:?usage: conformance.sh FOLDER with client_test.py and client_test5.py}
suite=$(cd "$suite" && pwd)
[ -f "$suite/client_test5.py" ] || { echo "no client_test5.py in $suite" >&2; exit 2; }
cd "$(dirname "$0")/.."
work=$(mktemp -d)
gateway=
trap '[ -z "$gateway" ] || kill "$gateway" 2>/dev/null; wait 2>/dev/null || true; rm -rf "$work"' EXIT
sluice=${SLUICE:-$work/sluice}
[ -n "${SLUICE:-}" ] || CGO_ENABLED=0 ${GO:-go} build -o "$sluice" ./gateway

# The suite wants one topic that nobody may subscribe to.
cat >"$work/acl" <<ACL
topic readwrite #
topic read \$SYS/#
topic readwrite \$client_test5/#
topic readwrite \$TopicA/#
topic deny test/nosubscribe
ACL
chmod 600 "$work/acl"
port=${PORT:-18830}
cat >"$work/sluice.yaml" <<YAML
gateway: { id: conformance, data_dir: $work/data }
mqtt:
  listeners: [ { address: "127.0.0.1:$port" } ]
  allow_anonymous: true
  acl_file: $work/acl
  limits: { takeovers: 0 }
http: { address: "" }
YAML
"$sluice" run --config "$work/sluice.yaml" >"$work/log" 2>&1 &
gateway=$!
for _ in $(seq 100); do
	python3 -c "import socket; socket.create_connection(('127.0.0.1', $port)).close()" 2>/dev/null && break
	kill -0 "$gateway" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
	sleep 0.1
done

# count RUN FAILED of a unittest log.
count() {
	awk '/^Ran [0-9]+ test/ { ran = $2 }
		/^FAILED/ { while (match($0, /(failures|errors)=[0-9]+/)) { split(substr($0, RSTART, RLENGTH), p, "="); bad += p[2]; $0 = substr($0, RSTART + RLENGTH) } }
		END { print ran + 0, bad + 0 }' "$1"
}
status=0
run() {
	name=$1 want=$2 file=$3
	# As their main would, which stumbles over its own arguments.
	(cd "$suite" && timeout 600 python3 - "$file" "$port" >"$work/$name.log" 2>&1 <<'PYTHON'
import importlib, sys, unittest
sys.path.insert(0, ".")
name, port = sys.argv[1], int(sys.argv[2])
suite = importlib.import_module(name)
prefix = "client_test5/" if name == "client_test5" else ""
suite.host, suite.port, suite.topic_prefix = "127.0.0.1", port, prefix
suite.topics = [prefix + t for t in ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")]
suite.wildtopics = [prefix + t for t in ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")]
suite.nosubscribe_topics = ("test/nosubscribe",)
unittest.main(module=suite, argv=[name])
PYTHON
	) || true
	set -- $(count "$work/$name.log")
	passed=$(($1 - $2))
	echo "$name: $passed of $1 passed, want $want"
	grep -E '^(FAIL|ERROR): ' "$work/$name.log" || true
	[ "$passed" -ge "$want" ] || { status=1; [ -z "${VERBOSE:-}" ] || cat "$work/$name.log"; }
}
run mqtt3.1.1 10 client_test
run mqtt5 26 client_test5
kill -0 "$gateway" || { echo "the gateway ended: $(tail -5 "$work/log")" >&2; status=1; }
exit $status
