package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// The limits that pgsnap is held to: this much of what the bare commands need,
// and a part that does not depend on them.
const (
	limitFactor  = 1.2
	windowSlack  = 0.050
	restoreSlack = 0.100
	memoryLimit  = 64 << 20
)

// report is the outcome of a run.
type report struct {
	Server string `json:"server_version"`
	Kernel string `json:"kernel"`
	CPUs   int    `json:"cpus"`
	// LoadAverage is that of the last minute before the beginning: on a busy
	// machine single figures say little.
	LoadAverage string    `json:"load_average"`
	Rounds      int       `json:"rounds"`
	Figures     []figures `json:"figures"`
	// BaseBackup is what pg_basebackup needed for the largest size, in seconds.
	BaseBackup float64 `json:"pg_basebackup"`
}

func newReport(o options) *report {
	r := &report{CPUs: runtime.NumCPU(), Rounds: o.rounds}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		r.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	load, _ := os.ReadFile("/proc/loadavg") // only for the heading
	r.LoadAverage, _, _ = strings.Cut(string(load), " ")
	return r
}

func (r *report) save(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// quantity is one thing that is measured of both sides.
type quantity struct {
	name    string
	of      func(side) []float64
	slack   float64
	limited bool
}

var quantities = []quantity{
	{"in backup mode", func(s side) []float64 { return s.Window }, windowSlack, true},
	{"backup in all", func(s side) []float64 { return s.Take }, windowSlack, false},
	{"restore", func(s side) []float64 { return s.Restore }, restoreSlack, true},
}

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "PostgreSQL %s with fsync, Btrfs on a loop device, Linux %s, %d CPUs, load average %s at the beginning.\n", r.Server, r.Kernel, r.CPUs, r.LoadAverage)
	fmt.Fprintf(out, "Seconds: the median of %d rounds (least–most). Restore: until connections are accepted and recovery is over.\n", r.Rounds)
	fmt.Fprintf(out, "Bare keeps no WAL and makes no record, so its backup in all sets no limit.\n\n")
	r.printSeconds(out)
	r.printGrowth(out)
	r.printMemory(out)
	r.printPhases(out, "BACKUP", []string{"plan", "start", "cut", "stop", "wal", "check"}, func(s side) map[string][]float64 { return s.TakePhases })
	r.printPhases(out, "RESTORE", []string{"clone", "prepare", "start"}, func(s side) map[string][]float64 { return s.RestorePhases })
	r.printContrast(out)
}

func (r *report) printSeconds(out io.Writer) {
	rows := [][]string{{"SIZE", "LOAD", "", "BARE", "PGSNAP", "RATIO", "LIMIT", ""}}
	for _, f := range r.Figures {
		for index, q := range quantities {
			size, state := "", ""
			if index == 0 {
				size, state = fmt.Sprintf("%.1f GB", float64(f.Bytes)/gigabyte), f.state()
			}
			bare, own := median(q.of(f.Bare)), median(q.of(f.Pgsnap))
			limit, holds := "", ""
			if q.limited {
				limit = fmt.Sprintf("%.3f", limitFactor*bare+q.slack)
				holds = verdict(own <= limitFactor*bare+q.slack)
			}
			rows = append(rows, []string{size, state, q.name, spread(q.of(f.Bare)), spread(q.of(f.Pgsnap)), ratio(own, bare), limit, holds})
		}
	}
	table(out, rows)
	fmt.Fprintf(out, "\nLimit: %g × bare, and %.0f ms more in backup mode, %.0f ms more for a restore.\n\n", limitFactor, windowSlack*1000, restoreSlack*1000)
}

// printGrowth sets the largest size against the smallest. Growth is what goes
// beyond the margin of the limits.
func (r *report) printGrowth(out io.Writer) {
	first, last := r.Figures[0].GB, r.Figures[len(r.Figures)-1].GB
	if first == last {
		return
	}
	rows := [][]string{{fmt.Sprintf("GROWTH, %g GB AGAINST %g GB", last, first), "", "BARE", "PGSNAP", ""}}
	for _, load := range []bool{false, true} {
		small, large := r.at(first, load), r.at(last, load)
		for index, q := range quantities {
			state := ""
			if index == 0 {
				state = small.state()
			}
			before, after := median(q.of(small.Pgsnap)), median(q.of(large.Pgsnap))
			rows = append(rows, []string{state, q.name, "× " + ratio(median(q.of(large.Bare)), median(q.of(small.Bare))),
				"× " + ratio(after, before), verdict(after <= limitFactor*before+q.slack)})
		}
	}
	table(out, rows)
	fmt.Fprintf(out, "\nPgsnap's time for the largest is held to the same margin over its own for the smallest.\nWhere bare grows as much, it is the storage that does.\n\n")
}

func (r *report) at(size float64, load bool) figures {
	index := slices.IndexFunc(r.Figures, func(f figures) bool { return f.GB == size && f.Load == load })
	return r.Figures[index]
}

func (r *report) printMemory(out io.Writer) {
	var take, restore int64
	for _, f := range r.Figures {
		take, restore = max(take, f.Pgsnap.TakePeak), max(restore, f.Pgsnap.RestorePeak)
	}
	fmt.Fprintf(out, "Memory of pgsnap and its children, the greatest peak: backup %d MB, restore %d MB; limit %d MB: %s\n\n",
		take>>20, restore>>20, memoryLimit>>20, verdict(max(take, restore) < memoryLimit))
}

// printPhases says where the time goes, by the names of pgsnap's own report.
func (r *report) printPhases(out io.Writer, what string, names []string, of func(side) map[string][]float64) {
	rows := [][]string{append([]string{"PHASES OF A " + what, "", ""}, names...)}
	for _, f := range r.Figures {
		first := []string{fmt.Sprintf("%.1f GB", float64(f.Bytes)/gigabyte), f.state(), "bare"}
		rows = append(rows, append(first, medians(of(f.Bare), names)...),
			append([]string{"", "", "pgsnap"}, medians(of(f.Pgsnap), names)...))
	}
	table(out, rows)
	fmt.Fprintln(out)
}

func medians(phases map[string][]float64, names []string) []string {
	var all []string
	for _, name := range names {
		text := "-"
		if len(phases[name]) > 0 {
			text = fmt.Sprintf("%.3f", median(phases[name]))
		}
		all = append(all, text)
	}
	return all
}

func (r *report) printContrast(out io.Writer) {
	idle := r.at(r.Figures[len(r.Figures)-1].GB, false)
	own := median(idle.Pgsnap.Take)
	fmt.Fprintf(out, "For contrast, pg_basebackup of %.1f GB, idle: %.1f s, %.0f times as long as pgsnap take.\n",
		float64(idle.Bytes)/gigabyte, r.BaseBackup, r.BaseBackup/own)
}

func verdict(holds bool) string {
	if holds {
		return "ok"
	}
	return "over"
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func spread(all []float64) string {
	return fmt.Sprintf("%.3f (%.3f–%.3f)", median(all), slices.Min(all), slices.Max(all))
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func table(out io.Writer, rows [][]string) {
	writer := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(writer, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	_ = writer.Flush()
}
