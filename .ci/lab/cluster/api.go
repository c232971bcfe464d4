// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// API is the API server as the lab's driver uses it: objects are plain maps.
type API struct {
	client *http.Client

	mu    sync.Mutex
	kinds map[string]resource // by apiVersion and kind
}

type resource struct {
	Name, Kind string
	Namespaced bool
}

// Object is a Kubernetes object.
type Object = map[string]any

// ErrStatus is an answer of the API server that is not a success.
type ErrStatus struct {
	Code int
	Body string
}

func (e ErrStatus) Error() string { return fmt.Sprintf("API server: %d: %s", e.Code, e.Body) }

// IsStatus tells whether the API server answered with that code.
func IsStatus(err error, code int) bool {
	var e ErrStatus
	return errors.As(err, &e) && e.Code == code
}

// NewAPI reads the administrator's certificate.
func NewAPI() (*API, error) {
	dir := Dir + "/certificates/"
	pair, err := tls.LoadX509KeyPair(dir+"admin.crt", dir+"admin.key")
	if err != nil {
		return nil, fmt.Errorf("API client: %w", err)
	}
	ca, err := os.ReadFile(dir + "ca.crt")
	if err != nil {
		return nil, fmt.Errorf("API client: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &API{kinds: map[string]resource{}, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool}, MaxIdleConnsPerHost: 32}}}, nil
}

func (a *API) do(method, path string, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, "https://127.0.0.1:6443"+path, content)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	reply, err := a.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	if err != nil {
		return nil, err
	}
	if reply.StatusCode >= 300 {
		return nil, ErrStatus{reply.StatusCode, string(b)}
	}
	return b, nil
}

// Get reads a path.
func (a *API) Get(path string) ([]byte, error) { return a.do(http.MethodGet, path, nil) }

// Object reads a path as an object.
func (a *API) Object(path string) (Object, error) {
	b, err := a.Get(path)
	if err != nil {
		return nil, err
	}
	var o Object
	return o, json.Unmarshal(b, &o)
}

// Delete deletes what lies at a path, and what belongs to it.
func (a *API) Delete(path string, grace int) error {
	_, err := a.do(http.MethodDelete, path, Object{"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace, "propagationPolicy": "Background"})
	if IsStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// Create posts an object, and gives its path. The namespace is default where the object names none.
func (a *API) Create(o Object) (string, error) {
	collection, err := a.collection(o)
	if err != nil {
		return "", err
	}
	name, _ := Field(o, "metadata", "name").(string)
	_, err = a.do(http.MethodPost, collection, o)
	return collection + "/" + name, err
}

func (a *API) collection(o Object) (string, error) {
	version, _ := o["apiVersion"].(string)
	kind, _ := o["kind"].(string)
	base := "/apis/" + version
	if !strings.Contains(version, "/") {
		base = "/api/" + version
	}
	r, err := a.resource(base, kind)
	if err != nil {
		return "", err
	}
	if !r.Namespaced {
		return base + "/" + r.Name, nil
	}
	return base + "/namespaces/" + Namespace(o) + "/" + r.Name, nil
}

// Namespace is that of a namespaced object.
func Namespace(o Object) string {
	if n, _ := Field(o, "metadata", "namespace").(string); n != "" {
		return n
	}
	return "default"
}

func (a *API) resource(base, kind string) (resource, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r, ok := a.kinds[base+kind]; ok {
		return r, nil
	}
	b, err := a.Get(base)
	if err != nil {
		return resource{}, fmt.Errorf("resources of %s: %w", base, err)
	}
	var list struct{ Resources []resource }
	if err := json.Unmarshal(b, &list); err != nil {
		return resource{}, err
	}
	for _, r := range list.Resources {
		if !strings.Contains(r.Name, "/") {
			a.kinds[base+r.Kind] = r
		}
	}
	r, ok := a.kinds[base+kind]
	if !ok {
		return r, fmt.Errorf("%s has no kind %s", base, kind)
	}
	return r, nil
}

func (a *API) nodeReady() error {
	node, err := a.Object("/api/v1/nodes/" + NodeName)
	if err != nil {
		return err
	}
	conditions, _ := Field(node, "status", "conditions").([]any)
	for _, c := range conditions {
		if c, _ := c.(Object); c["type"] == "Ready" && c["status"] == "True" {
			return nil
		}
	}
	return errors.New("not ready yet")
}

// Field reads a field below an object, nil where it is not there.
func Field(o Object, path ...string) any {
	var v any = o
	for _, p := range path {
		m, ok := v.(Object)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}
