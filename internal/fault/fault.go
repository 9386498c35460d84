// Package fault is the shape of every error that a person reads: what failed,
// on which thing, and what to do now. Its kinds are what exit codes are made of.
package fault

import "fmt"

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

// KindOf is the kind of the outermost Error in err's tree that has one of its
// own; an error that pgsnap did not shape is Failed.
func KindOf(err error) Kind {
	if e := find(err, func(e *Error) bool { return e.Kind != Failed }); e != nil {
		return e.Kind
	}
	return Failed
}

// HintOf is the first remedy found in err's tree.
func HintOf(err error) string {
	if e := find(err, func(e *Error) bool { return e.Hint != "" }); e != nil {
		return e.Hint
	}
	return ""
}

// find returns the first Error that fits, looking at joined errors one after
// another. errors.As would stop at the first that does not fit, and never see
// those joined with it.
func find(err error, fits func(*Error) bool) *Error {
	if e, ok := err.(*Error); ok && fits(e) {
		return e
	}
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		return find(wrapper.Unwrap(), fits)
	case interface{ Unwrap() []error }:
		for _, joined := range wrapper.Unwrap() {
			if e := find(joined, fits); e != nil {
				return e
			}
		}
	}
	return nil
}
