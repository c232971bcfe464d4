// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"portcullis/hostdata/initdata"
	"portcullis/rules/admission"
	"portcullis/rules/admission/webhook"
)

// server serves with a new certificate and gives its address and the folder of its files.
func server(t *testing.T, floor string) (address, dir string) {
	t.Helper()
	dir = t.TempDir()
	certificate(t, dir, "first")
	write(t, dir, "floor.toml", floor)
	c := webhook.Config{
		Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Floor: filepath.Join(dir, "floor.toml"),
		Judge: func(f *admission.Floor) (*admission.Judge, error) { return admission.New(f) }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	s, err := webhook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), l) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificate writes one that is its own authority.
func certificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, dir, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
}

// presented is the name in the certificate that a server shows.
func presented(t *testing.T, address string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// eventually waits for what comes within a second or two.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 60 {
		if holds() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("never: " + what)
}

var client = http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}

func post(t *testing.T, address string, body []byte) (int, *admissionv1.AdmissionReview) {
	t.Helper()
	r, err := client.Post("https://"+address+webhook.Path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out admissionv1.AdmissionReview
	if r.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatal(err)
		}
	}
	return r.StatusCode, &out
}

// review is what an API server sends.
func review(t *testing.T, change func(r *admissionv1.AdmissionRequest, now, before *corev1.Pod)) []byte {
	t.Helper()
	class := "kata-qemu-snp"
	now := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{RuntimeClassName: &class, Containers: []corev1.Container{{Name: "web", Image: "web"}}}}
	before := now.DeepCopy()
	r := &admissionv1.AdmissionRequest{UID: "1", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Namespace: "shop", Operation: admissionv1.Create}
	if change != nil {
		change(r, now, before)
	}
	raw := func(p *corev1.Pod) runtime.RawExtension {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: text}
	}
	if r.Object = raw(now); r.Operation == admissionv1.Update {
		r.OldObject = raw(before)
	}
	text, err := json.Marshal(&admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: r})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const floor = "runtime_classes = [\"kata-qemu-snp\"]\n"

func TestReviewsAreAnswered(t *testing.T) {
	address, _ := server(t, floor)
	tests := []struct {
		name    string
		change  func(r *admissionv1.AdmissionRequest, now, before *corev1.Pod)
		allowed bool
		says    string
	}{
		{"a pod without a policy", nil, false, "missing: "},
		{"a pod of another runtime class", func(_ *admissionv1.AdmissionRequest, now, _ *corev1.Pod) { *now.Spec.RuntimeClassName = "runc" }, true, ""},
		{"a pod of no runtime class", func(_ *admissionv1.AdmissionRequest, now, _ *corev1.Pod) { now.Spec.RuntimeClassName = nil }, true, ""},
		{"a policy that cannot be read", func(_ *admissionv1.AdmissionRequest, now, _ *corev1.Pod) {
			now.Annotations = map[string]string{initdata.PolicyAnnotation: "%"}
		}, false, "unreadable: "},
		{"an update of something else", func(r *admissionv1.AdmissionRequest, now, _ *corev1.Pod) {
			r.Operation, now.Labels = admissionv1.Update, map[string]string{"a": "b"}
		}, true, ""},
		{"an update that takes the policy away", func(r *admissionv1.AdmissionRequest, _, before *corev1.Pod) {
			r.Operation, before.Annotations = admissionv1.Update, map[string]string{initdata.PolicyAnnotation: "%"}
		}, false, "missing: "},
		{"an object that is no pod", func(r *admissionv1.AdmissionRequest, _, _ *corev1.Pod) { r.Kind.Kind = "ConfigMap" }, false, "not a review of a pod"},
		{"a binding of a pod", func(r *admissionv1.AdmissionRequest, _, _ *corev1.Pod) { r.SubResource = "binding" }, false, "not a review of a pod"},
		{"a pod that is deleted", func(r *admissionv1.AdmissionRequest, _, _ *corev1.Pod) { r.Operation = admissionv1.Delete }, true, ""},
	}
	for _, tt := range tests {
		code, out := post(t, address, review(t, tt.change))
		if code != http.StatusOK || out.Response == nil || out.Response.UID != "1" || out.Response.Allowed != tt.allowed {
			t.Errorf("%s: %d %+v", tt.name, code, out.Response)
			continue
		}
		if tt.says != "" && !strings.Contains(out.Response.Result.Message, tt.says) {
			t.Errorf("%s: %s", tt.name, out.Response.Result.Message)
		}
	}
}

func TestWhatIsNoReviewIsRefused(t *testing.T) {
	address, _ := server(t, floor)
	for name, body := range map[string]string{
		"no JSON": "hello", "nothing asked": `{"apiVersion": "admission.k8s.io/v1"}`, "an old version": `{"apiVersion": "admission.k8s.io/v1beta1", "request": {}}`,
		"more than there is room for": `{"a": "` + strings.Repeat("x", 9<<20) + `"}`,
	} {
		if code, _ := post(t, address, []byte(body)); code != http.StatusBadRequest {
			t.Errorf("%s: %d", name, code)
		}
	}
}

// TestFilesAreRenewed: a new certificate and a new floor count without a restart, and half a certificate does not take the place of a
// whole one.
func TestFilesAreRenewed(t *testing.T) {
	address, dir := server(t, floor)
	if name := presented(t, address); name != "first" {
		t.Fatalf("shows the certificate of %s", name)
	}
	old, err := os.ReadFile(filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	certificate(t, dir, "second")
	fresh, err := os.ReadFile(filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "tls.key", string(old)) // of the first one
	time.Sleep(1100 * time.Millisecond)
	if name := presented(t, address); name != "first" {
		t.Errorf("shows the certificate of %s, whose key is not there yet", name)
	}
	write(t, dir, "tls.key", string(fresh))
	eventually(t, "the second certificate is shown", func() bool { return presented(t, address) == "second" })

	write(t, dir, "floor.toml", "runtime_classes = 7\n")
	time.Sleep(1100 * time.Millisecond)
	if _, out := post(t, address, review(t, nil)); out.Response.Allowed {
		t.Error("a floor that cannot be read let a pod in")
	}
	write(t, dir, "floor.toml", "runtime_classes = [\"kata-remote\"]\n")
	eventually(t, "the new floor counts", func() bool { _, out := post(t, address, review(t, nil)); return out.Response.Allowed })
}

func TestAFirstReadingHasToBeRight(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir, "first")
	write(t, dir, "floor.toml", floor)
	write(t, dir, "bad", "x")
	at := func(name string) string { return filepath.Join(dir, name) }
	make := func(f *admission.Floor) (*admission.Judge, error) { return admission.New(f) }
	for name, c := range map[string]webhook.Config{
		"no certificate": {Certificate: at("none"), Key: at("tls.key"), Floor: at("floor.toml")},
		"another key":    {Certificate: at("tls.crt"), Key: at("bad"), Floor: at("floor.toml")},
		"no floor":       {Certificate: at("tls.crt"), Key: at("tls.key"), Floor: at("bad")},
		"no authority":   {Certificate: at("tls.crt"), Key: at("tls.key"), ClientCA: at("bad"), Floor: at("floor.toml")},
	} {
		c.Judge, c.Log = make, slog.New(slog.DiscardHandler)
		if _, err := webhook.New(c); err == nil {
			t.Errorf("%s: it starts", name)
		}
	}
}
