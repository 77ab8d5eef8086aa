package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"
)

// A segment file is <first LSN, 20 digits>.seg: a header, stored twice in blocks of their own so that one bad block does not
// cost the records behind it, then records without padding. Integers are little-endian.
//
//	        0        8       12       16        24         32         40         48      52      56     4096    8192
//	header  | magic  | version| crcA   | segment | first    | previous | first    | flags | crcB  | zeros | copy  | records...
//	        |sluiceSG| u32    | of 0-12| id u64  | LSN u64  | LSN u64  | time i64 | u32   | of 0-52       |       |
//
//	        0        4        8         16         24     25
//	record  | length | crc    | LSN u64 | time i64 | type | body
//	        | u32    | u32    | bit 63: mark       | u8   |
//
// length counts what follows crc, so it is at least 17 and 0 is never valid. crc is CRC-32C over the segment id and those
// length bytes. Ids are random: bytes left over from a file's earlier life never validate, nor can a device forge a record
// inside a body. The mark says that everything before this record was synced when this record was written, so damage in
// front of a marked record is not a torn write. crcA is there for other versions: magic, version and crcA never move.
const (
	magic         = "sluiceSG"
	version       = 1
	headerBytes   = 2 * headerCopy
	headerCopy    = 4096
	headerUsed    = 56
	recordHeader  = 25
	recordFixed   = recordHeader - 8 // counted by length
	markBit       = 1 << 63
	segmentSuffix = ".seg"
	spareSuffix   = ".spare"

	flagRecycled = 1 // the file held another segment before: what lies behind the last record says nothing
)

// ErrVersion is returned by Open when a segment was written by a newer version of this program; nothing has been touched.
var ErrVersion = errors.New("segment has a newer format version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what a segment's first block says.
type header struct {
	id        uint64
	first     LSN
	previous  LSN   // last LSN of the log before this segment; what lies between it and first never existed
	firstTime int64 // time of the first record, ns since the Unix epoch
	recycled  bool
}

// encode returns both copies.
func (h header) encode() []byte {
	b := make([]byte, headerBytes)
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
	le.PutUint64(b[16:], h.id)
	le.PutUint64(b[24:], uint64(h.first))
	le.PutUint64(b[32:], uint64(h.previous))
	le.PutUint64(b[40:], uint64(h.firstTime))
	if h.recycled {
		le.PutUint32(b[48:], flagRecycled)
	}
	le.PutUint32(b[52:], crc32.Checksum(b[:52], castagnoli))
	copy(b[headerCopy:], b[:headerUsed])
	return b
}

// decodeHeader reads the first valid of the two copies in b, which may be shorter than a header. ok is false when neither is
// valid; the error is ErrVersion when one is of a newer version.
func decodeHeader(b []byte) (h header, ok bool, err error) {
	for at := 0; at <= headerCopy && len(b) >= at+headerUsed; at += headerCopy {
		c := b[at : at+headerUsed]
		le := binary.LittleEndian
		if string(c[:8]) != magic || le.Uint32(c[12:]) != crc32.Checksum(c[:12], castagnoli) {
			continue
		}
		if v := le.Uint32(c[8:]); v != version {
			return h, false, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, v, version)
		}
		if le.Uint32(c[52:]) != crc32.Checksum(c[:52], castagnoli) {
			continue
		}
		return header{
			id:        le.Uint64(c[16:]),
			first:     LSN(le.Uint64(c[24:])),
			previous:  LSN(le.Uint64(c[32:])),
			firstTime: int64(le.Uint64(c[40:])),
			recycled:  le.Uint32(c[48:])&flagRecycled != 0,
		}, true, nil
	}
	return h, false, nil
}

// seedOf starts a record's checksum with the segment's id.
func seedOf(id uint64) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], id)
	return crc32.Checksum(b[:], castagnoli)
}

// appendRecord appends a record whose crc and mark are still open: they depend on the segment it will stand in.
func appendRecord(buf []byte, lsn LSN, typ byte, t int64, bodyBytes int, parts [][]byte) []byte {
	le := binary.LittleEndian
	buf = le.AppendUint32(buf, uint32(recordFixed+bodyBytes))
	buf = le.AppendUint32(buf, 0)
	buf = le.AppendUint64(buf, uint64(lsn))
	buf = le.AppendUint64(buf, uint64(t))
	buf = append(buf, typ)
	for _, p := range parts {
		buf = append(buf, p...)
	}
	return buf
}

func recordBytes(b []byte) int   { return 8 + int(binary.LittleEndian.Uint32(b)) }
func recordLSN(b []byte) LSN     { return LSN(binary.LittleEndian.Uint64(b[8:]) &^ markBit) }
func recordMarked(b []byte) bool { return b[15]&0x80 != 0 }
func recordTime(b []byte) int64  { return int64(binary.LittleEndian.Uint64(b[16:])) }

// seal fills in crc and mark of the records in b, as many whole ones as fit room bytes; it returns their size, number and
// the last one's LSN. The first gets the mark when marked is set.
func seal(b []byte, room int64, seed uint32, marked bool) (size, n int, last LSN) {
	le := binary.LittleEndian
	for size < len(b) {
		r := b[size:]
		r = r[:recordBytes(r)]
		if int64(size+len(r)) > room {
			break
		}
		last = recordLSN(r)
		word := uint64(last)
		if marked && n == 0 {
			word |= markBit
		}
		le.PutUint64(r[8:], word)
		le.PutUint32(r[4:], recordCRC(seed, r))
		size += len(r)
		n++
	}
	return size, n, last
}

// recordCRC is the checksum of a whole record.
func recordCRC(seed uint32, r []byte) uint32 {
	if planted.crcWithoutLSN {
		return crc32.Update(seed, castagnoli, r[16:])
	}
	return crc32.Update(seed, castagnoli, r[8:])
}

// validLength tells whether a record's length field can be one.
func validLength(n uint32) bool {
	return n >= recordFixed && n <= recordFixed+MaxRecord
}

func segmentName(first LSN) string { return fmt.Sprintf("%020d%s", uint64(first), segmentSuffix) }

// segmentFirst is the LSN in a segment's file name.
func segmentFirst(name string) (LSN, bool) {
	digits, ok := strings.CutSuffix(filepath.Base(name), segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return LSN(n), err == nil && n > 0
}

// planted switches on defects that the crash tests must catch; it is zero outside tests.
var planted struct {
	crcWithoutLSN bool
	noSettle      bool // Open trusts what it reads
	noResync      bool // recovery ends at the first bad record of the newest segment
	noSeal        bool // after a failed sync go on in the same segment
	renameFirst   bool // a new segment gets its name before its contents are synced
}
