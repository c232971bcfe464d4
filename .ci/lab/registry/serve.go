// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Handler serves every image as registries do, read-only. The host that the kubelet named comes as the query's ns, from containerd.
func Handler() (http.Handler, error) {
	content := map[string]blob{}
	tags := map[string]blob{} // host/path:tag
	for _, i := range Images() {
		blobs, err := i.build()
		if err != nil {
			return nil, fmt.Errorf("build the image %s: %w", i.Name, err)
		}
		tags[i.Name] = blobs[0]
		for _, b := range blobs {
			content[b.digest] = b
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		name, kind, reference := split(r.URL.Path)
		found, ok := content[reference]
		if kind == "manifests" && !strings.HasPrefix(reference, "sha256:") {
			found, ok = tags[r.URL.Query().Get("ns")+"/"+name+":"+reference]
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", found.media)
		w.Header().Set("Docker-Content-Digest", found.digest)
		w.Header().Set("Content-Length", strconv.Itoa(len(found.content)))
		if r.Method == http.MethodGet {
			w.Write(found.content)
		}
	}), nil
}

// split takes /v2/NAME/manifests|blobs/REFERENCE apart.
func split(path string) (name, kind, reference string) {
	parts := strings.Split(strings.TrimPrefix(path, "/v2/"), "/")
	if len(parts) < 3 {
		return "", "", ""
	}
	n := len(parts)
	return strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1]
}
