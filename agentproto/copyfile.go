// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"golang.org/x/sys/unix"

	"portcullis/agentproto/agentpb"
)

var copyFileType = (*agentpb.CopyFileRequest)(nil).ProtoReflect().Type()

// Kinds of file, as the input of a CopyFileRequest names them.
const (
	fileRegular   = "Regular"
	fileDirectory = "Directory"
	fileSymlink   = "Symlink"
	fileUnknown   = "Unknown"
)

// fileType names the kind of file that the agent makes for st_mode bits. It tests bits, not the whole type, and directories
// come first: for it a socket (0o140000) is a directory, and 0o130000 a link. What is neither it writes as a file.
func fileType(mode uint32) string {
	switch {
	case mode&unix.S_IFDIR == unix.S_IFDIR:
		return fileDirectory
	case mode&unix.S_IFLNK == unix.S_IFLNK:
		return fileSymlink
	case mode&unix.S_IFREG == unix.S_IFREG:
		return fileRegular
	default:
		return fileUnknown
	}
}

// ErrFileMode says that the file_mode of a CopyFileRequest is of no type that can be copied, or of several.
var ErrFileMode = errors.New("file_mode is not that of a file, a directory or a symbolic link")

// CheckFileMode refuses, with ErrFileMode, the type bits that do not name one of the three types that a host copies. A mode
// without any passes: it is judged as Unknown.
func CheckFileMode(mode uint32) error {
	switch mode & unix.S_IFMT {
	case 0, unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
		return nil
	default:
		return fmt.Errorf("%w: %#o", ErrFileMode, mode&unix.S_IFMT)
	}
}

// copyFileInput makes the input of a CopyFileRequest, without its contents.
func copyFileInput(m *agentpb.CopyFileRequest) (ast.Value, error) {
	kind := fileType(m.GetFileMode())
	target := ast.InternedNullValue
	if kind == fileSymlink {
		if !utf8.Valid(m.GetData()) {
			return nil, fmt.Errorf("build input: CopyFileRequest: %w", ErrSymlinkTarget)
		}
		target = stringValue(string(m.GetData()))
	}
	return ast.NewObject(
		item("path", stringValue(m.GetPath())),
		item("file_type", ast.String(kind)),
		item("symlink_target", target),
		item("file_size", intValue(m.GetFileSize())),
		item("file_mode", uintValue(uint64(m.GetFileMode()))),
		item("dir_mode", uintValue(uint64(m.GetDirMode()))),
		item("uid", intValue(int64(m.GetUid()))),
		item("gid", intValue(int64(m.GetGid()))),
		item("offset", intValue(m.GetOffset())),
	), nil
}

func item(key string, value ast.Value) [2]*ast.Term {
	return ast.Item(ast.InternedTerm(key), ast.NewTerm(value))
}

// copyFileMessage turns the decided shape of a CopyFileRequest into that of the
// message, as far as possible; what is not in the judged shape passes.
func copyFileMessage(judged map[string]any) (map[string]any, error) {
	raw := maps.Clone(judged)
	delete(raw, "file_type")
	delete(raw, "symlink_target")
	if kind, ok := judged["file_type"]; ok {
		mode, err := modeOf(kind, judged["file_mode"])
		if err != nil {
			return nil, at("file_type", err)
		}
		raw["file_mode"] = mode
	}
	if judged["symlink_target"] == nil {
		return raw, nil
	}
	target, ok := judged["symlink_target"].(string)
	switch {
	case !ok:
		return nil, at("symlink_target", mismatch("string", judged["symlink_target"]))
	case judged["file_type"] != fileSymlink:
		return nil, at("symlink_target", errors.New("file_type is not Symlink"))
	case judged["data"] != nil:
		return nil, at("symlink_target", errors.New("data is given too"))
	}
	data := make([]any, len(target))
	for i := range len(target) {
		data[i] = json.Number(strconv.Itoa(int(target[i])))
	}
	raw["data"] = data
	return raw, nil
}

// modeOf is the file_mode for a file_type: that of the request if it tells the
// same, with the S_IFMT bits of the type if it has none.
func modeOf(kind, mode any) (any, error) {
	var want uint64
	switch kind {
	case fileRegular:
		want = unix.S_IFREG
	case fileDirectory:
		want = unix.S_IFDIR
	case fileSymlink:
		want = unix.S_IFLNK
	case fileUnknown:
	default:
		return nil, errors.New("want Regular, Directory, Symlink or Unknown")
	}
	if mode == nil {
		return json.Number(strconv.FormatUint(want, 10)), nil
	}
	number, ok := mode.(json.Number)
	if !ok {
		return mode, nil // refused with its own path later
	}
	given, err := strconv.ParseUint(number.String(), 10, 32)
	if err != nil {
		return mode, nil
	}
	if given&unix.S_IFMT == 0 {
		given |= want
	}
	if got := fileType(uint32(given)); got != kind {
		return nil, fmt.Errorf("%v, but file_mode says %s", kind, got)
	}
	return json.Number(strconv.FormatUint(given, 10)), nil
}
