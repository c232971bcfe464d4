// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package main

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"testing"
)

// syncBuffer is written and read by several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// freeAddress is one that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// health asks a webhook how it is.
func health(t *testing.T, address string) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	r, err := client.Get("https://" + address + "/healthz")
	if err != nil {
		t.Error(err)
		return 0
	}
	defer r.Body.Close()
	return r.StatusCode
}
