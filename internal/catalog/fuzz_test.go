package catalog

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgsnap/internal/pgctl"
	"pgsnap/internal/snap"
	"pgsnap/internal/wal"
)

const fuzzID = "20261120-080910-00aa"

func fuzzSeeds() [][]byte {
	at := time.Date(2026, 11, 20, 8, 9, 10, 11, time.UTC)
	needed := wal.Range{Timeline: 1, Start: 0x2000028, Stop: 0x3000000, SegmentSize: 16 << 20}
	full, _ := json.Marshal(snap.Backup{
		Schema: snap.Schema, ID: fuzzID, Cluster: "main", Status: snap.Complete, Mode: pgctl.Exclusive, StartLSN: needed.Start, StopLSN: needed.Stop,
		Timeline: 1, StartedAt: at, StoppedAt: &at, SnapshotName: snap.SnapshotNameOf(fuzzID), Volumes: []snap.Volume{{}}, Snapshots: []snap.Snapshot{{}},
		Server:  pgctl.Facts{Version: 150018, SystemIdentifier: 1 << 63, Tablespaces: []pgctl.Tablespace{{OID: 16384, Name: "a", Location: "/a"}}},
		WAL:     wal.Captured{Range: needed, Files: []string{"000000010000000000000002"}},
		Seconds: map[snap.Phase]float64{snap.Total: 1.5}, Warnings: []string{"none"},
	})
	return [][]byte{full, []byte("{}"), []byte("null"), []byte("[]"), []byte(`{"schema": 1}`), []byte(`{"schema": 2}`), []byte(`{"schema": 1e0, "ID": 5}`),
		[]byte(`{"schema":1,"id":"` + fuzzID + `","cluster":"main","snapshot_name":"pgsnap-` + fuzzID + `","start_lsn":"x"}`),
		[]byte(`{"schema":1,"id":"` + fuzzID + `","cluster":"main","snapshot_name":"pgsnap-` + fuzzID + `","server":{"system_identifier":"-1"}}`)}
}

// FuzzRecord: what is read as a backup's record is that backup's, and stays the
// same when it is written and read again.
func FuzzRecord(f *testing.F) {
	for _, seed := range fuzzSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		backup, err := parseRecord(data, "main", fuzzID)
		if err != nil {
			return
		}
		if backup.ID != fuzzID || backup.Cluster != "main" || backup.SnapshotName != "pgsnap-"+fuzzID || backup.Schema < 1 || backup.Schema > snap.Schema {
			t.Fatalf("%q was read as %+v", data, backup)
		}
		written, err := json.Marshal(backup)
		if err != nil {
			t.Fatalf("%q was read as %+v, which can't be written: %v", data, backup, err)
		}
		again, err := parseRecord(written, "main", fuzzID)
		if err != nil {
			t.Fatalf("%s can't be read again: %v", written, err)
		}
		rewritten, err := json.Marshal(again)
		if err != nil || !reflect.DeepEqual(rewritten, written) {
			t.Errorf("%s became %s (%v)", written, rewritten, err)
		}
	})
}
