// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/server/types"
)

// The documents that agents get nearly always.
var (
	resultTrue  = []byte(`{"result":true}` + "\n")
	resultFalse = []byte(`{"result":false}` + "\n")
)

func (s *Server) postData(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	in, err := readInput(r)
	if err != nil {
		writeError(w, err)
		return
	}
	q := question{input: in, parsed: time.Since(began)}
	if in == nil {
		q.warning = types.NewWarning(types.CodeAPIUsageWarn, types.MsgInputKeyMissing)
	}
	s.answer(w, r, q)
}

func (s *Server) getData(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	in, err := readInputParameter(r)
	if err != nil {
		writeError(w, err)
		return
	}
	s.answer(w, r, question{input: in, parsed: time.Since(began)})
}

// question is a request for a document, read.
type question struct {
	input   input
	parsed  time.Duration // how long it took to read the input
	warning *types.Warning
}

// answer answers with {"result": ...}, or {} when the document is undefined.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, q question) {
	began := time.Now()
	path, err := documentPath(r)
	if err != nil { // the status that OPA gives to it
		writeError(w, failure(http.StatusInternalServerError, codeInternal, "invalid_parameter: invalid path: %s", err.Error()))
		return
	}
	if err := checkParameters(r.URL); err != nil {
		writeError(w, err)
		return
	}
	v, err := s.slot.ask(r.Context(), path, q.input)
	if err != nil {
		writeError(w, err)
		return
	}
	if b, ok := v.(ast.Boolean); ok && r.URL.RawQuery == "" && q.warning == nil {
		if b {
			writeJSON(w, resultTrue)
		} else {
			writeJSON(w, resultFalse)
		}
		return
	}
	resp := types.DataResponseV1{Warning: q.warning}
	if flag(r.URL, types.ParamMetricsV1) {
		resp.Metrics = timers(q.parsed, time.Since(began))
	}
	if v != nil {
		result, err := plain(v)
		if err != nil {
			writeError(w, failure(http.StatusInternalServerError, codeInternal, "%s", err.Error()))
			return
		}
		resp.Result = &result
	}
	writeValue(w, r, resp)
}

// timers are those of OPA's metrics that exist here, in nanoseconds.
func timers(parse, eval time.Duration) types.MetricsV1 {
	return types.MetricsV1{
		"timer_rego_input_parse_ns": parse.Nanoseconds(),
		"timer_rego_query_eval_ns":  eval.Nanoseconds(),
		"timer_server_handler_ns":   (parse + eval).Nanoseconds(),
	}
}

// postV0 answers with the document itself, or 404 when it is undefined.
func (s *Server) postV0(w http.ResponseWriter, r *http.Request) {
	in, err := readInputV0(r)
	if err != nil {
		writeError(w, err)
		return
	}
	path, err := documentPath(r)
	if err != nil {
		writeError(w, failure(http.StatusInternalServerError, codeInternal, "invalid_parameter: invalid path: %s", err.Error()))
		return
	}
	v, err := s.slot.ask(r.Context(), path, in)
	if err == nil && v == nil {
		missing := types.MsgMissingError
		if s.slot.hasRule(path) {
			missing = types.MsgFoundUndefinedError
		}
		err = failure(http.StatusNotFound, codeUndefined, "%s: %v", missing, dataRef(path))
	}
	if err != nil {
		writeError(w, err)
		return
	}
	result, err := plain(v)
	if err != nil {
		writeError(w, failure(http.StatusInternalServerError, codeInternal, "%s", err.Error()))
		return
	}
	writeValue(w, r, result)
}

// documentPath is the path below data that a URL names, each element unescaped.
func documentPath(r *http.Request) ([]string, error) {
	escaped := r.URL.EscapedPath()[len("/v1/data"):] // as long as /v0/data
	var path []string
	for element := range strings.SplitSeq(escaped, "/") {
		if element == "" {
			continue
		}
		name, err := url.PathUnescape(element)
		if err != nil {
			name = element
		}
		if strings.Contains(name, `"`) {
			return nil, fmt.Errorf("invalid ref term '%s'", name)
		}
		path = append(path, name)
	}
	return path, nil
}

// dataRef is path as a Rego reference.
func dataRef(path []string) ast.Ref {
	ref := ast.Ref{ast.DefaultRootDocument}
	for _, name := range path {
		ref = append(ref, ast.StringTerm(name))
	}
	return ref
}
