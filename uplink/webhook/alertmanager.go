package webhook

// alertmanager renders n as the body of Alertmanager's webhook receiver, version 4:
// https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
// It depends on n alone and the keys of maps are in order, so every attempt has the same bytes.
func alertmanager(n *Notification) ([]byte, error) {
	b := make([]byte, 0, 512+384*len(n.Alerts))
	b = appendMember(b, '{', "receiver", n.Receiver)
	b = appendMember(b, ',', "status", n.Status)
	b = append(appendKey(b, ',', "alerts"), '[')
	for i := range n.Alerts {
		if i > 0 {
			b = append(b, ',')
		}
		b = n.Alerts[i].appendAlertmanager(b)
	}
	labels, annotations := n.common()
	b = appendMap(appendKey(append(b, ']'), ',', "groupLabels"), n.GroupLabels)
	b = appendMap(appendKey(b, ',', "commonLabels"), labels)
	b = appendMap(appendKey(b, ',', "commonAnnotations"), annotations)
	b = appendMember(b, ',', "externalURL", n.ExternalURL)
	b = appendMember(b, ',', "version", "4")
	b = appendMember(b, ',', "groupKey", n.GroupKey)
	return append(appendNumber(b, ',', "truncatedAlerts", 0), '}'), nil
}

func (a *Alert) appendAlertmanager(b []byte) []byte {
	b = appendMember(b, '{', "status", a.Status)
	b = appendMap(appendKey(b, ',', "labels"), a.Labels)
	b = appendMap(appendKey(b, ',', "annotations"), a.Annotations)
	b = appendTime(appendKey(b, ',', "startsAt"), a.StartsAt)
	b = appendTime(appendKey(b, ',', "endsAt"), a.EndsAt)
	b = appendMember(b, ',', "generatorURL", a.GeneratorURL)
	return append(appendMember(b, ',', "fingerprint", a.Fingerprint), '}')
}
