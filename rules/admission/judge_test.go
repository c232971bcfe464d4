// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"portcullis/hostdata/initdata"
	"portcullis/images"
	"portcullis/rules/admission"
	"portcullis/rules/generate"
	"portcullis/rules/settings"
)

// oneImage is an image for every name.
type oneImage struct{}

func (oneImage) Image(_ context.Context, name string) (*images.Image, error) {
	ref, err := images.ParseReference(name)
	return &images.Image{Reference: ref, Config: images.Config{
		User: "1000:1000", Env: []string{"PATH=/usr/bin:/bin", "LANG=C"}, Entrypoint: []string{"/bin/app"}, Cmd: []string{"--serve"},
		WorkingDir: "/srv", Volumes: []string{"/var/lib/app"},
	}}, err
}

const (
	digest   = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	template = `
  metadata: {labels: {app: web}}
  spec:
    runtimeClassName: kata-qemu-snp
    securityContext: {runAsUser: 1000, runAsGroup: 1000}
    initContainers:
    - {name: prepare, image: registry.example/prepare:1` + digest + `, command: [/bin/prepare, now]}
    containers:
    - name: web
      image: registry.example/web:1` + digest + `
      args: [--port, "8080", --name, $(POD_NAME)]
      env:
      - {name: LOG_LEVEL, value: info}
      - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      - {name: NODE, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
      - {name: COLOUR, valueFrom: {configMapKeyRef: {name: look, key: colour}}}
      - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
      envFrom: [{configMapRef: {name: more}}]
      readinessProbe: {exec: {command: [/bin/app, --check]}}
      volumeMounts:
      - {name: look, mountPath: /etc/look}
      - {name: scratch, mountPath: /tmp}
    volumes:
    - {name: look, configMap: {name: look}}
    - {name: scratch, emptyDir: {}}
`
	objects = `
---
apiVersion: v1
kind: ConfigMap
metadata: {name: look}
data: {colour: green}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: more}
data: {REGION: north}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: "correct-horse"}
`
	deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n selector: {matchLabels: {app: web}}\n template:" + template + objects
)

// annotated makes the policy of the first pod of a manifest and gives its annotation.
func annotated(t *testing.T, manifest string, over ...string) map[string]string {
	t.Helper()
	var dropIns []settings.DropIn
	for _, name := range over {
		d, err := settings.Named(name)
		if err != nil {
			d, err = settings.DropIn{Name: "own", Text: []byte(name)}, nil
		}
		dropIns = append(dropIns, d)
	}
	s, err := settings.Load("guest-pull", dropIns...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := generate.Parse("pod.yaml", []byte(manifest), generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var configs generate.Configs
	if err := configs.Add(m); err != nil {
		t.Fatal(err)
	}
	g := generate.New(s, oneImage{}, &configs, generate.Options{})
	policy, _, err := g.Policy(t.Context(), m.Pods()[0])
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := g.Render(m.Pods()[0], policy, generate.Output{Compact: true})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{out.Annotation: out.Value}
}

// admitted is a pod as the API server has it when a Deployment made it.
func admitted(t *testing.T, annotations map[string]string) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(template, "\n  ", "\n")), &pod); err != nil {
		t.Fatal(err)
	}
	pod.Name, pod.GenerateName, pod.Namespace, pod.UID = "web-7d9c5b6f4d-x2x8q", "web-7d9c5b6f4d-", "shop", "9c64c5bf-298f-46c4-ad63-e2270a2ff44c"
	pod.Labels["pod-template-hash"], pod.Annotations = "7d9c5b6f4d", annotations
	pod.Spec.ServiceAccountName, pod.Spec.NodeName = "default", "node1"
	token := `{"name": "kube-api-access-5x7bq", "projected": {"defaultMode": 420, "sources": [
	  {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
	  {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
	  {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}`
	var volume corev1.Volume
	if err := json.Unmarshal([]byte(token), &volume); err != nil {
		t.Fatal(err)
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, volume)
	mount := corev1.VolumeMount{Name: volume.Name, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			list[i].VolumeMounts = append(list[i].VolumeMounts, mount)
			list[i].TerminationMessagePath, list[i].TerminationMessagePolicy = "/dev/termination-log", "File"
			list[i].ImagePullPolicy = "IfNotPresent"
		}
	}
	return &pod
}

const strictFloor = "runtime_classes = [\"kata\"]\nimage_digests = true\nrequests = {ReadStreamRequest = \"denied\"}\n"

func judge(t *testing.T, floor string) *admission.Judge {
	t.Helper()
	f, err := admission.ParseFloor([]byte(floor))
	if err != nil {
		t.Fatal(err)
	}
	j, err := admission.New(f)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func judged(t *testing.T, j *admission.Judge, pod *corev1.Pod) []admission.Refusal {
	t.Helper()
	out, err := j.Pod(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const secretsByHash = "[generate]\nsecrets = \"hash\"\n"

func TestTheRightAnnotationOfAControllersPodIsTaken(t *testing.T) {
	j := judge(t, strictFloor)
	for _, over := range [][]string{nil, {secretsByHash}} {
		if out := judged(t, j, admitted(t, annotated(t, deployment, over...))); len(out) > 0 {
			t.Errorf("%q: %v", over, out)
		}
	}
}

// TestAFloorsProofsAreAsked: what a floor requires has to be proven of a policy, and of other rules nothing is.
func TestAFloorsProofsAreAsked(t *testing.T) {
	open, closed := annotated(t, deployment, "logs"), annotated(t, deployment)
	foreign := map[string]string{initdata.PolicyAnnotation: initdata.EncodePolicy([]byte("package agent_policy\ndefault AllowRequestsFailingPolicy := false\n"))}
	for _, test := range []struct {
		name, floor string
		annotations map[string]string
		says        string // "" for a pod that is taken
	}{
		{"a property that it has", `require = ["stdout closed", "policy cannot change"]`, closed, ""},
		{"a property that it has not", `require = ["stdout closed"]`, open, `looser: it has not "stdout closed": requests.read_stream: one opens output to the host`},
		{"its registry", `registries = ["registry.example/"]`, closed, ""},
		{"another registry", `registries = ["registry.invalid/"]`, closed, `looser: it has not "images of the floor's registries"`},
		{"fewer capabilities", `capabilities = ["CAP_CHOWN"]`, closed, `looser: it has not "capabilities of the floor"`},
		{"other rules", "other_rules = true\nrequire = [\"stdout closed\"]", foreign, "nothing can be proven of rules that are not this release's"},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := judge(t, "runtime_classes = [\"kata\"]\n"+test.floor)
			for range 2 { // read, and as it was read
				pod := admitted(t, test.annotations)
				out := fmt.Sprint(judged(t, j, pod))
				if test.says == "" && out != "[]" || !strings.Contains(out, test.says) {
					t.Errorf("%s, want %q", out, test.says)
				}
			}
		})
	}
}

// TestWhatIsWrongWithAPodIsSaid: each change of the pod, or of its annotation, is a refusal of its kind that names it.
func TestWhatIsWrongWithAPodIsSaid(t *testing.T) {
	right := annotated(t, deployment)
	web := func(p *corev1.Pod) *corev1.Container { return &p.Spec.Containers[0] }
	yes := true
	tests := []struct {
		name   string
		change func(p *corev1.Pod)
		fault  admission.Fault
		says   string
	}{
		{"no annotation", func(p *corev1.Pod) { p.Annotations = nil }, admission.Missing, initdata.Annotation},
		{"an empty annotation", func(p *corev1.Pod) { p.Annotations = map[string]string{initdata.Annotation: ""} }, admission.Missing, "genpolicy adds it"},
		{"no base64", func(p *corev1.Pod) { p.Annotations = map[string]string{initdata.Annotation: "{}"} }, admission.Unreadable, initdata.Annotation},
		{"no policy", func(p *corev1.Pod) {
			p.Annotations = map[string]string{initdata.PolicyAnnotation: initdata.EncodePolicy([]byte("hello"))}
		}, admission.Unreadable, ""},
		{"a policy that does not compile", func(p *corev1.Pod) {
			p.Annotations = map[string]string{initdata.PolicyAnnotation: initdata.EncodePolicy([]byte("package agent_policy\nx := y\n"))}
		}, admission.Unreadable, "y"},
		{"another tool's policy", func(p *corev1.Pod) {
			p.Annotations = map[string]string{initdata.PolicyAnnotation: initdata.EncodePolicy([]byte("package agent_policy\ndefault CreateContainerRequest := true\n"))}
		}, admission.Foreign, "other_rules"},
		{"a looser policy", func(p *corev1.Pod) { p.Annotations = annotated(t, deployment, "logs") }, admission.Looser, "ReadStreamRequest is checked, the cluster wants it denied"},
		{"an image by tag", func(p *corev1.Pod) {
			p.Annotations = annotated(t, strings.ReplaceAll(deployment, "web:1"+digest, "web:1"))
			web(p).Image = "registry.example/web:1"
		}, admission.Looser, "image registry.example/web:1 of container web"},
		{"another image", func(p *corev1.Pod) {
			web(p).Image = "registry.example/web:1" + strings.Replace(digest, "0123", "9123", 1)
		}, admission.Stale, "sha256:9123"},
		{"another argument", func(p *corev1.Pod) { web(p).Args[1] = "9090" }, admission.Stale, "9090"},
		{"another command", func(p *corev1.Pod) { p.Spec.InitContainers[0].Command[1] = "later" }, admission.Stale, "/bin/prepare later"},
		{"another variable", func(p *corev1.Pod) { web(p).Env[0].Value = "debug" }, admission.Stale, "LOG_LEVEL"},
		{"one more variable", func(p *corev1.Pod) {
			web(p).Env = append(web(p).Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "/x.so"})
		}, admission.Stale, "LD_PRELOAD"},
		{"another user", func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsUser = new(int64) }, admission.Stale, "as root (user 0)"},
		{"privileged", func(p *corev1.Pod) { web(p).SecurityContext = &corev1.SecurityContext{Privileged: &yes} }, admission.Stale, "CAP_AUDIT_CONTROL"},
		{"another probe", func(p *corev1.Pod) { web(p).ReadinessProbe.Exec.Command[1] = "--all" }, admission.Stale, "/bin/app --all"},
		{"a volume elsewhere", func(p *corev1.Pod) { web(p).VolumeMounts[0].MountPath = "/etc" }, admission.Stale, "mount /etc "},
		{"one more container", func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "debug", Image: "busybox" + digest, Command: []string{"sh"}})
		}, admission.Stale, "the pod has a container debug"},
		{"one container less", func(p *corev1.Pod) { p.Spec.InitContainers = nil }, admission.Stale, "the policy has a container prepare"},
		{"another name", func(p *corev1.Pod) { p.Name = "shop-7d9c5b6f4d-x2x8q" }, admission.Stale, "shop-7d9c5b6f4d-x2x8q"},
		{"another namespace", func(p *corev1.Pod) { p.Namespace = "default" }, admission.Stale, "namespace default"},
		{"one process namespace", func(p *corev1.Pod) { p.Spec.ShareProcessNamespace = &yes }, admission.Stale, "shareProcessNamespace is true"},
	}
	j := judge(t, strictFloor)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod := admitted(t, right)
			tt.change(pod)
			found := false
			for _, r := range judged(t, j, pod) {
				t.Log(r)
				found = found || r.Fault == tt.fault && strings.Contains(r.Text, tt.says)
				if strings.Contains(r.Text, "correct-horse") {
					t.Error("it shows a secret")
				}
			}
			if !found {
				t.Errorf("no %s that says %q", tt.fault, tt.says)
			}
		})
	}
}

func TestAFloorSaysWhatIsWrongWithIt(t *testing.T) {
	for text, says := range map[string]string{
		"require = [\"no exit\"]":      "no exit",
		"requires = []":                "requires",
		"runtime_classes = [\"\"]":     "runtime_classes",
		"runtime_clases = [\"kata\"]":  "runtime_clases",
		"Runtime_classes = [\"kata\"]": "runtime_classes",
		"runtime_classes = [\"kata\"]\nrequests = {NoSuchRequest = \"denied\"}":     "NoSuchRequest",
		"runtime_classes = [\"kata\"]\nrequests = {SetPolicyRequest = \"allowed\"}": "checked or denied",
		"runtime_classes = [\"kata\"]\nwarnings = \"severe\"":                       "grave",
		"runtime_classes = [\"kata\"]\nplatform = \"laptop\"":                       "guest-pull",
	} {
		if _, err := admission.ParseFloor([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	f, err := admission.ParseFloor([]byte(`require = ["no exec"]`)) // for proofs alone
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admission.New(f); !errors.Is(err, admission.ErrFloor) || !strings.Contains(err.Error(), "runtime_classes") {
		t.Errorf("a judge of no pods: %v", err)
	}
}
