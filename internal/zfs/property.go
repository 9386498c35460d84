package zfs

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"pgsnap/internal/fault"
	"pgsnap/internal/snap"
)

// A user property's name holds a colon, and a-z 0-9 : - . _ besides; its value is
// any string of less than 8192 bytes (zfsprops(7); ZAP_MAXVALUELEN in sys/zap.h
// counts the terminating zero). zfs ends by abort(3) where a longer one goes with a
// new snapshot, and prints tabs and newlines as they are. So:
//
//	pgsnap.zfs:KEY=VALUE        a fact of the driver's own
//	pgsnap:KEY=VALUE            metadata that is printable ASCII
//	pgsnap:KEY=base64:N:PIECE   other metadata, the first of N pieces of its base64
//	pgsnap:KEY.2=PIECE          the second, and so on
//
// User properties are inherited by what lies below, a snapshot's from its dataset.
// Only what is set on a thing itself, or was received with it, counts.
const (
	ownPrefix    = "pgsnap.zfs:"
	dataPrefix   = "pgsnap:"
	longestValue = 8191
	binaryMark   = "base64:"
	pieceLength  = 8000
	// mostPieces keeps a value within what the kernel takes as arguments.
	mostPieces = 64
)

// The driver's own facts on a snapshot or a clone.
const (
	propSnapshot = ownPrefix + "snapshot" // the mark: the snapshot's name
	propCut      = ownPrefix + "cut"      // when it was cut
	propVolume   = ownPrefix + "volume"   // the ID of the volume that it is of
	propClone    = ownPrefix + "clone"    // the clone's name
	propOf       = ownPrefix + "of"       // the ID of the snapshot that a clone is of
	propTarget   = ownPrefix + "target"   // where a clone is to be mounted
)

// propIgnore on a dataset, or on one above it, says that it is not a part of any
// cluster.
const propIgnore = dataPrefix + "ignore"

// tag is the name of the hold on a snapshot.
const tag = "pgsnap"

// encode is metadata as properties, each NAME=VALUE, in the order of the keys.
func encode(metadata snap.Metadata) ([]string, error) {
	var properties []string
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		name, value := dataPrefix+key, metadata[key]
		if len(value) <= longestValue && strings.IndexFunc(value, odd) < 0 && !strings.HasPrefix(value, binaryMark) {
			properties = append(properties, name+"="+value)
			continue
		}
		text := base64.StdEncoding.EncodeToString([]byte(value))
		count := (len(text) + pieceLength - 1) / pieceLength
		if count > mostPieces {
			return nil, fault.New(fault.Storage, "", "%s of the backup is %d bytes, which is too much for properties of a ZFS snapshot", key, len(value))
		}
		number := 0
		for piece := range slices.Chunk([]byte(text), pieceLength) {
			number++
			if number == 1 {
				properties = append(properties, fmt.Sprintf("%s=%s%d:%s", name, binaryMark, count, piece))
			} else {
				properties = append(properties, fmt.Sprintf("%s.%d=%s", name, number, piece))
			}
		}
	}
	return properties, nil
}

func odd(r rune) bool { return r < ' ' || r > '~' }

// MetadataOf is the metadata that a snapshot's user properties carry, by their
// names and values. A value of which a piece is missing is left out.
func MetadataOf(properties map[string]string) snap.Metadata {
	metadata := snap.Metadata{}
	for name, value := range properties {
		key, is := strings.CutPrefix(name, dataPrefix)
		if !is || strings.Contains(key, ".") {
			continue
		}
		if text, binary := strings.CutPrefix(value, binaryMark); binary {
			if value, is = joinPieces(properties, name, text); !is {
				continue
			}
		}
		metadata[key] = value
	}
	return metadata
}

func joinPieces(properties map[string]string, name, first string) (string, bool) {
	number, text, _ := strings.Cut(first, ":")
	count, err := strconv.Atoi(number)
	if err != nil || count > mostPieces {
		return "", false
	}
	for piece := 2; piece <= count; piece++ {
		text += properties[fmt.Sprintf("%s.%d", name, piece)]
	}
	value, err := base64.StdEncoding.DecodeString(text)
	return string(value), err == nil
}
