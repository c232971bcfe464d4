// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/testing/testdata"

	"portcullis/internal/measuretest"
	"portcullis/measure"
	"portcullis/measure/eventlog"
)

const verifyPage = "../../docs/verify.md"

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestTheVerifyPageRunsAsPrinted runs each command of docs/verify.md in one folder, in order, guest and verifier alike, against a
// software TPM with tpm2-tools. What is put around them: roots of a test chain in AMD's place, the date of Intel's genuine quote, and
// a resource manager, which a guest's /dev/tpmrm0 has.
func TestTheVerifyPageRunsAsPrinted(t *testing.T) {
	tpm, err := measuretest.Start()
	if err != nil {
		skipWithoutTPM(t, err)
	}
	t.Cleanup(func() { tpm.Close() })
	d := desk{t, t.TempDir()}
	nonce := testdata.RawQuote[0x30+520:][:64]
	d.pageFiles(tpm, nonce)
	page, err := os.ReadFile(verifyPage)
	if err != nil {
		t.Fatal(err)
	}
	exits := map[string]int{"policyctl verify tdx": exitNo} // the genuine quote is of a guest that binds nothing
	ran := map[string]int{}
	for _, block := range shellBlock.FindAllStringSubmatch(string(page), -1) {
		for command := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
			words := strings.Fields(command)
			verb := strings.Join(words[:min(3, len(words))], " ")
			ran[words[0]]++
			out, code := d.shell(tpm, nonce, strings.ReplaceAll(command, "/run/portcullis/", "run/"))
			if code != exits[verb] {
				t.Errorf("%sexit code %d, want %d\n%s", command, code, exits[verb], out)
			}
			if verb == "policyctl verify tdx" && strings.Count(out, "fail ") != 1 {
				t.Errorf("%s%s\nwant mrconfigid to fail and nothing else", command, out)
			}
			if strings.Contains(out, "WARN") {
				t.Errorf("%sa library speaks on standard output, where --json prints:\n%s", command, out)
			}
			if strings.HasPrefix(words[0], "tpm2_createek") {
				d.certify(tpm)
			}
		}
	}
	for _, program := range []string{"policyctl", "tpm2_quote", "tpm2_activatecredential"} {
		if ran[program] == 0 {
			t.Errorf("the page runs no %s", program)
		}
	}
}

func skipWithoutTPM(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, measuretest.ErrMissing) || os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip("SKIPPED: ", err)
}

// pageFiles makes what the page's commands start from.
func (d desk) pageFiles(tpm *measuretest.SWTPM, nonce []byte) {
	d.t.Helper()
	d.write("policy.rego", []byte(policyText))
	d.write("initdata.toml", []byte("version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"policy.rego\" = '''\n"+policyText+"'''\n"))
	signer := newSNPSigner(d.t)
	d.write("report.bin", signer.report(nonce, nil))
	d.write("vcek.pem", certificate(signer.Vcek.Raw))
	d.write("amd.pem", signer.roots())
	d.write("quote.bin", testdata.RawQuote)
	body := testdata.RawQuote[0x30:]
	reference := map[string][]string{"mr_td": {hex.EncodeToString(body[136:][:48])}, "pcr_9": {strings.Repeat("00", 32)}}
	for n := range 4 {
		reference[fmt.Sprintf("rtmr_%d", n)] = []string{hex.EncodeToString(body[328+48*n:][:48])}
	}
	text, err := json.Marshal(reference)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("reference.json", text)
	if err := os.Mkdir(filepath.Join(d.dir, "run"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	r, err := measure.New(measure.Config{Device: tpm.Device(), PCR: 8, Log: filepath.Join(d.dir, "run/measure.jsonseq")})
	if err != nil {
		d.t.Fatal(err)
	}
	b, err := readBoundPolicy(filepath.Join(d.dir, "policy.rego"), "sha256")
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := r.Update(d.t.Context(), measure.Event{Type: eventlog.Policy, Binding: eventlog.Policy, Alg: "sha256", Digest: b.Digest, Len: int64(b.Size)}); err != nil {
		d.t.Fatal(err)
	}
}

// shell runs a command as the page prints it, and returns what it prints and its exit code.
func (d desk) shell(tpm *measuretest.SWTPM, nonce []byte, command string) (string, int) {
	d.t.Helper()
	bin := filepath.Join(d.dir, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		d.t.Fatal(err)
	}
	real, err := exec.LookPath("policyctl")
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("bin/policyctl", []byte("#!/bin/sh\ncase \"$1 $2\" in\n'verify snp') set -- \"$@\" --roots amd.pem --product Milan ;;\n"+
		"'verify tdx') set -- \"$@\" --at 2023-07-01T01:00:00Z ;;\nesac\nexec "+real+" \"$@\"\n"))
	if err := os.Chmod(filepath.Join(bin, "policyctl"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.CommandContext(d.t.Context(), "sh", "-c", command)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TPM2TOOLS_TCTI="+tpm.TCTI(),
		"NONCE="+hex.EncodeToString(nonce), "MEASUREMENT="+hex.EncodeToString(snpMeasurement))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	if strings.HasPrefix(command, "tpm2_") {
		if _, err := tpm.Tool(d.dir, "tpm2_flushcontext", "-t"); err != nil {
			skipWithoutTPM(d.t.(*testing.T), err)
		}
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// certify makes the endorsement certificate of the TPM, ek.pem, and the vendor's root, vendors.pem.
func (d desk) certify(tpm *measuretest.SWTPM) {
	d.t.Helper()
	if _, err := tpm.Tool(d.dir, "tpm2_readpublic", "-c", "ek.ctx", "-f", "pem", "-o", "ek.pub.pem"); err != nil {
		d.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "ek.pub.pem"))
	if err != nil {
		d.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	ek, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		d.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vendor"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter}
	for _, c := range []struct {
		file string
		of   *x509.Certificate
		pub  any
	}{{"vendors.pem", root, key.Public()}, {"ek.pem", leaf, ek}} {
		der, err := x509.CreateCertificate(rand.Reader, c.of, root, c.pub, key)
		if err != nil {
			d.t.Fatal(err)
		}
		d.write(c.file, certificate(der))
	}
	if _, err := tpm.Tool(d.dir, "tpm2_flushcontext", "-t"); err != nil {
		d.t.Fatal(err)
	}
}
