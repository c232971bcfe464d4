// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"portcullis/engine"
	"portcullis/engine/binding"
	"portcullis/engine/trace"
)

// What a client may take of the server.
const (
	MaxBody   = 16 << 20 // bytes of a request's body: four times a ttrpc message, as bytes are arrays of numbers
	maxHeader = 64 << 10 // bytes of a request's line and headers
	largeBody = 1 << 20  // bytes from which a body waits for its turn
	largeOnes = 4        // large bodies held at a time

	headerTime = 5 * time.Second
	bodyTime   = 30 * time.Second
	answerTime = 60 * time.Second // reading the body and compiling a policy included
	idleTime   = 10 * time.Minute // agents keep their connection, and do not expect it to be closed
)

// Policies decides requests and takes new policies. *binding.Chain implements it.
type Policies interface {
	// Admit decides one request. Its verdict counts for the policy that rules at that moment.
	Admit(ctx context.Context, r engine.Request) (*engine.Verdict, error)
	// SetPolicy makes text the active policy, or returns an error, a *binding.Error where the policy is to blame.
	SetPolicy(ctx context.Context, text []byte) error
	// Suspend leaves a journal that no process can go on from; Resume makes it the active policy's again.
	Suspend() error
	Resume() error
	// Denial is why all requests are denied, a *binding.Error, or nil.
	Denial() error
	// Deny makes all requests denied from now on, whatever policy comes.
	Deny(code binding.Code, cause error)
}

// Config is what a server is made of. Policies, Engine and Default are required.
type Config struct {
	Policies Policies
	Engine   *engine.Engine // the one that Policies judges with
	Default  *engine.Policy // decides until another is put
	ID       string         // under which Default is listed before a PUT names it; empty: default
	Log      *slog.Logger
	Trace    *trace.Log // nil: no decision log
}

// Server serves the API. Make it with New, give it a listener with Serve, end it with Shutdown.
type Server struct {
	http  *http.Server
	slot  *slot
	large chan struct{} // holds an element for each large body that is being served
}

// New makes a server that serves nobody yet.
func New(c Config) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{slot: newSlot(c), large: make(chan struct{}, largeOnes)}
	s.http = &http.Server{
		Handler:           s.bounded(s.routes()),
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       bodyTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers the connections of l until Shutdown, then returns nil. It closes l. See [Listen] for a listener that is safe
// beside containers.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown accepts nothing more and waits until the requests in flight are answered or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET /v1/data":                  s.getData,
		"GET /v1/data/{path...}":        s.getData,
		"POST /v1/data":                 s.postData,
		"POST /v1/data/{path...}":       s.postData,
		"POST /v0/data":                 s.postV0,
		"POST /v0/data/{path...}":       s.postV0,
		"GET /v1/policies":              s.listPolicies,
		"GET /v1/policies/{path...}":    s.getPolicy,
		"PUT /v1/policies/{path...}":    s.putPolicy,
		"DELETE /v1/policies/{path...}": s.deletePolicy,
		"GET /health":                   health,
	} {
		mux.HandleFunc(pattern, plainPath(handle))
	}
	for _, known := range []string{
		"/v1/data", "/v1/data/{path...}", "/v0/data", "/v0/data/{path...}", "/v1/policies", "/v1/policies/{path...}",
	} {
		mux.HandleFunc(known, plainPath(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }))
	}
	for _, other := range []string{
		"/v1/query", "/v1/query/{path...}", "/v1/compile", "/v1/compile/{path...}", "/v1/config", "/v1/status", "/metrics", "GET /health/{path...}",
	} {
		mux.HandleFunc(other, func(w http.ResponseWriter, r *http.Request) {
			writeError(w, failure(http.StatusNotImplemented, codeOperation, "%s is not served here: this is Portcullis in the place of OPA", r.URL.Path))
		})
	}
	return mux
}

// plainPath refuses HEAD and redirects from a path with a slash at its end, as OPA does.
func plainPath(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case strings.HasSuffix(r.URL.Path, "/"):
			http.Redirect(w, r, strings.TrimSuffix(r.URL.Path, "/"), http.StatusMovedPermanently)
		default:
			next(w, r)
		}
	}
}

// bounded limits bodies: each in length, and large ones in number.
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 || r.ContentLength > largeBody {
			select {
			case s.large <- struct{}{}:
				defer func() { <-s.large }()
			case <-r.Context().Done():
				return
			}
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		next.ServeHTTP(w, r)
	})
}

func health(w http.ResponseWriter, _ *http.Request) { writeJSON(w, []byte("{}\n")) }
