// Package fault is the shape of every error that a person reads: what failed,
// on which thing, and what to do now. Its kinds are what exit codes are made of.
package fault

import (
	"errors"
	"fmt"
)

// Kind says whose move is next, and so which exit code a command ends with.
type Kind int

const (
	// Failed is any failure that has no kind of its own.
	Failed Kind = iota
	// Usage is a wrong command line or configuration.
	Usage
	// Server is a PostgreSQL server that is down, refuses, or can't do what was asked.
	Server
	// Storage is a snapshot, a file system or the catalog that failed or is full.
	Storage
	// NotFound is a backup, cluster or snapshot that does not exist.
	NotFound
	// Busy is something in use by somebody else: a running take, a mounted clone.
	Busy
)

// Error is an error with its kind and the remedy.
type Error struct {
	Kind Kind
	// Message says what failed, on which thing.
	Message string
	// Hint says what to do now; it may be empty where Message says it all.
	Hint string
	// Err is the cause; it may be nil.
	Err error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	if e.Message == "" {
		return e.Err.Error()
	}
	return e.Message + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// New returns an error of a kind, without a cause.
func New(kind Kind, hint, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Wrap gives err a kind, the thing it happened on and a remedy; nil stays nil.
func Wrap(err error, kind Kind, hint, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Hint: hint, Err: err}
}

// KindOf is the kind of the outermost Error in err's chain that has one of its
// own; an error that pgsnap did not shape is Failed.
func KindOf(err error) Kind {
	for {
		var e *Error
		if !errors.As(err, &e) {
			return Failed
		}
		if e.Kind != Failed {
			return e.Kind
		}
		err = e.Err
	}
}

// HintOf is the first remedy found in err's chain.
func HintOf(err error) string {
	for {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
}
