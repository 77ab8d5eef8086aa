package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/broker/passwd"
)

func newPasswdCommand() *cobra.Command {
	o := passwdOptions{}
	cmd := &cobra.Command{
		Use:   "passwd FILE USER",
		Short: "Add, change, delete or verify a user in a mosquitto password file, or in the console's users file",
		Long: "Adds USER to FILE, a password file in mosquitto's format, or gives the user a new password.\n" +
			"The password is asked for without echo; in scripts it is the first line of a file, or of standard input:\n\n" +
			"  sluice passwd -c /etc/sluice/passwd pump-7\n" +
			"  sluice passwd --password-file - /etc/sluice/passwd pump-7 < secret\n\n" +
			"With --console FILE is that of http.users_file: who may open the dashboard, in which role, and what they may see:\n\n" +
			"  sluice passwd --console /etc/sluice/console.users ann --role operator\n" +
			"  sluice passwd --console /etc/sluice/console.users tom --role viewer --scope site=plant-7\n\n" +
			"A running gateway reads the file again on SIGHUP.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.console {
				return o.runConsole(args[0], args[1], cmd.InOrStdin(), cmd.ErrOrStderr())
			}
			if o.role != "" || o.scope != "" {
				return fmt.Errorf("--role and --scope belong to --console: %w", errUsage)
			}
			return o.run(args[0], args[1], cmd.InOrStdin(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.create, "create", "c", false, "create FILE; refused when it exists")
	f.BoolVarP(&o.remove, "delete", "D", false, "delete USER")
	f.BoolVar(&o.verify, "verify", false, "tell whether the password is USER's: exit 0 when it is, 1 when not")
	f.StringVar(&o.passwordFile, "password-file", "", "read the password from the first line of this file; - is standard input")
	f.BoolVar(&o.console, "console", false, "FILE is the console's users file")
	f.StringVar(&o.role, "role", "", "with --console: viewer, operator or admin; who has a role keeps it without")
	f.StringVar(&o.scope, "scope", "", "with --console: what the user may see, as label=value,label=value; \"all\" for everything")
	cmd.MarkFlagsMutuallyExclusive("create", "delete", "verify")
	return cmd
}

type passwdOptions struct {
	create, remove, verify bool
	passwordFile           string
	console                bool
	role, scope            string
}

func (o *passwdOptions) run(path, user string, stdin io.Reader, prompt io.Writer) error {
	file, err := o.open(path)
	if err != nil {
		return err
	}
	if o.remove {
		if !file.Delete(user) {
			return fmt.Errorf("%s: no user %q", path, user)
		}
		return file.Save(path)
	}
	password, err := o.password(user, stdin, prompt)
	if err != nil {
		return err
	}
	if o.verify {
		if !file.Verify(user, password) {
			return fmt.Errorf("%s: this is not the password of user %q", path, user)
		}
		return nil
	}
	if err := file.Set(user, password); err != nil {
		return err
	}
	return file.Save(path)
}

func (o *passwdOptions) open(path string) (*passwd.File, error) {
	file, err := passwd.Load(path)
	switch {
	case o.create && err == nil:
		return nil, fmt.Errorf("%s exists: leave out -c to change it", path)
	case errors.Is(err, fs.ErrNotExist) && o.create:
		return passwd.New(), nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist: -c creates it", path)
	case err != nil:
		return nil, err
	}
	return file, nil
}

// maxPasswordLine is more than MQTT can carry.
const maxPasswordLine = 128 << 10

// password asks at the terminal, twice for a new one, or reads a first line.
func (o *passwdOptions) password(user string, stdin io.Reader, prompt io.Writer) ([]byte, error) {
	switch o.passwordFile {
	case "":
		terminal, ok := stdin.(*os.File)
		if !ok || !term.IsTerminal(int(terminal.Fd())) {
			return nil, fmt.Errorf("there is no terminal to ask for a password: use --password-file FILE, or - for standard input: %w", errUsage)
		}
		return ask(user, int(terminal.Fd()), prompt, !o.verify)
	case "-":
		return firstLine(stdin)
	}
	f, err := os.Open(o.passwordFile)
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	defer f.Close()
	return firstLine(f)
}

func ask(user string, fd int, prompt io.Writer, twice bool) ([]byte, error) {
	fmt.Fprintf(prompt, "Password of %s: ", user)
	first, err := term.ReadPassword(fd)
	fmt.Fprintln(prompt)
	if err != nil || !twice {
		return first, err
	}
	fmt.Fprint(prompt, "Again: ")
	second, err := term.ReadPassword(fd)
	fmt.Fprintln(prompt)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passwords differ; nothing was changed")
	}
	return first, nil
}

func firstLine(r io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPasswordLine)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read password: %w", err)
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, errors.New("read password: the first line is empty")
	}
	return line, nil
}
