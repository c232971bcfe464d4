package agentproto

import (
	"fmt"
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

// fileType names the kind of file that st_mode bits tell.
func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return fileRegular
	case unix.S_IFDIR:
		return fileDirectory
	case unix.S_IFLNK:
		return fileSymlink
	default:
		return fileUnknown
	}
}

// copyFileInput makes the input of a CopyFileRequest, without its contents.
func copyFileInput(m *agentpb.CopyFileRequest) (ast.Value, error) {
	kind := fileType(m.GetFileMode())
	target := ast.InternedNullTerm
	if kind == fileSymlink {
		if !utf8.Valid(m.GetData()) {
			return nil, fmt.Errorf("build input: CopyFileRequest: %w", ErrSymlinkTarget)
		}
		target = stringTerm(string(m.GetData()))
	}
	return ast.NewObject(
		ast.Item(ast.InternedTerm("path"), stringTerm(m.GetPath())),
		ast.Item(ast.InternedTerm("file_type"), ast.StringTerm(kind)),
		ast.Item(ast.InternedTerm("symlink_target"), target),
		ast.Item(ast.InternedTerm("file_size"), intTerm(m.GetFileSize())),
		ast.Item(ast.InternedTerm("file_mode"), uintTerm(uint64(m.GetFileMode()))),
		ast.Item(ast.InternedTerm("dir_mode"), uintTerm(uint64(m.GetDirMode()))),
		ast.Item(ast.InternedTerm("uid"), intTerm(int64(m.GetUid()))),
		ast.Item(ast.InternedTerm("gid"), intTerm(int64(m.GetGid()))),
		ast.Item(ast.InternedTerm("offset"), intTerm(m.GetOffset())),
	), nil
}
