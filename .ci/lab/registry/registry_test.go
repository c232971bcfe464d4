// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestImagesAreTheSameBytesEveryTime(t *testing.T) {
	var a, b bytes.Buffer
	for _, out := range []*bytes.Buffer{&a, &b} {
		if err := WriteLayout(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two layouts differ")
	}
}

func TestRegistryServesByTagAndDigest(t *testing.T) {
	h, err := Handler()
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	byTag := get("/v2/library/busybox/manifests/1.36?ns=docker.io")
	byDigest := get("/v2/library/busybox/manifests/" + byTag.Header().Get("Docker-Content-Digest") + "?ns=docker.io")
	if byTag.Code != 200 || byDigest.Code != 200 || byTag.Body.String() != byDigest.Body.String() {
		t.Errorf("by tag %d, by digest %d", byTag.Code, byDigest.Code)
	}
	for _, absent := range []string{"/v2/library/busybox/manifests/1.36?ns=ghcr.io", "/v2/x/blobs/sha256:00", "/v2/x"} {
		if c := get(absent).Code; c != 404 {
			t.Errorf("%s: %d", absent, c)
		}
	}
}
