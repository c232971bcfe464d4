package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/klauspost/compress/gzip"

	"portcullis/hostdata/initdata"
	"portcullis/rules/generate"
)

// document puts a policy into the initdata of the command line, or into what the
// pod has already, and keeps the other keys.
func (j *job) document(p *generate.Pod, policy []byte) (*initdata.Document, error) {
	base := j.initdata
	if old := p.Annotation(initdata.Annotation); base == nil && old != "" {
		var err error
		if base, err = initdata.ParseAnnotation(old); err != nil {
			return nil, fmt.Errorf("%s: annotation %s: %w; remove it, or give --initdata-path", p.Name(), initdata.Annotation, err)
		}
	}
	algorithm, data := initdata.SHA256, map[string]string{}
	if base != nil {
		algorithm = base.Algorithm()
		for _, key := range base.Keys() {
			data[key], _ = base.Value(key)
		}
	}
	data[initdata.PolicyKey] = string(policy)
	return initdata.New(algorithm, data)
}

// annotationValue encodes a document as [initdata.Document.Annotation] does, in
// fewer bytes than the guest's own code makes: all annotations of a pod together
// have 256 KiB. Reading it back proves that a guest will take it.
func annotationValue(doc *initdata.Document) (string, error) {
	var out bytes.Buffer
	zw, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	zw.ModTime = time.Unix(0, 0) // which the header has as none
	if _, err := zw.Write(doc.Bytes()); err != nil {
		return "", err
	}
	if err := zw.Close(); err != nil {
		return "", err
	}
	value := base64.StdEncoding.EncodeToString(out.Bytes())
	if _, err := initdata.ParseAnnotation(value); err != nil {
		return "", fmt.Errorf("encode initdata annotation: %w", err)
	}
	return value, nil
}
