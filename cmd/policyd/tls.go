// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"

	"portcullis/engine/gate"
	"portcullis/internal/bounded"
	"portcullis/internal/strictjson"
)

// tlsConfig says where the certificates of tls:// addresses are: in files, or in the configuration that agent-protocol-forwarder is
// started with, whose place the gate takes towards the network.
type tlsConfig struct {
	Certificate string `toml:"certificate"` // file with PEM, as -cert-file of the forwarder
	Key         string `toml:"key"`         // -cert-key
	ClientCA    string `toml:"client_ca"`   // -ca-cert-file
	Forwarder   string `toml:"forwarder"`   // the forwarder's JSON, for what no file is given for
}

// maxTLSFile is the largest file with certificates, in bytes.
const maxTLSFile = 1 << 20

func (c tlsConfig) validate() error {
	for key, path := range map[string]string{"certificate": c.Certificate, "key": c.Key, "client_ca": c.ClientCA} {
		switch {
		case path == "" && c.Forwarder == "":
			return fmt.Errorf("gate.tls.%s is not set: a tls:// address needs certificate, key and client_ca, or the forwarder's configuration", key)
		case path != "" && !filepath.IsAbs(path):
			return fmt.Errorf("gate.tls.%s = %q: want an absolute path", key, path)
		}
	}
	if c.Forwarder != "" && !filepath.IsAbs(c.Forwarder) {
		return fmt.Errorf("gate.tls.forwarder = %q: want an absolute path", c.Forwarder)
	}
	return nil
}

// files reads what the configuration names.
func (c tlsConfig) files() (f gate.TLSFiles, err error) {
	var given struct {
		Certificate string `json:"tls-server-cert"`
		Key         string `json:"tls-server-key"`
		ClientCA    string `json:"tls-client-ca"`
	}
	if c.Forwarder != "" && (c.Certificate == "" || c.Key == "" || c.ClientCA == "") {
		text, err := readTLSFile(c.Forwarder)
		if err != nil {
			return f, err
		}
		if strictjson.Unmarshal(text, &given) != nil { // whose error would quote a key
			return f, fmt.Errorf("read %s: not the forwarder's JSON", c.Forwarder)
		}
	}
	for _, part := range []struct {
		to   *[]byte
		file string
		text string
		name string
	}{
		{&f.Certificate, c.Certificate, given.Certificate, "tls-server-cert"}, {&f.Key, c.Key, given.Key, "tls-server-key"},
		{&f.ClientCA, c.ClientCA, given.ClientCA, "tls-client-ca"},
	} {
		*part.to = []byte(part.text)
		switch {
		case part.file != "":
			if *part.to, err = readTLSFile(part.file); err != nil {
				return f, err
			}
		case part.text == "":
			return f, fmt.Errorf("read %s: it has no %s", c.Forwarder, part.name)
		}
	}
	return f, nil
}

func readTLSFile(path string) ([]byte, error) {
	text, err := bounded.ReadFile(path, maxTLSFile)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	return text, nil
}
