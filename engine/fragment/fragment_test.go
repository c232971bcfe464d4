// SPDX-License-Identifier: Apache-2.0

package fragment_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"

	"portcullis/engine/fragment"
)

// TestEnvelopesOfPycose: what another implementation signed is taken, and by nobody else's key.
func TestEnvelopesOfPycose(t *testing.T) {
	other := byKey(t, newKey(t).Public())
	for _, name := range []string{"es256", "es384", "eddsa", "ps256", "x5chain"} {
		t.Run(name, func(t *testing.T) {
			envelope := readVector(t, name+".cose")
			issuer := fragment.Issuer{Feed: feed, Key: string(readVector(t, name+".key")), May: mayImage()}
			if name == "x5chain" {
				issuer.Key, issuer.Root, issuer.Subject = "", issuer.Key, map[string]string{"CN": "Example Release"}
			}
			if _, err := issuerOf(envelope, other, issuer); err != nil {
				t.Error(err)
			}
			if _, err := issuerOf(envelope, other); !errors.Is(err, fragment.ErrSignature) {
				t.Errorf("by another's key: %v, want ErrSignature", err)
			}
		})
	}
}

func readVector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "pycose", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pythonVar names a Python that has pycose, which is then asked too: make cose.
const pythonVar = "PORTCULLIS_COSE_PYTHON"

// TestOurEnvelopes: each algorithm verifies here, and with pycose if it is there; by another key neither.
func TestOurEnvelopes(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ES256": newKey(t), "EdDSA": edwards, "ES384": p384, "PS256": long} {
		envelope := sign(t, update(3), key)
		if _, err := issuerOf(envelope, byKey(t, key.Public())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s, err := fragment.Open(envelope); err != nil || s.Algorithm() != name {
			t.Errorf("%s: it says %s, %v", name, s.Algorithm(), err)
		}
		askPycose(t, name, envelope, key)
	}
}

func askPycose(t *testing.T, name string, envelope []byte, key crypto.Signer) {
	t.Helper()
	python := os.Getenv(pythonVar)
	if python == "" {
		return
	}
	want, err := update(3).JSON()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fragment")
	if err := os.WriteFile(file, envelope, 0o600); err != nil {
		t.Fatal(err)
	}
	ask := exec.Command(python, "testdata/cose.py", "verify", spki(t, key.Public()), file)
	var said bytes.Buffer
	ask.Stderr = &said
	if got, err := ask.Output(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: pycose says %v, payload %q\n%s", name, err, got, &said)
		return
	}
	if exec.Command(python, "testdata/cose.py", "verify", spki(t, newKey(t).Public()), file).Run() == nil {
		t.Errorf("%s: pycose verifies it by another key", name)
	}
	t.Logf("pycose has verified %s", name)
}

// TestEachByteOfAnEnvelopeCounts flips every bit, and cuts and adds bytes.
func TestEachByteOfAnEnvelopeCounts(t *testing.T) {
	root := newAuthority(t, nil)
	key := newKey(t)
	leaf := root.issue(t, key, leafCertificate)
	chained := fragment.Issuer{Feed: feed, May: mayImage(), Root: root.digest(), Subject: map[string]string{"CN": "Release"}}
	for name, tt := range map[string]struct {
		envelope []byte
		issuer   fragment.Issuer
	}{
		"key":     {sign(t, update(3), key), byKey(t, key.Public())},
		"x5chain": {sign(t, update(3), key, leaf.Raw, root.cert.Raw), chained},
	} {
		if _, err := issuerOf(tt.envelope, tt.issuer); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range tt.envelope {
			for bit := range 8 {
				changed := bytes.Clone(tt.envelope)
				changed[i] ^= 1 << bit
				if _, err := issuerOf(changed, tt.issuer); err == nil {
					t.Errorf("%s: bit %d of byte %d does not count", name, bit, i)
				}
			}
			if _, err := issuerOf(tt.envelope[:i], tt.issuer); err == nil {
				t.Errorf("%s: cut at byte %d it is taken", name, i)
			}
		}
		if _, err := issuerOf(append(bytes.Clone(tt.envelope), 0), tt.issuer); err == nil {
			t.Errorf("%s: with a byte more it is taken", name)
		}
	}
}

// signWith makes an envelope with any headers over any payload.
func signWith(t testing.TB, key *ecdsa.PrivateKey, protected cose.ProtectedHeader, unprotected cose.UnprotectedHeader, payload []byte) []byte {
	t.Helper()
	signer, err := cose.NewSigner(cose.AlgorithmES256, key)
	if err != nil {
		t.Fatal(err)
	}
	m := cose.NewSign1Message()
	m.Payload = payload
	m.Headers = cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: cose.AlgorithmES256,
		cose.HeaderLabelContentType: fragment.ContentType}, Unprotected: unprotected}
	for label, value := range protected {
		m.Headers.Protected[label] = value
	}
	if err := m.Sign(rand.Reader, nil, signer); err != nil {
		t.Fatal(err)
	}
	envelope, err := m.MarshalCBOR()
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// raw makes a tagged COSE_Sign1 of given CBOR for its parts.
func raw(t testing.TB, parts ...string) []byte {
	return append([]byte{0xd2, 0x84}, strings.Join(parts, "")...)
}

// bstr is a byte string of CBOR.
func bstr(t testing.TB, b []byte) string {
	t.Helper()
	out, err := cbor.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// longHead is a byte string of CBOR with its length in four bytes, where fewer do.
func longHead(b []byte) string {
	return string(binary.BigEndian.AppendUint32([]byte{0x5a}, uint32(len(b)))) + string(b)
}

// TestOpenRefuses: what is not understood is refused with a reason, before anybody's signature is looked at.
func TestOpenRefuses(t *testing.T) {
	key := newKey(t)
	good := sign(t, update(3), key)
	payload, err := update(3).JSON()
	if err != nil {
		t.Fatal(err)
	}
	text := string(payload)
	none := cose.UnprotectedHeader{}
	with := func(label, value any) []byte {
		return signWith(t, key, cose.ProtectedHeader{label: value}, none, payload)
	}
	content := func(text string) []byte { return signWith(t, key, nil, none, []byte(text)) }
	signature := bstr(t, make([]byte, 64))
	// {1: -7, 3: content type} and the same with what is wrong
	typed := "\x03\x78\x28" + fragment.ContentType
	tests := map[string]struct {
		envelope []byte
		want     error
	}{
		"10 MiB":                         {make([]byte, 10<<20), fragment.ErrTooLarge},
		"nothing":                        {nil, fragment.ErrEnvelope},
		"no CBOR":                        {[]byte("policy"), fragment.ErrEnvelope},
		"without its tag":                {good[1:], fragment.ErrEnvelope},
		"tagged twice":                   {append([]byte{0xd2}, good...), fragment.ErrEnvelope},
		"tagged as COSE_Sign":            {append([]byte{0xd8, 98}, good[1:]...), fragment.ErrEnvelope},
		"array of indefinite length":     {append(append([]byte{0xd2, 0x9f}, good[2:]...), 0xff), fragment.ErrEnvelope},
		"array with a long head":         {append([]byte{0xd2, 0x98, 0x04}, good[2:]...), fragment.ErrEnvelope},
		"payload with a long head":       {raw(t, bstr(t, []byte("\xa2\x01\x26"+typed)), "\xa0", longHead(payload), signature), fragment.ErrEnvelope},
		"signature with a long head":     {raw(t, bstr(t, []byte("\xa2\x01\x26"+typed)), "\xa0", bstr(t, payload), longHead(make([]byte, 64))), fragment.ErrEnvelope},
		"headers with a long head":       {raw(t, longHead([]byte("\xa2\x01\x26"+typed)), "\xa0", bstr(t, payload), signature), fragment.ErrEnvelope},
		"unprotected with a long head":   {raw(t, bstr(t, []byte("\xa2\x01\x26"+typed)), "\xb8\x00", bstr(t, payload), signature), fragment.ErrEnvelope},
		"payload of indefinite length":   {raw(t, bstr(t, []byte("\xa2\x01\x26"+typed)), "\xa0", "\x5f"+bstr(t, payload)+"\xff", signature), fragment.ErrEnvelope},
		"headers of indefinite length":   {raw(t, bstr(t, []byte("\xbf\x01\x26"+typed+"\xff")), "\xa0", bstr(t, payload), signature), fragment.ErrEnvelope},
		"algorithm twice":                {raw(t, bstr(t, []byte("\xa3\x01\x26\x01\x26"+typed)), "\xa0", bstr(t, payload), signature), fragment.ErrEnvelope},
		"tag in headers":                 {raw(t, bstr(t, []byte("\xa3\x01\x26"+typed+"\x18\x64\xc1\x01")), "\xa0", bstr(t, payload), signature), fragment.ErrHeader},
		"no payload":                     {raw(t, bstr(t, []byte("\xa2\x01\x26"+typed)), "\xa0", "\xf6", signature), fragment.ErrDocument},
		"no algorithm":                   {raw(t, bstr(t, []byte("\xa1"+typed)), "\xa0", bstr(t, payload), signature), fragment.ErrHeader},
		"HMAC":                           {raw(t, bstr(t, []byte("\xa2\x01\x05"+typed)), "\xa0", bstr(t, payload), signature), fragment.ErrHeader},
		"ES512":                          {raw(t, bstr(t, []byte("\xa2\x01\x38\x23"+typed)), "\xa0", bstr(t, payload), signature), fragment.ErrHeader},
		"RS1":                            {raw(t, bstr(t, []byte("\xa2\x01\x39\xff\xfe"+typed)), "\xa0", bstr(t, payload), signature), fragment.ErrHeader},
		"algorithm by name":              {raw(t, bstr(t, []byte("\xa2\x01\x65ES256"+typed)), "\xa0", bstr(t, payload), signature), fragment.ErrHeader},
		"a critical header":              {signWith(t, key, cose.ProtectedHeader{cose.HeaderLabelCritical: []any{int64(3)}}, none, payload), fragment.ErrHeader},
		"an unprotected header":          {signWith(t, key, nil, cose.UnprotectedHeader{cose.HeaderLabelKeyID: []byte("1")}, payload), fragment.ErrHeader},
		"an unknown label":               {with(int64(100), 1), fragment.ErrHeader},
		"another content type":           {with(cose.HeaderLabelContentType, "application/json"), fragment.ErrHeader},
		"content type as a number":       {with(cose.HeaderLabelContentType, 50), fragment.ErrHeader},
		"x5chain of text":                {with(cose.HeaderLabelX5Chain, "cert"), fragment.ErrHeader},
		"x5chain of numbers":             {with(cose.HeaderLabelX5Chain, []any{1, 2}), fragment.ErrHeader},
		"x5chain without end":            {with(cose.HeaderLabelX5Chain, []any{[]byte{1}, []byte{1}, []byte{1}, []byte{1}, []byte{1}, []byte{1}}), fragment.ErrHeader},
		"an envelope in an envelope":     {signWith(t, key, nil, none, good), fragment.ErrEnvelope},
		"an untagged one in an envelope": {signWith(t, key, nil, none, good[1:]), fragment.ErrEnvelope},
		"a policy":                       {content("package agent_policy"), fragment.ErrDocument},
		"a key twice":                    {content(strings.Replace(text, `"svn":3`, `"svn":2,"svn":3`, 1)), fragment.ErrDocument},
		"a key in another case":          {content(strings.Replace(text, `"svn"`, `"SVN"`, 1)), fragment.ErrDocument},
		"an unknown key":                 {content(strings.Replace(text, `"svn"`, `"rules":"x","svn"`, 1)), fragment.ErrDocument},
		"white space":                    {content(text + "\n"), fragment.ErrDocument},
		"two documents":                  {content(text + text), fragment.ErrDocument},
		"a container that is null":       {content(`{"containers":{"app":null},"feed":"shop/app","svn":3,"version":1}`), fragment.ErrDocument},
		"the sandbox's container":        {content(`{"containers":{"$sandbox":{"exec":[]}},"feed":"shop/app","svn":3,"version":1}`), fragment.ErrDocument},
		"a list that is null":            {content(strings.Replace(text, `"also":[]`, `"also":null`, 1)), fragment.ErrDocument},
		"nothing set":                    {content(`{"containers":{"app":{}},"feed":"shop/app","svn":3,"version":1}`), fragment.ErrDocument},
		"svn 0":                          {content(strings.Replace(text, `"svn":3`, `"svn":0`, 1)), fragment.ErrDocument},
		"an svn beyond numbers":          {content(strings.Replace(text, `"svn":3`, `"svn":18446744073709551616`, 1)), fragment.ErrDocument},
		"a later version":                {content(strings.Replace(text, `"version":1`, `"version":2`, 1)), fragment.ErrDocument},
		"a feed of two lines":            {content(strings.Replace(text, `shop/app","svn`, `shop\napp","svn`, 1)), fragment.ErrDocument},
		"an image by tag":                {content(strings.ReplaceAll(text, "@"+newDigest, ":latest")), fragment.ErrDocument},
		"an image of another digest":     {content(strings.Replace(text, "app@"+newDigest, "app@"+oldDigest, 1)), fragment.ErrDocument},
		"a mount of the guest's root":    {content(`{"containers":{"app":{"mounts":{"/host":{"from":"exact","options":[],"source":"/","type_":"bind"}}}},"feed":"f","svn":3,"version":1}`), fragment.ErrDocument},
		"a mount that climbs":            {content(`{"containers":{"app":{"mounts":{"/host":{"from":"local","options":[],"source":"..","type_":"bind"}}}},"feed":"f","svn":3,"version":1}`), fragment.ErrDocument},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := fragment.Open(tt.envelope)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 600) {
				t.Errorf("the reason is not one line: %q", err)
			}
		})
	}
}

// TestTextHasOneForm: an envelope as SetPolicy takes it.
func TestTextHasOneForm(t *testing.T) {
	envelope := []byte("\xd2\x84 any bytes")
	text := string(fragment.Text(envelope))
	for _, good := range []string{text, strings.TrimSuffix(text, "\n")} {
		if got, err := fragment.FromText([]byte(good)); err != nil || !bytes.Equal(got, envelope) || !fragment.IsText([]byte(good)) {
			t.Errorf("%q gives %q, %v", good, got, err)
		}
	}
	for name, bad := range map[string]string{
		"no prefix":        strings.TrimPrefix(text, "portcullis-fragment:"),
		"policy":           "package agent_policy",
		"two lines":        strings.Replace(text, "gY", "g\nY", 1) + "\n",
		"white space":      " " + text,
		"a trailing blank": text + " ",
		"base64url":        "portcullis-fragment:_-_-",
		"spare bits":       "portcullis-fragment:AB==",
		"no padding":       "portcullis-fragment:AA",
	} {
		if _, err := fragment.FromText([]byte(bad)); !errors.Is(err, fragment.ErrEnvelope) {
			t.Errorf("%s: %v, want ErrEnvelope", name, err)
		}
	}
	if _, err := fragment.FromText([]byte("portcullis-fragment:" + strings.Repeat("A", 10<<20))); !errors.Is(err, fragment.ErrTooLarge) {
		t.Errorf("10 MiB of text: %v", err)
	}
}

// FuzzOpen: no bytes crash it, and what it takes has one form.
func FuzzOpen(f *testing.F) {
	f.Add(readVector(f, "es256.cose"))
	f.Add(readVector(f, "x5chain.cose"))
	f.Add(sign(f, update(3), newKey(f)))
	f.Add([]byte("\xd2\x84\x40\xa0\x40\x40"))
	issuers := []fragment.Issuer{{Feed: feed, Key: string(readVector(f, "es256.key")), May: mayImage()},
		{Feed: feed, Root: string(readVector(f, "x5chain.key")), Subject: map[string]string{"CN": "Example Release"}, May: mayImage()}}
	known := map[string]bool{string(readVector(f, "es256.cose")): true, string(readVector(f, "x5chain.cose")): true}
	f.Fuzz(func(t *testing.T, envelope []byte) {
		s, err := fragment.Open(envelope)
		if err != nil {
			return
		}
		again, err := s.Document.JSON()
		if err != nil || !bytes.Equal(again, s.Payload) {
			t.Errorf("document has two forms: %q and %q", s.Payload, again)
		}
		if _, err := s.Issuer(issuers); err == nil && !known[string(envelope)] {
			t.Errorf("nobody signed %x", envelope)
		}
	})
}
