package pgctl

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgsnap/internal/pgtest"
	"pgsnap/internal/wal"
)

// formats are the versions of the control file of each major.
var formats = map[int]uint32{10: 1002, 11: 1100, 12: 1201, 13: 1300, 14: 1300, 15: 1300, 16: 1300, 17: 1700, 18: 1800}

// testControlFile looks at the control file of a new cluster, fresh from initdb.
func testControlFile(t *testing.T, cluster *pgtest.Cluster) {
	control, err := ReadControlFile(cluster.DataDir)
	pgtest.Check(t, err)
	if control.Version != formats[cluster.Server.Major] || control.State != ShutDown || control.Timeline != 1 || control.Checkpoint != control.Redo ||
		control.Checkpoint == 0 || control.SystemIdentifier == 0 {
		t.Errorf("read %+v", control)
	}
	data, err := os.ReadFile(filepath.Join(cluster.DataDir, "global", "pg_control"))
	pgtest.Check(t, err)
	// A flipped bit anywhere in what the checksum covers, or in itself.
	covered := controlLayouts[control.Version].crc + 4
	for i := range covered {
		data[i] ^= 1 << (i % 8)
		if got, err := ParseControlFile(data); err == nil {
			t.Errorf("with a flipped bit in byte %d it was read as %+v", i, got)
		}
		data[i] ^= 1 << (i % 8)
	}
	for i := covered; i < len(data); i++ {
		if data[i] != 0 {
			t.Fatalf("byte %d is not covered, and not zero", i)
		}
	}
	for _, length := range []int{0, 1, 8, 287, 512, 4096, len(data) - 1} {
		if got, err := ParseControlFile(data[:length]); err == nil || !strings.Contains(err.Error(), "bytes instead of 8192") {
			t.Errorf("%d bytes of it were read as %+v, %v", length, got, err)
		}
	}
}

var controlData = regexp.MustCompile(`(?m)^(.*?): +(.*)$`)

// TestControlFileSays compares what is read with what the server's own program
// says, in each state that pgsnap looks for.
func TestControlFileSays(t *testing.T) {
	program, err := pgtest.Tool("pg_controldata")
	pgtest.Check(t, err)
	assertSame := func(dir string, state ClusterState, said string) {
		t.Helper()
		control, err := ReadControlFile(dir)
		pgtest.Check(t, err)
		command := exec.CommandContext(t.Context(), program, dir)
		command.Env = append(os.Environ(), "LC_ALL=C")
		output, err := command.CombinedOutput()
		pgtest.Check(t, err)
		says := map[string]string{}
		for _, match := range controlData.FindAllStringSubmatch(string(output), -1) {
			says[match[1]] = match[2]
		}
		for what, got := range map[string]string{
			"Database system identifier":        strconv.FormatUint(control.SystemIdentifier, 10),
			"pg_control version number":         strconv.FormatUint(uint64(control.Version), 10),
			"Latest checkpoint location":        control.Checkpoint.String(),
			"Latest checkpoint's REDO location": control.Redo.String(),
			"Latest checkpoint's TimeLineID":    strconv.FormatUint(uint64(control.Timeline), 10),
			"Database cluster state":            said,
		} {
			if says[what] != got {
				t.Errorf("%s: %s, but pg_controldata says %q", what, got, says[what])
			}
		}
		if control.State != state {
			t.Errorf("state %d, want %d (%s)", control.State, state, said)
		}
	}
	lab := pgtest.New(t)
	primary := pgtest.Start(t, lab, pgtest.NeedServer(t, "debian-15"), pgtest.Options{FreshIdentity: true})
	pgtest.Exec(t, primary, "CREATE TABLE written AS SELECT generate_series(1, 1000)")
	pgtest.Exec(t, primary, "CHECKPOINT")
	assertSame(primary.DataDir, InProduction, "in production")
	standby := pgtest.Standby(t, lab, primary)
	assertSame(standby.DataDir, InArchiveRecovery, "in archive recovery")
	pgtest.Check(t, standby.Stop(t.Context(), pgtest.Fast))
	assertSame(standby.DataDir, ShutDownInRecovery, "shut down in recovery")
	pgtest.Check(t, standby.Start(t.Context()))
	pgtest.Query(t, standby, "SELECT pg_promote()")
	pgtest.Exec(t, standby, "CHECKPOINT")
	assertSame(standby.DataDir, InProduction, "in production") // on timeline 2
	pgtest.Check(t, primary.Stop(t.Context(), pgtest.Fast))
	assertSame(primary.DataDir, ShutDown, "shut down")
}

func TestUnknownControlFile(t *testing.T) {
	for _, version := range []uint32{0, 960, 1003, 1900, 0xEA030000} {
		data := make([]byte, controlFileSize)
		binary.LittleEndian.PutUint32(data[8:], version)
		if got, err := ParseControlFile(data); err == nil || !strings.Contains(err.Error(), "format "+strconv.Itoa(int(version))) {
			t.Errorf("format %d was read as %+v, %v", version, got, err)
		}
	}
}

func TestNoControlFile(t *testing.T) {
	if _, err := ReadControlFile(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

// TestControlFileBeingWritten reads a control file that a server rewrites all
// the time. ext4, for one, lets a reader see a half of each.
func TestControlFileBeingWritten(t *testing.T) {
	dir := t.TempDir()
	pgtest.Check(t, os.Mkdir(filepath.Join(dir, "global"), 0o700))
	file, err := os.Create(filepath.Join(dir, "global", "pg_control"))
	pgtest.Check(t, err)
	defer file.Close()
	writings := [][]byte{syntheticControlFile(1, 0x1000028), syntheticControlFile(0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF_FFFFFFFF)}
	_, err = file.Write(writings[0])
	pgtest.Check(t, err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_, _ = file.WriteAt(writings[i%2], 0)
			}
		}
	}()
	for range 20000 {
		if _, err := ReadControlFile(dir); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	<-stopped
}

// A damaged one that stays as it is is refused.
func TestDamagedControlFile(t *testing.T) {
	dir := t.TempDir()
	pgtest.Check(t, os.Mkdir(filepath.Join(dir, "global"), 0o700))
	path := filepath.Join(dir, "global", "pg_control")
	data := syntheticControlFile(1, 2)
	data[100]++
	pgtest.Check(t, os.WriteFile(path, data, 0o600))
	if _, err := ReadControlFile(dir); err == nil || !strings.Contains(err.Error(), path+": its checksum is wrong") {
		t.Errorf("error is %v", err)
	}
}

// syntheticControlFile is a control file of PostgreSQL 18.
func syntheticControlFile(system uint64, checkpoint wal.LSN) []byte {
	data := make([]byte, controlFileSize)
	layout := controlLayouts[1800]
	binary.LittleEndian.PutUint64(data[0:], system)
	binary.LittleEndian.PutUint32(data[8:], 1800)
	binary.LittleEndian.PutUint32(data[16:], uint32(InProduction))
	binary.LittleEndian.PutUint64(data[32:], uint64(checkpoint))
	for i := layout.redo; i < layout.crc; i++ {
		data[i] = byte(system)
	}
	binary.LittleEndian.PutUint32(data[layout.crc:], crc32.Checksum(data[:layout.crc], crc32.MakeTable(crc32.Castagnoli)))
	return data
}

func FuzzControlFile(f *testing.F) {
	whole := syntheticControlFile(7000000000000000001, 0x2000028)
	f.Add(whole[:300], uint32(0))
	f.Add(whole[:300], uint32(1800))
	for version := range controlLayouts {
		f.Add(whole[:64], version)
	}
	f.Fuzz(func(t *testing.T, head []byte, sealAs uint32) {
		data := make([]byte, controlFileSize)
		copy(data, head)
		if layout, known := controlLayouts[sealAs]; known { // a checksum that is right
			binary.LittleEndian.PutUint32(data[8:], sealAs)
			binary.LittleEndian.PutUint32(data[layout.crc:], crc32.Checksum(data[:layout.crc], crc32.MakeTable(crc32.Castagnoli)))
		}
		control, err := ParseControlFile(data)
		_, known := controlLayouts[sealAs]
		if known && err != nil {
			t.Errorf("it was refused: %v", err)
		}
		if err == nil && control.Version != binary.LittleEndian.Uint32(data[8:]) {
			t.Errorf("read %+v", control)
		}
		if _, err := ParseControlFile(head); err == nil && len(head) != controlFileSize {
			t.Errorf("%d bytes were read", len(head))
		}
	})
}
