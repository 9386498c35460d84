package lvm

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgsnap/internal/snap"
)

// A tag has up to 1024 of the characters A-Z a-z 0-9 _ + . - / = ! : & # and does
// not begin with a hyphen (TAGS in lvm(8)). Longer or other values go in pieces:
//
//	pgsnap.KEY=VALUE         a fact of the driver's own
//	pgsnap:KEY=VALUE         metadata, as it is
//	pgsnap:KEY#I/N=PIECE     metadata, piece I of N of its base64
const (
	longestTag   = 1024
	pieceLength  = 900
	safeInValues = "_+.-/:"
)

// The driver's own facts on a snapshot or a clone.
const (
	tagSnapshot = "snapshot" // the snapshot's name
	tagVolume   = "volume"   // the ID of the volume that it is of
	tagCut      = "cut"      // when it was cut
	tagMount    = "mount"    // type and options of the volume's file system
	tagClone    = "clone"    // the clone's name
	tagOf       = "of"       // the ID of the snapshot that a clone is of
)

// committed is a tag of a snapshot to which Commit has added metadata.
const committed = mark + ".committed"

// ownTag is a fact of the driver's own, as one or more tags.
func ownTag(key, value string) []string { return encode(mark+"."+key, value) }

// metadataTags are metadata as tags, in the order of the keys.
func metadataTags(metadata snap.Metadata) []string {
	var tags []string
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		tags = append(tags, encode(mark+":"+key, metadata[key])...)
	}
	return tags
}

func encode(key, value string) []string {
	plain := key + "=" + value
	if len(plain) <= longestTag && strings.IndexFunc(value, odd) < 0 {
		return []string{plain}
	}
	text := base64.StdEncoding.EncodeToString([]byte(value))
	count := (len(text) + pieceLength - 1) / pieceLength
	var tags []string
	for piece := range slices.Chunk([]byte(text), pieceLength) {
		tags = append(tags, fmt.Sprintf("%s#%d/%d=%s", key, len(tags)+1, count, piece))
	}
	return tags
}

func odd(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(safeInValues, r)
}

// facts are what the tags of a volume say, by "pgsnap.KEY" and "pgsnap:KEY". A
// value of which a piece is missing is left out.
func facts(tags []string) map[string]string {
	type value struct {
		pieces []string
		found  int
	}
	found, split := map[string]string{}, map[string]*value{}
	for _, tag := range tags {
		key, text, _ := strings.Cut(tag, "=")
		if !strings.HasPrefix(key, mark+".") && !strings.HasPrefix(key, mark+":") {
			continue
		}
		var index, count int
		name, number, inPieces := strings.Cut(key, "#")
		if !inPieces {
			found[key] = text
			continue
		}
		if _, err := fmt.Sscanf(number, "%d/%d", &index, &count); err != nil || index < 1 || index > count || count > 1<<16 {
			continue
		}
		if split[name] == nil {
			split[name] = &value{pieces: make([]string, count)}
		}
		if len(split[name].pieces) == count && split[name].pieces[index-1] == "" {
			split[name].pieces[index-1] = text
			split[name].found++
		}
	}
	for name, value := range split {
		data, err := base64.StdEncoding.DecodeString(strings.Join(value.pieces, ""))
		if err == nil && value.found == len(value.pieces) {
			found[name] = string(data)
		}
	}
	return found
}

// own is one of the driver's own facts.
func own(facts map[string]string, key string) string { return facts[mark+"."+key] }

// MetadataOf is the metadata that the tags of a snapshot carry.
func MetadataOf(tags []string) snap.Metadata {
	metadata := snap.Metadata{}
	for key, value := range facts(tags) {
		if name, is := strings.CutPrefix(key, mark+":"); is {
			metadata[name] = value
		}
	}
	return metadata
}

// replacedTags are those of a volume's tags that hold metadata of which there is a
// new value.
func replacedTags(tags []string, metadata snap.Metadata) []string {
	var replaced []string
	for _, tag := range tags {
		key, _, _ := strings.Cut(tag, "=")
		key, _, _ = strings.Cut(strings.TrimPrefix(key, mark+":"), "#")
		if _, is := metadata[key]; is && strings.HasPrefix(tag, mark+":") {
			replaced = append(replaced, tag)
		}
	}
	return replaced
}

// addTags are the arguments that add tags.
func addTags(tags []string) []string {
	var args []string
	for _, tag := range tags {
		args = append(args, "--addtag", tag)
	}
	return args
}
