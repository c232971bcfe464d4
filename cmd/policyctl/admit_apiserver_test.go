// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/yaml"

	"portcullis/hostdata/initdata"
	"portcullis/internal/apiservertest"
)

// admitted is a cluster with the webhook installed as docs/admission.md has it, but that it runs beside the API server.
type admitted struct {
	t         *testing.T
	api       *apiservertest.Server
	dir       string
	listen    string
	genpolicy string
	stop      func()
}

// TestAnAPIServerAsks has a real API server refuse and take pods. Its programs are in the folder PORTCULLIS_APISERVER: make
// admission-test.
func TestAnAPIServerAsks(t *testing.T) {
	bin := os.Getenv("PORTCULLIS_APISERVER")
	if bin == "" {
		t.Fatal("PORTCULLIS_APISERVER names no folder; make admission-test builds what belongs there")
	}
	a := &admitted{t: t, dir: t.TempDir(), api: apiservertest.Start(t, bin)}
	a.genpolicy = filepath.Join(a.dir, "genpolicy")
	if out, err := exec.Command("go", "build", "-o", a.genpolicy, "../genpolicy").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	a.issue(a.api.Authority)
	a.listen = freeAddress(t)
	a.start()
	t.Cleanup(func() { a.stop() })
	a.install()
	_, err := a.api.Do(http.MethodPost, "/apis/node.k8s.io/v1/runtimeclasses", map[string]any{"metadata": map[string]any{"name": "kata-qemu-coco-dev"}, "handler": "kata"})
	a.must(err)
	_, err = a.api.Do(http.MethodPost, "/api/v1/namespaces", map[string]any{"metadata": map[string]any{"name": "prod"}})
	a.must(err)
	a.api.Eventually(t, "the namespace has its account", func() error {
		_, err := a.api.Get("/api/v1/namespaces/prod/serviceaccounts/default")
		return err
	})

	t.Run("missing, stale, looser, foreign and right annotation", func(t *testing.T) { a.t = t; a.annotations() })
	t.Run("pods that a controller makes", func(t *testing.T) { a.t = t; a.controllers() })
	t.Run("the webhook is down", func(t *testing.T) { a.t = t; a.webhookDown() })
	t.Run("the API server is down", func(t *testing.T) { a.t = t; a.serverDown() })
	t.Run("the certificate is renewed", func(t *testing.T) { a.t = t; a.renewed() })
}

// start runs policyctl admit.
func (a *admitted) start() {
	ctx, cancel := context.WithCancel(context.Background())
	log := &syncBuffer{}
	done := make(chan int, 1)
	go func() {
		at := func(name string) string { return filepath.Join(a.dir, name) }
		done <- run(ctx, []string{"admit", "--listen", a.listen, "--floor", "../../docs/admission/floor.toml", "--tls-cert", at("tls.crt"), "--tls-key", at("tls.key")},
			stdio{strings.NewReader(""), io.Discard, log})
	}()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if code := <-done; code != exitOK {
			a.t.Errorf("admit ends with %d: %s", code, log)
		}
	})
	a.api.Eventually(a.t, "admit listens", func() error {
		select {
		case code := <-done:
			a.t.Fatalf("admit ended with %d: %s", code, log)
		default:
		}
		conn, err := net.Dial("tcp", a.listen)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// issue writes the webhook's certificate.
func (a *admitted) issue(by *apiservertest.Authority) {
	by.Issue("webhook", "portcullis-admit", "")
	for from, to := range map[string]string{"webhook.crt": "tls.crt", "webhook.key": "tls.key"} {
		text, err := os.ReadFile(filepath.Join(by.Dir(), from))
		a.must(err)
		a.must(os.WriteFile(filepath.Join(a.dir, to), text, 0o600))
	}
}

// install creates every object of the manifest.
func (a *admitted) install() {
	a.t.Helper()
	text, err := os.ReadFile("../../docs/admission/webhook.yaml")
	a.must(err)
	collections := map[string]string{
		"Namespace": "/api/v1/namespaces", "ConfigMap": "/api/v1/namespaces/portcullis/configmaps", "Deployment": "/apis/apps/v1/namespaces/portcullis/deployments",
		"PodDisruptionBudget": "/apis/policy/v1/namespaces/portcullis/poddisruptionbudgets", "Service": "/api/v1/namespaces/portcullis/services",
		"ValidatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
	}
	installed := 0
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var object map[string]any
		if err := d.Decode(&object); errors.Is(err, io.EOF) {
			break
		} else {
			a.must(err)
		}
		kind, _ := object["kind"].(string)
		if kind == "ValidatingWebhookConfiguration" {
			object["webhooks"].([]any)[0].(map[string]any)["clientConfig"] = map[string]any{
				"url": "https://" + a.listen + "/admit", "caBundle": base64.StdEncoding.EncodeToString(a.api.Authority.PEM()),
			}
		}
		_, err := a.api.Do(http.MethodPost, collections[kind]+"?fieldValidation=Strict", object)
		a.must(err)
		installed++
	}
	if installed < len(collections) {
		a.t.Fatalf("%d objects installed", installed)
	}
	// The API server looks at its webhooks now and then.
	a.api.Eventually(a.t, "the webhook is asked", func() error {
		if err := a.pod(a.shop(), "?dryRun=All"); err == nil {
			return errors.New("a pod without a policy is taken")
		}
		return nil
	})
}

func (a *admitted) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// shop is the manifest of docs/operators, with the policy that genpolicy makes with these flags; without flags it has none.
func (a *admitted) shop(flags ...string) map[string]any {
	a.t.Helper()
	text, err := os.ReadFile("../../docs/operators/shop.yaml")
	a.must(err)
	if len(flags) > 0 {
		cmd := exec.Command(a.genpolicy, append(flags, "--oci-layout", "../../docs/operators/images")...)
		cmd.Stdin = bytes.NewReader(text)
		if text, err = cmd.Output(); err != nil {
			a.t.Fatal(err)
		}
	}
	var object map[string]any
	a.must(yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096).Decode(&object))
	return object
}

// pod creates one, in a namespace where nothing is.
func (a *admitted) pod(object map[string]any, query string) error {
	_, err := a.api.Do(http.MethodPost, "/api/v1/namespaces/prod/pods"+query, object)
	return err
}

// right is what the floor of docs/admission wants.
var right = []string{"--lock-digests"}

func (a *admitted) annotations() {
	spec := func(o map[string]any) map[string]any {
		return o["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
	}
	stale := a.shop(right...)
	spec(stale)["args"] = []any{"--listen=:22"}
	foreign := a.shop()
	foreign["metadata"].(map[string]any)["annotations"] = map[string]any{
		initdata.PolicyAnnotation: initdata.EncodePolicy([]byte("package agent_policy\ndefault CreateContainerRequest := true\n")),
	}
	other := a.shop(right...)
	other["metadata"].(map[string]any)["name"] = "till"
	elsewhere := a.shop()
	elsewhere["spec"].(map[string]any)["runtimeClassName"] = nil
	elsewhere["metadata"].(map[string]any)["name"] = "plain"
	for _, tt := range []struct {
		name, says string
		pod        map[string]any
	}{
		{"missing", "missing: the pod has no annotation " + initdata.Annotation, a.shop()},
		{"stale", "stale: container web: the pod alone has: runs /bin/web --listen=:22", stale},
		{"of another pod", "stale: the pod is called till", other},
		{"looser by a request", "looser: ReadStreamRequest is checked, the cluster wants it denied", a.shop(append(right, "-j", "logs")...)},
		{"looser by an image", "looser: what the image registry.example/shop/web:1.4 of container web holds is not bound", a.shop("--compact")},
		{"foreign", "foreign: annotation " + initdata.PolicyAnnotation, foreign},
		{"right", "", a.shop(right...)},
		{"of no runtime class", "", elsewhere},
	} {
		err := a.pod(tt.pod, "?dryRun=All")
		a.t.Logf("%s: %v", tt.name, err)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			a.t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
	}
	a.must(a.pod(a.shop(right...), ""))
	if _, err := a.api.Do(http.MethodPatch, "/api/v1/namespaces/prod/pods/shop", annotation("")); err == nil || !strings.Contains(err.Error(), "missing") {
		a.t.Errorf("a policy was taken away: %v", err)
	}
	_, err := a.api.Do(http.MethodPatch, "/api/v1/namespaces/prod/pods/shop", map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "b"}}})
	a.must(err)
}

// annotation is a patch of the policy.
func annotation(value any) map[string]any {
	return map[string]any{"metadata": map[string]any{"annotations": map[string]any{initdata.Annotation: value}}}
}

// controllers has a Deployment and a StatefulSet make pods of templates with a policy.
func (a *admitted) controllers() {
	for kind, collection := range map[string]string{"Deployment": "deployments", "StatefulSet": "statefulsets"} {
		for _, changed := range []bool{false, true} {
			name := strings.ToLower(kind) + map[bool]string{true: "-stale", false: "-right"}[changed]
			object := a.workload(kind, name)
			if changed {
				template := object["spec"].(map[string]any)["template"].(map[string]any)
				template["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["args"] = []any{"--listen=:22"}
			}
			_, err := a.api.Do(http.MethodPost, "/apis/apps/v1/namespaces/prod/"+collection, object)
			a.must(err)
			a.api.Eventually(a.t, name+" makes its pod or tells why not", func() error { return a.made(name, changed) })
		}
	}
}

// workload is the shop's pod as a template, with its policy.
func (a *admitted) workload(kind, name string) map[string]any {
	pod := a.shop()
	delete(pod["metadata"].(map[string]any), "name")
	delete(pod["metadata"].(map[string]any), "namespace")
	object := map[string]any{"apiVersion": "apps/v1", "kind": kind, "metadata": map[string]any{"name": name, "namespace": "prod"}, "spec": map[string]any{
		"replicas": 1, "selector": map[string]any{"matchLabels": map[string]any{"app": "shop"}},
		"template": map[string]any{"metadata": pod["metadata"], "spec": pod["spec"]},
	}}
	if kind == "StatefulSet" {
		object["spec"].(map[string]any)["serviceName"] = "shop"
	}
	config := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "shop", "namespace": "prod"}, "data": map[string]any{"shop.conf": "currency = \"EUR\"\n"}}
	text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": []any{object, config}})
	a.must(err)
	cmd := exec.Command(a.genpolicy, "--lock-digests", "--oci-layout", "../../docs/operators/images")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), os.Stderr
	out, err := cmd.Output()
	a.must(err)
	var list struct{ Items []map[string]any }
	a.must(yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096).Decode(&list))
	return list.Items[0]
}

// made says whether a workload got its pod, or was told that it cannot.
func (a *admitted) made(name string, refused bool) error {
	pods, err := a.api.Get("/api/v1/namespaces/prod/pods")
	if err != nil {
		return err
	}
	events, err := a.api.Get("/api/v1/namespaces/prod/events")
	if err != nil {
		return err
	}
	has, told := bytes.Contains(pods, []byte(`"name":"`+name+"-")), false
	for line := range strings.SplitSeq(string(events), `"metadata"`) {
		told = told || strings.Contains(line, name) && strings.Contains(line, "stale: container web")
	}
	if has == refused || told != refused {
		return fmt.Errorf("pod %t, refused %t", has, told)
	}
	return nil
}

// webhookDown: pods that depend on it are refused, others are not.
func (a *admitted) webhookDown() {
	a.stop()
	if err := a.pod(a.shop(right...), "?dryRun=All"); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		a.t.Errorf("a pod that nobody judged: %v", err)
	}
	plain := a.shop()
	plain["spec"].(map[string]any)["runtimeClassName"] = nil
	plain["metadata"].(map[string]any)["name"] = "plain-too"
	a.must(a.pod(plain, "?dryRun=All"))
	a.start()
	a.api.Eventually(a.t, "pods are taken again", func() error { return a.dry() })
}

// dry asks for the right pod under another name of the same length of life.
func (a *admitted) dry() error {
	err := a.pod(a.shop(right...), "?dryRun=All")
	if err != nil && strings.Contains(err.Error(), "already exists") {
		return nil // it was judged before that was found
	}
	return err
}

// serverDown: the webhook waits for an API server that went away.
func (a *admitted) serverDown() {
	a.api.Restart(func() {
		if code := health(a.t, a.listen); code != http.StatusOK {
			a.t.Errorf("it is not well without an API server: %d", code)
		}
	})
	a.api.Eventually(a.t, "it refuses again", func() error {
		stale := a.shop(right...)
		stale["metadata"].(map[string]any)["name"] = "till"
		if err := a.pod(stale, "?dryRun=All"); err == nil || !strings.Contains(err.Error(), "stale") {
			return fmt.Errorf("not refused: %w", err)
		}
		return nil
	})
	a.must(a.dry())
}

// renewed: a certificate of another authority, and nothing was started again.
func (a *admitted) renewed() {
	a.must(a.dry())
	second := apiservertest.NewAuthority(a.t, a.t.TempDir())
	a.issue(second)
	_, err := a.api.Do(http.MethodPatch, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/portcullis-admit", map[string]any{})
	a.must(err)
	text, err := a.api.Get("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/portcullis-admit")
	a.must(err)
	var object map[string]any
	a.must(json.Unmarshal(text, &object))
	client := object["webhooks"].([]any)[0].(map[string]any)["clientConfig"].(map[string]any)
	client["caBundle"] = base64.StdEncoding.EncodeToString(second.PEM())
	_, err = a.api.Do(http.MethodPut, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/portcullis-admit", object)
	a.must(err)
	begin := time.Now()
	a.api.Eventually(a.t, "the new certificate is trusted", a.dry)
	a.t.Logf("after %v", time.Since(begin).Round(time.Millisecond))
}
