package reflink

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCopyDataIsBounded copies no more than the file had at first, however much
// is appended, and no more than it has.
func TestCopyDataIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ has, had, want int64 }{
		"grown":         {has: 5000, had: 3000, want: 3000},
		"the same":      {has: 5000, had: 5000, want: 5000},
		"shrunk":        {has: 5000, had: 90000, want: 5000},
		"shrunk to 0":   {has: 0, had: 90000, want: 0},
		"grown from 0":  {has: 5000, had: 0, want: 0},
		"empty as ever": {has: 0, had: 0, want: 0},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, make([]byte, c.has), 0o600); err != nil {
			t.Fatal(err)
		}
		source, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		target, err := os.Create(path + ".copy")
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		if err := copyData(t.Context(), source, target, c.had); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := target.Stat(); err != nil || info.Size() != c.want {
			t.Errorf("%s: %d bytes, not %d", name, info.Size(), c.want)
		}
	}
}
