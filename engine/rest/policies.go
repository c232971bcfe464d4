// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"net/http"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/server/types"
)

func (s *Server) listPolicies(w http.ResponseWriter, r *http.Request) {
	list := types.PolicyListResponseV1{Result: []types.PolicyV1{}}
	if id, text := s.slot.held(); text != nil {
		list.Result = append(list.Result, policyDocument(id, text))
	}
	writeValue(w, r, list)
}

func (s *Server) getPolicy(w http.ResponseWriter, r *http.Request) {
	id, text := s.slot.held()
	if wanted := r.PathValue("path"); text == nil || id != wanted {
		writeError(w, noPolicy(wanted))
		return
	}
	writeValue(w, r, types.PolicyGetResponseV1{Result: policyDocument(id, text)})
}

func noPolicy(id string) *refusal {
	return failure(http.StatusNotFound, codeNotFound, "storage_not_found_error: policy id %q", id)
}

// policyDocument describes a policy as OPA does. A text that is no Rego v0 has no syntax tree here.
func policyDocument(id string, text []byte) types.PolicyV1 {
	doc := types.PolicyV1{ID: id, Raw: string(text)}
	module, err := ast.ParseModuleWithOpts(id, doc.Raw, ast.ParserOptions{RegoVersion: ast.RegoV0})
	if err != nil {
		return doc
	}
	c := ast.NewCompiler().WithEnablePrintStatements(true)
	if c.Compile(map[string]*ast.Module{id: module}); !c.Failed() {
		doc.AST = c.Modules[id]
	}
	return doc
}

func (s *Server) putPolicy(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	text, err := readAll(r)
	if err == nil {
		err = s.slot.put(r.Context(), r.PathValue("path"), text)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	done(w, r, began)
}

func (s *Server) deletePolicy(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	if err := s.slot.delete(r.Context(), r.PathValue("path")); err != nil {
		writeError(w, err)
		return
	}
	done(w, r, began)
}

// done answers {}: what was asked for has been done.
func done(w http.ResponseWriter, r *http.Request, began time.Time) {
	resp := types.PolicyPutResponseV1{}
	if flag(r.URL, types.ParamMetricsV1) {
		resp.Metrics = types.MetricsV1{"timer_server_handler_ns": time.Since(began).Nanoseconds()}
	}
	writeValue(w, r, resp)
}
