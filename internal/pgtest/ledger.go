package pgtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Ledger commits rows numbered 1, 2, 3, … one after the other into the table ledger, and remembers the highest number that the
// server acknowledged: every row up to it must be in a backup whose end came later. It goes on after a lost connection, with the
// number it was at, so there are never gaps.
type Ledger struct {
	acknowledged atomic.Int64
	cancel       context.CancelFunc // gives up what hangs
	stop         chan struct{}      // ends the loop between two rows
	stopOnce     sync.Once
	done         chan struct{}

	mu      sync.Mutex
	longest time.Duration
	lastErr error
}

// StartLedger makes the table if it is missing and starts to write, with pause between two rows. It continues after the rows there.
func StartLedger(ctx context.Context, i *Instance, pause time.Duration) (*Ledger, error) {
	conn, err := i.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	const table = `CREATE TABLE IF NOT EXISTS ledger (n bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())`
	if _, err := conn.Exec(ctx, table); err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("ledger: %w", err)
	}
	last, err := LedgerEnd(ctx, conn)
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	own, cancel := context.WithCancel(context.Background())
	ledger := &Ledger{cancel: cancel, stop: make(chan struct{}), done: make(chan struct{})}
	ledger.acknowledged.Store(last)
	go ledger.write(own, i, conn, pause)
	return ledger, nil
}

func (g *Ledger) write(ctx context.Context, i *Instance, conn *pgx.Conn, pause time.Duration) {
	defer close(g.done)
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	before := time.Now()
	for {
		select {
		case <-g.stop:
			return
		default:
		}
		err := g.commit(ctx, i, &conn)
		now := time.Now()
		g.note(err, now.Sub(before))
		wait := pause
		if err == nil {
			before = now
		} else {
			wait = max(pause, 10*time.Millisecond)
		}
		if wait == 0 {
			continue
		}
		select {
		case <-g.stop:
			return
		case <-time.After(wait):
		}
	}
}

// commit writes the next row. A number whose fate a lost connection hid is written again, which does no harm if it is there.
func (g *Ledger) commit(ctx context.Context, i *Instance, conn **pgx.Conn) error {
	if *conn == nil {
		var err error
		if *conn, err = i.Connect(ctx); err != nil {
			*conn = nil
			return err
		}
	}
	next := g.acknowledged.Load() + 1
	if _, err := (*conn).Exec(ctx, "INSERT INTO ledger (n) VALUES ($1) ON CONFLICT DO NOTHING", next); err != nil {
		_ = (*conn).Close(ctx)
		*conn = nil
		return err
	}
	g.acknowledged.Store(next)
	return nil
}

func (g *Ledger) note(err error, waited time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.lastErr = err
	}
	g.longest = max(g.longest, waited)
}

// Acknowledged returns the highest number that was committed for certain.
func (g *Ledger) Acknowledged() int64 { return g.acknowledged.Load() }

// LongestWait returns the longest time between two acknowledgements: what a client felt of a frozen file system, say. It includes
// the pause between two rows.
func (g *Ledger) LongestWait() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.longest
}

// LastError returns the last failure to write, after which the ledger went on; nil if there was none.
func (g *Ledger) LastError() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lastErr
}

// Stop ends the writing after the row under way, or after five seconds, and returns the highest number acknowledged. It may be
// called again.
func (g *Ledger) Stop() int64 {
	g.stopOnce.Do(func() { close(g.stop) })
	select {
	case <-g.done:
	case <-time.After(5 * time.Second):
	}
	g.cancel()
	<-g.done
	return g.Acknowledged()
}

// LedgerMissing returns the numbers from 1 to upTo that are not in the ledger on conn, the first hundred of them.
func LedgerMissing(ctx context.Context, conn *pgx.Conn, upTo int64) ([]int64, error) {
	rows, err := conn.Query(ctx,
		"SELECT n FROM generate_series(1::bigint, $1::bigint) AS n WHERE NOT EXISTS (SELECT FROM ledger WHERE ledger.n = n.n) ORDER BY n LIMIT 100",
		upTo)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return missing, nil
}

// LedgerEnd returns the highest number in the ledger on conn, 0 if it is empty.
func LedgerEnd(ctx context.Context, conn *pgx.Conn) (int64, error) {
	var last int64
	if err := conn.QueryRow(ctx, "SELECT coalesce(max(n), 0) FROM ledger").Scan(&last); err != nil {
		return 0, fmt.Errorf("ledger: %w", err)
	}
	return last, nil
}
