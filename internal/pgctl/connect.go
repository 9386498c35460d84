package pgctl

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"pgsnap/internal/fault"
)

const (
	connectTimeout = 10 * time.Second
	keepAlive      = 15 * time.Second
	// cancelGrace is how long a cancelled statement may take to end. An
	// exclusive start must end by a cancel request: a server whose client just
	// goes away finishes the start, and stays in backup mode.
	cancelGrace = 30 * time.Second
)

// open opens one plain connection; never a pool, since a backup belongs to its
// session. The DSN is libpq's, with libpq's environment, service and password
// files.
func open(ctx context.Context, dsn string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fault.New(fault.Usage, "dsn takes what libpq takes: host=… port=… user=… dbname=…, or a postgresql:// address",
			"the connection string: %s", parseFailure(err))
	}
	if os.Geteuid() == 0 && config.User == "root" && !namesUser(dsn) {
		config.User = "postgres"
	}
	if config.Database == "" {
		config.Database = "postgres"
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	config.RuntimeParams["application_name"] = "pgsnap"
	config.RuntimeParams["client_encoding"] = "UTF8" // which a database in another encoding does not give by itself
	// The simple protocol: nothing is prepared, so any server and any login
	// path takes it.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelGrace}
	}
	dialer := &net.Dialer{KeepAlive: keepAlive}
	config.DialFunc = dialer.DialContext
	if account, found := peerAccount(config.User); found {
		config.DialFunc = dialAs(account, dialer)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fault.Wrap(err, fault.Server, connectHint(err), "cannot connect to PostgreSQL")
	}
	return conn, nil
}

// parseFailure is what was wrong with a connection string, without the string:
// pgconn's text quotes it, and finds only some of the passwords in it.
func parseFailure(err error) string {
	text := err.Error()
	if quoted := strings.LastIndex(text, "`: "); quoted >= 0 {
		return text[quoted+len("`: "):]
	}
	return text
}

// userNamed matches a DSN that says who connects, or leaves it to a service file.
var userNamed = regexp.MustCompile(`(^|[\s?&])(user|service)\s*=|^postgres(ql)?://[^/?]*@`)

func namesUser(dsn string) bool {
	return os.Getenv("PGUSER") != "" || os.Getenv("PGSERVICE") != "" || userNamed.MatchString(dsn)
}

func connectHint(err error) string {
	var refused *pgconn.PgError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return "is the server running, and does dsn name its host or socket directory and its port?"
	case errors.Is(err, fs.ErrPermission):
		return "run pgsnap as root or as the server's own user"
	case errors.As(err, &refused) && refused.Code == "28P01":
		return "put the password into the password file (~/.pgpass, passfile= in dsn), or let pg_hba.conf use peer"
	case errors.As(err, &refused) && refused.Code == "28000":
		return "pg_hba.conf must let this user in; as root, pgsnap connects by peer authentication as the account named like the database user"
	case errors.As(err, &refused) && refused.Code == "57P03":
		return "the server is starting up or shutting down; try again when it accepts connections"
	}
	return ""
}

// dialAs connects unix sockets as the account: the peer that a server sees is
// the effective user of the thread that calls connect(2) (SO_PEERCRED, unix(7)).
func dialAs(a account, dialer *net.Dialer) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		if network != "unix" {
			return dialer.DialContext(ctx, network, address)
		}
		err = a.do(func() error {
			conn, err = dialer.DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}
