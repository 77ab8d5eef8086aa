package broker

import (
	"crypto/tls"
	"log/slog"
)

// ServerTLS is a configuration for a listener of another part of the program, with the same protocols and suites as the broker's own.
// Changed files count from the next handshake on; what cannot be read leaves those before in force.
func ServerTLS(t TLS, log *slog.Logger) (*tls.Config, error) {
	c, err := loadTLS(t)
	if err != nil || c == nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			changed, err := c.refresh(false)
			switch {
			case err != nil:
				log.Error("certificates not reloaded; those before stay in force", "cert_file", t.CertFile, "err", err)
			case changed:
				log.Info("certificates reloaded", "cert_file", t.CertFile)
			}
			return c.inUse.Load().config, nil
		},
	}, nil
}
