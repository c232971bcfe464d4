// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine/trace"
)

const (
	copyFile  = "CopyFileRequest"
	sumField  = "data_sha256"
	sizeField = "data_size"
)

// withContents adds what the gate says of a file's data, where the recording holds the data and does not say it.
func withContents(input ast.Value) ast.Value {
	object, ok := input.(ast.Object)
	if !ok || object.Get(ast.StringTerm(sumField)) != nil {
		return input
	}
	data, ok := dataOf(object)
	if !ok {
		return input
	}
	sum := sha256.Sum256(data)
	merged, _ := object.Merge(ast.NewObject(
		ast.Item(ast.StringTerm(sumField), ast.StringTerm(hex.EncodeToString(sum[:]))),
		ast.Item(ast.StringTerm(sizeField), ast.NewTerm(ast.Number(strconv.Itoa(len(data)))))))
	return merged
}

// dataOf reads the field data, an array of bytes. Older agents leave it out.
func dataOf(object ast.Object) ([]byte, bool) {
	term := object.Get(ast.StringTerm("data"))
	if term == nil {
		return nil, false
	}
	list, ok := term.Value.(*ast.Array)
	if !ok {
		return nil, false
	}
	data := make([]byte, 0, list.Len())
	for i := range list.Len() {
		n, ok := list.Elem(i).Value.(ast.Number)
		b, whole := n.Int()
		if !ok || !whole || b < 0 || b > 255 {
			return nil, false
		}
		data = append(data, byte(b))
	}
	return data, true
}

// knowsContents is false where a request was denied and would be allowed if the file had contents that the policy names: the
// recording does not say which it had.
func (s *Session) knowsContents(ctx context.Context, record trace.Record, input ast.Value) (bool, error) {
	object, ok := input.(ast.Object)
	active := s.engine.Active()
	if !ok || record.Kind != copyFile || active == nil || object.Get(ast.StringTerm(sumField)) != nil || !active.Names(copyFile, sumField) {
		return true, nil
	}
	if s.digests == nil {
		s.digests = digestsOf(active.Text())
	}
	for _, sum := range s.digests {
		with, _ := object.Merge(ast.NewObject(ast.Item(ast.StringTerm(sumField), ast.StringTerm(sum))))
		d, err := s.once(ctx, record, with)
		if err != nil || d.Outcome == Allowed {
			return false, err
		}
	}
	return true, nil
}

var digest = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// maxDigests bounds what is tried for one file.
const maxDigests = 256

// digestsOf are the digests that a policy names, whatever for.
func digestsOf(text []byte) []string {
	all := []string{}
	for _, sum := range digest.FindAllString(string(text), -1) {
		if !slices.Contains(all, sum) && len(all) < maxDigests {
			all = append(all, sum)
		}
	}
	return all
}
