package pgctl

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"pgsnap/internal/wal"
)

// ControlFile is the part of global/pg_control that a backup is checked by
// (ControlFileData in src/include/catalog/pg_control.h).
type ControlFile struct {
	SystemIdentifier uint64
	Version          uint32 // of the file's format: 1002 for 10, 1300 for 13 to 16 …
	State            ClusterState
	Checkpoint       wal.LSN // of the latest checkpoint record
	Redo             wal.LSN // where recovery from it begins
	Timeline         uint32  // of that checkpoint
}

// ClusterState is DBState of pg_control.h.
type ClusterState uint32

// The states that last; the others are moments of a start or stop.
const (
	ShutDown           ClusterState = 1
	ShutDownInRecovery ClusterState = 2
	InArchiveRecovery  ClusterState = 5
	InProduction       ClusterState = 6
)

const (
	controlFileSize  = 8192 // PG_CONTROL_FILE_SIZE
	controlFileReads = 10
	controlFilePause = 10 * time.Millisecond
)

// controlLayout is where fields lie in one format of the file.
type controlLayout struct {
	redo int // offset of checkPointCopy
	crc  int // offset of the checksum, which covers all before it
}

// The formats of 10 to 18. 11 dropped the previous checkpoint's location.
var controlLayouts = map[uint32]controlLayout{
	1002: {redo: 48, crc: 288},
	1100: {redo: 40, crc: 280},
	1201: {redo: 40, crc: 288},
	1300: {redo: 40, crc: 288},
	1700: {redo: 40, crc: 288},
	1800: {redo: 40, crc: 292},
}

// ReadControlFile reads the control file of a data directory. Not every file
// system keeps a reader from seeing half of what a running server writes, so one
// that looks damaged is read again before it is believed to be (get_controlfile
// in controldata_utils.c does so too).
func ReadControlFile(dataDirectory string) (ControlFile, error) {
	path := filepath.Join(dataDirectory, "global", "pg_control")
	for reads := 1; ; reads++ {
		data, err := os.ReadFile(path)
		if err != nil {
			return ControlFile{}, err
		}
		control, err := ParseControlFile(data)
		if err == nil {
			return control, nil
		}
		if reads == controlFileReads {
			return control, fmt.Errorf("%s: %w", path, err)
		}
		time.Sleep(controlFilePause)
	}
}

// ParseControlFile reads a control file's content and checks its checksum.
func ParseControlFile(data []byte) (ControlFile, error) {
	var control ControlFile
	if len(data) != controlFileSize {
		return control, fmt.Errorf("it has %d bytes instead of %d", len(data), controlFileSize)
	}
	control.SystemIdentifier = binary.LittleEndian.Uint64(data[0:])
	control.Version = binary.LittleEndian.Uint32(data[8:])
	layout, known := controlLayouts[control.Version]
	if !known {
		return control, fmt.Errorf("its format %d is not one of PostgreSQL 10 to 18", control.Version)
	}
	sum := crc32.Checksum(data[:layout.crc], crc32.MakeTable(crc32.Castagnoli))
	if stored := binary.LittleEndian.Uint32(data[layout.crc:]); sum != stored {
		return control, fmt.Errorf("its checksum is wrong: it says %08X, its content gives %08X", stored, sum)
	}
	control.State = ClusterState(binary.LittleEndian.Uint32(data[16:]))
	control.Checkpoint = wal.LSN(binary.LittleEndian.Uint64(data[32:]))
	control.Redo = wal.LSN(binary.LittleEndian.Uint64(data[layout.redo:]))
	control.Timeline = binary.LittleEndian.Uint32(data[layout.redo+8:])
	return control, nil
}
