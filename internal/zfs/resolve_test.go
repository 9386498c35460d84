package zfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgsnap/internal/fault"
	"pgsnap/internal/mount"
	"pgsnap/internal/pgtest"
	"pgsnap/internal/snap"
)

// TestHidden: a dataset that belongs among the cluster's files and is not mounted
// there is an error that names it, and says how to be rid of it.
func TestHidden(t *testing.T) {
	p := newPool(t, "hidden", "zfs")
	root := p.lab.Path("hidden")
	parent := p.dataset("pg", root)
	data := filepath.Join(root, "18", "main")
	pgtest.Check(t, os.MkdirAll(data, 0o700))
	resolve(t, dataAt(data))
	child := parent + "/a child"
	for what, options := range map[string]string{
		"noauto": "canmount=noauto mountpoint=" + data + "/base", "legacy": "mountpoint=legacy",
	} {
		args := []string{"zfs", "create"}
		for _, option := range strings.Fields(options) {
			args = append(args, "-o", option)
		}
		program(t, append(args, child)...)
		_, err := Driver{}.Resolve(t.Context(), []snap.Path{dataAt(data)})
		fails(t, err, child)
		if hint := fault.HintOf(err); !strings.Contains(hint, "canmount=off") || !strings.Contains(hint, propIgnore) {
			t.Errorf("%s: the hint is %q", what, hint)
		}
		program(t, "zfs", "set", propIgnore+"=on", child)
		resolve(t, dataAt(data))
		program(t, "zfs", "inherit", propIgnore, child)
		program(t, "zfs", "set", "canmount=off", child)
		resolve(t, dataAt(data))
		program(t, "zfs", "destroy", child)
	}
	// Unmounted, elsewhere, or mounted by hand.
	program(t, "zfs", "create", "-o", "mountpoint="+root+"/18/other", child)
	program(t, "zfs", "unmount", child)
	resolve(t, dataAt(data))
	program(t, "zfs", "set", "mountpoint="+data+"/base", child)
	_, _ = tryProgram("zfs", "unmount", child)
	_, err := Driver{}.Resolve(t.Context(), []snap.Path{dataAt(data)})
	fails(t, err, child, data+"/base")
	program(t, "zfs", "set", "mountpoint=legacy", child)
	pgtest.Check(t, os.MkdirAll(data+"/base", 0o700))
	pgtest.Check(t, mount.Mount(t.Context(), child, data+"/base", "zfs", nil))
	volumes := resolve(t, dataAt(data), snap.Path{Role: snap.Nested, Path: data + "/base"})
	if len(volumes) != 2 || volumes[1].ID != child || volumes[1].Root != data+"/base" {
		t.Errorf("volumes %+v", volumes)
	}
	program(t, "umount", data+"/base")
	program(t, "zfs", "destroy", child)

	// A bind mount of a directory, and a replica that would be mounted in its place.
	bind := p.lab.Path("bind")
	pgtest.Check(t, os.Mkdir(bind, 0o700))
	program(t, "mount", "--bind", data, bind)
	volumes = resolve(t, dataAt(bind))
	if relative, err := volumes[0].Relative(bind); err != nil || relative != "18/main" || volumes[0].Root != root {
		t.Errorf("the bind mount is %q in %+v, %v", relative, volumes, err)
	}
	program(t, "umount", bind)
}

// TestEncrypted: a snapshot whose key is not loaded can be made, but not cloned.
func TestEncrypted(t *testing.T) {
	p := newPool(t, "secret", "zfs")
	root, key := p.lab.Path("encrypted"), p.lab.Path("key")
	pgtest.Check(t, os.WriteFile(key, []byte("a long passphrase"), 0o600))
	name := p.dataset("enc", root, "encryption=on", "keyformat=passphrase", "keylocation=file://"+key)
	pgtest.Check(t, os.WriteFile(filepath.Join(root, "file"), []byte("secret"), 0o600))
	volumes := resolve(t, dataAt(root))
	set := take(t, volumes, nil)
	target := p.lab.Path("copy")
	clone, err := Driver{}.Clone(t.Context(), set.Snapshots[0], "copy", target)
	pgtest.Check(t, err)
	pgtest.Check(t, os.Mkdir(target, 0o700))
	pgtest.Check(t, mount.Mount(t.Context(), clone.Mount.Source, target, clone.Mount.FSType, clone.Mount.Options))
	if data, err := os.ReadFile(filepath.Join(target, "file")); string(data) != "secret" {
		t.Errorf("the clone holds %q, %v", data, err)
	}
	program(t, "umount", target)
	pgtest.Check(t, os.Remove(target))
	pgtest.Check(t, Driver{}.Release(t.Context(), clone))
	program(t, "zfs", "unmount", name)
	program(t, "zfs", "unload-key", name)
	_, err = Driver{}.Clone(t.Context(), set.Snapshots[0], "copy", target)
	fails(t, err, name, "key is not loaded")
	if hint := fault.HintOf(err); !strings.Contains(hint, "zfs load-key "+name) {
		t.Errorf("the hint is %q", hint)
	}
	remove(t, volumes, set)
	program(t, "zfs", "load-key", name)
	program(t, "zfs", "mount", name)
}

// TestFull: at its quota a dataset can still be snapshotted; a full pool says so.
func TestFull(t *testing.T) {
	needLab(t)
	p := newPoolIn(t, pgtest.New(t), "full", "zfs", 128<<20)
	root := p.lab.Path("full")
	for _, quota := range []string{"quota=20M", "refquota=20M"} {
		name := p.dataset("q", root, quota)
		_, _ = tryProgram("dd", "if=/dev/urandom", "of="+root+"/fill", "bs=1M", "count=40")
		volumes := resolve(t, dataAt(root))
		remove(t, volumes, take(t, volumes, snap.Metadata{"label": strings.Repeat("x", 5000)}))
		program(t, "zfs", "destroy", name)
	}
	p.dataset("pool", root)
	volumes := resolve(t, dataAt(root))
	_, _ = tryProgram("dd", "if=/dev/urandom", "of="+root+"/fill", "bs=1M", "count=200")
	set, err := Driver{}.Snapshot(t.Context(), newName(), volumes, nil)
	if err == nil {
		t.Log("a snapshot fits into a full pool")
		remove(t, volumes, set)
		return
	}
	fails(t, err, "out of space")
	if fault.HintOf(err) != hintSpace {
		t.Errorf("hint %q of %v", fault.HintOf(err), err)
	}
}

// asUser makes the test's program do what a take does as another user.
const asUser = "PGSNAP_ZFS_TEST_AS_USER"

func TestMain(m *testing.M) {
	path := os.Getenv(asUser)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := takeAndDelete(path); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\nhint: " + fault.HintOf(err) + "\n")
		os.Exit(1)
	}
}

// TestDelegated takes and deletes as a user with what zfs allow gives, and with less.
func TestDelegated(t *testing.T) {
	p := newPool(t, "shared", "zfs")
	root := p.lab.Path("shared")
	name := p.dataset("data", root)
	program(t, "chown", "postgres", root)
	pgtest.Check(t, os.Chmod("/dev/zfs", 0o666)) // as udev does
	self := p.lab.Path("self.test")
	program(t, "cp", os.Args[0], self)
	try := func() (string, error) {
		cmd := exec.Command("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", self)
		cmd.Env = append(os.Environ(), asUser+"="+root)
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := try()
	if err == nil || !strings.Contains(out, "zfs allow -u postgres snapshot,mount,hold,release,destroy,userprop "+name) {
		t.Errorf("without permissions: %v\n%s", err, out)
	}
	program(t, "zfs", "allow", "-s", "@backup", "snapshot,hold,userprop", "shared")
	program(t, "zfs", "allow", "-g", "postgres", "@backup,mount", "shared")
	out, err = try()
	if err == nil || !strings.Contains(out, "zfs allow -u postgres release,destroy "+name) {
		t.Errorf("without some permissions: %v\n%s", err, out)
	}
	program(t, "zfs", "allow", "-u", "postgres", "release,destroy", name)
	if out, err = try(); err != nil {
		t.Errorf("with all permissions: %v\n%s", err, out)
	}
	if left := program(t, "zfs", "list", "-H", "-t", "snapshot", "-r", "shared"); left != "" {
		t.Errorf("left: %s", left)
	}
}
