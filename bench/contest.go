package main

import (
	"context"
	"fmt"
	"time"

	"pgsnap/internal/pgtest"
)

// clients is how many write under load.
const clients = 4

// contestant is one way to take a backup and to restore it.
type contestant interface {
	take(ctx context.Context) (taken, error)
	// restore makes a copy of the backup taken last, whose server accepts
	// connections and is out of recovery when it returns.
	restore(ctx context.Context) (restored, error)
	// remove takes away the copy and the backup.
	remove(ctx context.Context) error
}

// taken and restored are what one attempt needed: seconds by phase in pgsnap's
// words, and pgsnap's peak of memory in bytes.
type (
	taken struct {
		window, total time.Duration
		phases        map[string]float64
		peak          int64
	}
	restored struct {
		total  time.Duration
		phases map[string]float64
		peak   int64
	}
)

// side is everything that was measured of one contestant in one state: seconds,
// one for each round, and the greatest peak of memory.
type side struct {
	Window        []float64            `json:"backup_mode"`
	Take          []float64            `json:"take"`
	Restore       []float64            `json:"restore"`
	TakePhases    map[string][]float64 `json:"take_phases,omitempty"`
	RestorePhases map[string][]float64 `json:"restore_phases,omitempty"`
	TakePeak      int64                `json:"take_peak_bytes,omitempty"`
	RestorePeak   int64                `json:"restore_peak_bytes,omitempty"`
}

func (s *side) add(t taken, r restored) {
	s.Window = append(s.Window, t.window.Seconds())
	s.Take = append(s.Take, t.total.Seconds())
	s.Restore = append(s.Restore, r.total.Seconds())
	s.TakePeak, s.RestorePeak = max(s.TakePeak, t.peak), max(s.RestorePeak, r.peak)
	s.TakePhases = collect(s.TakePhases, t.phases)
	s.RestorePhases = collect(s.RestorePhases, r.phases)
}

func collect(all map[string][]float64, one map[string]float64) map[string][]float64 {
	if all == nil && one != nil {
		all = map[string][]float64{}
	}
	for name, seconds := range one {
		all[name] = append(all[name], seconds)
	}
	return all
}

// figures are those of one state: a size, idle or under load.
type figures struct {
	GB     float64   `json:"gb"`
	Load   bool      `json:"load"`
	Bytes  int64     `json:"bytes"` // of the databases, before the load
	TPS    []float64 `json:"tps,omitempty"`
	Bare   side      `json:"bare"`
	Pgsnap side      `json:"pgsnap"`
}

func (f figures) state() string {
	if f.Load {
		return "pgbench"
	}
	return "idle"
}

// contest is the two contestants at one site, and what was measured there.
type contest struct {
	site       *site
	bare, tool contestant
	idle, busy figures
}

func newContest(ctx context.Context, lab *pgtest.Lab, server pgtest.Server, size float64, program string) (*contest, error) {
	s, err := newSite(ctx, lab, server, size)
	if err != nil {
		return nil, err
	}
	c := &contest{site: s}
	if c.bare, err = newBare(s); err != nil {
		return nil, err
	}
	if c.tool, err = newTool(s, program); err != nil {
		return nil, err
	}
	bytes, err := s.size(ctx)
	c.idle = figures{GB: size, Bytes: bytes}
	c.busy = figures{GB: size, Bytes: bytes, Load: true}
	return c, err
}

// rounds goes through the sizes by turns too, so that growth with the size shows
// rather than what else the machine did meanwhile. One more round, the first, does
// not count: programs come from disk, and WAL segments are made rather than used
// again.
func rounds(ctx context.Context, contests []*contest, count int, load bool) error {
	for round := range count + 1 {
		for _, c := range contests {
			if err := c.round(ctx, round, load); err != nil {
				return fmt.Errorf("%g GB: %w", c.site.gb, err)
			}
		}
	}
	return nil
}

// round is a turn of bare and one of pgsnap.
func (c *contest) round(ctx context.Context, number int, load bool) (err error) {
	f := &c.idle
	if load {
		f = &c.busy
		var run *pgtest.BenchRun
		if run, err = pgtest.StartBench(c.site.cluster.Instance, clients); err != nil {
			return err
		}
		defer func() {
			if err != nil { // the server may not answer any more
				run.Kill()
				return
			}
			var result pgtest.BenchResult
			result, err = run.Stop()
			f.TPS = append(f.TPS, result.TPS)
		}()
	}
	for _, one := range []struct {
		name string
		who  contestant
		side *side
	}{{"bare", c.bare, &f.Bare}, {"pgsnap", c.tool, &f.Pgsnap}} {
		t, r, err := c.turn(ctx, one.who, load)
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		if number == 0 {
			continue
		}
		say("%s, round %d, %g GB: %-6s  in backup mode %.3f s, in all %.3f s, restore %.3f s",
			f.state(), number, f.GB, one.name, t.window.Seconds(), t.total.Seconds(), r.total.Seconds())
		one.side.add(t, r)
	}
	return nil
}

// turn is one backup and its restore, each begun in the same state of server and
// file system, whoever was there before.
func (c *contest) turn(ctx context.Context, who contestant, load bool) (t taken, r restored, err error) {
	if err := c.site.settle(ctx, load); err != nil {
		return t, r, err
	}
	if t, err = who.take(ctx); err != nil {
		return t, r, err
	}
	if err := c.site.settle(ctx, load); err != nil {
		return t, r, err
	}
	if r, err = who.restore(ctx); err != nil {
		return t, r, err
	}
	return t, r, who.remove(ctx)
}
