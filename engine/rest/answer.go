// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/server/types"

	"portcullis/engine"
	"portcullis/engine/binding"
)

// The words of OPA's error documents that are used here.
const (
	codeInternal  = types.CodeInternal
	codeParameter = types.CodeInvalidParameter
	codeOperation = types.CodeInvalidOperation
	codeForbidden = types.CodeUnauthorized
	codeConflict  = types.CodeResourceConflict
	codeNotFound  = types.CodeResourceNotFound
	codeUndefined = types.CodeUndefinedDocument
)

// refusal is an error with its status and document.
type refusal struct {
	status   int
	document *types.ErrorV1
}

func (r *refusal) Error() string { return r.document.Error() }

func failure(status int, code, format string, args ...any) *refusal {
	return &refusal{status: status, document: types.NewErrorV1(code, format, args...)}
}

// writeError answers with err's document; an error without one is a failed evaluation.
func writeError(w http.ResponseWriter, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		r = failure(http.StatusInternalServerError, codeInternal, types.MsgEvaluationError)
		r.document.Errors = []error{&detail{Code: "eval_error", Message: engine.OneLine(err.Error(), maxMessage)}}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(r.status)
	_, _ = w.Write(append(r.document.Bytes(), '\n'))
}

// maxMessage bounds what an error document says of one error, in bytes.
const maxMessage = 512

// detail is one element of an error document's errors.
type detail struct {
	Code     string    `json:"code"`
	Message  string    `json:"message"`
	Location *location `json:"location,omitempty"`
}

type location struct {
	File string `json:"file"`
	Row  int    `json:"row"`
	Col  int    `json:"col"`
}

func (d *detail) Error() string { return d.Code + ": " + d.Message }

// policyRefusal is the answer to a PUT of a policy that the chain refused.
func policyRefusal(id string, err error) *refusal {
	var bad *engine.CompileError
	var e *binding.Error
	message := engine.OneLine(err.Error(), maxMessage)
	switch {
	case errors.Is(err, engine.ErrTextEmpty):
		return failure(http.StatusBadRequest, codeParameter, "%s:0: rego_parse_error: empty module", id)
	case errors.As(err, &bad):
		r := failure(http.StatusBadRequest, codeParameter, types.MsgCompileModuleError)
		r.document.Errors = []error{&detail{Code: bad.Code, Message: bad.Message, Location: &location{File: id, Row: bad.Line, Col: bad.Column}}}
		return r
	case !errors.As(err, &e):
		return failure(http.StatusInternalServerError, codeInternal, "%s", message)
	}
	switch e.Code {
	case binding.CodePolicyInvalid, binding.CodePolicyTooLarge, binding.CodePolicyWaives:
		return failure(http.StatusBadRequest, codeParameter, "%s", message)
	case binding.CodeForbidden, binding.CodeInitdataLocked, binding.CodeDigestMismatch:
		return failure(http.StatusForbidden, codeForbidden, "%s", message)
	case binding.CodeAlreadySet, binding.CodeAlreadyRunning:
		return failure(http.StatusConflict, codeConflict, "%s", message)
	}
	return failure(http.StatusInternalServerError, codeInternal, "%s", message)
}

// writeJSON answers with text, a JSON document and a newline.
func writeJSON(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

// writeValue answers with the JSON of v, indented if the request says ?pretty.
func writeValue(w http.ResponseWriter, r *http.Request, v any) {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	if flag(r.URL, types.ParamPrettyV1) {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		writeError(w, failure(http.StatusInternalServerError, codeInternal, "%s", err.Error()))
		return
	}
	writeJSON(w, []byte(text.String()))
}

// plain is v as encoding/json takes it.
func plain(v ast.Value) (any, error) {
	x, err := ast.JSON(v)
	if err != nil {
		return nil, fmt.Errorf("encode result: %w", err)
	}
	return x, nil
}

// flag reads a boolean of the URL's query: there without a value, or true.
func flag(u *url.URL, name string) bool {
	if u.RawQuery == "" {
		return false
	}
	values, ok := u.Query()[name]
	if !ok {
		return false
	}
	if len(values) == 1 && values[0] == "" {
		return true
	}
	for _, v := range values {
		if strings.EqualFold(v, "true") {
			return true
		}
	}
	return false
}

// unserved are query parameters of OPA that change the answer in a way that is not offered here.
var unserved = []string{types.ParamProvenanceV1, types.ParamInstrumentV1, types.ParamStrictBuiltinErrors, types.ParamRuleLabelsV1}

// checkParameters refuses what would otherwise be left out of the answer in silence.
func checkParameters(u *url.URL) error {
	if u.RawQuery == "" {
		return nil
	}
	for _, mode := range u.Query()[types.ParamExplainV1] {
		switch types.ExplainModeV1(mode) {
		case types.ExplainNotesV1, types.ExplainFailsV1, types.ExplainFullV1, types.ExplainDebugV1:
			return failure(http.StatusBadRequest, codeParameter, "explain is not served here; policyctl explain says why a request is denied")
		}
	}
	for _, name := range unserved {
		if flag(u, name) {
			return failure(http.StatusBadRequest, codeParameter, "%s is not served here", name)
		}
	}
	return nil
}
