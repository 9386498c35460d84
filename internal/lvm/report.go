package lvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// row is what lvs(8) tells of one logical volume. The fields are those of
// "lvs -o help"; numbers come as text, and empty where there is none.
type row struct {
	Group     string `json:"vg_name"`
	GroupUUID string `json:"vg_uuid"`
	// GroupFree is in bytes.
	GroupFree string `json:"vg_free"`
	Name      string `json:"lv_name"`
	UUID      string `json:"lv_uuid"`
	// Layout is a list of words such as linear, raid, thin, pool, cache.
	Layout string `json:"lv_layout"`
	// Role is a list of words such as public, snapshot, thicksnapshot.
	Role   string `json:"lv_role"`
	Origin string `json:"origin"`
	Pool   string `json:"pool_lv"`
	// ThinID is the number of a thin volume in its pool. It is of segments, of which
	// a volume may have several, so report does not ask for it.
	ThinID string `json:"thin_id"`
	// Size is in bytes.
	Size string `json:"lv_size"`
	// DataPercent of a pool is how full it is, of a classic snapshot too.
	DataPercent     string `json:"data_percent"`
	MetadataPercent string `json:"metadata_percent"`
	// MetadataSize of a pool is in bytes.
	MetadataSize string `json:"lv_metadata_size"`
	// Health is empty where all is well; otherwise for instance partial, failed,
	// out_of_data, metadata_read_only ("Volume Health" in lvs(8)).
	Health string `json:"lv_health_status"`
	// Invalid, Merging and CheckNeeded are 1, 0, or -1 where it is unknown.
	Invalid     string `json:"lv_snapshot_invalid"`
	Merging     string `json:"lv_merging"`
	CheckNeeded string `json:"lv_check_needed"`
	Tags        string `json:"lv_tags"`
}

// fields are the names of row's fields, for lvs -o.
const fields = "vg_name,vg_uuid,vg_free,lv_name,lv_uuid,lv_layout,lv_role,origin,pool_lv,lv_size,data_percent," +
	"metadata_percent,lv_metadata_size,lv_health_status,lv_snapshot_invalid,lv_merging,lv_check_needed,lv_tags"

// thinFields are the names of the fields for the volumes' numbers in their pools.
const thinFields = "vg_name,lv_name,thin_id"

// reportForm holds whatever the host's lvm.conf could say otherwise of the form
// that lvs prints in (lvmconfig --type default report).
const reportForm = `report { list_item_separator="," binary_values_as_numeric=1 compact_output=0 compact_output_cols="" mark_hidden_devices=0 }`

func (r row) id() string { return r.Group + "/" + r.Name }

func (r row) tags() []string {
	if r.Tags == "" {
		return nil
	}
	return strings.Split(r.Tags, ",")
}

func (r row) is(list, word string) bool { return slices.Contains(strings.Split(list, ","), word) }

func (r row) thin() bool { return r.is(r.Layout, "thin") && !r.is(r.Layout, "pool") }

func (r row) marked() bool { return slices.Contains(r.tags(), mark) }

// deviceUUID is the device-mapper's UUID of the volume: both UUIDs without their
// hyphens behind "LVM-" (UUID_PREFIX in lib/activate/dev_manager.c).
func (r row) deviceUUID() string {
	return "LVM-" + strings.ReplaceAll(r.GroupUUID+r.UUID, "-", "")
}

// number is a field's number; 0 for an empty one.
func number(field string) float64 {
	value, err := strconv.ParseFloat(field, 64)
	if err != nil {
		return 0
	}
	return value
}

// report asks for all volumes of groups; without groups, of all there are. A group
// that does not exist has no rows.
func report(ctx context.Context, groups ...string) ([]row, error) { return ask(ctx, fields, groups) }

func ask(ctx context.Context, fields string, groups []string) ([]row, error) {
	args := []string{"lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--config", reportForm, "-o", fields, "--"}
	out, err := run(ctx, append(args, groups...)...)
	if err != nil && !errors.Is(err, errNotFound) {
		return nil, err
	}
	var answer struct {
		Report []struct {
			Volumes  []row `json:"lv"`
			Segments []row `json:"seg"`
		} `json:"report"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("the answer of lvs: %w", err)
	}
	var rows []row
	for _, part := range answer.Report {
		rows = append(append(rows, part.Volumes...), part.Segments...)
	}
	return rows, nil
}
