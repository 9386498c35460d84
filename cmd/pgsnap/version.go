package main

import (
	"runtime"
	"runtime/debug"
)

// version is set by the Makefile (-ldflags -X) from git.
var version = "devel"

type versionCommand struct{}

func (c *versionCommand) Run(a *app) error {
	document := map[string]string{"version": version, "go": runtime.Version()}
	if info, found := debug.ReadBuildInfo(); found {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				document["revision"] = setting.Value
			}
		}
	}
	if a.line.JSON {
		return a.printJSON(document)
	}
	a.printf("pgsnap %s (%s)\n", document["version"], document["go"])
	return nil
}
