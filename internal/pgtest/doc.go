// Package pgtest makes real PostgreSQL servers, load and file systems for tests, demonstrations and measurements.
//
// Everything lives in a [Lab]: one temporary directory, taken away as a whole when the lab is closed, together with the servers
// started, the file systems mounted and the loop devices attached in it. The functions of a lab return errors and know nothing
// about testing; those that take a testing.TB end the test instead.
//
//	func TestSomething(t *testing.T) {
//		pgtest.ForEachServer(t, func(t *testing.T, server pgtest.Server) {
//			lab := pgtest.New(t)
//			cluster := pgtest.Start(t, lab, server, pgtest.Options{Checksums: true})
//			pgtest.Exec(t, cluster, "CREATE TABLE t (n int)")
//		})
//	}
//
// The servers are brought by test/setup. As root they run as the user postgres, otherwise as the user who runs the test.
package pgtest
