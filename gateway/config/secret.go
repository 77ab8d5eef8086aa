package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// maxSecretBytes bounds a secret file: tokens and keys are short, and a path to a device must not fill the memory.
const maxSecretBytes = 64 << 10

// Secret is a token or key. It prints, logs and marshals as [redacted]; Reveal gives it away.
type Secret struct{ text string }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return s.text }

// Empty tells whether there is none.
func (s Secret) Empty() bool { return s.text == "" }

const redacted = "[redacted]"

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// ReadSecret reads the file that a *_file key names, without one trailing line break. A file that everyone on the machine
// can read is refused, and so are an empty one and one beyond 64 KiB.
func ReadSecret(path string) (Secret, error) {
	if err := checkSecretFile(path); err != nil {
		return Secret{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %w", err)
	}
	if len(data) > maxSecretBytes {
		return Secret{}, fmt.Errorf("read secret %s: longer than %d bytes", path, maxSecretBytes)
	}
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
		if n > 1 && data[n-2] == '\r' {
			data = data[:n-2]
		}
	}
	if len(data) == 0 {
		return Secret{}, fmt.Errorf("read secret %s: the file is empty", path)
	}
	return Secret{string(data)}, nil
}

// checkSecretFile refuses what is no plain file or what others can read.
func checkSecretFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return pathError(path, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a plain file", path)
	}
	if info.Mode().Perm()&0o004 != 0 {
		return fmt.Errorf("%s can be read by every user of this machine (mode %04o): run chmod 0600 %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// pathError shortens what the operating system says to one line that names the file once.
func pathError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s cannot be read by this user", path)
	}
	return err
}

// resolve makes a path of the file absolute: a systemd credential of that name wins over the directory of the file.
func resolve(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	if creds := os.Getenv("CREDENTIALS_DIRECTORY"); creds != "" {
		if at := filepath.Join(creds, path); filepath.IsLocal(path) {
			if _, err := os.Stat(at); err == nil {
				return at
			}
		}
	}
	return filepath.Join(dir, path)
}
