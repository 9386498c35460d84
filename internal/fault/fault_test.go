package fault_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"pgsnap/internal/fault"
)

func TestText(t *testing.T) {
	cause := errors.New("no space left on device")
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"no cause":         {fault.New(fault.Busy, "wait", "backup %s is in use", "b1"), "backup b1 is in use"},
		"cause":            {fault.Wrap(cause, fault.Storage, "free space", "catalog %s", "/c"), "catalog /c: no space left on device"},
		"no message":       {fault.Wrap(cause, fault.Usage, "look at --help", ""), "no space left on device"},
		"percent in cause": {fault.Wrap(errors.New("100% full"), fault.Storage, "", "pool"), "pool: 100% full"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.err.Error(); got != test.want {
				t.Errorf("says %q, want %q", got, test.want)
			}
		})
	}
}

func TestWrapNothing(t *testing.T) {
	if err := fault.Wrap(nil, fault.Server, "hint", "message"); err != nil {
		t.Errorf("wrapping no error gave %v", err)
	}
}

func TestCauseIsFound(t *testing.T) {
	err := fault.Wrap(fmt.Errorf("deeper: %w", fs.ErrNotExist), fault.Storage, "", "read")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not lead to its cause", err)
	}
}

func TestKindOf(t *testing.T) {
	plain := errors.New("plain")
	failed := fault.New(fault.Failed, "", "failed")
	server := fault.New(fault.Server, "", "server")
	storage := fault.New(fault.Storage, "", "storage")
	for name, test := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"nil":                       {nil, fault.Failed},
		"not pgsnap's":              {plain, fault.Failed},
		"itself":                    {server, fault.Server},
		"below fmt":                 {fmt.Errorf("take: %w", server), fault.Server},
		"outermost wins":            {fault.Wrap(server, fault.Storage, "", "outer"), fault.Storage},
		"kindless above":            {fault.Wrap(server, fault.Failed, "", "outer"), fault.Server},
		"kindless twice above":      {fault.Wrap(fault.Wrap(server, fault.Failed, "", "b"), fault.Failed, "", "a"), fault.Server},
		"joined":                    {errors.Join(server, storage), fault.Server},
		"joined after plain":        {errors.Join(plain, storage), fault.Storage},
		"joined after kindless":     {errors.Join(failed, storage), fault.Storage},
		"joined after kindless fmt": {errors.Join(fmt.Errorf("a: %w", failed), fmt.Errorf("b: %w", storage)), fault.Storage},
		"join below kindless":       {fault.Wrap(errors.Join(plain, failed, server), fault.Failed, "", "outer"), fault.Server},
		"join in a join":            {errors.Join(errors.Join(failed, plain), errors.Join(plain, storage)), fault.Storage},
		"several %w":                {fmt.Errorf("%w and %w", failed, storage), fault.Storage},
		"nothing has one":           {errors.Join(failed, plain), fault.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fault.KindOf(test.err); got != test.want {
				t.Errorf("kind %d, want %d", got, test.want)
			}
		})
	}
}

func TestHintOf(t *testing.T) {
	silent := fault.New(fault.Server, "", "silent")
	inner := fault.New(fault.Storage, "free space", "full")
	other := fault.New(fault.Busy, "wait", "busy")
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"nil":                 {nil, ""},
		"not pgsnap's":        {errors.New("plain"), ""},
		"itself":              {inner, "free space"},
		"outermost wins":      {fault.Wrap(inner, fault.Server, "ask", "outer"), "ask"},
		"silent above":        {fault.Wrap(inner, fault.Server, "", "outer"), "free space"},
		"joined":              {errors.Join(inner, other), "free space"},
		"joined after silent": {errors.Join(silent, other), "wait"},
		"join below":          {fault.Wrap(errors.Join(silent, inner), fault.Server, "", "outer"), "free space"},
		"nobody knows":        {errors.Join(silent, silent), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fault.HintOf(test.err); got != test.want {
				t.Errorf("hint %q, want %q", got, test.want)
			}
		})
	}
}
