package wal

import (
	"encoding/json"
	"math"
	"testing"
)

func TestLSN(t *testing.T) {
	for text, want := range map[string]LSN{
		"0/0":               0,
		"0/1":               1,
		"1/0":               1 << 32,
		"16/B374D848":       0x16_B374D848,
		"0/FFFFFFFF":        math.MaxUint32,
		"FFFFFFFF/FFFFFFFF": math.MaxUint64,
	} {
		got, err := ParseLSN(text)
		if err != nil || got != want {
			t.Errorf("ParseLSN(%q) = %v, %v", text, got, err)
		}
		if want.String() != text {
			t.Errorf("%d is written %q, want %q", uint64(want), want, text)
		}
	}
}

// Other spellings of a position that PostgreSQL itself reads.
func TestLSNSpellings(t *testing.T) {
	for text, want := range map[string]string{"16/b374d848": "16/B374D848", "00000016/0000002A": "16/2A"} {
		if got, err := ParseLSN(text); err != nil || got.String() != want {
			t.Errorf("ParseLSN(%q) = %v, %v", text, got, err)
		}
	}
}

var notLSNs = []string{
	"", "/", "0", "0/", "/0", "0/0/0", "0/0 ", " 0/0", "0/0\n", "0/0\r", "-1/0", "0/-1", "+1/0", "0x1/0", "G/0", "0/G",
	"100000000/0", "0/100000000", "000000000/0", "0/1_0", "0／0", "0/٣",
}

func TestNoLSN(t *testing.T) {
	for _, text := range notLSNs {
		if got, err := ParseLSN(text); err == nil {
			t.Errorf("ParseLSN(%q) = %v", text, got)
		}
	}
}

func TestLSNInJSON(t *testing.T) {
	var record struct{ At LSN }
	if err := json.Unmarshal([]byte(`{"At":"1/2A"}`), &record); err != nil || record.At != 1<<32+42 {
		t.Errorf("read %v, %v", record.At, err)
	}
	if data, err := json.Marshal(record); err != nil || string(data) != `{"At":"1/2A"}` {
		t.Errorf("wrote %s, %v", data, err)
	}
	for _, text := range []string{`{"At":"nowhere"}`, `{"At":42}`, `{"At":""}`} {
		if err := json.Unmarshal([]byte(text), &record); err == nil {
			t.Errorf("%s was read as %v", text, record.At)
		}
	}
}

func FuzzLSN(f *testing.F) {
	for _, text := range append([]string{"16/B374D848", "FFFFFFFF/FFFFFFFF", "0/0", "00000001/0a"}, notLSNs...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lsn, err := ParseLSN(text)
		if err != nil {
			return
		}
		if again, err := ParseLSN(lsn.String()); err != nil || again != lsn {
			t.Errorf("%q is %v, which reads as %v (%v)", text, lsn, again, err)
		}
		if len(text) > len("FFFFFFFF/FFFFFFFF") {
			t.Errorf("%q passes for %v", text, lsn)
		}
	})
}
