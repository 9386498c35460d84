# What people run; .ci/run runs check and test.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build demo test check fuzz bench install clean

build: ## bin/pgsnap, one static program
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/pgsnap ./cmd/pgsnap

demo: build ## a backup and a restore of a throwaway cluster, before your eyes
	test/setup --only 15
	go run ./demo --pgsnap bin/pgsnap

test: ## all tests, on real servers and real storage
	test/setup
	test/run

check: ## formatting and static analysis
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'these files are not formatted: run gofmt -w .'; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

bench: build ## figures beside the bare commands; needs root and 24 GB of disk
	test/setup --only 15
	go run ./bench --pgsnap bin/pgsnap

install: build
	install -D -m 0755 bin/pgsnap $(DESTDIR)/usr/local/bin/pgsnap

clean:
	rm -rf bin
