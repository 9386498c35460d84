package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
)

// The rules of output. A command's result goes to stdout, for people or, with
// --json, as one document; progress goes to stderr and only to a terminal;
// errors go to stderr and to nowhere else. Nothing else prints.

// printJSON writes one document.
func (a *app) printJSON(document any) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(document)
}

func (a *app) printf(format string, args ...any) {
	fmt.Fprintf(a.out, format, args...)
}

// table prints aligned rows.
func (a *app) table(rows [][]string) {
	writer := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(writer, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	writer.Flush()
}

// facts prints names and values, indented and aligned.
func (a *app) facts(rows [][2]string) {
	for _, row := range rows {
		if row[1] != "" {
			a.printf("  %-12s %s\n", row[0], strings.ReplaceAll(row[1], "\n", "\n"+strings.Repeat(" ", 15)))
		}
	}
}

// bytesText is a size for people.
func bytesText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	size, unit := float64(n), 0
	for size >= 1024 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	if unit == 0 || size >= 10 {
		return fmt.Sprintf("%.0f %s", size, units[unit])
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}

func secondsText(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.2f s", seconds)
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

func timeText(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// progress is one line on a terminal that says what goes on, and for how long.
type progress struct {
	out   io.Writer // nil where there is no terminal
	began time.Time

	mu      sync.Mutex
	step    string
	ticking bool
}

const tick = 200 * time.Millisecond

func newProgress(out io.Writer) *progress {
	file, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		out = nil
	}
	return &progress{out: out, began: time.Now()}
}

// show replaces the line, whose seconds go on by themselves.
func (p *progress) show(step string) {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = step
	p.print()
	if !p.ticking {
		p.ticking = true
		go p.run()
	}
}

func (p *progress) run() {
	for {
		time.Sleep(tick)
		p.mu.Lock()
		if p.step == "" {
			p.ticking = false
			p.mu.Unlock()
			return
		}
		p.print()
		p.mu.Unlock()
	}
}

func (p *progress) print() {
	fmt.Fprintf(p.out, "\r\033[K%s … %.1f s", p.step, time.Since(p.began).Seconds())
}

// clear takes the line away.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.step != "" {
		p.step = ""
		fmt.Fprint(p.out, "\r\033[K")
	}
}
