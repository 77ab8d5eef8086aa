package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"sluice/gateway/console"
)

// runConsole does to a users file of the console what run does to one of the broker.
func (o *passwdOptions) runConsole(path, user string, stdin io.Reader, prompt io.Writer) error {
	users, err := o.openConsole(path)
	if err != nil {
		return err
	}
	if o.remove {
		if !users.Delete(user) {
			return fmt.Errorf("%s: no user %q", path, user)
		}
		return users.Save(path)
	}
	role, scope, err := o.rights(users, user)
	if err != nil {
		return err
	}
	password, err := o.password(user, stdin, prompt)
	if err != nil {
		return err
	}
	if o.verify {
		if !users.Verify(user, password) {
			return fmt.Errorf("%s: this is not the password of user %q", path, user)
		}
		return nil
	}
	if err := users.Set(user, role, password, scope); err != nil {
		return err
	}
	return users.Save(path)
}

func (o *passwdOptions) openConsole(path string) (*console.Users, error) {
	users, err := console.LoadUsers(path)
	switch {
	case o.create && err == nil:
		return nil, fmt.Errorf("%s exists: leave out -c to change it", path)
	case errors.Is(err, fs.ErrNotExist) && o.create:
		return console.NewUsers(), nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist: -c creates it", path)
	}
	return users, err
}

// rights are those that the flags give, or else those the user has.
func (o *passwdOptions) rights(users *console.Users, user string) (role console.Role, scope map[string]string, err error) {
	role, scope, known := users.Rights(user)
	if o.role != "" {
		if role, err = console.ParseRole(o.role); err != nil {
			return role, nil, fmt.Errorf("--%w: %w", err, errUsage)
		}
	} else if !known && !o.verify {
		return role, nil, fmt.Errorf("--role: a new user needs one: viewer, operator or admin: %w", errUsage)
	}
	switch o.scope {
	case "":
	case "all":
		scope = nil
	default:
		if scope, err = console.ParseScope(o.scope); err != nil {
			return role, nil, fmt.Errorf("--%w: %w", err, errUsage)
		}
	}
	return role, scope, nil
}
