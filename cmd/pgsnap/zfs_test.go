package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pgsnap/internal/mount"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// TestZFS takes a backup of a cluster on ZFS under load, loses the original,
// exports the pools and imports them again, and restores.
func TestZFS(t *testing.T) {
	if _, err := os.Stat("/sys/module/zfs"); os.Getenv("PGSNAP_LAB") != "1" || err != nil {
		t.Skip("ZFS is real in the lab only: lab/run --zfs go test -run TestZFS ./cmd/pgsnap")
	}
	for _, c := range []struct {
		name, server, mode string
		lay                func(*zfsSite)
		volumes            int
		atomic             bool
	}{
		{"OneDataset", "18", "non-exclusive", (*zfsSite).oneDataset, 1, true},
		{"ThreeDatasets", "14", "exclusive", (*zfsSite).threeDatasets, 3, true},
		{"TwoPools", "18", "non-exclusive", (*zfsSite).twoPools, 3, false},
		{"ZvolXFS", "18", "non-exclusive", (*zfsSite).xfs, 1, true},
		{"ZvolExt4", "14", "exclusive", (*zfsSite).ext4, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &zfsSite{t: t, lab: pgtest.New(t)}
			c.lay(s)
			cluster := pgtest.Start(t, s.lab, pgtest.NeedServer(t, c.server), pgtest.Options{DataDir: s.data, WALDir: s.wal, Fsync: true, Checksums: true})
			pgtest.Check(t, cluster.CreateTablespace(t.Context(), "apart", s.tablespace))
			load := pgtest.Load(t, cluster, pgtest.BenchOptions{Tablespace: "apart"})
			ledger := pgtest.WriteLedger(t, cluster, 0)
			tool := newTool(t, s.lab, cluster.DSN(), "auto")
			time.Sleep(time.Second)
			committed := sampleCommits(t, cluster, ledger)
			backup := tool.take("--mode", c.mode, "--fast")
			upTo := committed(backup.StopLSN)
			t.Logf("seconds: %v", backup.Seconds)
			if backup.Atomic != c.atomic || len(backup.Volumes) != c.volumes || backup.Volumes[0].Driver != "zfs" {
				t.Errorf("atomic %v, volumes %+v", backup.Atomic, backup.Volumes)
			}
			if len(backup.Warnings) > 0 {
				t.Errorf("warnings: %v", backup.Warnings)
			}
			load.Kill()
			pgtest.Check(t, cluster.Stop(t.Context(), pgtest.Immediate))
			s.lose(backup)
			copy := tool.restore(backup.ID, s.lab.Path("copy"))
			t.Logf("restored: %v", copy.Seconds)
			checkBalances(t, copy)
			missing, err := pgtest.LedgerMissing(t.Context(), pgtest.Connect(t, copy.Instance), upTo)
			pgtest.Check(t, err)
			if len(missing) > 0 {
				t.Errorf("of %d rows committed before the stop, %d are missing", upTo, len(missing))
			}
			tool.fails(6, []string{"has clones", copy.Destination}, "delete", backup.ID)
			tool.release(copy)
			tool.must(nil, "delete", backup.ID)
			for _, pool := range s.pools {
				if out := s.program("zfs", "list", "-H", "-t", "snapshot", "-r", pool); out != "" {
					t.Errorf("left in %s: %s", pool, out)
				}
			}
		})
	}
}

// zfsSite is storage for one cluster.
type zfsSite struct {
	t     *testing.T
	lab   *pgtest.Lab
	pools []string
	// zvol is the file system on a zvol, by its device.
	zvol, fsType, root    string
	data, wal, tablespace string
}

func (s *zfsSite) program(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (s *zfsSite) pool(name string) {
	s.t.Helper()
	image := s.lab.Path("pools", name+".img")
	pgtest.Check(s.t, os.MkdirAll(filepath.Dir(image), 0o755))
	s.program("truncate", "-s", "3G", image)
	s.program("zpool", "create", "-O", "mountpoint=none", "-O", "compression=lz4", "-O", "atime=off", name, image)
	s.pools = append(s.pools, name)
	s.t.Cleanup(func() { _ = exec.Command("zpool", "destroy", "-f", name).Run() })
}

// dataset makes one as guides for PostgreSQL recommend, and returns its root.
func (s *zfsSite) dataset(name, root string, options ...string) string {
	s.t.Helper()
	args := []string{"zfs", "create", "-o", "mountpoint=" + root}
	for _, option := range options {
		args = append(args, "-o", option)
	}
	s.program(append(args, name)...)
	return root
}

func (s *zfsSite) oneDataset() {
	s.pool("tank")
	root := s.dataset("tank/pg data", s.lab.Path("site dir"), "recordsize=8k")
	s.data, s.tablespace = filepath.Join(root, "18", "main"), filepath.Join(root, "spaces", "apart")
}

func (s *zfsSite) threeDatasets() {
	s.pool("tank")
	s.dataset("tank/pg", "none", "recordsize=16k")
	s.data = s.dataset("tank/pg/data", s.lab.Path("site", "data"))
	s.wal = s.dataset("tank/pg/wal", s.lab.Path("site", "wal"), "recordsize=128k", "logbias=throughput")
	s.tablespace = s.dataset("tank/pg/apart", s.lab.Path("site", "apart"), "compression=off")
}

func (s *zfsSite) twoPools() {
	s.pool("tank")
	s.pool("fast")
	s.data = s.dataset("tank/data", s.lab.Path("site", "data"), "recordsize=8k")
	s.wal = s.dataset("fast/wal", s.lab.Path("site", "wal"))
	s.tablespace = s.dataset("fast/apart", s.lab.Path("site", "apart"))
}

func (s *zfsSite) xfs()  { s.onZvol("xfs") }
func (s *zfsSite) ext4() { s.onZvol("ext4") }

func (s *zfsSite) onZvol(fsType string) {
	s.pool("tank")
	s.program("zfs", "create", "-s", "-V", "2G", "-o", "volblocksize=8k", "tank/volume")
	s.zvol, s.fsType, s.root = "/dev/zd0", fsType, s.lab.Path("site")
	pgtest.Eventually(s.t, 10*time.Second, func() error { _, err := os.Stat(s.zvol); return err })
	s.program("mkfs", "-t", fsType, "-q", s.zvol)
	pgtest.Check(s.t, os.MkdirAll(s.root, 0o755))
	s.mount()
	s.t.Cleanup(func() { s.program("umount", "--lazy", s.root) }) // the lab's own clean-up comes after the pool's
	s.data, s.tablespace = filepath.Join(s.root, "data"), filepath.Join(s.root, "apart")
}

func (s *zfsSite) mount() {
	s.t.Helper()
	pgtest.Check(s.t, mount.Mount(s.t.Context(), s.zvol, s.root, s.fsType, nil))
}

// lose empties the original, and exports and imports the pools.
func (s *zfsSite) lose(backup *snap.Backup) {
	s.t.Helper()
	for _, volume := range backup.Volumes {
		s.program("find", volume.Root, "-mindepth", "1", "-delete")
	}
	if s.zvol != "" {
		s.program("umount", s.root)
	}
	for _, pool := range s.pools {
		s.program("zpool", "export", pool)
		s.program("zpool", "import", "-d", s.lab.Path("pools"), pool)
	}
	if s.zvol != "" {
		s.mount()
	}
}
